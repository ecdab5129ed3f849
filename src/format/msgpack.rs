//! MessagePack, as JSON.
//!
//! Bytes become an array of numbers, as serde writes them; a timestamp becomes RFC 3339 text in UTC, as Python's `isoformat` of an aware time; keys
//! that are integers become text, as Python's `json` writes them. What has no equivalent is refused.

use cookie::time::{OffsetDateTime, format_description::well_known::Rfc3339};
use rmpv::{ValueRef, decode::read_value_ref_with_max_depth};

use super::{
    contract::FormatError,
    object::{Json, MAX_DEPTH, check_depth},
};

pub(crate) fn decode(stored: &[u8]) -> Result<String, FormatError> {
    let mut rest = stored;
    let value = read_value_ref_with_max_depth(&mut rest, MAX_DEPTH).map_err(|_| {
        FormatError::new("it is not MessagePack, or is nested more than 127 levels")
    })?;
    if !rest.is_empty() {
        return Err(FormatError::new("bytes follow the MessagePack value"));
    }
    let ValueRef::Map(_) = value else {
        return Err(FormatError::new("it is not a MessagePack map"));
    };
    let mut json = Json::default();
    write(&mut json, &value, 0)?;
    Ok(json.0)
}

/// The MessagePack value as JSON.
pub(super) fn write(
    json: &mut Json,
    value: &ValueRef<'_>,
    depth: usize,
) -> Result<(), FormatError> {
    check_depth(depth)?;
    match value {
        ValueRef::Nil => json.0.push_str("null"),
        ValueRef::Boolean(value) => json.display(value),
        ValueRef::Integer(value) => json.display(value),
        ValueRef::F32(value) => json.float(f64::from(*value))?,
        ValueRef::F64(value) => json.float(*value)?,
        ValueRef::String(text) => json.string(utf8(text.as_str())?),
        ValueRef::Binary(bytes) => json.bytes(bytes)?,
        ValueRef::Array(values) => {
            json.0.push('[');
            for (index, value) in values.iter().enumerate() {
                json.comma(index);
                write(json, value, depth + 1)?;
            }
            json.0.push(']');
        }
        ValueRef::Map(pairs) => {
            json.0.push('{');
            for (index, (key, value)) in pairs.iter().enumerate() {
                json.comma(index);
                match key {
                    ValueRef::String(text) => json.string(utf8(text.as_str())?),
                    ValueRef::Integer(number) => json.string(&number.to_string()),
                    _ => {
                        return Err(FormatError::new("a key is neither text nor an integer"));
                    }
                }
                json.0.push(':');
                write(json, value, depth + 1)?;
            }
            json.0.push('}');
        }
        ValueRef::Ext(-1, bytes) => json.string(&timestamp(bytes)?),
        ValueRef::Ext(kind, _) => {
            return Err(FormatError::new(format!(
                "it has a value of the MessagePack extension type {kind}"
            )));
        }
    }
    json.check_len()
}

fn utf8(text: Option<&str>) -> Result<&str, FormatError> {
    text.ok_or(FormatError::new("a text is not UTF-8"))
}

/// The three forms of <https://github.com/msgpack/msgpack/blob/master/spec.md#timestamp-extension-type>.
fn timestamp(bytes: &[u8]) -> Result<String, FormatError> {
    let (secs, nanos) = match *bytes {
        [a, b, c, d] => (i64::from(u32::from_be_bytes([a, b, c, d])), 0),
        [_, _, _, _, _, _, _, _] => {
            let word = bytes
                .iter()
                .fold(0, |word, byte| word << 8 | u64::from(*byte));
            // 34 bits of seconds.
            ((word & 0x3_ffff_ffff) as i64, (word >> 34) as u32)
        }
        [a, b, c, d, ref secs @ ..] if secs.len() == 8 => {
            let secs = secs
                .iter()
                .fold(0, |word, byte| word << 8 | i64::from(*byte));
            (secs, u32::from_be_bytes([a, b, c, d]))
        }
        _ => return Err(invalid_time()),
    };
    let time = OffsetDateTime::from_unix_timestamp(secs).map_err(|_| invalid_time())?;
    let time = time.replace_nanosecond(nanos).map_err(|_| invalid_time())?;
    time.format(&Rfc3339).map_err(|_| invalid_time())
}

fn invalid_time() -> FormatError {
    FormatError::new("a timestamp is not valid, or not within the years 0 to 9999")
}
