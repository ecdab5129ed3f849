use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

/// Identifies a session on a page, for example in a hidden form field. It cannot be used to authenticate.
///
/// 128 bits of a SHA-256 hash of the session's key, written as 22 characters of A-Z, a-z, 0-9, `-` and `_`. It changes with the session's
/// id.
///
/// ```
/// use axum_redis_sessions::SessionHandle;
///
/// let handle: SessionHandle = "AAECAwQFBgcICQoLDA0ODw".parse().unwrap();
/// assert_eq!(handle.to_string(), "AAECAwQFBgcICQoLDA0ODw");
/// assert!("not a handle".parse::<SessionHandle>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionHandle([u8; 16]);

/// The error of a text that is not a [`SessionHandle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseSessionHandleError(());

impl SessionHandle {
    pub(crate) fn of(key: &str) -> Self {
        // Domain separation: the hash in a key of `with_hashed_keys` is not a handle.
        let mut hash = Sha256::new_with_prefix(b"axum-redis-sessions handle\0");
        hash.update(key.as_bytes());
        let mut handle = [0; 16];
        handle.copy_from_slice(&hash.finalize()[..16]);
        Self(handle)
    }
}

impl fmt::Display for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl FromStr for SessionHandle {
    type Err = ParseSessionHandleError;

    fn from_str(text: &str) -> Result<Self, ParseSessionHandleError> {
        let bytes = URL_SAFE_NO_PAD.decode(text);
        let handle = bytes.ok().and_then(|bytes| bytes.try_into().ok());
        handle.map(Self).ok_or(ParseSessionHandleError(()))
    }
}

impl Serialize for SessionHandle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionHandle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl fmt::Display for ParseSessionHandleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a session handle, which is 22 characters of A-Z, a-z, 0-9, - and _: pass the text of UserSession::handle")
    }
}

impl std::error::Error for ParseSessionHandleError {}
