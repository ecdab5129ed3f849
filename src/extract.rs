//! The axum extractors and the rejection's response.

use std::sync::LazyLock;

use axum_core::{
    body::Body,
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{Method, request::Parts};

use crate::{
    error::SessionError,
    failure_log::FailureLog,
    flash::FlashMessage,
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

/// `Latest<Session>`: the session as Redis has it now, where a [local cache](crate::docs::local_cache) may be a moment behind.
///
/// For pages that must not be shown to a session that was ended elsewhere a moment ago: payments, passwords, administration. It costs one read. If
/// a middleware loaded the session before, it is read again, and what the middleware changed is kept. Without a local cache, and if nothing
/// loaded the session before, it is the same as `Session`.
///
/// # Examples
///
/// ```
/// use axum_redis_sessions::{Latest, Session};
///
/// async fn account(Latest(session): Latest<Session>) -> String {
///     format!("{:?}", session.user())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Latest<T>(pub T);

impl<S: Send + Sync> FromRequestParts<S> for Latest<Session> {
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let lazy = LazySession::from_extensions(&parts.extensions)?;
        lazy.load_latest().await.map(Self)
    }
}

/// Takes the handle from the request's extensions. Redis is not contacted until [`load`](LazySession::load).
impl<S: Send + Sync> FromRequestParts<S> for LazySession {
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Self::from_extensions(&parts.extensions)
    }
}

/// The messages of [`Session::flash`] for the page that is about to be shown, each once.
///
/// They are removed from the session before the handler runs, by [`Session::take_flashes`]: of two requests at the same time, one gets each
/// message. A request that shows no page takes none: HEAD, and a browser's prefetch (`Sec-Purpose: prefetch`). While Redis is unavailable, the
/// answer is 503.
///
/// # Examples
///
/// ```
/// use axum::response::{Html, Redirect};
/// use axum_redis_sessions::{FlashLevel, FlashMessages, Session, SessionError};
///
/// async fn save(session: Session) -> Result<Redirect, SessionError> {
///     session.flash(FlashLevel::Success, "Saved.")?;
///     Ok(Redirect::to("/"))
/// }
///
/// async fn page(FlashMessages(messages): FlashMessages) -> Html<String> {
///     // A template escapes the text.
///     let lines = messages.iter().map(|message| format!("<p class={}>{}</p>", message.level, message.text));
///     Html(lines.collect())
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlashMessages(pub Vec<FlashMessage>);

impl<S: Send + Sync> FromRequestParts<S> for FlashMessages {
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let session = <Session as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        let mut purposes = ["sec-purpose", "purpose"].into_iter();
        let is_prefetch = purposes.any(|name| {
            let value = parts
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok());
            value.is_some_and(|value| value.starts_with("prefetch"))
        });
        if is_prefetch || parts.method == Method::HEAD {
            return Ok(Self::default());
        }
        session.take_flashes().await.map(Self)
    }
}

impl IntoIterator for FlashMessages {
    type Item = FlashMessage;
    type IntoIter = std::vec::IntoIter<FlashMessage>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
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
