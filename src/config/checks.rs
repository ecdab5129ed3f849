//! What the checks of the options have in common.

use std::borrow::Cow;

use crate::{error::ConfigError, signing::MIN_KEY};

pub(super) fn check_keys(option: &str, shortest: usize) -> Result<(), ConfigError> {
    if shortest >= MIN_KEY {
        return Ok(());
    }
    error(format!(
        "{option} has a key of {shortest} bytes, or no key: use at least {MIN_KEY} random bytes per key, such as the output of \
         `openssl rand -base64 32`"
    ))
}

pub(super) fn error(text: impl Into<Cow<'static, str>>) -> Result<(), ConfigError> {
    Err(ConfigError(text.into()))
}

/// RFC 9110, section 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 6265, section 4.1.1: `av-octet`.
pub(super) fn is_attribute(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte) && byte != b';'
}

pub(super) fn is_domain(domain: &str) -> bool {
    let host = domain.strip_prefix('.').unwrap_or(domain);
    host.split('.').all(|label| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}
