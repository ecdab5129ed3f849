//! A format with the settings of one app.

use std::{fmt, sync::Arc};

use cookie::{Cookie, time::OffsetDateTime};
use http::HeaderValue;
use serde_json::Value;

use super::{
    contract::{Format, FormatError},
    object::{Object, PERMANENT},
};
use crate::{
    error::{ErrorKind, SessionError},
    record::{Encoded, Encoder, Metadata, Record, UserId, is_reserved},
};

/// Of the cookies with the right name; a browser may have one for each Domain and Path.
const MAX_CANDIDATES: usize = 2;

/// The sessions of another app, for [`with_migration_from`](crate::RedisSessionLayer::with_migration_from): a [`Format`] and that app's settings.
///
/// # Examples
///
/// ```
/// use axum_redis_sessions::{RedisSessionLayer, format::{Express, Migration}};
///
/// let express = Migration::from(Express::new(["keyboard cat"]))
///     .with_cookie_name("sid")
///     .with_cookie_domain("example.com")
///     .with_prefix("shop:")
///     .with_user_at("/passport/user");
/// let layer = RedisSessionLayer::in_memory().with_migration_from(express);
/// ```
#[derive(Clone)]
#[must_use = "a migration does nothing until it is given to with_migration_from"]
pub struct Migration {
    format: Arc<dyn Format>,
    cookie_name: String,
    cookie_domain: Option<String>,
    cookie_path: String,
    prefix: String,
    /// A JSON pointer.
    user: Option<String>,
}

impl<F: Format> From<F> for Migration {
    fn from(format: F) -> Self {
        Self {
            cookie_name: format.cookie_name().to_owned(),
            cookie_domain: None,
            cookie_path: "/".to_owned(),
            prefix: format.prefix().to_owned(),
            user: None,
            format: Arc::new(format),
        }
    }
}

impl Migration {
    /// Sets the name of the old cookie. Default: the framework's.
    pub fn with_cookie_name(self, name: impl Into<String>) -> Self {
        Self {
            cookie_name: name.into(),
            ..self
        }
    }

    /// Sets the Domain of the old cookie, without which a browser does not remove it. Default: none.
    pub fn with_cookie_domain(self, domain: impl Into<String>) -> Self {
        Self {
            cookie_domain: Some(domain.into()),
            ..self
        }
    }

    /// Sets the Path of the old cookie, without which a browser does not remove it. Default: `/`.
    pub fn with_cookie_path(self, path: impl Into<String>) -> Self {
        Self {
            cookie_path: path.into(),
            ..self
        }
    }

    /// Sets the start of the old keys in Redis. Default: the framework's.
    pub fn with_prefix(self, prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            ..self
        }
    }

    /// Sets where the old session has its user, as a JSON pointer (RFC 6901), such as `/user_id` or `/passport/user`. Default: nowhere.
    ///
    /// A text or an integer there becomes the user of the new session, as by [`set_user`](crate::Session::set_user), and the session one of the user's
    /// [`user_sessions`](crate::Session::user_sessions). A session without it has no user. The key itself is kept like the others.
    pub fn with_user_at(self, pointer: impl Into<String>) -> Self {
        Self {
            user: Some(pointer.into()),
            ..self
        }
    }

    /// What to change, if the settings are invalid.
    pub(crate) fn check(&self) -> Option<&'static str> {
        let lines = self.removals(false);
        if self.cookie_name.is_empty() || lines.is_none() {
            return Some(
                "with_migration_from has a cookie name, Domain or Path that no header can contain: use the old app's",
            );
        }
        if self
            .user
            .as_ref()
            .is_some_and(|user| !user.starts_with('/'))
        {
            return Some(
                "with_user_at is not a JSON pointer: begin it with /, as in /user_id (RFC 6901)",
            );
        }
        None
    }

    /// The old sessions that these Cookie headers present, at most two.
    pub(crate) fn presented<'a>(
        &'a self,
        headers: impl Iterator<Item = &'a [u8]> + 'a,
    ) -> impl Iterator<Item = OldCookie> + 'a {
        let pairs = headers.flat_map(|header| header.split(|byte| *byte == b';'));
        let values = pairs.filter_map(|pair| {
            let pair = pair.trim_ascii_start();
            let value = pair.strip_prefix(self.cookie_name.as_bytes())?;
            std::str::from_utf8(value.strip_prefix(b"=")?).ok()
        });
        let cookies = values.filter_map(|value| {
            let id = self.format.id(&self.cookie_name, value)?;
            Some(OldCookie {
                key: [&self.prefix, id.as_str()].concat(),
                value: value.to_owned(),
            })
        });
        cookies.take(MAX_CANDIDATES)
    }

    /// The session in a value that is stored under `key`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidData`](crate::ErrorKind::InvalidData).
    pub(crate) fn take(&self, stored: &[u8], key: &str) -> Result<Taken, SessionError> {
        let json = self
            .format
            .decode(stored)
            .map_err(|error| unreadable(&error))?;
        let object = Object::parse(&json).map_err(|error| unreadable(&error))?;
        let is_permanent = object.get(PERMANENT) == Some("true");
        let pointer = self.user.as_deref();
        Ok(Taken {
            is_permanent,
            user: pointer.and_then(|pointer| user_at(&object, pointer)),
            object,
            key: key.into(),
        })
    }

    /// Whether what is stored under this key is a session of the old app.
    pub(crate) fn reads(&self, key: &str, stored: &[u8]) -> bool {
        key.starts_with(&self.prefix) && self.take(stored, key).is_ok()
    }

    /// The Set-Cookie lines that remove the old cookies, but the session cookie if the new one replaced it; `None` if a header cannot contain one.
    pub(crate) fn removals(&self, is_replaced: bool) -> Option<Vec<HeaderValue>> {
        let mut names = self.format.other_cookies().to_vec();
        if !is_replaced {
            names.push(&self.cookie_name);
        }
        let line = |name: &str| {
            let mut cookie = Cookie::build((name, ""))
                .path(&self.cookie_path)
                .max_age(cookie::time::Duration::ZERO)
                .expires(OffsetDateTime::UNIX_EPOCH)
                .http_only(true)
                // A browser takes such a cookie only with Secure, and one without that attribute from HTTP only without it.
                .secure(name.starts_with("__Host-") || name.starts_with("__Secure-"));
            if let Some(domain) = &self.cookie_domain {
                cookie = cookie.domain(domain);
            }
            HeaderValue::try_from(cookie.build().to_string()).ok()
        };
        names.into_iter().map(line).collect()
    }

    /// Whether the cookie with this name, Domain and Path is the old one, so that setting it replaces the old one.
    pub(crate) fn has_cookie(&self, name: &str, domain: Option<&str>, path: &str) -> bool {
        let domain = domain.map(|domain| domain.trim_start_matches('.'));
        let own = self.cookie_domain.as_deref();
        let own = own.map(|domain| domain.trim_start_matches('.'));
        self.cookie_name == name && own == domain && self.cookie_path == path
    }
}

/// A session that an old cookie presents.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct OldCookie {
    /// In Redis.
    pub(crate) key: String,
    /// As the browser sent it.
    pub(crate) value: String,
}

/// What an old session held.
pub(crate) struct Taken {
    object: Object,
    key: Box<str>,
    pub(crate) is_permanent: bool,
    pub(crate) user: Option<UserId>,
}

impl Taken {
    /// The first version of the new session.
    pub(crate) fn encode(&self, metadata: Metadata) -> Result<Encoded, SessionError> {
        let mut base = Record::default();
        base.moved_from = Some(self.key.clone());
        let mut encoder = Encoder::new(&base, metadata, self.user.clone(), 0)?;
        let pairs = self.object.0.iter();
        for (key, value) in pairs.filter(|(key, _)| !is_reserved(key.as_bytes())) {
            encoder.append(key, value.get().as_bytes());
        }
        Ok(encoder.finish())
    }
}

pub(super) fn user_at(object: &Object, pointer: &str) -> Option<UserId> {
    let (first, rest) = pointer
        .strip_prefix('/')?
        .split_at_checked(pointer[1..].find('/').unwrap_or(pointer.len() - 1))?;
    let first = first.replace("~1", "/").replace("~0", "~");
    let value: Value = serde_json::from_str(object.get(&first)?).ok()?;
    let user = match value.pointer(rest)? {
        Value::String(text) => text.clone(),
        Value::Number(number) if !number.is_f64() => number.to_string(),
        _ => return None,
    };
    UserId::new(&user).ok()
}

fn unreadable(error: &FormatError) -> SessionError {
    SessionError::new(
        ErrorKind::InvalidData,
        format!(
            "a session of the old app cannot be read, since {error}; it counts as missing and was not changed: check the format and the prefix \
             of with_migration_from"
        ),
    )
}

/// Shows no key and no secret.
impl fmt::Debug for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migration")
            .field("cookie_name", &self.cookie_name)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
