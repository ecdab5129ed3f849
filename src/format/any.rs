//! What several formats have in common.

use std::ops::RangeInclusive;

use super::{contract::FormatError, json, msgpack, pickle};

/// Reads JSON, MessagePack or a pickle: frameworks have changed their default over time, and one Redis has all of them.
///
/// A JSON object begins with `{`. A pickle of protocol 2 or later begins with `0x80` and its version; in MessagePack, `0x80` is an empty map,
/// which nothing follows.
pub(super) fn decode_any(stored: &[u8]) -> Result<String, FormatError> {
    match stored {
        [b'{', ..] => json::decode(stored),
        [0x80, 2..=5, ..] => pickle::decode(stored),
        [0x80..=0x8f | 0xde | 0xdf, ..] => msgpack::decode(stored),
        _ => Err(FormatError::new(
            "it is neither a JSON object, nor a MessagePack map, nor a pickle of protocol 2 to 5: compression and encryption are not \
             supported",
        )),
    }
}

/// Whether the id has only letters, digits and `extra`, and a length in this range.
pub(super) fn is_id(id: &str, length: RangeInclusive<usize>, extra: &[u8]) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || extra.contains(&byte);
    length.contains(&id.len()) && id.bytes().all(is_allowed)
}
