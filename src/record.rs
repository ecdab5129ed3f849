//! The stored form of a session: one JSON object, whose values stay the text they were until somebody asks for one.
//!
//! ```text
//! {"_rev":"9f86d081884c7d65","_created":1764000000,"_permanent":1764000000,"visits":3,"cart":{"items":[1,2]}}
//! └── the fingerprint ──────┘
//! ```

mod write;

use std::{borrow::Cow, fmt, mem, ops::Range, sync::Arc};

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

pub(crate) use self::write::{Fate, Writer, Written, encode, fingerprint, same_version, tombstone};
use crate::error::SessionError;

/// Keys that begin with this belong to the crate.
pub(crate) const RESERVED: char = '_';

const REV: &str = "_rev";
const CREATED: &str = "_created";
const PERMANENT: &str = "_permanent";
const IDLE_TIMEOUT: &str = "_idle";
const ABSOLUTE_TIMEOUT: &str = "_absolute";
const USER: &str = "_user";
const LISTED: &str = "_listed";
const ROTATED: &str = "_rotated";

/// `{"_rev":"`, then 16 hexadecimal digits, then `"`.
const REV_OPENING: &[u8] = b"{\"_rev\":\"";
const REV_DIGITS: usize = 16;
const FINGERPRINT: usize = REV_OPENING.len() + REV_DIGITS + 1;

/// Up to this many keys are compared with each other; more are sorted.
const FEW: usize = 16;

/// What the crate keeps about a session beside the app's own keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Unix seconds at which the session was first stored.
    pub(crate) created: Option<u64>,
    /// Unix seconds at which the lasting cookie was last sent; `None` for a session that ends with the browser.
    pub(crate) permanent: Option<u64>,
    /// Milliseconds, in place of the layer's.
    pub(crate) idle_timeout: Option<u64>,
    /// Milliseconds, in place of the layer's.
    pub(crate) absolute_timeout: Option<u64>,
    /// Unix seconds at which the session was last entered among its user's; `None` if it belongs to nobody.
    pub(crate) listed: Option<u64>,
}

/// A stored session: its bytes, and where in them each key and value is.
#[derive(Clone, Default)]
pub(crate) struct Record {
    bytes: Bytes,
    entries: Vec<Entry>,
    pub(crate) meta: Meta,
    /// To whom the session belongs.
    pub(crate) user: Option<Arc<str>>,
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
    /// A session without a key or a user. Never written by this crate, and never taken for a session
    /// (aiohttp-session, CVE-2018-1000519).
    Empty,
}

impl Record {
    /// # Errors
    ///
    /// `Corrupt` for all that is not one JSON object with distinct keys.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Stored, SessionError> {
        let text = std::str::from_utf8(bytes).map_err(|_| SessionError::corrupt("not UTF-8"))?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let parts = Parts::new(text)
            .deserialize(&mut deserializer)
            .and_then(|parts| deserializer.end().map(|()| parts))
            .map_err(|_| SessionError::corrupt("not a JSON object with distinct keys"))?;
        if let Some(until) = parts.rotated {
            return Ok(Stored::Retired { until });
        }
        let record = Self {
            bytes: bytes.clone(),
            entries: parts.entries,
            meta: parts.meta,
            user: parts.user,
        };
        if record.has_twins() {
            return Err(SessionError::corrupt("a key is there twice"));
        }
        Ok(if record.entries.is_empty() && record.user.is_none() {
            Stored::Empty
        } else {
            Stored::Live(record)
        })
    }

    fn has_twins(&self) -> bool {
        let name = |entry| self.name(entry);
        if self.entries.len() <= FEW {
            return self.entries.iter().enumerate().any(|(index, entry)| {
                self.entries[..index]
                    .iter()
                    .any(|earlier| name(earlier) == name(entry))
            });
        }
        let mut names: Vec<&[u8]> = self.entries.iter().map(name).collect();
        names.sort_unstable();
        names.windows(2).any(|pair| pair[0] == pair[1])
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

/// What a pass over a stored object finds.
struct Parts<'a> {
    text: &'a str,
    entries: Vec<Entry>,
    meta: Meta,
    user: Option<Arc<str>>,
    rotated: Option<u64>,
    /// Which of the crate's own keys were there, to notice a second one.
    own: [bool; 7],
}

impl<'a> Parts<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            // A field is seldom longer than this, so large sessions do not outgrow it again and again.
            entries: Vec::with_capacity(8 + text.len() / 128),
            meta: Meta::default(),
            user: None,
            rotated: None,
            own: [false; 7],
        }
    }

    fn add(&mut self, key: &'a str, value: &'a str) -> Result<(), serde_json::Error> {
        let unescaped: Option<Box<str>> = match key.contains('\\') {
            true => Some(serde_json::from_str(key)?),
            false => None,
        };
        match unescaped.as_deref().unwrap_or(&key[1..key.len() - 1]) {
            REV => self.note(0)?,
            CREATED => {
                self.note(1)?;
                self.meta.created = Some(value.parse().unwrap_or(0));
            }
            PERMANENT => {
                self.note(2)?;
                // Other frameworks write `true`, which is as good as a cookie that was sent long ago.
                self.meta.permanent = match value {
                    "false" | "null" => None,
                    sent => Some(sent.parse().unwrap_or(0)),
                };
            }
            IDLE_TIMEOUT => {
                self.note(3)?;
                // Like a creation time, one that is no number ends the session.
                self.meta.idle_timeout = Some(value.parse().unwrap_or(0));
            }
            ABSOLUTE_TIMEOUT => {
                self.note(4)?;
                self.meta.absolute_timeout = Some(value.parse().unwrap_or(0));
            }
            USER => {
                self.note(5)?;
                self.user = Some(serde_json::from_str::<Cow<'_, str>>(value)?.into());
            }
            LISTED => {
                self.note(6)?;
                self.meta.listed = value.parse().ok();
            }
            ROTATED => self.rotated = Some(value.parse().unwrap_or(0)),
            _ => self.entries.push(Entry {
                key: self.within(key),
                value: self.within(value),
                unescaped,
            }),
        }
        Ok(())
    }

    fn note(&mut self, own: usize) -> Result<(), serde_json::Error> {
        if mem::replace(&mut self.own[own], true) {
            return Err(serde::de::Error::custom("twice"));
        }
        Ok(())
    }

    fn within(&self, part: &str) -> Range<usize> {
        let start = part.as_ptr() as usize - self.text.as_ptr() as usize;
        start..start + part.len()
    }
}

impl<'de> DeserializeSeed<'de> for Parts<'de> {
    type Value = Self;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Parts<'de> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            self.add(key.get(), value.get())
                .map_err(serde::de::Error::custom)?;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
