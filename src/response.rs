//! What a response says about the session: Set-Cookie, Vary, Cache-Control, and the responses that report an error.

use std::mem;

use http::{
    HeaderMap, HeaderValue, Response,
    header::{self, Entry},
};

use crate::{
    body::ErrorBody,
    commit::{SessionCell, state::CookieAction},
    config::Config,
    cookie,
    error::SessionError,
    expiry,
};

/// Adds the Set-Cookie header that the session calls for. No cookie can be set afterwards.
pub(crate) fn set_cookie(session: &SessionCell, headers: &mut HeaderMap) {
    let config = &session.context.config;
    let cookie = {
        let mut state = session.state();
        state.headers_sent = true;
        let action = mem::replace(&mut state.cookie, CookieAction::Keep);
        match (action, state.id()) {
            (CookieAction::Issue, Some(id)) => {
                let max_age = expiry::max_age(config, state.changes.metadata(&state.base));
                cookie::issue(&config.cookie, id, max_age)
            }
            (CookieAction::Remove, _) => cookie::remove(&config.cookie),
            (CookieAction::Issue, None) | (CookieAction::Keep, _) => return,
        }
    };
    headers.append(header::SET_COOKIE, cookie);
    // RFC 9111, section 7.3: a cache may store a response with Set-Cookie unless told otherwise.
    no_store(headers);
}

/// The response depends on the cookie (Flask, CVE-2026-27205).
pub(crate) fn vary_by_cookie(headers: &mut HeaderMap) {
    let has_cookie = |value: &HeaderValue| {
        value.as_bytes().split(|byte| *byte == b',').any(|name| {
            let name = name.trim_ascii();
            name == b"*" || name.eq_ignore_ascii_case(b"cookie")
        })
    };
    let cookie = HeaderValue::from_static("Cookie");
    match headers.entry(header::VARY) {
        Entry::Vacant(entry) => {
            entry.insert(cookie);
        }
        Entry::Occupied(mut entry) => {
            if !entry.iter().any(has_cookie) {
                entry.append(cookie);
            }
        }
    }
}

/// The response that reports `error`, in the app's form if it has one.
pub(crate) fn error_response<B: ErrorBody>(config: &Config, error: &SessionError) -> Response<B> {
    let mut response = match &config.error_response {
        Some(respond) => respond(error),
        None => error.to_response(),
    };
    let headers = response.headers_mut();
    no_store(headers);
    vary_by_cookie(headers);
    response.map(B::from_error_text)
}

/// Unless the app has set a Cache-Control.
fn no_store(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}
