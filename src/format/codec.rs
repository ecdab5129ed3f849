//! The stored forms that frameworks share: read entry by entry, and written so that what did not change stays as it was.

use std::collections::HashMap;

use super::{
    any::{Serialization, decode_any},
    contract::FormatError,
    live::Version,
    msgpack,
    object::Object,
    pickle_writer,
};

/// The entries of a stored session that JSON can express, as an object.
pub(super) fn decode(stored: &[u8]) -> Result<Object, FormatError> {
    match Serialization::of(stored) {
        Some(Serialization::MessagePack) => Object::parse(&msgpack::decode_live(stored)?),
        Some(Serialization::Pickle | Serialization::Json) | None => {
            Object::parse(&decode_any(stored)?)
        }
    }
}

/// Writes `object` as a new session of this form, or in the form of the version before it.
pub(super) fn encode(
    new: Serialization,
    version: &Version<'_>,
    object: &Object,
) -> Result<Vec<u8>, FormatError> {
    let previous = version.previous().unwrap_or_default();
    match Serialization::of(previous).unwrap_or(new) {
        Serialization::Json => Ok(ordered_like(previous, object).to_json().into_bytes()),
        Serialization::MessagePack => msgpack::write_over(previous, object),
        Serialization::Pickle => pickle_writer::write_over(previous, object),
    }
}

/// Keys stay where they were; new ones follow. Values are text, which is copied.
fn ordered_like(previous: &[u8], object: &Object) -> Object {
    let previous = std::str::from_utf8(previous).ok();
    let previous = previous.and_then(|text| Object::parse(text).ok());
    let keys = previous.iter().flat_map(|previous| &previous.0);
    let positions: HashMap<&str, usize> = keys
        .enumerate()
        .map(|(position, (key, _))| (key.as_str(), position))
        .collect();
    let mut pairs = object.0.clone();
    // Stable: new keys keep their order.
    pairs.sort_by_key(|(key, _)| positions.get(key.as_str()).copied().unwrap_or(usize::MAX));
    Object(pairs)
}
