use std::{borrow::Cow, error::Error, fmt, sync::Arc};

use http::{HeaderValue, header};

/// What went wrong with a session: what happened, and what to do about it.
///
/// [`kind`](Self::kind) is for code, the message for people, [`source`](Error::source) for the cause below. No id, no stored
/// value and no password is ever part of it, so it is safe to log.
///
/// With the feature `axum` it is a response: 503 with `Retry-After` when the store is away, 409 when the session ended
/// meanwhile, otherwise 500. It travels in the response's extensions too, where
/// [`with_error_response`](crate::RedisSessionLayer::with_error_response) finds it and gives it the app's own form.
///
/// ```
/// use axum_redis_sessions::{ErrorKind, Session, SessionError};
///
/// fn visits(session: &Session) -> Result<u64, SessionError> {
///     match session.get("visits") {
///         Err(error) if error.kind() == ErrorKind::Decode => Ok(0), // an older release stored something else
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
}

/// The kinds of [`SessionError`], each with what helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No `RedisSessionLayer` around this route. Add `.layer(…)` to the router after the routes. Status 500.
    MissingLayer,
    /// The store could not be reached, or did not answer within the [deadline](crate::RedisSessionLayer::with_deadline).
    /// Nothing is known to be lost: the cookie stays, and the next request tries again. Status 503.
    Unavailable,
    /// The store answered with an error of its own, such as a missing permission or no memory left. Status 503.
    Rejected,
    /// The change was made, but too few replicas confirmed it for
    /// [`with_replica_acks`](crate::RedisSessionLayer::with_replica_acks): a failover may undo it. Try again. Status 503.
    NotReplicated,
    /// Other requests changed the session each time this one tried to. Try again. Status 503.
    Conflict,
    /// The user has as many sessions as [`with_sessions_per_user`](crate::RedisSessionLayer::with_sessions_per_user) allows, so this login
    /// was refused and nothing stored. Status 403.
    TooManySessions,
    /// The session was logged out, rotated away or expired while this request ran, so its changes were dropped. Only
    /// [`Session::save`](crate::Session::save) says so; after a handler it is no error. Status 409.
    Ended,
    /// The response's head is sent, so a browser can no longer be told about a new session or a new id. Make the change, or
    /// [`save`](crate::Session::save), before returning the response. Status 500.
    HeadersSent,
    /// What is stored is not a session of this crate. It is left as it is. Status 500.
    InvalidData,
    /// The value under this key is not of the type asked for. Status 500.
    Decode,
    /// The value does not serialize to JSON. Status 500.
    Encode,
    /// Keys that begin with `_` belong to this crate. Status 500.
    ReservedKey,
    /// The user passed to [`Session::set_user`](crate::Session::set_user) or [`Users::of`](crate::Users::of) is empty. Status 500.
    InvalidUser,
    /// The session is larger than [`with_max_size`](crate::RedisSessionLayer::with_max_size) allows. Status 500.
    TooLarge,
    /// No random numbers, or an id generator that gives the same id again. Status 500.
    IdGeneration,
}

impl SessionError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            source: None,
        }))
    }

    /// Only with a source whose text holds no id, value or password.
    pub(crate) fn with_source(self, source: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            kind: self.0.kind,
            message: self.0.message.clone(),
            source: Some(Box::new(source)),
        }))
    }

    pub(crate) fn decode<T>(key: &str, error: &serde_json::Error) -> Self {
        Self::new(
            ErrorKind::Decode,
            format!(
                "the session's value under {key:?} is not a {}; read it as the type it was inserted as, or remove it",
                std::any::type_name::<T>(),
            ),
        )
        .with_source(JsonError::from(error))
    }

    pub(crate) fn encode(key: &str, error: &serde_json::Error) -> Self {
        Self::new(
            ErrorKind::Encode,
            format!(
                "the value for the session key {key:?} does not serialize to JSON; \
                 a map in it must have text or numbers as keys, and its Serialize must not fail"
            ),
        )
        .with_source(JsonError::from(error))
    }

    pub(crate) fn invalid_data(why: &'static str) -> Self {
        Self::new(
            ErrorKind::InvalidData,
            format!(
                "what is stored under the session's key is not a session of this crate ({why}); it was left as it is: \
                 give the layer a prefix of its own, or delete the key"
            ),
        )
    }

    pub(crate) fn missing_layer() -> Self {
        Self::new(
            ErrorKind::MissingLayer,
            "this route has no session: put `.layer(RedisSessionLayer::new(client))` on the router, after its routes",
        )
    }

    pub(crate) fn too_large(size: usize, limit: usize) -> Self {
        Self::new(
            ErrorKind::TooLarge,
            format!(
                "the session takes {size} bytes, and {limit} are allowed: keep large things elsewhere and their names in the \
                 session, or raise with_max_size"
            ),
        )
    }

    pub(crate) fn id_taken() -> Self {
        Self::new(
            ErrorKind::IdGeneration,
            "the id generator gave an id that is all zeros or belongs to another session: it must give 128 fresh random bits \
             each time",
        )
    }

    /// Why a request no longer waits.
    pub(crate) fn deadline_exceeded(deadline: std::time::Duration) -> Self {
        Self::new(
            ErrorKind::Unavailable,
            format!(
                "Redis did not answer within {deadline:?}; the session was left alone: check that the server is up, and how slow it \
                 is, before raising the deadline"
            ),
        )
    }

    /// What kind of error this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The status of a response that tells of this error.
    #[must_use]
    pub fn status(&self) -> http::StatusCode {
        match self.0.kind {
            ErrorKind::Unavailable
            | ErrorKind::Rejected
            | ErrorKind::NotReplicated
            | ErrorKind::Conflict => http::StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::TooManySessions => http::StatusCode::FORBIDDEN,
            ErrorKind::Ended => http::StatusCode::CONFLICT,
            ErrorKind::MissingLayer
            | ErrorKind::HeadersSent
            | ErrorKind::InvalidData
            | ErrorKind::Decode
            | ErrorKind::Encode
            | ErrorKind::ReservedKey
            | ErrorKind::InvalidUser
            | ErrorKind::TooLarge
            | ErrorKind::IdGeneration => http::StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl SessionError {
    /// The plain response, with the error itself in its extensions.
    pub(crate) fn to_response(&self) -> http::Response<String> {
        let mut response = http::Response::new(format!("{self}\n"));
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

/// A mistake in the layer's configuration, found by [`RedisSessionLayer::validate`](crate::RedisSessionLayer::validate) or,
/// as a panic, when the layer is put on a router. The message says what to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub(crate) Cow<'static, str>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ConfigError {}

/// Where JSON failed. Deliberately not `serde_json::Error`, whose text quotes the value it could not use.
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
            serde_json::error::Category::Io => "the value's own Serialize failed",
            serde_json::error::Category::Syntax => "not JSON",
            serde_json::error::Category::Data => "JSON of another shape",
            serde_json::error::Category::Eof => "JSON that ends too early",
        };
        write!(f, "{what}, at line {} column {}", self.line, self.column)
    }
}

impl Error for JsonError {}
