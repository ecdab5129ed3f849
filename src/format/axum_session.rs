use super::{
    any::is_id,
    contract::{Format, FormatError},
    json,
    object::Object,
};

/// axum_session 0.16 to 0.22, with axum_session_redispool, and without a `key` in its configuration.
///
/// The cookies are `session`, a UUID, and `store`; the key in Redis is `sessions:<id>`; the value is JSON. The new session is permanent, as
/// axum_session gives each of its cookies a lifetime.
///
/// With a `key`, axum_session signs or encrypts the cookie together with the client's address and user agent, and the value in Redis; such sessions
/// are not read.
#[derive(Clone, Debug, Default)]
pub struct AxumSession {
    _private: (),
}

impl AxumSession {
    /// With the settings above.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Format for AxumSession {
    fn cookie_name(&self) -> &str {
        "session"
    }

    fn prefix(&self) -> &str {
        "sessions:"
    }

    fn id(&self, _cookie_name: &str, cookie_value: &str) -> Option<String> {
        is_id(cookie_value, 36..=36, b"-").then(|| cookie_value.to_owned())
    }

    fn decode(&self, stored: &[u8]) -> Result<String, FormatError> {
        let object = Object::parse(&json::decode(stored)?)?;
        let data = object.get("data").map(Object::parse).transpose()?;
        let data = data.ok_or(FormatError::new("it has no object `data`"))?;
        let mut data = data.unquoted()?;
        data.set_permanent(true);
        Ok(data.to_json())
    }

    fn other_cookies(&self) -> &[&str] {
        &["store"]
    }
}
