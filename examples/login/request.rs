//! Extractors and the error type of the handlers.

use std::net::SocketAddr;

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Redirect, Response},
};
use axum_redis_sessions::{LoggedIn, Session, SessionError, UserSessions};

use crate::{
    accounts::{Accounts, User},
    device::Device,
};

/// The user of the session. A browser without one is sent to the sign-in page.
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
        let LoggedIn(id) = match LoggedIn::from_request_parts(parts, accounts).await {
            Ok(user) => user,
            // A form of an old page, whose values are lost: the guard answers a POST with 401, which no browser shows well.
            Err(rejection)
                if parts.method == Method::POST && rejection.session_error().is_none() =>
            {
                return Err(Redirect::to("/sign-in").into_response());
            }
            Err(rejection) => return Err(rejection.into_response()),
        };
        let session = Session::from_request_parts(parts, accounts)
            .await
            .map_err(IntoResponse::into_response)?;
        let user = accounts.by_id(&id);
        match (user, session.user_sessions()) {
            (Some(user), Some(sessions)) => Ok(Self {
                user,
                session,
                sessions,
            }),
            // The account is gone.
            _ => {
                session.destroy();
                Err(Redirect::to("/sign-in").into_response())
            }
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
