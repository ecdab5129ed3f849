//! Encodes the next version of a session: unchanged parts are copied from the last version, changed values are inserted.

use std::cell::{Cell, RefCell};

use bytes::Bytes;

#[cfg(feature = "migration")]
use super::MOVED_TO;
use super::{
    ABSOLUTE_TIMEOUT, CONFIRMED_AT, CREATED, GRACE, IDLE_TIMEOUT, INDEXED_AT, MOVED_FROM, Metadata,
    PERMANENT, REV_OPENING, REVISION_LEN, ROTATED, Record, USER, UserId,
    fields::{Field, owned},
    scan::Span,
};
use crate::{clock::unix_nanos, error::SessionError, random::random_bytes};

/// As the scripts expect it.
const TOMBSTONE_MARK: &[u8] = b",\"_rotated\":";

/// Encodes the next version of a session over `base`.
pub(crate) struct Encoder<'a> {
    base: &'a Record,
    buffer: Vec<u8>,
    fields: Vec<Field>,
    unescaped: Vec<Box<str>>,
    metadata: Metadata,
    user: Option<UserId>,
    /// The number of the app's own keys.
    visible: usize,
    changed: bool,
}

/// What happens to one key of the base.
pub(crate) enum KeyEdit<'a> {
    Keep,
    Replace(&'a [u8]),
    Drop,
}

/// The next version of a session.
pub(crate) struct Encoded {
    pub(crate) record: Record,
    /// Whether it has neither a key of the app's nor a user.
    pub(crate) is_empty: bool,
    /// Whether it differs from the base by more than its revision.
    pub(crate) changed: bool,
}

impl<'a> Encoder<'a> {
    /// `additional` is an estimate of the bytes that changed values take.
    pub(crate) fn new(
        base: &'a Record,
        metadata: Metadata,
        user: Option<UserId>,
        additional: usize,
    ) -> Result<Self, SessionError> {
        let mut buffer = take_scratch();
        buffer.reserve(base.bytes.len() + REVISION_LEN + 64 + additional);
        write_rev(&mut buffer)?;
        for (key, value) in [
            (CREATED, metadata.created),
            (PERMANENT, metadata.permanent),
            (IDLE_TIMEOUT, metadata.idle_timeout),
            (ABSOLUTE_TIMEOUT, metadata.absolute_timeout),
            (INDEXED_AT, metadata.indexed_at),
            (CONFIRMED_AT, metadata.confirmed_at),
        ] {
            if let Some(value) = value {
                write_number(&mut buffer, key, value);
            }
        }
        if let Some(user) = &user {
            write_user(&mut buffer, user);
        }
        if let Some(key) = &base.moved_from {
            write_text(&mut buffer, MOVED_FROM, key);
        }
        Ok(Self {
            base,
            buffer,
            fields: Vec::with_capacity(base.fields.len() + 1),
            unescaped: base.unescaped.clone(),
            changed: metadata != base.metadata || user != base.user,
            metadata,
            user,
            visible: 0,
        })
    }

    /// Applies `edit` to each key of the base, in stored order. Adjacent kept fields are copied in one piece, byte for byte.
    pub(crate) fn copy_from_base(&mut self, mut edit: impl FnMut(&[u8]) -> KeyEdit<'a>) {
        let base = self.base;
        let mut kept = 0..0;
        for (index, field) in base.fields.iter().enumerate() {
            let name = base.name(field);
            match edit(name) {
                KeyEdit::Keep => {
                    let last = base.fields[kept.clone()].last();
                    let is_adjacent =
                        last.is_some_and(|last| last.value.end + 1 == field.key.start);
                    if !is_adjacent {
                        self.copy(&base.fields[kept]);
                        kept = index..index;
                    }
                    kept.end = index + 1;
                }
                KeyEdit::Replace(value) => {
                    self.copy(&base.fields[kept]);
                    kept = 0..0;
                    self.changed |= value != base.part(field.value);
                    self.buffer.push(b',');
                    let start = self.buffer.len();
                    self.buffer.extend_from_slice(base.part(field.key));
                    self.push(start, value, field.unescaped);
                }
                KeyEdit::Drop => {
                    self.changed = true;
                    continue;
                }
            }
            self.visible += usize::from(!self.base.is_reserved(name));
        }
        self.copy(&base.fields[kept]);
    }

    /// Adds a key that the base does not have.
    pub(crate) fn append(&mut self, name: &str, value: &[u8]) {
        self.changed = true;
        self.visible += usize::from(!self.base.is_reserved(name.as_bytes()));
        self.buffer.push(b',');
        let start = self.buffer.len();
        serde_json::to_writer(&mut self.buffer, name).expect("a string serializes");
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
                bytes: return_scratch(self.buffer),
                sealed: None,
                is_outdated: false,
                is_shared: self.base.is_shared,
                moved_from: self.base.moved_from.clone(),
                fields: owned(self.fields),
                unescaped: self.unescaped,
                metadata: self.metadata,
                user: self.user,
            },
        }
    }

    /// Copies fields that are adjacent in the base, with the commas between them.
    fn copy(&mut self, fields: &[Field]) {
        let (Some(first), Some(last)) = (fields.first(), fields.last()) else {
            return;
        };
        let source = Span {
            start: first.key.start,
            end: last.value.end,
        };
        self.buffer.push(b',');
        let target = Span::at(self.buffer.len());
        self.buffer.extend_from_slice(self.base.part(source));
        self.fields.extend(fields.iter().map(|field| Field {
            key: field.key.moved(source.start, target),
            value: field.value.moved(source.start, target),
            unescaped: field.unescaped,
        }));
    }

    /// Adds the value of the key that was written from `start` on.
    fn push(&mut self, start: usize, value: &[u8], unescaped: Option<u32>) {
        let colon = self.buffer.len();
        self.buffer.push(b':');
        self.buffer.extend_from_slice(value);
        self.fields.push(Field {
            key: Span::new(start, colon),
            value: Span::new(colon + 1, self.buffer.len()),
            unescaped,
        });
    }
}

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A larger buffer is freed instead of kept for the thread's next session.
const MAX_SCRATCH: usize = 64 * 1024;

/// Taken out of the thread-local rather than borrowed, since the app's `Serialize` may itself encode a value.
pub(super) fn take_scratch() -> Vec<u8> {
    let mut buffer = SCRATCH.take();
    buffer.clear();
    buffer
}

pub(super) fn return_scratch(scratch: Vec<u8>) -> Bytes {
    let bytes = Bytes::copy_from_slice(&scratch);
    if scratch.capacity() <= MAX_SCRATCH {
        SCRATCH.set(scratch);
    }
    bytes
}

/// The value that replaces a rotated session until this Unix time in milliseconds. It does not contain the new id, and the session's
/// data only if that stays readable, until another such time.
pub(crate) fn tombstone(
    until: u64,
    readable: Option<(u64, &Record)>,
) -> Result<Bytes, SessionError> {
    let mut buffer = take_scratch();
    write_rev(&mut buffer)?;
    write_number(&mut buffer, ROTATED, until);
    if let Some((until, record)) = readable {
        write_number(&mut buffer, GRACE, until);
        if let Some(user) = &record.user {
            write_user(&mut buffer, user);
        }
        for field in record.fields.iter() {
            buffer.push(b',');
            buffer.extend_from_slice(record.part(field.key));
            buffer.push(b':');
            buffer.extend_from_slice(record.part(field.value));
        }
    }
    buffer.push(b'}');
    Ok(return_scratch(buffer))
}

/// The value that replaces another framework's session until this Unix time in milliseconds, and says where the session is now.
#[cfg(feature = "migration")]
pub(crate) fn pointer(until: u64, to: impl FnOnce(&[u8]) -> String) -> Result<Bytes, SessionError> {
    let mut buffer = take_scratch();
    write_rev(&mut buffer)?;
    let to = to(&buffer);
    write_number(&mut buffer, ROTATED, until);
    write_text(&mut buffer, MOVED_TO, &to);
    // express-session answers 500 to a session without it.
    buffer.extend_from_slice(br#","cookie":{}}"#);
    Ok(return_scratch(buffer))
}

/// Whether `stored` is the same version of the session as `version`.
pub(crate) fn same_revision(stored: &[u8], version: &[u8]) -> bool {
    stored.starts_with(revision(version))
}

/// The prefix of a stored version that is unique among all versions of its session.
///
/// JSON of another writer does not begin with `_rev`. Its revision is the whole value, which is no prefix of any other JSON object.
pub(crate) fn revision(version: &[u8]) -> &[u8] {
    let has_rev = version.starts_with(REV_OPENING) && version.get(REVISION_LEN - 1) == Some(&b'"');
    if has_rev {
        &version[..REVISION_LEN]
    } else {
        version
    }
}

/// Whether a stored value is the tombstone of a rotated session. Only there does this key follow the revision.
pub(crate) fn is_tombstone(stored: &[u8]) -> bool {
    revision(stored).len() == REVISION_LEN && stored[REVISION_LEN..].starts_with(TOMBSTONE_MARK)
}

/// The length of what stays in the clear when a version is encrypted: what scripts and IFEQ compare. 0 for JSON of another writer.
#[cfg(feature = "encryption")]
pub(crate) fn clear_len(version: &[u8]) -> usize {
    if is_tombstone(version) {
        let rest = &version[REVISION_LEN + TOMBSTONE_MARK.len()..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
        return version.len() - rest.len() + digits.count();
    }
    match revision(version).len() {
        REVISION_LEN => REVISION_LEN,
        _ => 0,
    }
}

/// Writes `,"key":`.
fn write_own_key(buffer: &mut Vec<u8>, key: &str) {
    buffer.extend_from_slice(b",\"");
    buffer.extend_from_slice(key.as_bytes());
    buffer.extend_from_slice(b"\":");
}

fn write_user(buffer: &mut Vec<u8>, user: &UserId) {
    write_text(buffer, USER, user);
}

fn write_text(buffer: &mut Vec<u8>, key: &str, text: &str) {
    write_own_key(buffer, key);
    serde_json::to_writer(buffer, text).expect("a string serializes");
}

fn write_number(buffer: &mut Vec<u8>, key: &str, number: u64) {
    write_own_key(buffer, key);
    buffer.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes `{"_rev":"` and a new revision.
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

/// 64 bits that no other version of the session has.
///
/// A revision is not a secret, so random numbers are requested in batches: one system call per revision would be 2 % of a small
/// save. The time is added because a snapshot of a running machine copies the rest of a batch; the copies use it at different times.
fn new_rev() -> Result<u64, SessionError> {
    const BATCH: usize = 64;
    thread_local! {
        static UNUSED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    }
    let random = UNUSED.with_borrow_mut(|unused| {
        if unused.is_empty() {
            let bytes = random_bytes::<{ BATCH * 8 }>()?;
            let (words, _) = bytes.as_chunks();
            unused.extend(words.iter().map(|word| u64::from_ne_bytes(*word)));
        }
        Ok(unused.pop().expect("filled"))
    })?;
    Ok(random.wrapping_add(unix_nanos()))
}
