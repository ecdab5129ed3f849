//! MessagePack, as JSON.
//!
//! Bytes become an array of numbers, as serde writes them; a timestamp becomes RFC 3339 text in UTC, as Python's `isoformat` of an aware time; keys
//! that are integers become text, as Python's `json` writes them. What has no equivalent is refused.

use std::collections::{HashMap, HashSet};

use cookie::time::{OffsetDateTime, format_description::well_known::Rfc3339};
use rmpv::{Value, ValueRef, decode::read_value_ref_with_max_depth, encode::write_value};

use super::{
    contract::FormatError,
    object::{Json, MAX_DEPTH, Object, check_depth},
    plain::Plain,
};

pub(crate) fn decode(stored: &[u8]) -> Result<String, FormatError> {
    let mut rest = stored;
    let value = read_value_ref_with_max_depth(&mut rest, MAX_DEPTH).map_err(|_| not_complete())?;
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

/// As [`decode`], without the entries that JSON cannot express.
pub(super) fn decode_live(stored: &[u8]) -> Result<String, FormatError> {
    let entries = entries(stored)?;
    let mut json = Json::default();
    json.object(entries.iter().filter_map(|entry| {
        let (name, value) = (entry.name.as_deref()?, entry.json.as_deref()?);
        Some((name, value))
    }));
    json.check_len()?;
    Ok(json.0)
}

/// The session over the version before it, or an empty slice: what did not change, and what JSON cannot express, goes back byte for byte.
pub(super) fn write_over(previous: &[u8], object: &Object) -> Result<Vec<u8>, FormatError> {
    let previous = match previous {
        [] => Vec::new(),
        previous => entries(previous)?,
    };
    let mut rest: HashMap<&str, &str> = object.pairs().collect();
    let mut count = 0_u32;
    let mut body = Vec::new();
    for entry in &previous {
        let name = entry.name.as_deref();
        let (Some(name), Some(json)) = (name, &entry.json) else {
            if name.is_none_or(|name| !rest.contains_key(name)) {
                body.extend_from_slice(entry.key);
                body.extend_from_slice(entry.value);
                count += 1;
            }
            continue;
        };
        let Some(value) = rest.remove(name) else {
            continue;
        };
        body.extend_from_slice(entry.key);
        match value == json {
            true => body.extend_from_slice(entry.value),
            false => write_json(&mut body, value)?,
        }
        count += 1;
    }
    for (name, value) in object.pairs().filter(|(name, _)| rest.contains_key(name)) {
        write_plain(&mut body, &Value::from(name));
        write_json(&mut body, value)?;
        count += 1;
    }
    let mut map = Vec::with_capacity(body.len() + 5);
    rmp::encode::write_map_len(&mut map, count).expect("writing to a Vec does not fail");
    map.extend_from_slice(&body);
    Ok(map)
}

/// An entry of a stored map.
struct Entry<'a> {
    key: &'a [u8],
    value: &'a [u8],
    /// The key, if it is a text or an integer.
    name: Option<String>,
    /// The value as JSON, if that can express it.
    json: Option<String>,
}

fn entries(stored: &[u8]) -> Result<Vec<Entry<'_>>, FormatError> {
    let mut rest = stored;
    let count = rmp::decode::read_map_len(&mut rest)
        .map_err(|_| FormatError::new("it is not a MessagePack map"))?;
    let mut entries = Vec::new();
    let mut names = HashSet::new();
    for _ in 0..count {
        let (key, key_bytes) = next(&mut rest)?;
        let (value, value_bytes) = next(&mut rest)?;
        let name = match &key {
            ValueRef::String(text) => text.as_str().map(str::to_owned),
            ValueRef::Integer(number) => Some(number.to_string()),
            _ => None,
        };
        if let Some(name) = &name
            && !names.insert(name.clone())
        {
            return Err(FormatError::new("a key occurs twice"));
        }
        let mut json = Json::default();
        let is_json = write(&mut json, &value, 0).is_ok();
        entries.push(Entry {
            key: key_bytes,
            value: value_bytes,
            json: is_json.then_some(json.0),
            name,
        });
    }
    if rest.is_empty() {
        Ok(entries)
    } else {
        Err(FormatError::new("bytes follow the MessagePack value"))
    }
}

/// The next value, and its bytes.
fn next<'a>(rest: &mut &'a [u8]) -> Result<(ValueRef<'a>, &'a [u8]), FormatError> {
    let begin = *rest;
    let value = read_value_ref_with_max_depth(rest, MAX_DEPTH).map_err(|_| not_complete())?;
    Ok((value, &begin[..begin.len() - rest.len()]))
}

fn write_json(body: &mut Vec<u8>, json: &str) -> Result<(), FormatError> {
    write_plain(body, &message(Plain::parse(json)?)?);
    Ok(())
}

fn write_plain(body: &mut Vec<u8>, value: &Value) {
    write_value(body, value).expect("writing to a Vec does not fail");
}

fn message(value: Plain) -> Result<Value, FormatError> {
    Ok(match value {
        Plain::Null => Value::Nil,
        Plain::Bool(value) => Value::from(value),
        Plain::Float(value) => Value::from(value),
        Plain::Text(text) => Value::from(text),
        Plain::Integer(number) => match (u64::try_from(number), i64::try_from(number)) {
            (Ok(number), _) => Value::from(number),
            (_, Ok(number)) => Value::from(number),
            _ => {
                return Err(FormatError::new(
                    "an integer has more than 64 bits, which MessagePack does not have",
                ));
            }
        },
        Plain::List(items) => {
            let items = items.into_iter().map(message);
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Plain::Map(pairs) => {
            let pairs = pairs.into_iter();
            let pairs = pairs.map(|(key, value)| Ok((Value::from(key), message(value)?)));
            Value::Map(pairs.collect::<Result<_, FormatError>>()?)
        }
    })
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

fn not_complete() -> FormatError {
    FormatError::new("it is not MessagePack, or is nested more than 127 levels")
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
