//! What no log line and no error text may show: a session's id or key, and what a test marks as secret with the word "sesame".
//!
//! Each server and each app of a test checks the log of the process when it ends.

use std::sync::{Mutex, PoisonError};

use super::log::Log;

static LEAKS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Checks what is logged from now on, by all crates and at all levels.
pub fn watch() {
    Log::listen();
}

pub(super) fn check_line(line: &str) {
    if has_secret(line) {
        let mut leaks = LEAKS.lock().unwrap_or_else(PoisonError::into_inner);
        leaks.push(line.to_owned());
    }
}

pub fn assert_none_logged() {
    let leaks = LEAKS.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(leaks.is_empty(), "the log shows secrets: {leaks:?}");
}

pub fn has_secret(text: &str) -> bool {
    has_id(text) || has_word(text)
}

/// Whether there is something in the form of an id, or of a key that is the hash of one.
pub fn has_id(text: &str) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let is_id = |window: &[u8]| {
        window.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => is_digit(byte),
        })
    };
    let bytes = text.as_bytes();
    bytes.windows(36).any(is_id) || bytes.windows(64).any(|window| window.iter().all(is_digit))
}

/// Whether there is the word as text, in hexadecimal digits, or as a list of bytes, each on a line of its own in `{:#?}`.
fn has_word(text: &str) -> bool {
    let has = |word: &[u8]| {
        let mut windows = text.as_bytes().windows(word.len());
        windows.any(|window| window.eq_ignore_ascii_case(word))
    };
    let has_bytes = || {
        let on_one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        on_one_line.contains("115, 101, 115, 97, 109, 101")
    };
    has(b"sesame") || has(b"736573616d65") || has(b"115,") && has_bytes()
}
