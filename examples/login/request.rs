//! Extractors and the error type of the handlers.

use std::net::SocketAddr;

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Redirect, Response},
};
use axum_redis_sessions::{Session, SessionError, UserSessions};

use crate::{
    accounts::{Accounts, User},
    device::Device,
};

/// The user of the session. Redirects to the sign-in page if there is none.
pub(crate) struct SignedIn {
    pub(crate) user: User,
    pub(crate) session: Session,
    /// All sessions of this user.
    pub(crate) sessions: UserSessions,
}

impl FromRequestParts<Accounts> for SignedIn {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut Parts,
        accounts: &Accounts,
    ) -> Result<Self, Self::Rejection> {
        let session = Session::from_request_parts(parts, accounts)
            .await
            .map_err(IntoResponse::into_response)?;
        let user = session.user().and_then(|id| accounts.by_id(&id));
        match (user, session.user_sessions()) {
            (Some(user), Some(sessions)) => Ok(Self {
                user,
                session,
                sessions,
            }),
            _ => Err(Redirect::to("/sign-in").into_response()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Device {
    type Rejection = <ConnectInfo<SocketAddr> as FromRequestParts<S>>::Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let ConnectInfo(address) =
            ConnectInfo::<SocketAddr>::from_request_parts(parts, state).await?;
        let user_agent = parts.headers.get(header::USER_AGENT);
        let user_agent = user_agent.and_then(|value| value.to_str().ok());
        Ok(Self::new(
            user_agent.unwrap_or_default(),
            address.ip().to_string(),
        ))
    }
}

/// An error that ends a handler.
pub(crate) enum Failure {
    /// The layer turns it into `pages::unavailable`.
    Session(SessionError),
    Password(argon2::password_hash::Error),
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Session(error) => error.into_response(),
            Self::Password(error) => {
                eprintln!("cannot hash a password: {error}");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl From<argon2::password_hash::Error> for Failure {
    fn from(error: argon2::password_hash::Error) -> Self {
        Self::Password(error)
    }
}
