use std::{fmt, time::Duration};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use cookie::time::{OffsetDateTime, format_description::well_known::Rfc3339};
use hmac::{Hmac, Mac};
use serde_json::json;
use sha2::Sha256;

use super::{
    contract::{Format, FormatError},
    cookie_value::{hmac, open_express},
    json,
    live::{LiveFormat, Version},
    object::Object,
};

/// Express, with express-session and connect-redis.
///
/// The cookie is `connect.sid`, signed by one of the app's secrets; the value in Redis is JSON under `sess:<id>`. Its object `cookie` is not kept:
/// the new cookie has its own attributes. If the old cookie had a `maxAge`, the new session is permanent.
///
/// As a [live format](LiveFormat), it keeps `cookie`, which the app does not see, and treats its `maxAge` as the session's own timeout. Without one, a session
/// ends after a day without use, as connect-redis has it.
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
        object.0.retain(|(key, _)| key != "cookie");
        object.set_permanent(has_max_age(&cookie));
        Ok(object.to_json())
    }
}

impl Express {
    /// The object `cookie` of a stored session.
    fn cookie(stored: &[u8]) -> Option<Object> {
        let session = Object::parse(&json::decode(stored).ok()?).ok()?;
        Object::parse(session.get("cookie")?).ok()
    }
}

impl LiveFormat for Express {
    /// As uid-safe's, from 192 bits.
    fn new_id(&self, random: [u8; 32]) -> String {
        URL_SAFE_NO_PAD.encode(&random[..24])
    }

    fn cookie_value(&self, _cookie_name: &str, id: &str) -> String {
        let Some(mut code) = self.secrets.first().cloned() else {
            return String::new();
        };
        code.update(id.as_bytes());
        let signature = STANDARD_NO_PAD.encode(code.finalize().into_bytes());
        let value = ["s:", id, ".", &signature].concat();
        percent_encoded(&value)
    }

    fn encode(&self, version: &Version<'_>) -> Result<Vec<u8>, FormatError> {
        let app = Object::parse(version.json())?;
        if app.get("cookie").is_some() {
            return Err(FormatError::new(
                "the key `cookie` is that of express-session",
            ));
        }
        let mut session = Object::default();
        let before = version.previous().and_then(Self::cookie);
        let is_kept = |cookie: &Object| has_max_age(cookie) == version.max_age().is_some();
        let cookie = match before.filter(is_kept) {
            Some(cookie) => cookie.to_json(),
            None => new_cookie(version),
        };
        session.set("cookie", Some(cookie));
        session.extend(app);
        Ok(session.to_json().into_bytes())
    }

    fn timeout(&self, stored: &[u8]) -> Option<Duration> {
        let millis = Self::cookie(stored)?.get("originalMaxAge")?.parse().ok()?;
        Some(Duration::from_millis(millis))
    }
}

fn has_max_age(cookie: &Object) -> bool {
    cookie
        .get("originalMaxAge")
        .is_some_and(|age| age != "null")
}

/// What express-session stores for a cookie with these attributes.
fn new_cookie(version: &Version<'_>) -> String {
    let max_age = version.max_age();
    let expires = max_age.and_then(|age| {
        let expires = OffsetDateTime::now_utc() + age;
        expires.replace_nanosecond(0).ok()?.format(&Rfc3339).ok()
    });
    let attributes = version.cookie();
    let mut cookie = json!({
        "originalMaxAge": max_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        "expires": expires,
        "secure": attributes.secure,
        "httpOnly": attributes.http_only,
        "path": attributes.path,
        "sameSite": attributes.same_site,
    });
    if let Some(domain) = attributes.domain {
        cookie["domain"] = domain.into();
    }
    cookie.to_string()
}

/// As JavaScript's `encodeURIComponent`.
fn percent_encoded(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len() + 16);
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Shows no secret.
impl fmt::Debug for Express {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Express")
            .field("secrets", &self.secrets.len())
            .finish_non_exhaustive()
    }
}
