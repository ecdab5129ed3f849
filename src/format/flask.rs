use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use super::{
    any::{decode_any, is_id},
    contract::{Format, FormatError},
    cookie_value::percent_decoded,
};

/// Flask, with Flask-Session on Redis or a session interface of its own that stores `session:<id>`.
///
/// The cookie is `session`. The value in Redis may be MessagePack (Flask-Session 0.7 and later), JSON, or a pickle (before, and most
/// interfaces of apps' own). Of a pickle, plain data is read; one that names a class is refused, and no code is run. An id has 22 to 128 letters, digits,
/// `-` and `_`: UUIDs and the tokens of Flask-Session.
///
/// A session with `_permanent` stays permanent. Flask's own `session` without a server-side store is a signed cookie that Redis knows nothing of; it
/// cannot be migrated.
#[derive(Clone, Default)]
pub struct Flask {
    /// Empty: the cookie is not signed.
    signers: Vec<Hmac<Sha1>>,
}

impl Flask {
    /// Without a signature, as by default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
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

/// Shows no key.
impl fmt::Debug for Flask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flask")
            .field("signers", &self.signers.len())
            .finish_non_exhaustive()
    }
}
