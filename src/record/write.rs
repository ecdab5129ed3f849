//! The next version of a session, spliced from the last one and what changed.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use bytes::Bytes;
use serde::Serialize;

use super::{
    ABSOLUTE_TIMEOUT, CREATED, Field, IDLE_TIMEOUT, INDEXED_AT, Metadata, PERMANENT, RESERVED,
    REV_OPENING, REVISION_LEN, ROTATED, Record, USER, scan::Span,
};
use crate::{clock::unix_nanos, error::SessionError, random::random_bytes};

/// Writes the next version of a session, and knows when it is the same as the last.
pub(crate) struct Encoder<'a> {
    base: &'a Record,
    buffer: Vec<u8>,
    entries: Vec<Field>,
    unescaped: Vec<Box<str>>,
    metadata: Metadata,
    user: Option<Arc<str>>,
    visible: usize,
    changed: bool,
}

/// What becomes of one key of the base.
pub(crate) enum KeyEdit<'a> {
    Keep,
    Replace(&'a [u8]),
    Drop,
}

/// The next version of a session.
pub(crate) struct Encoded {
    pub(crate) record: Record,
    /// Nothing of the app's own is in it, and it is nobody's.
    pub(crate) is_empty: bool,
    /// It says something else than the base did.
    pub(crate) changed: bool,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(
        base: &'a Record,
        metadata: Metadata,
        user: Option<Arc<str>>,
        more: usize,
    ) -> Result<Self, SessionError> {
        let mut buffer = scratch();
        buffer.reserve(base.bytes.len() + REVISION_LEN + 64 + more);
        write_rev(&mut buffer)?;
        for (key, value) in [
            (CREATED, metadata.created),
            (PERMANENT, metadata.permanent),
            (IDLE_TIMEOUT, metadata.idle_timeout),
            (ABSOLUTE_TIMEOUT, metadata.absolute_timeout),
            (INDEXED_AT, metadata.indexed_at),
        ] {
            if let Some(value) = value {
                write_number(&mut buffer, key, value);
            }
        }
        if let Some(user) = &user {
            write_own(&mut buffer, USER);
            serde_json::to_writer(&mut buffer, &**user).expect("text serializes");
        }
        Ok(Self {
            base,
            buffer,
            entries: Vec::with_capacity(base.entries.len() + 1),
            unescaped: base.unescaped.clone(),
            changed: metadata != base.metadata || user != base.user,
            metadata,
            user,
            visible: 0,
        })
    }

    /// Goes through the base's keys in their order; what `fate` keeps goes over byte for byte, neighbours in one piece.
    pub(crate) fn copy_from_base(&mut self, mut fate: impl FnMut(&[u8]) -> KeyEdit<'a>) {
        let base = self.base;
        let mut kept = 0..0;
        for (index, entry) in base.entries.iter().enumerate() {
            let name = base.name(entry);
            match fate(name) {
                KeyEdit::Keep => {
                    let last = base.entries[kept.clone()].last();
                    let follows = last.is_some_and(|last| last.value.end + 1 == entry.key.start);
                    if !follows {
                        self.keep(&base.entries[kept]);
                        kept = index..index;
                    }
                    kept.end = index + 1;
                }
                KeyEdit::Replace(value) => {
                    self.keep(&base.entries[kept]);
                    kept = 0..0;
                    self.changed |= value != base.part(entry.value);
                    self.buffer.push(b',');
                    let start = self.buffer.len();
                    self.buffer.extend_from_slice(base.part(entry.key));
                    self.push(start, value, entry.unescaped);
                }
                KeyEdit::Drop => {
                    self.changed = true;
                    continue;
                }
            }
            self.visible += usize::from(!is_reserved(name));
        }
        self.keep(&base.entries[kept]);
    }

    /// Adds a key that the base does not have.
    pub(crate) fn append(&mut self, name: &str, value: &[u8]) {
        self.changed = true;
        self.visible += usize::from(!is_reserved(name.as_bytes()));
        self.buffer.push(b',');
        let start = self.buffer.len();
        serde_json::to_writer(&mut self.buffer, name).expect("text serializes");
        let is_escaped = self.buffer.len() - start != name.len() + 2;
        let unescaped = is_escaped.then(|| {
            self.unescaped.push(name.into());
            self.unescaped.len() as u32 - 1
        });
        self.push(start, value, unescaped);
    }

    pub(crate) fn finish(mut self) -> Encoded {
        self.buffer.push(b'}');
        Encoded {
            is_empty: self.visible == 0 && self.user.is_none(),
            changed: self.changed,
            record: Record {
                bytes: give_back(self.buffer),
                entries: self.entries,
                unescaped: self.unescaped,
                metadata: self.metadata,
                user: self.user,
            },
        }
    }

    /// Neighbours in the base, each with one comma behind it but for the last.
    fn keep(&mut self, neighbours: &[Field]) {
        let (Some(first), Some(last)) = (neighbours.first(), neighbours.last()) else {
            return;
        };
        let whole = Span {
            start: first.key.start,
            end: last.value.end,
        };
        self.buffer.push(b',');
        let to = Span::at(self.buffer.len());
        self.buffer.extend_from_slice(self.base.part(whole));
        self.entries.extend(neighbours.iter().map(|entry| Field {
            key: entry.key.moved(whole.start, to),
            value: entry.value.moved(whole.start, to),
            unescaped: entry.unescaped,
        }));
    }

    /// The value of the key that was encoded from `start` on.
    fn push(&mut self, start: usize, value: &[u8], unescaped: Option<u32>) {
        let middle = self.buffer.len();
        self.buffer.push(b':');
        self.buffer.extend_from_slice(value);
        self.entries.push(Field {
            key: Span::new(start, middle),
            value: Span::new(middle + 1, self.buffer.len()),
            unescaped,
        });
    }
}

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A thread does not keep a larger buffer than this for the next one.
const MAX_SCRATCH: usize = 64 * 1024;

/// A value's JSON, in one allocation of just its size; `serde_json::to_vec` and `Bytes` take two, and 128 bytes for a number.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Bytes, serde_json::Error> {
    let mut buffer = scratch();
    serde_json::to_writer(&mut buffer, value)?;
    Ok(give_back(buffer))
}

/// Taken, not borrowed, since a `T` of the app may encode something itself.
fn scratch() -> Vec<u8> {
    let mut buffer = SCRATCH.take();
    buffer.clear();
    buffer
}

fn give_back(scratch: Vec<u8>) -> Bytes {
    let bytes = Bytes::copy_from_slice(&scratch);
    if scratch.capacity() <= MAX_SCRATCH {
        SCRATCH.set(scratch);
    }
    bytes
}

/// What stands under an id that was rotated away: nothing of the session, and nothing of the new id.
pub(crate) fn tombstone(until: u64) -> Result<Bytes, SessionError> {
    let mut buffer = scratch();
    write_rev(&mut buffer)?;
    write_number(&mut buffer, ROTATED, until);
    buffer.push(b'}');
    Ok(give_back(buffer))
}

/// Whether `stored` is this very version.
pub(crate) fn same_revision(stored: &[u8], version: &[u8]) -> bool {
    stored.starts_with(revision(version))
}

/// The beginning of a version that no other version of its session has.
///
/// Somebody else's JSON has no `_rev` in front; then it is the whole value, which is no prefix of any other JSON object.
pub(crate) fn revision(version: &[u8]) -> &[u8] {
    let has_rev = version.starts_with(REV_OPENING) && version.get(REVISION_LEN - 1) == Some(&b'"');
    if has_rev {
        &version[..REVISION_LEN]
    } else {
        version
    }
}

/// A key of the crate's, behind another one, up to its value.
fn write_own(buffer: &mut Vec<u8>, key: &str) {
    buffer.extend_from_slice(b",\"");
    buffer.extend_from_slice(key.as_bytes());
    buffer.extend_from_slice(b"\":");
}

fn write_number(buffer: &mut Vec<u8>, key: &str, number: u64) {
    write_own(buffer, key);
    buffer.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

pub(crate) fn is_reserved(name: &[u8]) -> bool {
    name.first() == Some(&(RESERVED as u8))
}

fn write_rev(buffer: &mut Vec<u8>) -> Result<(), SessionError> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    buffer.extend_from_slice(REV_OPENING);
    for byte in new_rev()?.to_be_bytes() {
        buffer.push(DIGITS[usize::from(byte >> 4)]);
        buffer.push(DIGITS[usize::from(byte & 15)]);
    }
    buffer.push(b'"');
    Ok(())
}

/// 64 bits that no other version of a session has. Unlike an id they are no secret, so the operating system is asked for many at
/// once (each time would be a fiftieth of a small save). The time is added in case a running machine is copied with what was
/// left over: its copies go on at moments of their own.
fn new_rev() -> Result<u64, SessionError> {
    const MANY: usize = 64;
    thread_local! {
        static LEFT_OVER: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    }
    let random = LEFT_OVER.with_borrow_mut(|left_over| {
        if left_over.is_empty() {
            let bytes = random_bytes::<{ MANY * 8 }>()?;
            let (words, _) = bytes.as_chunks();
            left_over.extend(words.iter().map(|word| u64::from_ne_bytes(*word)));
        }
        Ok(left_over.pop().expect("filled"))
    })?;
    Ok(random.wrapping_add(unix_nanos()))
}
