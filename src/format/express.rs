use std::fmt;

use hmac::Hmac;
use sha2::Sha256;

use super::{
    contract::{Format, FormatError},
    cookie_value::{hmac, open_express},
    json,
    object::Object,
};

/// Express, with express-session and connect-redis.
///
/// The cookie is `connect.sid`, signed by one of the app's secrets; the value in Redis is JSON under `sess:<id>`. Its object `cookie` is not kept:
/// the new cookie has its own attributes. If the old cookie had a `maxAge`, the new session is permanent.
#[derive(Clone)]
pub struct Express {
    secrets: Vec<Hmac<Sha256>>,
}

impl Express {
    /// With the `secret` of express-session; all of them, if it is an array.
    #[must_use]
    pub fn new(secrets: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let secrets = secrets.into_iter();
        Self {
            secrets: secrets.map(|secret| hmac(secret.as_ref())).collect(),
        }
    }
}

impl Format for Express {
    fn cookie_name(&self) -> &str {
        "connect.sid"
    }

    fn prefix(&self) -> &str {
        "sess:"
    }

    /// An app may generate ids of its own form (`genid`). The signature shows that it did.
    fn id(&self, _cookie_name: &str, cookie_value: &str) -> Option<String> {
        let id = open_express(&self.secrets, cookie_value)?;
        let is_text = id.bytes().all(|byte| byte.is_ascii_graphic());
        (is_text && (1..=256).contains(&id.len())).then_some(id)
    }

    fn decode(&self, stored: &[u8]) -> Result<String, FormatError> {
        let mut object = Object::parse(&json::decode(stored)?)?;
        let cookie = object.get("cookie").map(Object::parse).transpose()?;
        let cookie = cookie.ok_or(FormatError::new("it has no object `cookie`"))?;
        let max_age = cookie.get("originalMaxAge").unwrap_or("null");
        object.0.retain(|(key, _)| key != "cookie");
        object.set_permanent(max_age != "null");
        Ok(object.to_json())
    }
}

/// Shows no secret.
impl fmt::Debug for Express {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Express")
            .field("secrets", &self.secrets.len())
            .finish_non_exhaustive()
    }
}
