//! The way back after a login: a path on this host, never another's URL.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longer paths would make a request line that servers refuse.
const MAX_LEN: usize = 2048;

/// Where to go after a login: a path on this host. Anything else becomes `/`.
///
/// [`with_sign_in_page`](crate::RedisSessionLayer::with_sign_in_page) sends browsers to the sign-in page with `?next=/the/page`. A link from
/// another site can contain any `next`, such as `//evil.example`, so that a victim signs in here and arrives there (CWE-601). This type
/// accepts a path and query of visible ASCII characters that begin with one slash. It refuses other hosts, schemes, backslashes, control
/// characters, dot segments, and the percent-encoded forms of these.
///
/// It is deserialized from any text, also in a form, and is `/` by default.
///
/// # Examples
///
/// ```
/// use axum::{Form, response::Redirect};
/// use axum_redis_sessions::{NextPath, Session, SessionError};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct SignIn {
///     password: String,
///     #[serde(default)]
///     next: NextPath,
/// }
///
/// async fn sign_in(session: Session, Form(form): Form<SignIn>) -> Result<Redirect, SessionError> {
///     // … check the password …
///     session.log_in("42")?;
///     Ok(Redirect::to(form.next.as_str()))
/// }
///
/// assert_eq!(NextPath::new("/cart?step=2").as_str(), "/cart?step=2");
/// assert_eq!(NextPath::new("//evil.example").as_str(), "/");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NextPath(String);

impl NextPath {
    /// The path, or `/` if it is not a path on this host.
    #[must_use]
    pub fn new(path: impl Into<String>) -> Self {
        let path = path.into();
        if is_safe(&path) {
            Self(path)
        } else {
            Self::default()
        }
    }

    /// The path, for a redirect or a hidden form field.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for NextPath {
    fn default() -> Self {
        Self("/".to_owned())
    }
}

impl AsRef<str> for NextPath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NextPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<NextPath> for String {
    fn from(path: NextPath) -> Self {
        path.0
    }
}

impl Serialize for NextPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for NextPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = Option::<String>::deserialize(deserializer)?;
        Ok(path.map(Self::new).unwrap_or_default())
    }
}

/// Whether every browser, and every proxy that decodes or normalizes it, takes this for a path on the same host.
pub(crate) fn is_safe(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else {
        return false;
    };
    let is_visible = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    if path.len() > MAX_LEN || !path.bytes().all(is_visible) {
        return false;
    }
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let decoded = decode_fully(&rest.as_bytes()[..end]);
    let mut segments = decoded.split(|byte| *byte == b'/');
    // `//host` names a host. A dot segment may leave it behind: `/.//host`.
    let is_plain = |segment: &[u8]| segment != b"." && segment != b"..";
    !decoded.starts_with(b"/")
        && !decoded
            .iter()
            .any(|byte| byte.is_ascii_control() || *byte == b'\\')
        && segments.all(is_plain)
}

/// Decodes percent-encoded bytes until none is left.
fn decode_fully(path: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| Some((*byte? as char).to_digit(16)? as u8);
    let mut decoded: Vec<u8> = Vec::with_capacity(path.len());
    for byte in path {
        decoded.push(*byte);
        // A decoded byte may complete another one: `%252f`.
        while let [.., b'%', _, _] = decoded[..] {
            let end = decoded.len();
            let (Some(high), Some(low)) = (digit(decoded.get(end - 2)), digit(decoded.last()))
            else {
                break;
            };
            decoded.truncate(end - 3);
            decoded.push(high << 4 | low);
        }
    }
    decoded
}

/// `path` as the value of a query parameter.
#[cfg(feature = "axum")]
pub(crate) fn encode(path: &str) -> String {
    use std::fmt::Write;

    let mut encoded = String::with_capacity(path.len() + 16);
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(byte as char);
            }
            _ => write!(encoded, "%{byte:02X}").expect("writing to a String does not fail"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_on_this_host_is_accepted() {
        for path in [
            "/",
            "/cart",
            "/cart/",
            "/a//b",
            "/a/%2F",
            "/cart?step=2&next=//x",
            "/search?q=a%0Ab%5C%2F%2F",
            "/?u=https://example.com/",
            "/a:b@c",
            "/%E2%82%AC",
            "/100%",
            "/%zz",
            "/...",
            "/a#b",
            "/.well-known/x",
        ] {
            assert_eq!(NextPath::new(path).as_str(), path);
        }
    }

    #[test]
    fn anything_else_is_the_root() {
        let long = format!("/{}", "a".repeat(MAX_LEN));
        for path in [
            "",
            "cart",
            " /cart",
            "?a=b",
            "#a",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "\\/evil.example",
            "/a\\b",
            "/cart?a=\\",
            "https://evil.example",
            "https:evil.example",
            "javascript:alert(1)",
            "data:text/html,x",
            "/\t/evil.example",
            "/\n/evil.example",
            "\t//evil.example",
            "/a\r\nSet-Cookie: a=b",
            "/\0",
            "/ /evil.example",
            "/\u{7f}/evil.example",
            "/\u{a0}/evil.example",
            "/\u{2028}",
            "/€",
            "/%2Fevil.example",
            "/%2fevil.example",
            "/%5Cevil.example",
            "/%5cevil.example",
            "/%252Fevil.example",
            "/%25252fevil.example",
            "/%%32fevil.example",
            "/%09/evil.example",
            "/%0d%0aLocation:%20x",
            "/%00",
            "/./evil.example",
            "/.//evil.example",
            "/..//evil.example",
            "/a/..//evil.example",
            "/%2e%2e//evil.example",
            "/%2e/x",
            &long,
        ] {
            assert_eq!(NextPath::new(path).as_str(), "/", "{path:?}");
        }
    }

    #[test]
    fn it_is_deserialized_from_any_text() {
        for (json, expected) in [
            (r#""/a?b""#, "/a?b"),
            (r#""//a""#, "/"),
            (r#""\/\/a""#, "/"),
            ("null", "/"),
        ] {
            let path: NextPath = serde_json::from_str(json).expect("text");
            assert_eq!(path.as_str(), expected, "{json}");
        }
    }

    #[cfg(feature = "axum")]
    #[test]
    fn an_encoded_path_is_one_parameter() {
        assert_eq!(encode("/a b?c=d&e=%2F#f"), "/a%20b%3Fc%3Dd%26e%3D%252F%23f");
    }
}
