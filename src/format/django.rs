use std::time::Duration;

use cookie::time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    any::{Serialization, decode_any, is_id},
    codec,
    contract::{Format, FormatError},
    live::{LiveFormat, Version},
    object::Object,
};

/// Where Django keeps the timeout of one session: seconds, or the time of its end.
const EXPIRY: &str = "_session_expiry";

/// Django's sessions in a cache (`django.contrib.sessions.backends.cache`) on django-redis.
///
/// The cookie is `sessionid`; the key is `:1:django.contrib.sessions.cache<id>`, where `KEY_PREFIX` and `VERSION` of the cache are in front. The
/// value may be written by django-redis' `PickleSerializer`, its default (plain data only; no code is run), `JSONSerializer` or
/// `MSGPackSerializer`, without a compressor.
///
/// The new session is permanent, unless the old one had `set_expiry(0)`. With `SESSION_EXPIRE_AT_BROWSER_CLOSE`, call
/// [`set_permanent(false)`](crate::Session::set_permanent). The engine `cached_db` stores the session under another prefix, and its table keeps a
/// copy that stays as it is.
///
/// As a [live format](LiveFormat), it writes new sessions as django-redis does by default, as a pickle, and each other session in the form that it had. The
/// timeout is two weeks, Django's `SESSION_COOKIE_AGE`. Django logs in by itself only: its login needs a hash that this crate cannot compute.
#[derive(Clone, Debug)]
pub struct Django {
    serialization: Serialization,
}

impl Default for Django {
    fn default() -> Self {
        Self {
            serialization: Serialization::Pickle,
        }
    }
}

impl Django {
    /// With the settings above.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How new sessions are written, with [`with_format`](crate::RedisSessionLayer::with_format). All forms are read.
    #[must_use]
    pub fn with_serialization(self, serialization: Serialization) -> Self {
        Self { serialization }
    }
}

impl Format for Django {
    fn cookie_name(&self) -> &str {
        "sessionid"
    }

    fn prefix(&self) -> &str {
        ":1:django.contrib.sessions.cache"
    }

    fn id(&self, _cookie_name: &str, cookie_value: &str) -> Option<String> {
        let is_lower = !cookie_value.bytes().any(|byte| byte.is_ascii_uppercase());
        (is_lower && is_id(cookie_value, 32..=32, b"")).then(|| cookie_value.to_owned())
    }

    fn decode(&self, stored: &[u8]) -> Result<String, FormatError> {
        Ok(with_permanence(Object::parse(&decode_any(stored)?)?))
    }
}

/// As JSON, which says whether the cookie outlives the browser.
fn with_permanence(mut session: Object) -> String {
    let ends_with_browser = session.get(EXPIRY) == Some("0");
    session.set_permanent(!ends_with_browser);
    session.to_json()
}

impl LiveFormat for Django {
    /// 32 letters and digits. Each has at least 5 bits of entropy, so the id has 160.
    fn new_id(&self, random: [u8; 32]) -> String {
        const CHARS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let chars = random.iter().map(|byte| CHARS[usize::from(*byte) % 36]);
        chars.map(char::from).collect()
    }

    fn cookie_value(&self, _cookie_name: &str, id: &str) -> String {
        id.to_owned()
    }

    fn decode_live(&self, stored: &[u8]) -> Result<String, FormatError> {
        Ok(with_permanence(codec::decode(stored)?))
    }

    fn encode(&self, version: &Version<'_>) -> Result<Vec<u8>, FormatError> {
        let mut session = Object::parse(version.json())?;
        match version.max_age() {
            None => session.set(EXPIRY, Some("0".to_owned())),
            Some(_) if session.get(EXPIRY) == Some("0") => session.set(EXPIRY, None),
            Some(_) => {}
        }
        codec::encode(self.serialization, version, &session)
    }

    fn timeout(&self, stored: &[u8]) -> Option<Duration> {
        let session = codec::decode(stored).ok()?;
        let expiry = session.get(EXPIRY)?;
        if let Ok(secs) = expiry.parse::<u64>() {
            return (secs > 0).then(|| Duration::from_secs(secs));
        }
        let at: String = serde_json::from_str(expiry).ok()?;
        let left = OffsetDateTime::parse(&at, &Rfc3339).ok()? - OffsetDateTime::now_utc();
        // What is over has a timeout of 0.
        Some(left.try_into().unwrap_or_default())
    }

    fn idle_timeout(&self) -> Duration {
        Duration::from_secs(14 * 24 * 60 * 60)
    }

    fn permanent_lifetime(&self) -> Duration {
        self.idle_timeout()
    }
}
