use std::{
    borrow::Cow,
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use http::{HeaderValue, header};

/// A failure to load, use or save a session. The text says what happened and what to do.
///
/// [`kind`](Self::kind) is for code, the text for people, and [`source`](Error::source) is the cause. None of them contains a session
/// id, a stored value or a password, so the error can be logged. Only the source of [`ErrorKind::UpdateRejected`] is the app's.
///
/// With the feature `axum` it is a response: see [`to_response`](Self::to_response). The error is in that response's extensions, where
/// [`with_error_response`](crate::RedisSessionLayer::with_error_response) finds it and replaces the response by the app's own.
///
/// # Examples
///
/// ```
/// use axum_redis_sessions::{ErrorKind, Session, SessionError};
///
/// fn visits(session: &Session) -> Result<u64, SessionError> {
///     match session.get("visits") {
///         // An older release of the app stored another type.
///         Err(error) if error.kind() == ErrorKind::Decode => Ok(0),
///         visits => Ok(visits?.unwrap_or(0)),
///     }
/// }
/// ```
#[derive(Clone)]
pub struct SessionError(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Box<dyn Error + Send + Sync>>,
    /// To a failure log.
    was_reported: AtomicBool,
}

/// The kind of a [`SessionError`], with the [`status`](SessionError::status) of its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The session was used outside of a `RedisSessionLayer`: the router has none, or a middleware, route or fallback was added after it.
    /// `.layer(…)` wraps only what was added before. Status 500.
    MissingLayer,
    /// Redis could not be reached or did not answer within the [deadline](crate::RedisSessionLayer::with_deadline). The cookie is kept and
    /// the next request tries again. Status 503.
    Unavailable,
    /// Redis answered with an error, such as a missing permission or no free memory. Status 503.
    Rejected,
    /// The master made the change, but fewer replicas than [`with_replica_acks`](crate::RedisSessionLayer::with_replica_acks) requires
    /// confirmed it, so a failover may undo it. Try again. Status 503.
    NotReplicated,
    /// Other requests changed the session at each attempt to save it. Try again. Status 503.
    Conflict,
    /// The user has as many sessions as [`with_sessions_per_user`](crate::RedisSessionLayer::with_sessions_per_user) allows, so the login was
    /// rejected and nothing was stored. Status 403.
    TooManySessions,
    /// The session was destroyed, rotated or expired during this request, so its changes were discarded. Only
    /// [`Session::save`](crate::Session::save), [`reload`](crate::Session::reload) and [`touch`](crate::Session::touch) return it; the layer
    /// does not treat it as an error. Status 409.
    Ended,
    /// The closure of [`Session::try_update`](crate::Session::try_update) returned an error, which is the [`source`](Error::source). Status 409.
    UpdateRejected,
    /// The response's headers have been sent, so no cookie can be set for a new session or a new id. Make the change, or call
    /// [`save`](crate::Session::save), before returning the response. Status 500.
    HeadersSent,
    /// The stored data is not a session of this crate. It was not changed. Status 500.
    InvalidData,
    /// The value under this key is not of the requested type. Status 500.
    Decode,
    /// The value cannot be stored as JSON, or could not be read back from it unchanged. Status 500.
    Encode,
    /// Keys that begin with `_` are reserved for this crate. Status 500.
    ReservedKey,
    /// The user passed to [`Session::set_user`](crate::Session::set_user) or [`Users::of`](crate::Users::of) is empty. Status 500.
    InvalidUser,
    /// The session is larger than [`with_max_size`](crate::RedisSessionLayer::with_max_size) allows. Status 500.
    TooLarge,
    /// No session id could be generated: the operating system has no random numbers, or the id generator returned an id that is in use.
    /// Status 500.
    IdGeneration,
}

impl SessionError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            source: None,
            was_reported: AtomicBool::new(false),
        }))
    }

    /// The source's text must not contain an id, a value or a password.
    pub(crate) fn with_source(self, source: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            kind: self.0.kind,
            message: self.0.message.clone(),
            source: Some(Box::new(source)),
            was_reported: AtomicBool::new(false),
        }))
    }

    pub(crate) fn update_rejected(key: &str, source: Box<dyn Error + Send + Sync>) -> Self {
        Self(Arc::new(Inner {
            kind: ErrorKind::UpdateRejected,
            message: format!(
                "the app rejected the update of the session's value under {key:?}: answer its own error, which is the source of this \
                 one, in the handler and by with_error_response"
            )
            .into(),
            source: Some(source),
            was_reported: AtomicBool::new(false),
        }))
    }

    pub(crate) fn decode<T>(key: &str, error: &serde_json::Error) -> Self {
        Self::new(
            ErrorKind::Decode,
            format!(
                "the session's value under {key:?} is not a {}: get it as the type that was inserted, or remove it",
                std::any::type_name::<T>(),
            ),
        )
        .with_source(JsonError::from(error))
    }

    pub(crate) fn encode(key: &str, why: &str) -> Self {
        Self::new(
            ErrorKind::Encode,
            format!("the value for the session key {key:?} cannot be stored as JSON: {why}"),
        )
    }

    pub(crate) fn encode_json(key: &str, error: &serde_json::Error) -> Self {
        let why = "use only strings or numbers as keys of maps, and a Serialize that does not fail";
        Self::encode(key, why).with_source(JsonError::from(error))
    }

    pub(crate) fn invalid_data(why: &'static str) -> Self {
        Self::new(
            ErrorKind::InvalidData,
            format!(
                "the data under the session's key is not a session of this crate ({why}) and was not changed: set a prefix that \
                 nothing else uses (with_prefix), or delete the key"
            ),
        )
    }

    pub(crate) fn missing_layer() -> Self {
        Self::new(
            ErrorKind::MissingLayer,
            "this code runs outside of the session layer: add `.layer(RedisSessionLayer::new(client))` to the router. If it is there, \
             this is a middleware that was added after it, or a route or fallback that was added after it: `.layer` wraps only what was \
             added before",
        )
    }

    pub(crate) fn too_large(size: usize, limit: usize) -> Self {
        Self::new(
            ErrorKind::TooLarge,
            format!(
                "the session has {size} bytes, and with_max_size allows {limit}: store large data elsewhere and keep its key in the \
                 session, or raise with_max_size"
            ),
        )
    }

    pub(crate) fn id_taken() -> Self {
        Self::new(
            ErrorKind::IdGeneration,
            "the id generator returned an id that is all zeros or in use: return 128 new random bits at each call",
        )
    }

    pub(crate) fn doubtful_update() -> Self {
        Self::new(
            ErrorKind::Conflict,
            "the connection to Redis broke while a session was saved, and another request saved it since, so an `update` may or \
             may not have been applied; it is not applied a second time: load the session again and check",
        )
    }

    pub(crate) fn deadline_exceeded(deadline: std::time::Duration) -> Self {
        Self::new(
            ErrorKind::Unavailable,
            format!(
                "Redis did not answer within {deadline:?}: check that the server is up, and its latency, before raising with_deadline"
            ),
        )
    }

    /// Returns the kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the status of this error's response, as listed at [`ErrorKind`].
    #[must_use]
    pub fn status(&self) -> http::StatusCode {
        match self.0.kind {
            ErrorKind::Unavailable
            | ErrorKind::Rejected
            | ErrorKind::NotReplicated
            | ErrorKind::Conflict => http::StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::TooManySessions => http::StatusCode::FORBIDDEN,
            ErrorKind::Ended | ErrorKind::UpdateRejected => http::StatusCode::CONFLICT,
            ErrorKind::MissingLayer
            | ErrorKind::InvalidUser
            | ErrorKind::HeadersSent
            | ErrorKind::InvalidData
            | ErrorKind::Decode
            | ErrorKind::Encode
            | ErrorKind::ReservedKey
            | ErrorKind::TooLarge
            | ErrorKind::IdGeneration => http::StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns the default response to this error, for services other than axum's.
    ///
    /// It has the error's [`status`](Self::status), `Cache-Control: no-store`, and `Retry-After: 1` for status 503. The error is in its
    /// extensions. The body is a sentence for visitors, without the error's text. With debug assertions, as in a build
    /// without `--release`, the error's text follows.
    ///
    /// # Examples
    ///
    /// ```
    /// use axum_redis_sessions::{LazySession, SessionError};
    /// use http::{Request, Response};
    ///
    /// async fn visits(request: &Request<()>) -> Result<String, SessionError> {
    ///     let session = LazySession::from_extensions(request.extensions())?.load().await?;
    ///     let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    ///     Ok(format!("visit {visits}"))
    /// }
    ///
    /// async fn service(request: Request<()>) -> Response<String> {
    ///     match visits(&request).await {
    ///         Ok(text) => Response::new(text),
    ///         Err(error) => error.to_response(),
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn to_response(&self) -> http::Response<String> {
        let mut response = http::Response::new(self.body(cfg!(debug_assertions)));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status() == http::StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(self.clone());
        response
    }

    /// Whether this is the first call, of this error and its clones.
    pub(crate) fn begin_report(&self) -> bool {
        !self.0.was_reported.swap(true, Relaxed)
    }

    /// What visitors may read. The error's own text may name the server's address, the prefix of the keys and the app's types.
    fn body(&self, with_details: bool) -> String {
        let sentence = match self.status() {
            http::StatusCode::SERVICE_UNAVAILABLE => {
                "The service is temporarily unavailable, please try again."
            }
            http::StatusCode::FORBIDDEN => {
                "You are logged in on too many devices, please log out on one of them first."
            }
            http::StatusCode::CONFLICT if self.kind() == ErrorKind::Ended => {
                "Your session has ended, please load the page again."
            }
            http::StatusCode::CONFLICT => {
                "This is not possible any more, please load the page again."
            }
            _ => "An internal error prevented the server from handling this request.",
        };
        if with_details {
            format!("{sentence}\n\nIn debug builds only: {self}\n")
        } else {
            format!("{sentence}\n")
        }
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionError")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish()
    }
}

impl Error for SessionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.0.source.as_deref()?;
        Some(source)
    }
}

/// An invalid configuration of the layer. The text says what to change, and does not contain a URL, key or password.
///
/// Returned by [`RedisSessionLayer::validate`](crate::RedisSessionLayer::validate); also the text of the panic when such a layer is added to a
/// router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub(crate) Cow<'static, str>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ConfigError {}

/// The position of an error in JSON. Deliberately not `serde_json::Error`, whose text contains the value.
#[derive(Debug)]
struct JsonError {
    category: serde_json::error::Category,
    line: usize,
    column: usize,
}

impl From<&serde_json::Error> for JsonError {
    fn from(error: &serde_json::Error) -> Self {
        Self {
            category: error.classify(),
            line: error.line(),
            column: error.column(),
        }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.category {
            serde_json::error::Category::Io => "the value's Serialize failed",
            serde_json::error::Category::Syntax => "not JSON",
            serde_json::error::Category::Data => "JSON of another type",
            serde_json::error::Category::Eof => "incomplete JSON",
        };
        write!(f, "{what}, at line {} column {}", self.line, self.column)
    }
}

impl Error for JsonError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visitors_read_no_details_outside_of_debug_builds() {
        let text = "127.0.0.1:6379 refused session:* with_max_size alloc::string::String \"cart\"";
        for (kind, expected) in [
            (ErrorKind::Unavailable, "temporarily unavailable"),
            (ErrorKind::Rejected, "temporarily unavailable"),
            (ErrorKind::NotReplicated, "temporarily unavailable"),
            (ErrorKind::Conflict, "temporarily unavailable"),
            (ErrorKind::TooManySessions, "too many devices"),
            (ErrorKind::Ended, "session has ended"),
            (ErrorKind::UpdateRejected, "not possible any more"),
            (ErrorKind::MissingLayer, "internal error"),
            (ErrorKind::Decode, "internal error"),
        ] {
            let error = SessionError::new(kind, text);
            let body = error.body(false);
            assert!(body.contains(expected), "{kind:?}: {body}");
            let mut words = text.split_whitespace();
            assert!(
                !words.any(|word| word != "with" && body.contains(word)),
                "{kind:?}: {body}"
            );
            assert_eq!(body.lines().count(), 1, "{kind:?}: {body}");
            let details = error.body(true);
            assert!(
                details.starts_with(body.trim_end()) && details.contains(text),
                "{details}"
            );
        }
    }
}
