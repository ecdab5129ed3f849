//! How an id travels: in the session cookie, or in a header. Parsed from a request, issued and removed by a response.

use std::{fmt::Write, time::Duration};

use cookie::{Cookie, time};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    config::{Config, CookieConfig, HeaderConfig, SameSite},
    id::SessionId,
    signing::Signature,
};

/// A request's headers that may present ids, which are parsed when the session is loaded.
#[derive(Clone, Default)]
pub(crate) struct PresentedIds {
    first: Option<HeaderValue>,
    /// HTTP/2 may split the Cookie header (RFC 9113, section 8.2.3).
    more: Vec<HeaderValue>,
    by_header: bool,
}

impl PresentedIds {
    /// A request with the header of [`HeaderConfig`], whatever its value, presents no cookie: so neither can be used to learn the other's id.
    pub(crate) fn from_headers(headers: &HeaderMap, config: &Config) -> Self {
        if let Some(header) = &config.header
            && (!config.has_cookie || header.is_in(headers))
        {
            return Self::new(headers, &header.name, true);
        }
        Self::new(headers, &header::COOKIE, false)
    }

    fn new(headers: &HeaderMap, name: &HeaderName, by_header: bool) -> Self {
        let mut values = headers.get_all(name).iter().cloned();
        Self {
            first: values.next(),
            more: values.collect(),
            by_header,
        }
    }

    /// Whether the response is to have a header instead of a cookie.
    pub(crate) fn is_by_header(&self) -> bool {
        self.by_header
    }

    /// The Cookie headers; none if the id travels in another header.
    #[cfg(feature = "migration")]
    pub(crate) fn cookie_headers(&self) -> impl Iterator<Item = &[u8]> {
        let headers = self.first.iter().chain(&self.more);
        headers
            .filter(|_| !self.by_header)
            .map(HeaderValue::as_bytes)
    }

    /// The well-formed ids in the header, or under the cookie's name; with signing keys, those with a valid signature.
    ///
    /// Deliberately not `cookie::Cookie::split_parse`: it needs UTF-8, and another cookie of this host may contain other bytes.
    pub(crate) fn ids(&self, config: &Config) -> impl Iterator<Item = (SessionId, Signature)> {
        let cookie = &config.cookie;
        let header = config.header.as_ref().filter(|_| self.by_header);
        let name = header.map_or_else(|| cookie.name(), |header| header.name.as_str());
        self.first.iter().chain(&self.more).flat_map(move |line| {
            line.as_bytes()
                .split(move |byte| *byte == b';' && header.is_none())
                .filter_map(move |part| {
                    let value = match header {
                        Some(header) => header.token(part)?,
                        None => part
                            .trim_ascii_start()
                            .strip_prefix(name.as_bytes())?
                            .strip_prefix(b"=")?,
                    };
                    #[cfg(feature = "migration")]
                    if let Some(sharing) = &cookie.sharing {
                        return Some((sharing.id(name, value)?, Signature::Current));
                    }
                    let (id, signature) = match &cookie.signer {
                        Some(signer) => signer.verify(name, value)?,
                        None => (value, Signature::Current),
                    };
                    Some((SessionId::parse(id)?, signature))
                })
        })
    }
}

impl HeaderConfig {
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(&self.name).iter();
        values.any(|value| !self.is_bearer || bearer(value.as_bytes()).is_some())
    }

    fn token<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        if self.is_bearer {
            bearer(value)
        } else {
            Some(value.trim_ascii())
        }
    }

    /// The value that tells the client its id; without one, that its session has ended.
    pub(crate) fn value(&self, cookie: &CookieConfig, id: Option<SessionId>) -> HeaderValue {
        let Some(id) = id else {
            return HeaderValue::from_static("");
        };
        let token = signed(cookie, self.name.as_str(), id);
        let text = if self.is_bearer {
            ["Bearer ", &token].concat()
        } else {
            token
        };
        sensitive(HeaderValue::try_from(text).expect("an id and its signature are ASCII"))
    }
}

/// The token of `Bearer <token>` (RFC 6750, section 2.1), which may be empty. The scheme's name is case-insensitive (RFC 9110, section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"Bearer";
    let value = value.trim_ascii();
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    let is_separated = token.first().is_none_or(|byte| *byte == b' ');
    (scheme.eq_ignore_ascii_case(SCHEME) && is_separated).then(|| token.trim_ascii())
}

fn signed(config: &CookieConfig, name: &str, id: SessionId) -> String {
    #[cfg(feature = "migration")]
    if let Some(sharing) = &config.sharing {
        return sharing.format().cookie_value(name, id.as_str());
    }
    match &config.signer {
        Some(signer) => signer.sign(name, id.as_str()),
        None => id.expose_secret(),
    }
}

/// Excludes the value from the `Debug` output of headers and from HPACK's dynamic table.
fn sensitive(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

/// The Set-Cookie that stores `id` in the browser, for `max_age` or as a session cookie.
pub(crate) fn issue(
    config: &CookieConfig,
    id: SessionId,
    max_age: Option<Duration>,
) -> HeaderValue {
    let mut cookie = with_attributes(config, signed(config, config.name(), id));
    if let Some(max_age) = max_age {
        cookie.set_max_age(time::Duration::seconds(
            max_age.as_secs().try_into().unwrap_or(i64::MAX),
        ));
    }
    sensitive(header(&cookie))
}

/// `name=value`, as a browser sends it in a Cookie header.
pub(crate) fn pair(config: &CookieConfig, id: SessionId) -> HeaderValue {
    let pair = [config.name(), "=", &signed(config, config.name(), id)].concat();
    sensitive(HeaderValue::try_from(pair).expect("the name was checked, and a value is ASCII"))
}

/// The Set-Cookie that removes the cookie. Its attributes are those of [`issue`]: a browser removes only a cookie with the same name,
/// Domain, Path and partition, and rejects a `__Host-` cookie without Secure.
pub(crate) fn remove(config: &CookieConfig) -> HeaderValue {
    let mut cookie = with_attributes(config, String::new());
    cookie.set_max_age(time::Duration::ZERO);
    cookie.set_expires(time::OffsetDateTime::UNIX_EPOCH);
    header(&cookie)
}

fn with_attributes(config: &CookieConfig, value: String) -> Cookie<'_> {
    let mut cookie = Cookie::build((config.name(), value))
        .path(&config.path)
        .http_only(config.http_only)
        .secure(config.secure)
        .same_site(match config.same_site {
            SameSite::Strict => cookie::SameSite::Strict,
            SameSite::Lax => cookie::SameSite::Lax,
            SameSite::None => cookie::SameSite::None,
        })
        .partitioned(config.partitioned);
    if let Some(domain) = &config.domain {
        cookie = cookie.domain(domain);
    }
    cookie.build()
}

fn header(cookie: &Cookie<'_>) -> HeaderValue {
    // With room for the attributes, so that one allocation suffices.
    let mut line = String::with_capacity(cookie.name().len() + cookie.value().len() + 160);
    write!(line, "{cookie}").expect("writing to a String does not fail");
    HeaderValue::try_from(line)
        .expect("name, Domain and Path were checked when the layer was built")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e";
    const OTHER: &str = "6e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e";

    fn find(headers: &[&[u8]]) -> Option<String> {
        let mut map = HeaderMap::new();
        for header in headers {
            map.append(
                header::COOKIE,
                HeaderValue::from_bytes(header).expect("a header value"),
            );
        }
        let mut config = Config::default();
        config.cookie.name = Some("session".to_owned());
        PresentedIds::from_headers(&map, &config)
            .ids(&config)
            .next()
            .map(|(id, _)| id.expose_secret())
    }

    #[test]
    fn the_cookie_is_found_among_other_cookies() {
        let many = format!("{}session={ID}", "a=b; ".repeat(1000));
        for (name, headers) in [
            ("alone", vec![format!("session={ID}").into_bytes()]),
            (
                "between others",
                vec![format!("a=b; session={ID}; c=d").into_bytes()],
            ),
            (
                "without a space",
                vec![format!("a=b;session={ID}").into_bytes()],
            ),
            (
                "in the second header",
                vec![b"a=b".to_vec(), format!("session={ID}").into_bytes()],
            ),
            ("after 1,000 others", vec![many.into_bytes()]),
            (
                "after a cookie that is not UTF-8",
                vec![[b"a=\xff; session=", ID.as_bytes()].concat()],
            ),
            (
                "after a malformed one of the same name",
                vec![format!("session=x; session={ID}").into_bytes()],
            ),
            (
                "the first of two",
                vec![format!("session={ID}; session={OTHER}").into_bytes()],
            ),
        ] {
            let headers: Vec<&[u8]> = headers.iter().map(Vec::as_slice).collect();
            assert_eq!(find(&headers).as_deref(), Some(ID), "{name}");
        }
    }

    #[test]
    fn a_malformed_cookie_has_no_id() {
        for (name, header) in [
            ("empty", "session=".to_owned()),
            ("no value", "session".to_owned()),
            ("quoted", format!("session=\"{ID}\"")),
            (
                "percent-encoded",
                format!("session={}", ID.replace('-', "%2D")),
            ),
            ("name in another case", format!("Session={ID}")),
            ("a longer name", format!("xsession={ID}")),
            ("a name with the same beginning", format!("session2={ID}")),
            ("a space before the value", format!("session= {ID}")),
            ("a space behind the value", format!("session={ID} ; a=b")),
            ("two ids", format!("session={ID}{ID}")),
            ("4 KiB", format!("session={}", "a".repeat(4096))),
            ("64 KiB", format!("session={}", "a".repeat(65_536))),
        ] {
            assert_eq!(find(&[header.as_bytes()]), None, "{name}");
        }
    }

    /// Parsing is linear; the limit is far above the usual time, for unoptimized builds and busy machines.
    #[test]
    fn a_thousand_other_cookies_take_less_than_5_ms() {
        let header = format!("{}session={ID}", "name=value; ".repeat(1000));
        let times = (0..50).map(|_| {
            let start = std::time::Instant::now();
            assert!(find(&[header.as_bytes()]).is_some());
            start.elapsed()
        });
        let quickest = times.min().expect("fifty");
        println!("{quickest:?}");
        assert!(quickest < Duration::from_millis(5), "{quickest:?}");
    }

    #[test]
    fn set_cookie_has_this_exact_text() {
        let id = SessionId::parse(ID.as_bytes()).expect("an id");
        let standard = Config::default().cookie;
        let month = Some(Duration::from_secs(2_678_400));
        let framed = CookieConfig {
            name: Some("sid".into()),
            domain: Some("example.com".into()),
            path: "/app".into(),
            same_site: SameSite::None,
            partitioned: true,
            ..standard.clone()
        };
        let bare = CookieConfig {
            secure: false,
            http_only: false,
            same_site: SameSite::Strict,
            ..standard.clone()
        };
        for (line, expected) in [
            (issue(&standard, id, None), format!("__Host-session={ID}; HttpOnly; SameSite=Lax; Secure; Path=/")),
            (issue(&standard, id, month), format!("__Host-session={ID}; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=2678400")),
            (remove(&standard), "__Host-session=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT".into()),
            (issue(&framed, id, None), format!("sid={ID}; HttpOnly; SameSite=None; Partitioned; Secure; Path=/app; Domain=example.com")),
            (remove(&framed), "sid=; HttpOnly; SameSite=None; Partitioned; Secure; Path=/app; Domain=example.com; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT".into()),
            (issue(&bare, id, None), format!("session={ID}; SameSite=Strict; Path=/")),
        ] {
            assert_eq!(line, expected);
        }
    }
}
