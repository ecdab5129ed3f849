//! What an error of the client or of the server says. The texts are only inspected: they may contain ids, values and passwords.

use std::{error::Error, sync::Arc};

use redis::RedisError;

/// Before Redis 7, an error inside a script was wrapped in another one. Returns the inner one.
pub(super) fn unwrap_script_error(error: RedisError) -> RedisError {
    let detail = error.detail().unwrap_or_default();
    if !detail.starts_with("Error running script") {
        return error;
    }
    // `Error running script (call to f_…): @user_script:1: @user_script: 1: -READONLY You can't …`
    let words = detail
        .split(": ")
        .filter_map(|part| part.split(' ').next())
        .map(|word| word.trim_start_matches('-'));
    let mut codes =
        words.filter(|word| word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase()));
    let inner = codes.next().and_then(|code| {
        let reply = format!("-{code} inside a script\r\n");
        let reply = redis::parse_redis_value(reply.as_bytes());
        reply.and_then(redis::Value::extract_error).err()
    });
    inner.unwrap_or(error)
}

/// The error's code or kind.
pub(super) fn code_or_kind(error: &RedisError) -> String {
    let code = error.code().unwrap_or_else(|| error.category());
    code.to_owned()
}

pub(super) fn is_tls(error: &RedisError) -> bool {
    io_error(error).is_some_and(|error| {
        error.kind() == std::io::ErrorKind::InvalidData || error.to_string().contains("certificate")
    })
}

pub(super) fn io_error(error: &RedisError) -> Option<&std::io::Error> {
    let source = error.source()?;
    // redis-rs keeps its cause in an `Arc`, which is an error itself.
    match source.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        Some(shared) => shared.downcast_ref(),
        None => source.downcast_ref(),
    }
}

/// Each proxy and each service says it in its own words.
pub(super) fn is_unsupported(error: &RedisError) -> bool {
    let words = [
        "unknown command",
        "invalid command",
        "unsupport",
        "not support",
        "not available",
        "not allowed",
        "disabled",
    ];
    has_no_code(error)
        && !contains(error, "Error running script")
        && words.iter().any(|word| contains_ignoring_case(error, word))
}

/// Whether a proxy lost the server behind it: the command may have been executed, or not. The texts are Envoy's and Twemproxy's.
pub(super) fn is_upstream_failure(error: &RedisError) -> bool {
    let words = [
        "upstream",
        "connection refused",
        "connection reset",
        "connection timed out",
        "host is down",
    ];
    has_no_code(error) && words.iter().any(|word| contains_ignoring_case(error, word))
}

/// Whether the error has only the general code ERR, or none, as those of some proxies.
pub(super) fn has_no_code(error: &RedisError) -> bool {
    let code = error.code().unwrap_or_default();
    code == "ERR" || code.starts_with(|first: char| first.is_ascii_lowercase())
}

pub(super) fn contains(error: &RedisError, words: &str) -> bool {
    text_of(error).contains(words)
}

pub(super) fn contains_ignoring_case(error: &RedisError, lower_case: &str) -> bool {
    text_of(error).to_ascii_lowercase().contains(lower_case)
}

/// To be inspected, never to be shown.
pub(super) fn text_of(error: &RedisError) -> String {
    error.to_string()
}

/// Whether the ACL denies the command.
pub(super) fn is_denied(error: &RedisError) -> bool {
    error.code() == Some("NOPERM")
}

#[cfg(test)]
mod tests {
    use redis::ServerErrorKind;

    use super::*;

    #[test]
    fn the_error_inside_a_script_counts() {
        // From Redis 6.2.5.
        let run = "ERR Error running script (call to f_d3c21d0c): @user_script:1: ";
        for (inner, code) in [
            (
                "WRONGTYPE Operation against a key holding the wrong kind of value",
                "WRONGTYPE",
            ),
            (
                "@user_script: 1: -READONLY You can't write against a read only replica.",
                "READONLY",
            ),
            (
                "@user_script: 1: -OOM command not allowed when used memory > 'maxmemory'.",
                "OOM",
            ),
            ("Script attempted to access a global variable", "ERR"),
            ("IO is no code", "ERR"),
        ] {
            let reply = format!("-{run}{inner}\r\n");
            let reply = redis::parse_redis_value(reply.as_bytes()).expect("a reply");
            let error = reply.extract_error().expect_err("an error");
            let error = unwrap_script_error(error);
            assert_eq!(code_or_kind(&error), code);
            let is_read_only = error.kind() == redis::ErrorKind::Server(ServerErrorKind::ReadOnly);
            assert_eq!(is_read_only, code == "READONLY");
        }
    }
}
