//! A live format with the settings of one app, and where this crate's own data lies in a shared session.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    contract::FormatError,
    live::{CookieAttributes, LiveFormat, OWN_KEY, Version},
    migration::user_at,
    object::{Object, PERMANENT},
};
use crate::{
    clock::unix_millis,
    error::{ErrorKind, SessionError},
    id::SessionId,
    record::{OWN_NAMES, is_own},
};

/// Before a key of the other app that has the name of one of this crate's. Only while it is a session here.
const ESCAPE: &str = "_foreign:";
/// What a former id may still read of a rotated session, out of the other framework's sight.
const READABLE: &str = "data";

/// The live sessions of another framework, for [`with_format`](crate::RedisSessionLayer::with_format): a [`LiveFormat`] and the settings of the app.
///
/// # Examples
///
/// ```
/// use axum_redis_sessions::{RedisSessionLayer, format::{Express, Sharing}};
///
/// // Passport keeps the user's id here.
/// let express = Sharing::from(Express::new(["keyboard cat"])).with_user_at("/passport/user");
/// let layer = RedisSessionLayer::in_memory().with_format(express);
/// # layer.validate()?;
/// # Ok::<(), axum_redis_sessions::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use = "a format does nothing until it is given to with_format"]
pub struct Sharing {
    format: Arc<dyn LiveFormat>,
    /// A JSON pointer.
    user: Option<String>,
    user_is_number: bool,
}

impl<F: LiveFormat> From<F> for Sharing {
    fn from(format: F) -> Self {
        Self {
            format: Arc::new(format),
            user: None,
            user_is_number: false,
        }
    }
}

impl Sharing {
    /// Sets where the other app has its user, as a JSON pointer (RFC 6901), such as `/_user_id` or `/passport/user`. Default: nowhere.
    ///
    /// A text or an integer there is the [`user`](crate::Session::user) of the session: who logs in or out on one side is logged in or out on the other.
    /// Without it, the users of this crate and those of the other app have nothing to do with each other.
    pub fn with_user_at(self, pointer: impl Into<String>) -> Self {
        Self {
            user: Some(pointer.into()),
            ..self
        }
    }

    /// Writes the user as a number, where it is an integer. Default: as a text.
    pub fn with_numeric_user(self) -> Self {
        Self {
            user_is_number: true,
            ..self
        }
    }

    pub(crate) fn format(&self) -> &dyn LiveFormat {
        &*self.format
    }

    /// What to change, if the settings are invalid.
    pub(crate) fn check(&self) -> Option<&'static str> {
        let user = self.user.as_ref();
        let is_wrong = user.is_some_and(|user| !user.starts_with('/'));
        is_wrong.then_some(
            "with_user_at is not a JSON pointer: begin it with /, as in /_user_id (RFC 6901)",
        )
    }

    pub(crate) fn id(&self, cookie_name: &str, value: &[u8]) -> Option<SessionId> {
        let value = std::str::from_utf8(value).ok()?;
        SessionId::foreign(&self.format.id(cookie_name, value)?)
    }

    pub(crate) fn new_id(&self, random: [u8; 32]) -> Option<SessionId> {
        SessionId::foreign(&self.format.new_id(random))
    }

    /// A stored value as the JSON of this crate's own sessions.
    pub(crate) fn decode(&self, stored: &[u8]) -> Result<String, FormatError> {
        let object = Object::parse(&self.format.decode_live(stored)?)?;
        let own = object.get(OWN_KEY).map(Object::parse);
        let own = own.transpose().ok().flatten().unwrap_or_default();
        let is_foreign = |name: &str| name != OWN_KEY && name != PERMANENT;
        let mut session = Object::default();
        if let Some(until) = own.get("rotated") {
            // Whoever has the former id may begin another session under it, as far as the other app knows.
            let is_over = until.parse().is_ok_and(|until: u64| until <= unix_millis());
            if !is_over || !object.pairs().any(|(name, _)| is_foreign(name)) {
                for name in ["rotated", "grace", "user"] {
                    session.set_own(name, own.get(name));
                }
                let readable = own.get(READABLE).map(Object::parse).transpose()?;
                session.extend(readable.unwrap_or_default());
                return Ok(session.to_json());
            }
        }
        let user = match &self.user {
            Some(pointer) => user_at(&object, pointer)
                .map(|user| serde_json::to_string(&*user).expect("a string serializes")),
            None => own.get("user").map(str::to_owned),
        };
        // What this crate knows of a user is not true of another.
        if user.as_deref() == own.get("user") {
            for name in ["created", "listed", "confirmed"] {
                session.set_own(name, own.get(name));
            }
        }
        session.set_own("user", user.as_deref());
        session.set_own("absolute", own.get("absolute"));
        let idle = own.get("idle").and_then(|idle| idle.parse().ok());
        let idle = idle.into_iter().chain(self.timeout(stored)).min();
        session.set_own("idle", idle.map(|idle: u64| idle.to_string()).as_deref());
        if object.is_permanent() {
            session.set_own("permanent", Some(own.get("permanent").unwrap_or("0")));
        }
        for (name, value) in object.0 {
            if is_foreign(&name) {
                let is_taken = is_own(name.as_bytes()) || name.starts_with(ESCAPE);
                session.0.push((
                    if is_taken {
                        [ESCAPE, &name].concat()
                    } else {
                        name
                    },
                    value,
                ));
            }
        }
        Ok(session.to_json())
    }

    /// The inverse of [`decode`](Self::decode), over what the store holds now.
    pub(crate) fn encode(
        &self,
        json: &str,
        previous: Option<&[u8]>,
        max_age: Option<Duration>,
        cookie: CookieAttributes<'_>,
    ) -> Result<Vec<u8>, FormatError> {
        let (mut own, mut session) = (Object::default(), Object::default());
        for (name, value) in Object::parse(json)?.0 {
            match name.strip_prefix(ESCAPE) {
                Some(name) => session.0.push((name.to_owned(), value)),
                None if is_own(name.as_bytes()) => own.0.push((name[1..].to_owned(), value)),
                None => session.0.push((name, value)),
            }
        }
        if own.get("rotated").is_some() {
            own.set(READABLE, Some(session.to_json()));
            session = Object::default();
        } else if let Some(pointer) = &self.user {
            self.set_user(&mut session, pointer, own.get("user"))?;
        }
        let timeout = previous.and_then(|previous| self.timeout(previous));
        if timeout.is_some_and(|timeout| own.get("idle") == Some(&timeout.to_string())) {
            own.set("idle", None);
        }
        session.set(OWN_KEY, Some(own.to_json()));
        self.format.encode(&Version {
            json: &session.to_json(),
            previous,
            max_age,
            cookie,
        })
    }

    /// This crate's revision in a stored value, as JSON. The other framework keeps it when it changes the rest.
    pub(crate) fn revision(&self, stored: &[u8]) -> Option<String> {
        let object = Object::parse(&self.format.decode_live(stored).ok()?).ok()?;
        let own = Object::parse(object.get(OWN_KEY)?).ok()?;
        own.get("rev").map(str::to_owned)
    }

    /// In milliseconds.
    fn timeout(&self, stored: &[u8]) -> Option<u64> {
        let timeout = self.format.timeout(stored)?;
        u64::try_from(timeout.as_millis()).ok()
    }

    /// Writes the user where the other app has it, unless it is there already. `user` is JSON.
    fn set_user(
        &self,
        session: &mut Object,
        pointer: &str,
        user: Option<&str>,
    ) -> Result<(), FormatError> {
        let user: Option<String> = user.and_then(|user| serde_json::from_str(user).ok());
        let present = user_at(session, pointer);
        if present.as_deref() == user.as_deref() {
            return Ok(());
        }
        let value = user.map(|user| match user.parse::<i64>() {
            Ok(number) if self.user_is_number && number.to_string() == user => user,
            _ => serde_json::to_string(&user).expect("a string serializes"),
        });
        let tokens = pointer.split('/').skip(1);
        let tokens: Vec<_> = tokens
            .map(|token| token.replace("~1", "/").replace("~0", "~"))
            .collect();
        set_at(session, &tokens, value)
    }
}

/// Sets the value at this path of keys; `None` removes it.
fn set_at(object: &mut Object, path: &[String], value: Option<String>) -> Result<(), FormatError> {
    let Some((key, rest)) = path.split_first() else {
        return Ok(());
    };
    if rest.is_empty() {
        object.set(key, value);
        return Ok(());
    }
    let inner = object.get(key).map(Object::parse).transpose()?;
    if inner.is_none() && value.is_none() {
        return Ok(());
    }
    let mut inner = inner.unwrap_or_default();
    set_at(&mut inner, rest, value)?;
    object.set(key, Some(inner.to_json()));
    Ok(())
}

impl Object {
    /// Sets a key of this crate's own to this JSON, if there is any.
    fn set_own(&mut self, name: &str, json: Option<&str>) {
        let name = OWN_NAMES.iter().find(|own| own[1..] == *name);
        if let (Some(name), Some(json)) = (name, json) {
            self.set(name, Some(json.to_owned()));
        }
    }
}

pub(crate) fn not_decodable(error: &FormatError) -> SessionError {
    SessionError::new(
        ErrorKind::InvalidData,
        format!(
            "a stored session is not one of the other framework, since {error}: check the format and the prefix of with_format"
        ),
    )
}

pub(crate) fn not_encodable(error: &FormatError) -> SessionError {
    SessionError::new(
        ErrorKind::Encode,
        format!(
            "the session cannot be stored for the other framework of with_format, since {error}: insert what both have"
        ),
    )
}

/// Shows no secret.
impl fmt::Debug for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sharing").finish_non_exhaustive()
    }
}
