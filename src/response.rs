//! What a response says about the session: Set-Cookie, Vary, Cache-Control, and the responses that report an error.

use std::mem;

use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{self, Entry},
};

use crate::{
    body::ErrorBody,
    commit::{SessionCell, state::CookieAction},
    config::Config,
    cookie,
    error::SessionError,
    expiry, plain_http,
    session::lazy::LazySession,
};

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// RFC 9213, its predecessor, and the forms for one CDN or for nginx: they override Cache-Control.
static CDN_CACHE_CONTROL: [HeaderName; 7] = [
    HeaderName::from_static("cdn-cache-control"),
    HeaderName::from_static("surrogate-control"),
    HeaderName::from_static("cloudflare-cdn-cache-control"),
    HeaderName::from_static("netlify-cdn-cache-control"),
    HeaderName::from_static("vercel-cdn-cache-control"),
    HeaderName::from_static("edge-control"),
    HeaderName::from_static("x-accel-expires"),
];

/// Headers that describe a body or an outcome, or that act on the outcome: in the browser, or in a proxy, which sends a file instead.
static DESCRIBES_OUTCOME: [HeaderName; 19] = [
    header::SET_COOKIE,
    header::LOCATION,
    header::ETAG,
    header::LAST_MODIFIED,
    header::CACHE_CONTROL,
    header::EXPIRES,
    header::ACCEPT_RANGES,
    header::TRANSFER_ENCODING,
    header::TRAILER,
    header::REFRESH,
    header::AGE,
    header::CONNECTION,
    header::UPGRADE,
    HeaderName::from_static("clear-site-data"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("x-accel-redirect"),
    HeaderName::from_static("x-sendfile"),
    HeaderName::from_static("x-lighttpd-send-file"),
];

/// Beginnings of further ones, such as `Content-Type`, htmx' `HX-Redirect`, and the status of gRPC.
const DESCRIBE_OUTCOME: [&str; 4] = ["content-", "hx-", "grpc-", "sec-websocket-"];

/// Adds the Set-Cookie header that the session calls for, or the header in its place. Neither can be set afterwards.
pub(crate) fn set_cookie(lazy: &LazySession, session: &SessionCell, headers: &mut HeaderMap) {
    let config = &session.context.config;
    let header = config.header.as_ref().filter(|_| lazy.is_by_header());
    #[cfg(feature = "migration")]
    let migrations = mem::take(&mut session.state().old.migrations);
    let cookie = {
        let mut state = session.state();
        state.headers_sent = true;
        let action = mem::replace(&mut state.cookie, CookieAction::Keep);
        match (action, state.id(), header) {
            (CookieAction::Keep, ..) | (CookieAction::Issue, None, _) => return,
            (CookieAction::Issue, id, Some(header)) => header.value(&config.cookie, id),
            (CookieAction::Remove, _, Some(header)) => header.value(&config.cookie, None),
            (CookieAction::Issue, Some(id), None) => {
                if lazy.head().drops_cookie {
                    plain_http::warn();
                }
                let max_age = expiry::max_age(config, state.changes.metadata(&state.base));
                cookie::issue(&config.cookie, id, max_age)
            }
            (CookieAction::Remove, _, None) => cookie::remove(&config.cookie),
        }
    };
    match header {
        Some(header) => drop(headers.insert(header.name.clone(), cookie)),
        None => drop(headers.append(header::SET_COOKIE, cookie)),
    }
    #[cfg(feature = "migration")]
    for migration in migrations {
        let own = &config.cookie;
        let is_replaced = migration.has_cookie(own.name(), own.domain.as_deref(), &own.path);
        for line in migration.removals(is_replaced).unwrap_or_default() {
            headers.append(header::SET_COOKIE, line);
        }
    }
    // RFC 9111, section 7.3: a cache may store a response with Set-Cookie unless told otherwise.
    if !has_directive(headers, &header::CACHE_CONTROL, &["no-store"]) {
        headers.insert(header::CACHE_CONTROL, NO_STORE);
    }
    for name in &CDN_CACHE_CONTROL {
        headers.remove(name);
    }
}

/// Whether the handler marked the response for shared caches. A renewed cookie waits for another response, since a cookie makes its
/// response `no-store`.
///
/// `no-cache`, and `0` of nginx, is no such mark: each use asks this server anyway, and an app that sends it with all responses would never renew a cookie.
pub(crate) fn is_for_shared_caches(headers: &HeaderMap) -> bool {
    let marks = |name: &HeaderName| {
        headers.contains_key(name)
            && !has_directive(headers, name, &["no-store", "private", "no-cache", "0"])
    };
    marks(&header::CACHE_CONTROL) || CDN_CACHE_CONTROL.iter().any(marks)
}

/// Replaces a response whose changes could not be saved, or that reports an error in the default form. The headers of inner layers
/// stay, such as those of CORS, a Content-Security-Policy and a request id; those that describe the former body or its outcome go.
pub(crate) fn replace_with_error<B: ErrorBody>(
    response: &mut Response<B>,
    lazy: &LazySession,
    error: &SessionError,
) {
    let mut headers = mem::take(response.headers_mut());
    let names: Vec<HeaderName> = headers.keys().cloned().collect();
    for name in names {
        let text = name.as_str();
        let has_prefix = DESCRIBE_OUTCOME.iter().any(|start| text.starts_with(start))
            && !text.starts_with("content-security-policy");
        let is_cache_control = || CDN_CACHE_CONTROL.contains(&name);
        if has_prefix || is_cache_control() || DESCRIBES_OUTCOME.contains(&name) {
            headers.remove(&name);
        }
    }
    *response = error_response(lazy, error);
    let own = mem::take(response.headers_mut());
    for name in own.keys().filter(|name| *name != header::VARY) {
        headers.remove(name);
    }
    for (name, value) in &own {
        let is_known = || headers.get_all(name).iter().any(|other| other == value);
        if name != header::VARY || !is_known() {
            headers.append(name, value.clone());
        }
    }
    vary(&mut headers, lazy.config());
    *response.headers_mut() = headers;
}

/// The response depends on the cookie (Flask, CVE-2026-27205), or the header in its place.
pub(crate) fn vary(headers: &mut HeaderMap, config: &Config) {
    if config.has_cookie {
        vary_by(headers, HeaderValue::from_static("Cookie"));
    }
    if let Some(header) = &config.header {
        vary_by(headers, header.name.clone().into());
    }
}

#[inline]
fn vary_by(headers: &mut HeaderMap, name: HeaderValue) {
    let has_name = |value: &HeaderValue| {
        value.as_bytes().split(|byte| *byte == b',').any(|other| {
            let other = other.trim_ascii();
            other == b"*" || other.eq_ignore_ascii_case(name.as_bytes())
        })
    };
    match headers.entry(header::VARY) {
        Entry::Vacant(entry) => {
            entry.insert(name);
        }
        Entry::Occupied(mut entry) => {
            if !entry.iter().any(has_name) {
                entry.append(name);
            }
        }
    }
}

/// The response that reports `error`, in the app's form if it has one.
pub(crate) fn error_response<B: ErrorBody>(
    lazy: &LazySession,
    error: &SessionError,
) -> Response<B> {
    let mut response = match (&lazy.config().error_response, &lazy.head().parts) {
        (Some(respond), Some(request)) => respond(error, request),
        _ => error.to_response(),
    };
    let status = response.status();
    let headers = response.headers_mut();
    // An error is transient, whatever status the app gave it.
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, NO_STORE);
    }
    if status == StatusCode::SERVICE_UNAVAILABLE && !headers.contains_key(header::RETRY_AFTER) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    vary(headers, lazy.config());
    response.map(B::from_error_text)
}

/// Whether the header has one of these directives without a field name (`private="set-cookie"` concerns one header only).
fn has_directive(headers: &HeaderMap, name: &HeaderName, directives: &[&str]) -> bool {
    let mut values = headers.get_all(name).iter();
    values.any(|value| {
        let mut is_quoted = false;
        let mut parts = value.as_bytes().split(|byte| {
            is_quoted ^= *byte == b'"';
            *byte == b',' && !is_quoted
        });
        parts.any(|part| {
            let part = part.trim_ascii();
            let mut directives = directives.iter();
            directives.any(|directive| part.eq_ignore_ascii_case(directive.as_bytes()))
        })
    })
}
