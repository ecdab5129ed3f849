//! What a format must have so that this crate and another framework can work on one session at the same time.

use std::time::Duration;

use super::contract::{Format, FormatError};
use crate::record;

/// A [`Format`] that can also be written, for [`with_format`](crate::RedisSessionLayer::with_format).
///
/// # Examples
///
/// The framework of the example of [`Format`], which stores `theme=dark&user=42`. It knows texts only, so that is all that the app may insert:
///
/// ```
/// use axum_redis_sessions::{RedisSessionLayer, format::{Format, FormatError, LiveFormat, OWN_KEY, Version}};
///
/// struct OurFormat;
///
/// impl LiveFormat for OurFormat {
///     fn new_id(&self, random: [u8; 32]) -> String {
///         random[..16].iter().map(|byte| format!("{byte:02x}")).collect()
///     }
///
///     fn cookie_value(&self, _cookie_name: &str, id: &str) -> String {
///         id.to_owned()
///     }
///
///     fn encode(&self, version: &Version<'_>) -> Result<Vec<u8>, FormatError> {
///         let session: serde_json::Map<String, serde_json::Value> =
///             serde_json::from_str(version.json()).expect("a JSON object");
///         let pairs = session.iter().map(|(key, value)| match value {
///             serde_json::Value::String(text) => Ok(format!("{key}={text}")),
///             // This crate's own data.
///             serde_json::Value::Object(_) => Ok(format!("{key}={value}")),
///             _ => Err(FormatError::new("a value is not a text")),
///         });
///         let pairs: Vec<String> = pairs.collect::<Result<_, _>>()?;
///         Ok(pairs.join("&").into_bytes())
///     }
/// }
///
/// impl Format for OurFormat {
///     fn decode(&self, stored: &[u8]) -> Result<String, FormatError> {
///         let text = str::from_utf8(stored).map_err(|_| FormatError::new("it is not UTF-8"))?;
///         let mut session = serde_json::Map::new();
///         for pair in text.split('&') {
///             let (key, value) = pair.split_once('=').ok_or(FormatError::new("a pair has no ="))?;
///             let value = match key {
///                 OWN_KEY => serde_json::from_str(value).unwrap_or_default(),
///                 _ => value.into(),
///             };
///             session.insert(key.to_owned(), value);
///         }
///         Ok(serde_json::Value::from(session).to_string())
///     }
///     # fn cookie_name(&self) -> &str { "sid" }
///     # fn prefix(&self) -> &str { "app/" }
///     # fn id(&self, _cookie_name: &str, value: &str) -> Option<String> {
///     #     let is_id = value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
///     #     is_id.then(|| value.to_owned())
///     # }
///     // … and the rest as there …
/// }
///
/// let layer = RedisSessionLayer::in_memory().with_format(OurFormat);
/// # layer.validate()?;
/// # Ok::<(), axum_redis_sessions::ConfigError>(())
/// ```
pub trait LiveFormat: Format {
    /// A new id: the part of a session's key after the prefix. It has at most 64 characters, and [`Format::id`] accepts it.
    ///
    /// `random` comes from the operating system. An id must contain at least 128 bits of it (ASVS 5.0, 7.2.3).
    fn new_id(&self, random: [u8; 32]) -> String;

    /// The value of the cookie that presents this id, signed if the framework signs. [`Format::id`] is its inverse.
    ///
    /// It must consist of characters that a cookie's value may have (RFC 6265, section 4.1.1).
    fn cookie_value(&self, cookie_name: &str, id: &str) -> String;

    /// The session as a JSON object, as [`Format::decode`]. Default: that.
    ///
    /// A value that JSON cannot express may be left out here, if [`encode`](Self::encode) puts it back.
    ///
    /// # Errors
    ///
    /// As [`Format::decode`].
    fn decode_live(&self, stored: &[u8]) -> Result<String, FormatError> {
        self.decode(stored)
    }

    /// What the store is to hold for this version of a session.
    ///
    /// # Errors
    ///
    /// A reason, without anything of the value, if the framework could not read it. The save then fails with
    /// [`ErrorKind::Encode`](crate::ErrorKind::Encode).
    fn encode(&self, version: &Version<'_>) -> Result<Vec<u8>, FormatError>;

    /// The timeout that the framework gives this one session, from its last use. Default: none, so that it has the layer's.
    fn timeout(&self, stored: &[u8]) -> Option<Duration> {
        let _ = stored;
        None
    }

    /// The framework's default of [`with_idle_timeout`](crate::RedisSessionLayer::with_idle_timeout). Default: one day.
    fn idle_timeout(&self) -> Duration {
        Duration::from_secs(24 * 60 * 60)
    }

    /// The framework's default of [`with_permanent_lifetime`](crate::RedisSessionLayer::with_permanent_lifetime). Default: 31 days.
    fn permanent_lifetime(&self) -> Duration {
        Duration::from_secs(31 * 24 * 60 * 60)
    }
}

/// The key beside the app's keys under which this crate keeps its own data of a session that it shares with another framework: an object.
pub const OWN_KEY: &str = record::OWN_KEY;

/// The next version of a shared session, for [`LiveFormat::encode`].
#[derive(Clone, Copy)]
pub struct Version<'a> {
    pub(super) json: &'a str,
    pub(super) previous: Option<&'a [u8]>,
    pub(super) max_age: Option<Duration>,
    pub(super) cookie: CookieAttributes<'a>,
}

/// The attributes of the session cookie.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CookieAttributes<'a> {
    /// `/` by default.
    pub path: &'a str,
    /// None by default.
    pub domain: Option<&'a str>,
    /// Whether scripts of the page cannot read it.
    pub http_only: bool,
    /// Whether it is sent over HTTPS only.
    pub secure: bool,
    /// `strict`, `lax` or `none`.
    pub same_site: &'static str,
}

impl<'a> Version<'a> {
    /// The session as a JSON object: the app's keys, and [`OWN_KEY`] with this crate's data, which the other framework is to keep.
    #[must_use]
    pub fn json(&self) -> &'a str {
        self.json
    }

    /// What the store holds now; `None` for a new session. What did not change should go back as it is there.
    #[must_use]
    pub fn previous(&self) -> Option<&'a [u8]> {
        self.previous
    }

    /// The Max-Age of a [permanent](crate::Session::set_permanent) session's cookie; `None` if the cookie ends with the browser.
    #[must_use]
    pub fn max_age(&self) -> Option<Duration> {
        self.max_age
    }

    /// The cookie's other attributes, for a framework that stores them.
    #[must_use]
    pub fn cookie(&self) -> CookieAttributes<'a> {
        self.cookie
    }
}

/// Shows nothing of the session.
impl std::fmt::Debug for Version<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Version").finish_non_exhaustive()
    }
}
