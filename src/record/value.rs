//! One value of a session, to JSON and back. What [`encode`] accepts, [`decode`] returns unchanged.

use std::io;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::ser::Formatter;

use super::{
    null_check::check_nulls,
    write::{return_scratch, take_scratch},
};
use crate::error::SessionError;

/// The levels of arrays and objects that serde_json reads.
const MAX_DEPTH: u32 = 127;

/// A value's JSON in one allocation of its exact size. `serde_json::to_vec` and `Bytes` take two, and 128 bytes for a number.
///
/// # Errors
///
/// [`ErrorKind::Encode`](crate::ErrorKind::Encode), also for a value that [`decode`] would not return unchanged.
pub(crate) fn encode<T: Serialize>(key: &str, value: &T) -> Result<Bytes, SessionError> {
    let mut buffer = take_scratch();
    let mut notes = Notes::default();
    let formatter = NotingFormatter(&mut notes);
    let mut serializer = serde_json::Serializer::with_formatter(&mut buffer, formatter);
    let written = value.serialize(&mut serializer);
    if notes.depth > MAX_DEPTH {
        let why = "arrays and objects in it are nested more than 127 levels deep, and serde_json does not read more: store it in \
                   parts, or as a text";
        return Err(SessionError::encode(key, why));
    }
    written.map_err(|error| SessionError::encode_json(key, &error))?;
    if notes.has_null {
        check_nulls(value).map_err(|why| SessionError::encode(key, why))?;
    }
    Ok(return_scratch(buffer))
}

/// The value of a JSON text. A `null` that is not a `T` counts as absent.
pub(crate) fn decode<T: DeserializeOwned>(
    key: &str,
    value: &[u8],
) -> Result<Option<T>, SessionError> {
    match serde_json::from_slice(value) {
        Ok(value) => Ok(Some(value)),
        Err(_) if value == b"null" => Ok(None),
        Err(error) => Err(SessionError::decode::<T>(key, &error)),
    }
}

#[derive(Default)]
struct Notes {
    /// Of arrays and objects. More than `MAX_DEPTH` ends the serialization.
    depth: u32,
    has_null: bool,
}

/// serde_json's compact form. Notes what may prevent the value from being read back.
struct NotingFormatter<'a>(&'a mut Notes);

impl NotingFormatter<'_> {
    fn enter(&mut self) -> io::Result<()> {
        self.0.depth += 1;
        if self.0.depth > MAX_DEPTH {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(())
    }
}

impl Formatter for NotingFormatter<'_> {
    fn write_null<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.has_null = true;
        writer.write_all(b"null")
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.enter()?;
        writer.write_all(b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.depth -= 1;
        writer.write_all(b"]")
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.enter()?;
        writer.write_all(b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.depth -= 1;
        writer.write_all(b"}")
    }
}

#[cfg(test)]
mod tests;
