use rmpv::{ValueRef, decode::read_value_ref_with_max_depth};

use super::{
    any::is_id,
    contract::{Format, FormatError},
    cookie_value::CookieForm,
    msgpack::write,
    object::{Json, MAX_DEPTH},
};

/// tower-sessions 0.14 and 0.15, with tower-sessions-redis-store.
///
/// The cookie is `id`: plain, signed or encrypted. The key in Redis is the id, without a prefix; the value is MessagePack. Whether the cookie was to
/// outlive the browser is not stored: call [`set_permanent`](crate::Session::set_permanent) if it was.
#[derive(Clone, Debug)]
pub struct TowerSessions {
    form: CookieForm,
}

impl TowerSessions {
    /// A plain cookie, as by default.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            form: CookieForm::Plain,
        }
    }

    /// The cookie of `with_signed(key)`. `key` is the output of `Key::master()`.
    #[must_use]
    pub fn signed(key: &[u8; 64]) -> Self {
        Self {
            form: CookieForm::signed(key),
        }
    }

    /// The cookie of `with_private(key)`. `key` is the output of `Key::master()`.
    #[must_use]
    pub fn private(key: &[u8; 64]) -> Self {
        Self {
            form: CookieForm::private(key),
        }
    }
}

impl Format for TowerSessions {
    fn cookie_name(&self) -> &str {
        "id"
    }

    fn prefix(&self) -> &str {
        ""
    }

    /// 128 bits in base64.
    fn id(&self, cookie_name: &str, cookie_value: &str) -> Option<String> {
        let id = self.form.open(cookie_name, cookie_value)?;
        is_id(&id, 22..=22, b"-_").then_some(id)
    }

    /// An array of the id, the map, and the expiry, which the key's TTL repeats.
    fn decode(&self, stored: &[u8]) -> Result<String, FormatError> {
        let mut rest = stored;
        let record = read_value_ref_with_max_depth(&mut rest, MAX_DEPTH + 1);
        let Ok(ValueRef::Array(parts)) = record else {
            return Err(FormatError::new("it is not a MessagePack array"));
        };
        let [_, data @ ValueRef::Map(_), _] = &parts[..] else {
            return Err(FormatError::new(
                "it is not an array of an id, a map and an expiry",
            ));
        };
        let mut json = Json::default();
        write(&mut json, data, 0)?;
        Ok(json.0)
    }
}
