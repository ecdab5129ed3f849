use std::{fmt, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use super::{
    any::{Serialization, decode_any, is_id},
    codec,
    contract::{Format, FormatError},
    cookie_value::percent_decoded,
    live::{LiveFormat, Version},
    object::{Object, PERMANENT},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Flask, with Flask-Session on Redis or a session interface of its own that stores `session:<id>`.
///
/// The cookie is `session`. The value in Redis may be MessagePack (Flask-Session 0.7 and later), JSON, or a pickle (before, and most
/// interfaces of apps' own). Of a pickle, plain data is read; one that names a class is refused, and no code is run. An id has 22 to 128 letters, digits,
/// `-` and `_`: UUIDs and the tokens of Flask-Session.
///
/// A session with `_permanent` stays permanent. Flask's own `session` without a server-side store is a signed cookie that Redis knows nothing of; it
/// cannot be migrated.
///
/// As a [live format](LiveFormat), it writes new sessions as Flask-Session does by default, in MessagePack, and each other session in the form that it
/// had. The timeouts are Flask's `PERMANENT_SESSION_LIFETIME` of 31 days; for pickles, one day unless permanent, as the Flask snippet has it.
#[derive(Clone)]
pub struct Flask {
    /// Empty: the cookie is not signed.
    signers: Vec<Hmac<Sha1>>,
    serialization: Serialization,
}

impl Default for Flask {
    fn default() -> Self {
        Self {
            signers: Vec::new(),
            serialization: Serialization::MessagePack,
        }
    }
}

impl Flask {
    /// Without a signature, and with MessagePack, as by default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How new sessions are written, with [`with_format`](crate::RedisSessionLayer::with_format). All forms are read.
    #[must_use]
    pub fn with_serialization(self, serialization: Serialization) -> Self {
        Self {
            serialization,
            ..self
        }
    }

    /// With `SESSION_USE_SIGNER`: the cookie is signed by one of these values of `SECRET_KEY`. An unsigned cookie is then ignored.
    #[must_use]
    pub fn with_signer(self, secret_keys: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let derived = |secret: &[u8]| {
            let mut derive = signer(secret);
            derive.update(b"flask-session");
            signer(&derive.finalize().into_bytes())
        };
        let keys = secret_keys.into_iter();
        Self {
            signers: keys.map(|key| derived(key.as_ref())).collect(),
            ..self
        }
    }

    /// `<id>.<signature>`, as itsdangerous' `Signer` makes it.
    fn verified(&self, value: String) -> Option<String> {
        if self.signers.is_empty() {
            return Some(value);
        }
        let (id, signature) = value.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let is_valid = |key: &Hmac<Sha1>| {
            let mut code = key.clone();
            code.update(id.as_bytes());
            code.verify_slice(&signature).is_ok()
        };
        self.signers.iter().any(is_valid).then(|| id.to_owned())
    }
}

fn signer(key: &[u8]) -> Hmac<Sha1> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

impl Format for Flask {
    fn cookie_name(&self) -> &str {
        "session"
    }

    fn prefix(&self) -> &str {
        "session:"
    }

    fn id(&self, _cookie_name: &str, cookie_value: &str) -> Option<String> {
        let id = self.verified(percent_decoded(cookie_value)?)?;
        is_id(&id, 22..=128, b"-_").then_some(id)
    }

    fn decode(&self, stored: &[u8]) -> Result<String, FormatError> {
        decode_any(stored)
    }
}

impl LiveFormat for Flask {
    /// As Flask-Session's, from 256 bits.
    fn new_id(&self, random: [u8; 32]) -> String {
        URL_SAFE_NO_PAD.encode(random)
    }

    fn cookie_value(&self, _cookie_name: &str, id: &str) -> String {
        let Some(mut code) = self.signers.first().cloned() else {
            return id.to_owned();
        };
        code.update(id.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(code.finalize().into_bytes());
        [id, ".", &signature].concat()
    }

    fn decode_live(&self, stored: &[u8]) -> Result<String, FormatError> {
        Ok(codec::decode(stored)?.to_json())
    }

    fn encode(&self, version: &Version<'_>) -> Result<Vec<u8>, FormatError> {
        let mut session = Object::parse(version.json())?;
        let previous = version.previous().map(codec::decode).transpose()?;
        let before = previous
            .as_ref()
            .and_then(|previous| previous.get(PERMANENT));
        let was_permanent = previous.as_ref().is_some_and(Object::is_permanent);
        let permanent = match version.max_age() {
            Some(_) if !was_permanent => Some("true"),
            None if was_permanent => Some("false"),
            _ => before,
        };
        session.set(PERMANENT, permanent.map(str::to_owned));
        codec::encode(self.serialization, version, &session)
    }

    fn idle_timeout(&self) -> Duration {
        match self.serialization {
            Serialization::Pickle => DAY,
            Serialization::Json | Serialization::MessagePack => 31 * DAY,
        }
    }
}

/// Shows no key.
impl fmt::Debug for Flask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flask")
            .field("signers", &self.signers.len())
            .finish_non_exhaustive()
    }
}
