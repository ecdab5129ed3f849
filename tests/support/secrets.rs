//! Sees to it that no id is in what is said through `tracing`, in whichever test it is said.
//!
//! Every server and every app of a test looks when it ends.

use std::sync::{Mutex, PoisonError};

use super::log::Log;

static LEAKS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Listens from now on, to all levels and all crates.
pub fn watch() {
    Log::listen();
}

pub(super) fn look_at(line: &str) {
    if has_id(line) {
        let mut leaks = LEAKS.lock().unwrap_or_else(PoisonError::into_inner);
        leaks.push(line.to_owned());
    }
}

pub fn assert_none_was_told() {
    let leaks = LEAKS.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(leaks.is_empty(), "the log has ids in it: {leaks:?}");
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
