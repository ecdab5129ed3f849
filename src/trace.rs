//! Spans of `tracing` at debug level, with the fields of OpenTelemetry's semantic conventions for databases (1.33). Never an id, key or value.
//!
//! Where the level is off, each costs one comparison.

use tracing::{
    Instrument, Level, Span,
    field::{Empty, debug},
};

use crate::error::SessionError;

macro_rules! client_span {
    ($name:literal, $operation:expr) => {
        tracing::debug_span!(
            $name,
            otel.kind = "client",
            db.system.name = "redis",
            db.operation.name = $operation,
            error.r#type = Empty,
        )
    };
}

/// A load, with its retries.
pub(crate) fn load_span() -> Span {
    client_span!("session.load", "load")
}

/// A commit, with all of its writes. [`record_operation`] says what it does.
pub(crate) fn commit_span() -> Span {
    client_span!("session.commit", Empty)
}

/// Notes in the span of the commit that is running what it does.
pub(crate) fn record_operation(operation: &'static str) {
    if is_enabled() {
        Span::current().record("db.operation.name", operation);
    }
}

/// Runs `work` in the span, which gets the kind of its error.
pub(crate) async fn in_span<T>(
    span: Span,
    work: impl Future<Output = Result<T, SessionError>>,
) -> Result<T, SessionError> {
    let result = work.instrument(span.clone()).await;
    if let Err(error) = &result {
        span.record("error.type", debug(error.kind()));
    }
    result
}

/// So that without spans, nothing is wrapped.
pub(crate) fn is_enabled() -> bool {
    tracing::enabled!(Level::DEBUG)
}
