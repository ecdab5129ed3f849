//! The stored form of a session: one JSON object, whose values stay the text they were until somebody asks for one.
//!
//! ```text
//! {"_rev":"9f86d081884c7d65","_created":1764000000,"_permanent":1764000000,"visits":3,"cart":{"items":[1,2]}}
//! └── the fingerprint ──────┘
//! ```

mod write;

use std::{borrow::Cow, fmt, ops::Range};

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

pub(crate) use self::write::{Fate, Writer, Written, same_version, tombstone};
use crate::error::SessionError;

/// Keys that begin with this belong to the crate.
pub(crate) const RESERVED: char = '_';

const REV: &str = "_rev";
const CREATED: &str = "_created";
const PERMANENT: &str = "_permanent";
const ROTATED: &str = "_rotated";

/// `{"_rev":"`, then 16 hexadecimal digits, then `"`.
const REV_OPENING: &[u8] = b"{\"_rev\":\"";
const REV_DIGITS: usize = 16;
const FINGERPRINT: usize = REV_OPENING.len() + REV_DIGITS + 1;

/// What the crate keeps about a session beside the app's own keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Unix seconds at which the session was first stored.
    pub(crate) created: Option<u64>,
    /// Unix seconds at which the lasting cookie was last sent; `None` for a session that ends with the browser.
    pub(crate) permanent: Option<u64>,
}

/// A stored session: its bytes, and where in them each key and value is.
#[derive(Clone, Default)]
pub(crate) struct Record {
    bytes: Bytes,
    entries: Vec<Entry>,
    pub(crate) meta: Meta,
}

#[derive(Clone)]
struct Entry {
    /// With its quotes.
    key: Range<usize>,
    value: Range<usize>,
    /// Only for a key that is written with escapes.
    unescaped: Option<Box<str>>,
}

/// What the bytes under a session's key mean.
pub(crate) enum Stored {
    Live(Record),
    /// Rotated away: a tombstone until this Unix time in milliseconds.
    Retired {
        until: u64,
    },
    /// A session without a key. Never written by this crate, and never taken for a session
    /// (aiohttp-session, CVE-2018-1000519).
    Empty,
}

impl Record {
    /// # Errors
    ///
    /// `Corrupt` for all that is not one JSON object with distinct keys.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Stored, SessionError> {
        let text = std::str::from_utf8(bytes).map_err(|_| SessionError::corrupt("not UTF-8"))?;
        let Pairs(pairs) = serde_json::from_str(text)
            .map_err(|_| SessionError::corrupt("not a JSON object with distinct keys"))?;
        let within = |part: &str| {
            let start = part.as_ptr() as usize - text.as_ptr() as usize;
            start..start + part.len()
        };

        let mut meta = Meta::default();
        let mut entries = Vec::with_capacity(pairs.len());
        let mut names: Vec<Cow<'_, str>> = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let (key, value) = (key.get(), value.get());
            let name = if key.contains('\\') {
                let name: String = serde_json::from_str(key)
                    .map_err(|_| SessionError::corrupt("a key is not text"))?;
                Cow::Owned(name)
            } else {
                Cow::Borrowed(&key[1..key.len() - 1])
            };
            match &*name {
                REV => {}
                CREATED => meta.created = Some(value.parse().unwrap_or(0)),
                // Other frameworks write `true`, which is as good as a cookie that was sent long ago.
                PERMANENT => {
                    meta.permanent = match value {
                        "false" | "null" => None,
                        sent => Some(sent.parse().unwrap_or(0)),
                    };
                }
                ROTATED => {
                    return Ok(Stored::Retired {
                        until: value.parse().unwrap_or(0),
                    });
                }
                _ => entries.push(Entry {
                    key: within(key),
                    value: within(value),
                    unescaped: match &name {
                        Cow::Borrowed(_) => None,
                        Cow::Owned(name) => Some(name.as_str().into()),
                    },
                }),
            }
            names.push(name);
        }
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(SessionError::corrupt("a key is there twice"));
        }

        let record = Self {
            bytes: bytes.clone(),
            entries,
            meta,
        };
        Ok(if record.entries.is_empty() {
            Stored::Empty
        } else {
            Stored::Live(record)
        })
    }

    /// The beginning of the stored bytes that no other version of this session has.
    ///
    /// Somebody else's JSON has no `_rev` in front; then it is the whole value, which is no prefix of any other JSON object.
    pub(crate) fn fingerprint(&self) -> Bytes {
        self.bytes.slice(..write::fingerprint_len(&self.bytes))
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The value's JSON text, sharing the record's buffer.
    pub(crate) fn value(&self, key: &str) -> Option<Bytes> {
        let entry = self
            .entries
            .iter()
            .find(|entry| self.name(entry) == key.as_bytes())?;
        Some(self.bytes.slice(entry.value.clone()))
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        self.entries
            .iter()
            .any(|entry| self.name(entry) == key.as_bytes())
    }

    /// Every key, the reserved ones of others included, with its JSON text as it stands there.
    fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8], &[u8])> {
        self.entries.iter().map(|entry| {
            (
                self.name(entry),
                &self.bytes[entry.key.clone()],
                &self.bytes[entry.value.clone()],
            )
        })
    }

    /// The app's keys, in stored order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries
            .iter()
            .map(|entry| std::str::from_utf8(self.name(entry)).expect("checked when decoded"))
            .filter(|key| !key.starts_with(RESERVED))
    }

    fn name<'a>(&'a self, entry: &'a Entry) -> &'a [u8] {
        match &entry.unescaped {
            Some(name) => name.as_bytes(),
            None => &self.bytes[entry.key.start + 1..entry.key.end - 1],
        }
    }
}

/// Shows neither keys nor values.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// A JSON object as the raw text of its keys and values.
struct Pairs<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;

        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::with_capacity(16);
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(PairsVisitor)
    }
}

#[cfg(test)]
mod tests;
