use super::{
    any::{decode_any, is_id},
    contract::{Format, FormatError},
    object::Object,
};

/// Django's sessions in a cache (`django.contrib.sessions.backends.cache`) on django-redis.
///
/// The cookie is `sessionid`; the key is `:1:django.contrib.sessions.cache<id>`, where `KEY_PREFIX` and `VERSION` of the cache are in front. The
/// value may be written by django-redis' `PickleSerializer`, its default (plain data only; no code is run), `JSONSerializer` or
/// `MSGPackSerializer`, without a compressor.
///
/// The new session is permanent, unless the old one had `set_expiry(0)`. With `SESSION_EXPIRE_AT_BROWSER_CLOSE`, call
/// [`set_permanent(false)`](crate::Session::set_permanent). The engine `cached_db` stores the session under another prefix, and its table keeps a
/// copy that stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Django {
    _private: (),
}

impl Django {
    /// With the settings above.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
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
        let mut object = Object::parse(&decode_any(stored)?)?;
        let ends_with_browser = object.get("_session_expiry") == Some("0");
        object.set_permanent(!ends_with_browser);
        Ok(object.to_json())
    }
}
