//! The stored form of a session: one JSON object. Values stay raw JSON text until they are read.
//!
//! ```text
//! {"_rev":"9f86d081884c7d65","_created":1764000000,"_permanent":1764000000,"visits":3,"cart":{"items":[1,2]}}
//! └── the revision ──────┘
//! ```

mod fields;
mod null_check;
mod scan;
mod user_id;
mod value;
mod write;

use std::{borrow::Cow, collections::HashSet, fmt, mem};

use bytes::Bytes;

#[cfg(feature = "encryption")]
pub(crate) use self::write::clear_len;
#[cfg(feature = "migration")]
pub(crate) use self::write::pointer;
use self::{
    fields::{Field, Fields, owned},
    scan::{Malformed, Span, scan},
};
pub(crate) use self::{
    user_id::UserId,
    value::{decode, encode},
    write::{Encoded, Encoder, KeyEdit, is_tombstone, revision, same_revision, tombstone},
};
use crate::error::SessionError;

/// Keys that begin with this character are reserved for this crate.
pub(crate) const RESERVED: char = '_';

const REV: &str = "_rev";
const CREATED: &str = "_created";
const PERMANENT: &str = "_permanent";
const IDLE_TIMEOUT: &str = "_idle";
const ABSOLUTE_TIMEOUT: &str = "_absolute";
const USER: &str = "_user";
const INDEXED_AT: &str = "_listed";
const CONFIRMED_AT: &str = "_confirmed";
const ROTATED: &str = "_rotated";
const GRACE: &str = "_grace";
const MOVED_FROM: &str = "_moved_from";
const MOVED_TO: &str = "_moved_to";

/// The key beside the app's keys under which this crate keeps its own data of a session that it shares with another framework: an object.
pub(crate) const OWN_KEY: &str = "_axum_session";

/// The crate's own keys in a session that it does not share.
pub(crate) const OWN_NAMES: [&str; 12] = [
    REV,
    CREATED,
    PERMANENT,
    IDLE_TIMEOUT,
    ABSOLUTE_TIMEOUT,
    USER,
    INDEXED_AT,
    CONFIRMED_AT,
    ROTATED,
    GRACE,
    MOVED_FROM,
    MOVED_TO,
];

/// `{"_rev":"`, then 16 hexadecimal digits, then `"`.
const REV_OPENING: &[u8] = b"{\"_rev\":\"";
const REV_DIGITS: usize = 16;
const REVISION_LEN: usize = REV_OPENING.len() + REV_DIGITS + 1;

/// Up to this many keys are compared pairwise to find duplicates, without an allocation; more go through a hash set.
const MAX_LINEAR_KEYS: usize = 16;

/// The crate's own data about a session, stored under reserved keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// Unix seconds at which the session was first stored.
    pub(crate) created: Option<u64>,
    /// Unix seconds at which the permanent cookie was last sent; `None` for a session cookie.
    pub(crate) permanent: Option<u64>,
    /// Milliseconds; overrides the layer's.
    pub(crate) idle_timeout: Option<u64>,
    /// Milliseconds; overrides the layer's.
    pub(crate) absolute_timeout: Option<u64>,
    /// Unix seconds at which the session's entry in its user's index was last written; `None` without a user.
    pub(crate) indexed_at: Option<u64>,
    /// Unix seconds at which the user authenticated again; `None` if not since the login.
    pub(crate) confirmed_at: Option<u64>,
}

/// A stored session: its bytes, and the position of each key and value in them.
#[derive(Clone, Default)]
pub(crate) struct Record {
    bytes: Bytes,
    /// What the store holds, if not `bytes`. Boxed, since it is rare and would enlarge every record.
    sealed: Option<Box<Bytes>>,
    /// The store is to hold it in another form: encrypted by the present key, or without `moved_from`.
    pub(crate) is_outdated: bool,
    /// Another framework works on it too, so that only the crate's own keys are reserved, not all that begin with `_`.
    pub(crate) is_shared: bool,
    /// The Redis key of another framework's session that became this one, until the browser has shown the new cookie.
    pub(crate) moved_from: Option<Box<str>>,
    /// All keys but the crate's own.
    fields: Fields,
    /// The unescaped names of the keys that are stored with escapes; usually empty.
    unescaped: Vec<Box<str>>,
    pub(crate) metadata: Metadata,
    pub(crate) user: Option<UserId>,
}

/// The meaning of the bytes under a session's key.
pub(crate) enum Decoded {
    Session(Record),
    /// The session has been rotated to another id.
    Tombstone {
        /// Unix milliseconds.
        until: u64,
        /// What the session held before the rotation, to be read until this Unix time in milliseconds.
        readable: Option<(u64, Record)>,
        /// It stands for another framework's session, and says where that is now (see `migration::pointer`).
        moved_to: Option<Box<str>>,
    },
    /// A session without a key and without a user. This crate never stores one, and does not accept one as a session
    /// (aiohttp-session, CVE-2018-1000519).
    Empty,
}

impl Record {
    /// # Errors
    ///
    /// [`ErrorKind::InvalidData`](crate::ErrorKind::InvalidData) for everything but one JSON object with distinct keys.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Decoded, SessionError> {
        let text =
            std::str::from_utf8(bytes).map_err(|_| SessionError::invalid_data("not UTF-8"))?;
        let mut decoder = Decoder::new(text);
        scan(text, |key, is_escaped, value| {
            decoder.add(key, is_escaped, value)
        })
        .map_err(|Malformed| SessionError::invalid_data("not a JSON object with distinct keys"))?;
        let (rotated, grace, moved_to) = (decoder.rotated, decoder.grace, decoder.moved_to);
        let record = Self {
            bytes: bytes.clone(),
            sealed: None,
            is_outdated: false,
            is_shared: false,
            moved_from: decoder.moved_from,
            fields: owned(decoder.fields),
            unescaped: decoder.unescaped,
            metadata: decoder.metadata,
            user: decoder.user,
        };
        if record.has_duplicate_keys() {
            return Err(SessionError::invalid_data("a key occurs twice"));
        }
        if let Some(until) = rotated {
            let readable = grace.map(|until| (until, record));
            return Ok(Decoded::Tombstone {
                until,
                readable,
                moved_to,
            });
        }
        Ok(if record.fields.is_empty() && record.user.is_none() {
            Decoded::Empty
        } else {
            Decoded::Session(record)
        })
    }

    fn has_duplicate_keys(&self) -> bool {
        let mut names = self.fields.iter().map(|field| self.name(field));
        if self.fields.len() > MAX_LINEAR_KEYS {
            // The hash is keyed at random, so names cannot be chosen to collide.
            let mut seen = HashSet::with_capacity(self.fields.len());
            return !names.all(|name| seen.insert(name));
        }
        let mut seen = [&[][..]; MAX_LINEAR_KEYS];
        names.enumerate().any(|(index, name)| {
            seen[index] = name;
            let mut earlier = seen[..index].iter();
            // The last byte differs most often, and comparing it is cheaper than a call of memcmp.
            earlier.any(|earlier| earlier.last() == name.last() && *earlier == name)
        })
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The form of it that the store holds.
    pub(crate) fn stored(&self) -> &Bytes {
        self.sealed.as_deref().unwrap_or(&self.bytes)
    }

    pub(crate) fn set_sealed(&mut self, sealed: Bytes) {
        self.sealed = Some(Box::new(sealed));
    }

    pub(crate) fn empty(is_shared: bool) -> Self {
        Self {
            is_shared,
            ..Self::default()
        }
    }

    /// One without keys, of the same layer.
    pub(crate) fn emptied(&self) -> Self {
        Self::empty(self.is_shared)
    }

    /// Whether the app may not use the key.
    pub(crate) fn is_reserved(&self, name: &[u8]) -> bool {
        is_reserved(name) && (!self.is_shared || is_own(name))
    }

    /// The same record, whose clones share its memory.
    #[cfg(feature = "local-cache")]
    pub(crate) fn shared(&self) -> Self {
        Self {
            fields: self.fields.shared(),
            ..self.clone()
        }
    }

    /// The bytes of memory that it takes.
    #[cfg(feature = "local-cache")]
    pub(crate) fn size(&self) -> usize {
        let names: usize = self.unescaped.iter().map(|name| name.len() + 32).sum();
        let sealed = self.sealed.as_ref().map_or(0, |sealed| sealed.len() + 48);
        self.bytes.len() + sealed + size_of_val(&*self.fields) + names
    }

    /// The value's JSON text, sharing the record's buffer.
    pub(crate) fn value(&self, key: &str) -> Option<Bytes> {
        let field = self.field(key)?;
        Some(self.bytes.slice(field.value.range()))
    }

    /// The bytes that the app's keys and values take.
    pub(crate) fn data_len(&self) -> usize {
        let fields = self.fields.iter();
        fields
            .map(|field| self.part(field.key).len() + self.part(field.value).len())
            .sum()
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        self.field(key).is_some()
    }

    /// The app's keys, in stored order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.fields
            .iter()
            .map(|field| std::str::from_utf8(self.name(field)).expect("checked when decoded"))
            .filter(|key| !self.is_reserved(key.as_bytes()))
    }

    fn field(&self, key: &str) -> Option<&Field> {
        self.fields
            .iter()
            .find(|field| self.name(field) == key.as_bytes())
    }

    fn part(&self, part: Span) -> &[u8] {
        part.of(&self.bytes[..])
    }

    fn name(&self, field: &Field) -> &[u8] {
        match field.unescaped {
            Some(index) => self.unescaped[index as usize].as_bytes(),
            None => self.part(field.key.within_quotes()),
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

/// Whether it begins as the keys that are reserved in a session of this crate alone.
pub(crate) fn is_reserved(name: &[u8]) -> bool {
    name.first() == Some(&(RESERVED as u8))
}

/// Whether it is one of the crate's own keys.
pub(crate) fn is_own(name: &[u8]) -> bool {
    let mut names = OWN_NAMES.iter().chain([&OWN_KEY]);
    names.any(|own| own.as_bytes() == name)
}

/// Collects the fields of a stored object.
struct Decoder<'a> {
    text: &'a str,
    fields: Vec<Field>,
    unescaped: Vec<Box<str>>,
    metadata: Metadata,
    user: Option<UserId>,
    rotated: Option<u64>,
    grace: Option<u64>,
    moved_from: Option<Box<str>>,
    moved_to: Option<Box<str>>,
    /// The crate's own keys that were found so far, by their number in [`Decoder::add_own`].
    found: [bool; 9],
}

impl<'a> Decoder<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            // Few fields are longer than 128 bytes, so this rarely has to grow.
            fields: Vec::with_capacity(8 + text.len() / 128),
            unescaped: Vec::new(),
            metadata: Metadata::default(),
            user: None,
            rotated: None,
            grace: None,
            moved_from: None,
            moved_to: None,
            found: [false; 9],
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
        self.fields.push(Field {
            key,
            value,
            unescaped,
        });
        Ok(())
    }

    /// Returns whether it is one of the crate's own keys.
    fn add_own(&mut self, name: &str, value: Span) -> Result<bool, Malformed> {
        let value = value.of(self.text);
        let number = value.parse().ok();
        match name {
            REV => self.check_first(0)?,
            CREATED => {
                self.check_first(1)?;
                self.metadata.created = Some(number.unwrap_or(0));
            }
            PERMANENT => {
                self.check_first(2)?;
                // Other frameworks write `true`. That counts as a cookie that was sent long ago and needs a refresh.
                self.metadata.permanent = match value {
                    "false" | "null" => None,
                    _ => Some(number.unwrap_or(0)),
                };
            }
            IDLE_TIMEOUT => {
                self.check_first(3)?;
                // As with the creation time, a value that is not a number expires the session.
                self.metadata.idle_timeout = Some(number.unwrap_or(0));
            }
            ABSOLUTE_TIMEOUT => {
                self.check_first(4)?;
                self.metadata.absolute_timeout = Some(number.unwrap_or(0));
            }
            USER => {
                self.check_first(5)?;
                let user: Cow<'_, str> = serde_json::from_str(value).map_err(|_| Malformed)?;
                self.user = UserId::new(&user).ok();
            }
            INDEXED_AT => {
                self.check_first(6)?;
                self.metadata.indexed_at = number;
            }
            CONFIRMED_AT => {
                self.check_first(7)?;
                self.metadata.confirmed_at = number;
            }
            MOVED_FROM => {
                self.check_first(8)?;
                self.moved_from = serde_json::from_str(value).ok();
            }
            MOVED_TO => self.moved_to = serde_json::from_str(value).ok(),
            ROTATED => self.rotated = Some(number.unwrap_or(0)),
            GRACE => self.grace = number,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Duplicates of the crate's own keys are found here, since these keys are not among the fields.
    fn check_first(&mut self, own: usize) -> Result<(), Malformed> {
        match mem::replace(&mut self.found[own], true) {
            true => Err(Malformed),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
