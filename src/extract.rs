//! The axum extractors and the rejection's response.

use std::sync::LazyLock;

use axum_core::{
    body::Body,
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::request::Parts;

use crate::{
    error::SessionError,
    failure_log::FailureLog,
    session::{Session, lazy::LazySession},
};

/// Loads the session, once per request. A visitor without a session gets an empty one.
///
/// While Redis is unavailable, the request is answered with 503. With `Result<Session, SessionError>` as the argument, the handler decides.
impl<S: Send + Sync> FromRequestParts<S> for Session {
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        LazySession::from_extensions(&parts.extensions)?
            .load()
            .await
    }
}

/// `Option<Session>`: `None` for a visitor without a session, or whose session has ended.
///
/// While Redis is unavailable, the request is answered with 503, as for `Session`.
impl<S: Send + Sync> OptionalFromRequestParts<S> for Session {
    type Rejection = SessionError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> Result<Option<Self>, Self::Rejection> {
        let session = <Self as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        let exists = session.id().is_some() || !session.is_empty() || session.user().is_some();
        Ok(exists.then_some(session))
    }
}

/// Takes the handle from the request's extensions. Redis is not contacted until [`load`](LazySession::load).
impl<S: Send + Sync> FromRequestParts<S> for LazySession {
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Self::from_extensions(&parts.extensions)
    }
}

/// The same as [`SessionError::to_response`]. What an operator must mend is also logged, at most once in 10 seconds for each kind.
impl IntoResponse for SessionError {
    fn into_response(self) -> Response {
        // Of all layers, since the error of a missing layer has none.
        static FAILURES: LazyLock<FailureLog> = LazyLock::new(FailureLog::default);
        FAILURES.report("a request failed", &self);
        self.to_response().map(Body::from)
    }
}
