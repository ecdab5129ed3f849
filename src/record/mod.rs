//! The stored form of a session: one JSON object, whose values stay the text they were until somebody asks for one.
//!
//! ```text
//! {"_rev":"9f86d081884c7d65","_created":1764000000,"_permanent":1764000000,"visits":3,"cart":{"items":[1,2]}}
//! └── the revision ──────┘
//! ```

mod scan;
mod write;

use std::{borrow::Cow, collections::HashSet, fmt, mem, sync::Arc};

use bytes::Bytes;

use self::scan::{Malformed, Span, scan};
pub(crate) use self::write::{
    Encoded, Encoder, KeyEdit, encode, is_reserved, revision, same_revision, tombstone,
};
use crate::error::SessionError;

/// Keys that begin with this belong to the crate.
pub(crate) const RESERVED: char = '_';

const REV: &str = "_rev";
const CREATED: &str = "_created";
const PERMANENT: &str = "_permanent";
const IDLE_TIMEOUT: &str = "_idle";
const ABSOLUTE_TIMEOUT: &str = "_absolute";
const USER: &str = "_user";
const INDEXED_AT: &str = "_listed";
const ROTATED: &str = "_rotated";

/// `{"_rev":"`, then 16 hexadecimal digits, then `"`.
const REV_OPENING: &[u8] = b"{\"_rev\":\"";
const REV_DIGITS: usize = 16;
const REVISION_LEN: usize = REV_OPENING.len() + REV_DIGITS + 1;

/// Up to this many keys are compared with each other; more go through a set.
const MAX_LINEAR_KEYS: usize = 16;

/// What the crate keeps about a session beside the app's own keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// Unix seconds at which the session was first stored.
    pub(crate) created: Option<u64>,
    /// Unix seconds at which the lasting cookie was last sent; `None` for a session that ends with the browser.
    pub(crate) permanent: Option<u64>,
    /// Milliseconds, in place of the layer's.
    pub(crate) idle_timeout: Option<u64>,
    /// Milliseconds, in place of the layer's.
    pub(crate) absolute_timeout: Option<u64>,
    /// Unix seconds at which the session was last entered among its user's; `None` if it belongs to nobody.
    pub(crate) indexed_at: Option<u64>,
}

/// A stored session: its bytes, and where in them each key and value is.
#[derive(Clone, Default)]
pub(crate) struct Record {
    bytes: Bytes,
    entries: Vec<Field>,
    /// The names of those keys that are encoded with escapes, of which there are mostly none.
    unescaped: Vec<Box<str>>,
    pub(crate) metadata: Metadata,
    /// To whom the session belongs.
    pub(crate) user: Option<Arc<str>>,
}

#[derive(Clone, Copy)]
struct Field {
    /// With its quotes.
    key: Span,
    value: Span,
    /// Which of `unescaped` is the key's name.
    unescaped: Option<u32>,
}

/// What the bytes under a session's key mean.
pub(crate) enum Decoded {
    Session(Record),
    /// Rotated away: a tombstone until this Unix time in milliseconds.
    Tombstone {
        until: u64,
    },
    /// A session without a key or a user. Never encoded by this crate, and never taken for a session
    /// (aiohttp-session, CVE-2018-1000519).
    Empty,
}

impl Record {
    /// # Errors
    ///
    /// `Corrupt` for all that is not one JSON object with distinct keys.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Decoded, SessionError> {
        let text =
            std::str::from_utf8(bytes).map_err(|_| SessionError::invalid_data("not UTF-8"))?;
        let mut parts = Parts::new(text);
        scan(text, |key, is_escaped, value| {
            parts.add(key, is_escaped, value)
        })
        .map_err(|Malformed| SessionError::invalid_data("not a JSON object with distinct keys"))?;
        if let Some(until) = parts.rotated {
            return Ok(Decoded::Tombstone { until });
        }
        let record = Self {
            bytes: bytes.clone(),
            entries: parts.entries,
            unescaped: parts.unescaped,
            metadata: parts.metadata,
            user: parts.user,
        };
        if record.has_duplicate_keys() {
            return Err(SessionError::invalid_data("a key is there twice"));
        }
        Ok(if record.entries.is_empty() && record.user.is_none() {
            Decoded::Empty
        } else {
            Decoded::Session(record)
        })
    }

    fn has_duplicate_keys(&self) -> bool {
        let names = || self.entries.iter().map(|entry| self.name(entry));
        if self.entries.len() > MAX_LINEAR_KEYS {
            // Hashed with a key of this process, so that nobody can choose names that collide.
            let mut seen = HashSet::with_capacity(self.entries.len());
            return !names().all(|name| seen.insert(name));
        }
        // Names that differ in length, first or last byte mostly fall on different bits, and need not be compared.
        let mut seen = 0_u64;
        names().enumerate().any(|(index, name)| {
            let ends = name.first().zip(name.last());
            let (first, last) = ends.map_or((0, 0), |(first, last)| (*first, *last));
            let bit = 1 << ((usize::from(first) + usize::from(last) * 7 + name.len() * 13) % 64);
            let was_seen = seen & bit != 0;
            seen |= bit;
            was_seen && names().take(index).any(|earlier| earlier == name)
        })
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
        Some(self.bytes.slice(entry.value.range()))
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        self.entries
            .iter()
            .any(|entry| self.name(entry) == key.as_bytes())
    }

    /// The app's keys, in stored order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries
            .iter()
            .map(|entry| std::str::from_utf8(self.name(entry)).expect("checked when decoded"))
            .filter(|key| !key.starts_with(RESERVED))
    }

    fn part(&self, part: Span) -> &[u8] {
        part.of(&self.bytes[..])
    }

    fn name<'a>(&'a self, entry: &'a Field) -> &'a [u8] {
        match entry.unescaped {
            Some(index) => self.unescaped[index as usize].as_bytes(),
            None => self.part(entry.key.within_quotes()),
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
    entries: Vec<Field>,
    unescaped: Vec<Box<str>>,
    metadata: Metadata,
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
            unescaped: Vec::new(),
            metadata: Metadata::default(),
            user: None,
            rotated: None,
            own: [false; 7],
        }
    }

    fn add(&mut self, key: Span, is_escaped: bool, value: Span) -> Result<(), Malformed> {
        let unescaped: Option<String> = match is_escaped {
            true => Some(serde_json::from_str(key.of(self.text)).map_err(|_| Malformed)?),
            false => None,
        };
        let name = match &unescaped {
            Some(name) => name,
            None => key.within_quotes().of(self.text),
        };
        if name.starts_with(RESERVED) && self.add_own(name, value)? {
            return Ok(());
        }
        let unescaped = unescaped.map(|name| {
            self.unescaped.push(name.into());
            self.unescaped.len() as u32 - 1
        });
        self.entries.push(Field {
            key,
            value,
            unescaped,
        });
        Ok(())
    }

    /// Whether it is one of the crate's own keys.
    fn add_own(&mut self, name: &str, value: Span) -> Result<bool, Malformed> {
        let value = value.of(self.text);
        let number = value.parse().ok();
        match name {
            REV => self.note(0)?,
            CREATED => {
                self.note(1)?;
                self.metadata.created = Some(number.unwrap_or(0));
            }
            PERMANENT => {
                self.note(2)?;
                // Other frameworks write `true`, which is as good as a cookie that was sent long ago.
                self.metadata.permanent = match value {
                    "false" | "null" => None,
                    _ => Some(number.unwrap_or(0)),
                };
            }
            IDLE_TIMEOUT => {
                self.note(3)?;
                // Like a creation time, one that is no number ends the session.
                self.metadata.idle_timeout = Some(number.unwrap_or(0));
            }
            ABSOLUTE_TIMEOUT => {
                self.note(4)?;
                self.metadata.absolute_timeout = Some(number.unwrap_or(0));
            }
            USER => {
                self.note(5)?;
                let user: Cow<'_, str> = serde_json::from_str(value).map_err(|_| Malformed)?;
                self.user = Some(user.into());
            }
            INDEXED_AT => {
                self.note(6)?;
                self.metadata.indexed_at = number;
            }
            ROTATED => self.rotated = Some(number.unwrap_or(0)),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn note(&mut self, own: usize) -> Result<(), Malformed> {
        match mem::replace(&mut self.own[own], true) {
            true => Err(Malformed),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
