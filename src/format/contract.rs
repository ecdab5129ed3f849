use std::{borrow::Cow, error::Error, fmt};

/// How a framework keeps a session: its cookie, its key in Redis, and its stored value.
///
/// # Examples
///
/// A framework that stores `theme=dark&user=42` under `app/<id>`, for a cookie `sid` with 32 hexadecimal digits:
///
/// ```
/// use axum_redis_sessions::{RedisSessionLayer, format::{Format, FormatError, Migration}};
///
/// struct OurFormat;
///
/// impl Format for OurFormat {
///     fn cookie_name(&self) -> &str {
///         "sid"
///     }
///
///     fn prefix(&self) -> &str {
///         "app/"
///     }
///
///     fn id(&self, _cookie_name: &str, value: &str) -> Option<String> {
///         let is_id = value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
///         is_id.then(|| value.to_owned())
///     }
///
///     fn decode(&self, stored: &[u8]) -> Result<String, FormatError> {
///         let text = str::from_utf8(stored).map_err(|_| FormatError::new("it is not UTF-8"))?;
///         let mut session = serde_json::Map::new();
///         for pair in text.split('&') {
///             let (key, value) = pair.split_once('=').ok_or(FormatError::new("a pair has no ="))?;
///             session.insert(key.to_owned(), value.into());
///         }
///         Ok(serde_json::Value::from(session).to_string())
///     }
/// }
///
/// let layer = RedisSessionLayer::in_memory()
///     .with_migration_from(Migration::from(OurFormat).with_user_at("/user"));
/// # layer.validate()?;
/// # Ok::<(), axum_redis_sessions::ConfigError>(())
/// ```
pub trait Format: Send + Sync + 'static {
    /// The name of the session cookie, unless [`Migration::with_cookie_name`](super::Migration::with_cookie_name) sets another.
    fn cookie_name(&self) -> &str;

    /// The start of a session's key in Redis, unless [`Migration::with_prefix`](super::Migration::with_prefix) sets another.
    fn prefix(&self) -> &str;

    /// The id that a cookie presents: the part of the session's key after the prefix. `None` for a value that is not of this format, or
    /// whose signature is not valid.
    ///
    /// The value is that of the Cookie header; percent-encoding is not removed. An id must consist of few, fixed characters, since it comes from
    /// the browser and becomes part of a key.
    fn id(&self, cookie_name: &str, cookie_value: &str) -> Option<String>;

    /// The stored session as a JSON object.
    ///
    /// The values become those of the new session, with the text that they have here. Keys that begin with `_` are not kept, because this crate
    /// reserves them. A `_permanent` of `true` makes the new session [permanent](crate::Session::set_permanent).
    ///
    /// # Errors
    ///
    /// A reason, without anything of the value. The session then counts as missing, and the reason is logged.
    fn decode(&self, stored: &[u8]) -> Result<String, FormatError>;

    /// Further cookies that belong to the session, to be removed with its cookie. Default: none.
    fn other_cookies(&self) -> &[&str] {
        &[]
    }
}

/// Why a stored value cannot be read as a session of a [`Format`].
#[derive(Debug, Clone)]
pub struct FormatError(Cow<'static, str>);

impl FormatError {
    /// `reason` continues "a session cannot be read, since …". It becomes part of a log message, so it must contain nothing of the value.
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for FormatError {}
