//! Sessions as arguments of axum handlers.

use axum_core::{
    body::Body,
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::request::Parts;

use crate::{
    error::SessionError,
    session::{Session, lazy::LazySession},
};

/// Loads the session, unless something in this request has.
///
/// `Result<Session, SessionError>` gives the handler a say when the store is away.
impl<S: Send + Sync> FromRequestParts<S> for Session {
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        LazySession::from_extensions(&parts.extensions)?
            .load()
            .await
    }
}

/// `Option<Session>`: only if there is one already. A visitor without a session, or with a cookie of one that is gone, is `None`;
/// a store that is away is an error all the same.
impl<S: Send + Sync> OptionalFromRequestParts<S> for Session {
    type Rejection = SessionError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> Result<Option<Self>, Self::Rejection> {
        let session = <Self as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        Ok(session.exists().then_some(session))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for LazySession {
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Self::from_extensions(&parts.extensions)
    }
}

impl IntoResponse for SessionError {
    fn into_response(self) -> Response {
        self.to_response().map(Body::from)
    }
}
