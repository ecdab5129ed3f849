//! Notices a Secure cookie that its browser drops, since the app is reached over plain HTTP.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use http::{HeaderMap, HeaderName, Request, Uri, header, uri::Authority};

/// In each process, the first requests are checked: enough to see those that a developer makes, few enough to cost nothing afterwards.
const MAX_CHECKS: u32 = 1_000;

static CHECKS: AtomicU32 = AtomicU32::new(0);

/// The headers by which proxies say that the browser used TLS, beside `Forwarded` (RFC 7239). Each is `https` or `on`, or a list.
static SCHEMES: [HeaderName; 8] = [
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-protocol"),
    HeaderName::from_static("x-forwarded-scheme"),
    HeaderName::from_static("x-forwarded-ssl"),
    HeaderName::from_static("x-url-scheme"),
    HeaderName::from_static("x-scheme"),
    HeaderName::from_static("front-end-https"),
    HeaderName::from_static("cloudfront-forwarded-proto"),
];

/// Browsers send it only to origins that they trust: HTTPS, and hosts such as localhost (Fetch Metadata Request Headers, section 2).
static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a browser that made this request drops a Secure cookie. `false` once enough requests were checked.
pub(crate) fn drops_secure_cookie<B>(request: &Request<B>) -> bool {
    if CHECKS.load(Relaxed) >= MAX_CHECKS {
        return false;
    }
    CHECKS.fetch_add(1, Relaxed);
    is_plain_http(request.uri(), request.headers())
}

/// Warns once in a process, when a Secure cookie is sent in the response to such a request.
pub(crate) fn warn() {
    if CHECKS.swap(MAX_CHECKS, Relaxed) >= MAX_CHECKS {
        return;
    }
    tracing::warn!(
        "a session cookie with Secure was sent over plain HTTP to a host other than localhost, so browsers drop it and each request \
         begins a new session: serve the app over HTTPS, or call with_secure(false) for development; a proxy that ends TLS should add \
         X-Forwarded-Proto"
    );
}

fn is_plain_http(uri: &Uri, headers: &HeaderMap) -> bool {
    let host = match headers.get(header::HOST) {
        Some(host) => host.to_str().ok(),
        None => uri.authority().map(Authority::as_str),
    };
    // Without a host it is no browser's request.
    let is_remote = host.is_some_and(|host| !host.is_empty() && !is_local(host));
    let is_https = || {
        uri.scheme_str() == Some("https")
            || headers.contains_key(&SEC_FETCH_SITE)
            || says_https(headers)
    };
    is_remote && !is_https()
}

fn says_https(headers: &HeaderMap) -> bool {
    let has_word = |name: &HeaderName, words: &[&str]| {
        let mut values = headers.get_all(name).iter();
        values.any(|value| {
            let is_word = |byte: &u8| byte.is_ascii_alphanumeric();
            let mut parts = value.as_bytes().split(|byte| !is_word(byte));
            parts.any(|part| {
                let mut words = words.iter();
                words.any(|word| part.eq_ignore_ascii_case(word.as_bytes()))
            })
        })
    };
    SCHEMES.iter().any(|name| has_word(name, &["https", "on"]))
        // `proto=https`, also with quotes; `CF-Visitor: {"scheme":"https"}`.
        || has_word(&header::FORWARDED, &["https"])
        || has_word(&HeaderName::from_static("cf-visitor"), &["https"])
}

/// The hosts from which browsers accept a Secure cookie over plain HTTP. `host` may have a port.
fn is_local(host: &str) -> bool {
    // What a developer's browser and a local client send, at no cost.
    if host.starts_with("localhost:") || host.starts_with("127.0.0.1:") {
        return true;
    }
    let host = match host.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => host,
    };
    let host = host.trim_end_matches('.');
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => {
            let top = host.rsplit('.').next();
            top.is_some_and(|label| label.eq_ignore_ascii_case("localhost"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_plain(uri: &str, headers: &[(&str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                value.parse().expect("a value"),
            );
        }
        is_plain_http(&uri.parse().expect("a URI"), &map)
    }

    #[test]
    fn a_host_is_local_or_not() {
        for (host, is_local) in [
            ("localhost", true),
            ("LOCALHOST:3000", true),
            ("localhost.", true),
            ("app.localhost:8080", true),
            ("127.0.0.1", true),
            ("127.255.0.9:80", true),
            ("[::1]", true),
            ("[::1]:3000", true),
            ("localhost.example.com", false),
            ("mylocalhost", false),
            ("example.com", false),
            ("192.168.1.5:3000", false),
            ("0.0.0.0:3000", false),
            ("10.0.0.1", false),
            ("[::2]", false),
            ("[::ffff:127.0.0.1]", false),
            ("127.0.0.1.example.com", false),
            ("server.local", false),
        ] {
            assert_eq!(is_plain("/", &[("host", host)]), !is_local, "{host}");
        }
        // Not a browser's.
        assert!(!is_plain("/", &[]));
        assert!(!is_plain("/", &[("host", "")]));
        // HTTP/2 has the host in the URI.
        assert!(is_plain("http://example.com/", &[]));
        assert!(!is_plain("https://example.com/", &[]));
        assert!(!is_plain("http://localhost:3000/", &[]));
    }

    #[test]
    fn a_header_says_https_or_not() {
        for (name, value, says_https) in [
            ("x-forwarded-proto", "https", true),
            ("x-forwarded-proto", "HTTPS", true),
            ("x-forwarded-proto", "https, http", true),
            ("x-forwarded-proto", "http", false),
            ("x-forwarded-proto", "httpsx", false),
            ("x-forwarded-protocol", "https", true),
            ("x-forwarded-scheme", "https", true),
            ("x-forwarded-ssl", "on", true),
            ("x-forwarded-ssl", "off", false),
            ("x-url-scheme", "https", true),
            ("x-scheme", "https", true),
            ("front-end-https", "On", true),
            ("front-end-https", "off", false),
            ("cloudfront-forwarded-proto", "https", true),
            ("cf-visitor", "{\"scheme\":\"https\"}", true),
            ("cf-visitor", "{\"scheme\":\"http\"}", false),
            (
                "forwarded",
                "for=192.0.2.60;proto=https;by=203.0.113.43",
                true,
            ),
            ("forwarded", "for=192.0.2.60; Proto=\"https\"", true),
            ("forwarded", "for=192.0.2.60;proto=http", false),
            ("sec-fetch-site", "same-origin", true),
            ("sec-fetch-site", "none", true),
            ("upgrade-insecure-requests", "1", false),
            ("x-forwarded-for", "192.0.2.60", false),
        ] {
            let headers = [("host", "example.com"), (name, value)];
            assert_eq!(is_plain("/", &headers), !says_https, "{name}: {value}");
        }
    }
}
