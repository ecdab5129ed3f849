//! Spans of `tracing` at debug level, with the fields of OpenTelemetry's semantic conventions for databases (1.33). Never an id, key or value.
//!
//! Where the level is off, each costs one comparison: a disabled span of `tracing` may still be logged by its feature `log`.

use tracing::{
    Span,
    field::{Empty, debug},
    level_filters::LevelFilter,
};

use crate::error::SessionError;

macro_rules! client_span {
    ($name:literal, $operation:expr) => {
        if is_off() {
            Span::none()
        } else {
            tracing::debug_span!(
                $name,
                otel.kind = "client",
                db.system.name = "redis",
                db.operation.name = $operation,
                error.r#type = Empty,
            )
        }
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
    if !is_off() {
        Span::current().record("db.operation.name", operation);
    }
}

fn is_off() -> bool {
    LevelFilter::current() < LevelFilter::DEBUG
}

pub(crate) fn record_error(span: &Span, error: &SessionError) {
    span.record("error.type", debug(error.kind()));
}
