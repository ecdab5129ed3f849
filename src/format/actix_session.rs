use super::{
    any::is_id,
    contract::{Format, FormatError},
    cookie_value::CookieForm,
    json,
    object::Object,
};

/// actix-session 0.10 and 0.11, with its `RedisSessionStore`.
///
/// The cookie is `id`, encrypted by default; the key in Redis is the 64 characters inside, without a prefix (see
/// [`Migration::with_prefix`](super::Migration::with_prefix) for the store's `cache_keygen`); the value is JSON. Whether the cookie was to outlive the
/// browser is not stored: call [`set_permanent`](crate::Session::set_permanent) if it was.
#[derive(Clone, Debug)]
pub struct ActixSession {
    form: CookieForm,
}

impl ActixSession {
    /// `CookieContentSecurity::Private`, the default. `key` is the output of `Key::master()`.
    #[must_use]
    pub fn private(key: &[u8; 64]) -> Self {
        Self {
            form: CookieForm::private(key),
        }
    }

    /// `CookieContentSecurity::Signed`. `key` is the output of `Key::master()`.
    #[must_use]
    pub fn signed(key: &[u8; 64]) -> Self {
        Self {
            form: CookieForm::signed(key),
        }
    }
}

impl Format for ActixSession {
    fn cookie_name(&self) -> &str {
        "id"
    }

    fn prefix(&self) -> &str {
        ""
    }

    fn id(&self, cookie_name: &str, cookie_value: &str) -> Option<String> {
        let id = self.form.open(cookie_name, cookie_value)?;
        is_id(&id, 64..=64, b"").then_some(id)
    }

    fn decode(&self, stored: &[u8]) -> Result<String, FormatError> {
        let object = Object::parse(&json::decode(stored)?)?;
        Ok(object.unquoted()?.to_json())
    }
}
