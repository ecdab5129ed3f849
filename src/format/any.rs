//! What several formats have in common.

use std::ops::RangeInclusive;

use super::{contract::FormatError, json, msgpack, pickle};

/// How a framework writes a new session. A present one is written as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Serialization {
    /// Flask-Session with `SESSION_SERIALIZATION_FORMAT = "json"`; django-redis' `JSONSerializer`.
    Json,
    /// The default of Flask-Session; django-redis' `MSGPackSerializer`.
    MessagePack,
    /// Python's pickle of plain data: the Flask snippet's and django-redis' default. Numbers, text, lists and dictionaries are written, never code.
    Pickle,
}

impl Serialization {
    /// The form of a stored value. A JSON object begins with `{`. A pickle of protocol 2 or later begins with `0x80` and its version; in MessagePack, `0x80`
    /// is an empty map, which nothing follows.
    pub(super) fn of(stored: &[u8]) -> Option<Self> {
        match stored {
            [b'{', ..] => Some(Self::Json),
            [0x80, 2..=5, ..] => Some(Self::Pickle),
            [0x80..=0x8f | 0xde | 0xdf, ..] => Some(Self::MessagePack),
            _ => None,
        }
    }
}

/// Reads JSON, MessagePack or a pickle: frameworks have changed their default over time, and one Redis has all of them.
pub(super) fn decode_any(stored: &[u8]) -> Result<String, FormatError> {
    match Serialization::of(stored) {
        Some(Serialization::Json) => json::decode(stored),
        Some(Serialization::Pickle) => pickle::decode(stored),
        Some(Serialization::MessagePack) => msgpack::decode(stored),
        None => Err(FormatError::new(
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
