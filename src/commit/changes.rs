//! What a request changed, kept so that it can be replayed on top of what another request stored meanwhile.

use std::sync::Arc;

use bytes::Bytes;

use super::metadata_changes::{MetadataChange, MetadataChanges};
use crate::{
    clock::unix_secs,
    error::SessionError,
    record::{Encoded, Encoder, KeyEdit, Metadata, Record, UserId},
};

/// A closure of [`Session::update`](crate::Session::update): from a key and its old JSON text to the new text. `None` removes the key.
pub(crate) type UpdateFn =
    Arc<dyn Fn(&str, Option<&[u8]>) -> Result<Option<Bytes>, SessionError> + Send + Sync>;

/// The changes of one request, over a base that may be replaced beneath them.
///
/// Each change has a sequence number, so that a save can discard exactly the changes that it saved.
#[derive(Clone, Default)]
pub(crate) struct Changes {
    seq: u64,
    cleared: Option<u64>,
    keys: Vec<(Box<str>, Change)>,
    /// Boxed, since few requests have any.
    metadata: Option<Box<MetadataChanges>>,
}

#[derive(Clone)]
enum Change {
    /// By `insert` or `remove`.
    Assigned { seq: u64, value: Option<Bytes> },
    /// By `update`; `value` is its present result.
    Updated {
        value: Option<Bytes>,
        origin: Origin,
        updates: Updates,
    },
}

/// The updates of one key, each with its sequence number. The first one needs no allocation.
#[derive(Clone)]
struct Updates {
    first: (u64, UpdateFn),
    more: Vec<(u64, UpdateFn)>,
}

/// What the first update of a key is applied to.
#[derive(Clone)]
enum Origin {
    /// The value in the base.
    Stored,
    /// What this request had assigned, until that is saved and so is in the base.
    Local { seq: u64, value: Option<Bytes> },
}

impl Changes {
    /// The sequence number of the latest change.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.cleared.is_none()
            && self.keys.is_empty()
            && self.metadata.as_ref().is_none_or(|m| m.is_empty())
    }

    /// Whether applying these changes twice differs from applying them once.
    pub(crate) fn has_non_idempotent(&self) -> bool {
        self.keys.iter().any(|(_, change)| {
            matches!(change, Change::Updated { origin, .. } if matches!(origin, Origin::Stored))
        })
    }

    /// `None` removes the key.
    pub(crate) fn assign(&mut self, key: &str, value: Option<Bytes>) {
        let seq = self.next_seq();
        self.put(key, Change::Assigned { seq, value });
    }

    /// `value` is what `update` made of the present value.
    pub(crate) fn update(&mut self, key: &str, update: UpdateFn, value: Option<Bytes>) {
        let seq = self.next_seq();
        let origin = match self.change_mut(key) {
            Some(Change::Updated {
                value: last,
                updates,
                ..
            }) => {
                *last = value;
                updates.more.push((seq, update));
                return;
            }
            Some(Change::Assigned { seq, value }) => Origin::Local {
                seq: *seq,
                value: value.clone(),
            },
            None => match self.cleared {
                Some(seq) => Origin::Local { seq, value: None },
                None => Origin::Stored,
            },
        };
        let updates = Updates {
            first: (seq, update),
            more: Vec::new(),
        };
        let change = Change::Updated {
            value,
            origin,
            updates,
        };
        self.put(key, change);
    }

    pub(crate) fn clear(&mut self) {
        self.cleared = Some(self.next_seq());
        self.keys.clear();
    }

    pub(crate) fn set_metadata(&mut self, change: MetadataChange) {
        let seq = self.next_seq();
        self.metadata.get_or_insert_default().set(seq, change);
    }

    pub(crate) fn user<'a>(&'a self, base: &'a Record) -> Option<&'a UserId> {
        match &self.metadata {
            Some(metadata) => metadata.user(base),
            None => base.user.as_ref(),
        }
    }

    /// Whether a user logged in, possibly the same one again.
    pub(crate) fn is_login(&self) -> bool {
        self.metadata.as_ref().is_some_and(|m| m.is_login())
    }

    /// What the crate keeps about the session, as the request sees it.
    pub(crate) fn metadata(&self, base: &Record) -> Metadata {
        match &self.metadata {
            Some(metadata) => metadata.metadata(base),
            None => base.metadata,
        }
    }

    /// The value as the request sees it.
    pub(crate) fn value(&self, base: &Record, key: &str) -> Option<Bytes> {
        match self.change(key.as_bytes()) {
            Some(change) => change.value().cloned(),
            None if self.cleared.is_some() => None,
            None => base.value(key),
        }
    }

    pub(crate) fn contains(&self, base: &Record, key: &str) -> bool {
        match self.change(key.as_bytes()) {
            Some(change) => change.value().is_some(),
            None => self.cleared.is_none() && base.contains(key),
        }
    }

    /// The app's keys as the request sees them: the stored ones in their order, then the new ones.
    pub(crate) fn keys<'a>(&'a self, base: &'a Record) -> impl Iterator<Item = &'a str> {
        let kept = base.keys().filter(|key| self.contains(base, key));
        kept.chain(self.added(base).map(|(key, _)| key))
    }

    /// The next version of the session.
    pub(crate) fn encode(&self, base: &Record) -> Result<Encoded, SessionError> {
        let mut metadata = self.metadata(base);
        metadata.created.get_or_insert_with(unix_secs);
        let user = self.user(base).cloned();
        let sizes = self.keys.iter().map(|(key, change)| {
            let value = change.value().map_or(0, Bytes::len);
            key.len() + value + 8
        });
        let mut encoder = Encoder::new(base, metadata, user, sizes.sum())?;
        encoder.copy_from_base(|key| match self.change(key).map(Change::value) {
            Some(Some(value)) => KeyEdit::Replace(value),
            Some(None) => KeyEdit::Drop,
            // Other frameworks' reserved keys are not the app's to clear.
            None if self.cleared.is_some() && !base.is_reserved(key) => KeyEdit::Drop,
            None => KeyEdit::Keep,
        });
        for (key, value) in self.added(base) {
            encoder.append(key, value);
        }
        Ok(encoder.finish())
    }

    /// The same changes over another base: each update runs again, on the value that is there now.
    pub(crate) fn replayed_on(&self, base: &Record) -> Result<Self, SessionError> {
        let mut replayed = self.clone();
        for (key, change) in &mut replayed.keys {
            if let Change::Updated {
                value,
                origin,
                updates,
            } = change
            {
                let current = match origin {
                    Origin::Stored => base.value(key),
                    Origin::Local { value, .. } => value.clone(),
                };
                *value = (updates.first.1)(key, current.as_deref())?;
                for (_, update) in &updates.more {
                    *value = update(key, value.as_deref())?;
                }
            }
        }
        Ok(replayed)
    }

    /// Discards the changes up to `seq`, which the base now has.
    pub(crate) fn discard_through(&mut self, seq: u64) {
        self.cleared = self.cleared.filter(|at| *at > seq);
        if let Some(metadata) = &mut self.metadata {
            metadata.discard_through(seq);
        }
        self.keys.retain_mut(|(_, change)| match change {
            Change::Assigned { seq: at, .. } => *at > seq,
            Change::Updated {
                origin, updates, ..
            } => {
                if matches!(origin, Origin::Local { seq: at, .. } if *at <= seq) {
                    *origin = Origin::Stored;
                }
                updates.discard_through(seq)
            }
        });
    }

    /// Discards everything and goes on counting, so that a sequence number never means two changes.
    pub(crate) fn reset(&mut self) {
        *self = Self {
            seq: self.seq + 1,
            ..Self::default()
        };
    }

    /// The keys that the base does not have.
    fn added<'a>(&'a self, base: &'a Record) -> impl Iterator<Item = (&'a str, &'a Bytes)> {
        self.keys.iter().filter_map(|(key, change)| {
            let value = change.value()?;
            (!base.contains(key)).then_some((&**key, value))
        })
    }

    fn change(&self, key: &[u8]) -> Option<&Change> {
        let mut changes = self.keys.iter();
        changes
            .find(|(name, _)| name.as_bytes() == key)
            .map(|(_, change)| change)
    }

    fn change_mut(&mut self, key: &str) -> Option<&mut Change> {
        let mut changes = self.keys.iter_mut();
        changes
            .find(|(name, _)| **name == *key)
            .map(|(_, change)| change)
    }

    fn put(&mut self, key: &str, change: Change) {
        match self.change_mut(key) {
            Some(last) => *last = change,
            None => self.keys.push((key.into(), change)),
        }
    }

    fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }
}

impl Change {
    /// `None` if the key is removed.
    fn value(&self) -> Option<&Bytes> {
        match self {
            Self::Assigned { value, .. } => value.as_ref(),
            Self::Updated { value, .. } => value.as_ref(),
        }
    }
}

impl Updates {
    /// Whether any update is left.
    fn discard_through(&mut self, seq: u64) -> bool {
        self.more.retain(|(at, _)| *at > seq);
        if self.first.0 > seq {
            return true;
        }
        if self.more.is_empty() {
            return false;
        }
        self.first = self.more.remove(0);
        true
    }
}
