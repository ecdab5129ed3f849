//! What a request did to a session, kept so that it can be done again on top of what another request stored meanwhile.

use std::sync::Arc;

use bytes::Bytes;

use super::metadata_changes::MetadataChanges;
use crate::{
    clock::unix_secs,
    error::SessionError,
    record::{Encoded, Encoder, KeyEdit, Metadata, Record, is_reserved},
};

/// One step of [`Session::update`](crate::Session::update): a key and its old JSON text to the new.
pub(crate) type UpdateFn =
    Arc<dyn Fn(&str, Option<&[u8]>) -> Result<Bytes, SessionError> + Send + Sync>;

/// The changes of one request, over a base that may be replaced beneath them.
///
/// Each change bears the number of the seq it was made, so that a save can forget exactly what it saved.
#[derive(Clone, Default)]
pub(crate) struct Changes {
    seq: u64,
    cleared: Option<u64>,
    keys: Vec<(Box<str>, Change)>,
    /// Apart, for mostly there is none, and each request's state has the room.
    metadata: Option<Box<MetadataChanges>>,
}

#[derive(Clone)]
enum Change {
    Set {
        seq: u64,
        value: Bytes,
    },
    Removed {
        seq: u64,
    },
    /// `value` is what the updates made of where they started.
    Updated {
        value: Bytes,
        origin: Origin,
        updates: Updates,
    },
}

/// The updates of an update, each with its seq. There is nearly always one, for which nothing is allocated.
#[derive(Clone)]
struct Updates {
    first: (u64, UpdateFn),
    more: Vec<(u64, UpdateFn)>,
}

/// What the first step of an update is done to.
#[derive(Clone)]
enum Origin {
    /// Whatever the base holds.
    Stored,
    /// What this request had put there, or nothing if it had removed it; until that is saved, and so in the base.
    Local { seq: u64, value: Option<Bytes> },
}

impl Changes {
    /// The seq of the latest change; moves with every one.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.cleared.is_none()
            && self.keys.is_empty()
            && self
                .metadata
                .as_ref()
                .is_none_or(|metadata| metadata.is_empty())
    }

    /// Whether doing these changes twice differs from doing them once.
    pub(crate) fn has_non_idempotent(&self) -> bool {
        self.keys.iter().any(|(_, change)| {
            matches!(
                change,
                Change::Updated {
                    origin: Origin::Stored,
                    ..
                }
            )
        })
    }

    pub(crate) fn set(&mut self, key: &str, value: Bytes) {
        let seq = self.next_seq();
        self.put(key, Change::Set { seq, value });
    }

    pub(crate) fn remove(&mut self, key: &str) {
        let seq = self.next_seq();
        self.put(key, Change::Removed { seq });
    }

    /// `value` is what `step` made of the present value.
    pub(crate) fn update(&mut self, key: &str, step: UpdateFn, value: Bytes) {
        let at = self.next_seq();
        let mut origin = match self.cleared {
            Some(seq) => Origin::Local { seq, value: None },
            None => Origin::Stored,
        };
        match self.keys.iter_mut().find(|(name, _)| **name == *key) {
            Some((
                _,
                Change::Updated {
                    value: last,
                    updates,
                    ..
                },
            )) => {
                *last = value;
                updates.more.push((at, step));
                return;
            }
            Some((_, Change::Set { seq, value })) => {
                origin = Origin::Local {
                    seq: *seq,
                    value: Some(value.clone()),
                };
            }
            Some((_, Change::Removed { seq })) => {
                origin = Origin::Local {
                    seq: *seq,
                    value: None,
                };
            }
            None => {}
        }
        let updates = Updates {
            first: (at, step),
            more: Vec::new(),
        };
        self.put(
            key,
            Change::Updated {
                value,
                origin,
                updates,
            },
        );
    }

    pub(crate) fn clear(&mut self) {
        self.cleared = Some(self.next_seq());
        self.keys.clear();
    }

    /// `Some`: a lasting session, whose cookie was last sent at this Unix second.
    pub(crate) fn set_permanent(&mut self, permanent: Option<u64>) {
        let at = self.next_seq();
        self.about_mut().set_permanent(at, permanent);
    }

    /// A lasting cookie is sent at this Unix second, if the session has one.
    pub(crate) fn set_cookie_sent(&mut self, sent: u64) {
        let at = self.next_seq();
        self.about_mut().set_cookie_sent(at, sent);
    }

    /// This session's own idle timeout, in milliseconds.
    pub(crate) fn set_idle_timeout(&mut self, millis: u64) {
        let at = self.next_seq();
        self.about_mut().set_idle_timeout(at, millis);
    }

    /// This session's own absolute timeout, in milliseconds.
    pub(crate) fn set_absolute_timeout(&mut self, millis: u64) {
        let at = self.next_seq();
        self.about_mut().set_absolute_timeout(at, millis);
    }

    /// To whom the session belongs from here on, which begins its time anew.
    pub(crate) fn set_user(&mut self, user: Option<Arc<str>>) {
        let at = self.next_seq();
        self.about_mut().set_user(at, user);
    }

    /// The session is entered among its user's at this Unix second.
    pub(crate) fn set_indexed_at(&mut self, indexed_at: u64) {
        let at = self.next_seq();
        self.about_mut().set_indexed_at(at, indexed_at);
    }

    pub(crate) fn user<'a>(&'a self, base: &'a Record) -> Option<&'a Arc<str>> {
        match &self.metadata {
            Some(metadata) => metadata.user(base),
            None => base.user.as_ref(),
        }
    }

    /// Whether somebody logged in, be it the same person again.
    pub(crate) fn is_login(&self) -> bool {
        self.metadata
            .as_ref()
            .is_some_and(|metadata| metadata.is_login())
    }

    /// What the crate keeps metadata the session, as the request sees it.
    pub(crate) fn metadata(&self, base: &Record) -> Metadata {
        match &self.metadata {
            Some(metadata) => metadata.metadata(base),
            None => base.metadata,
        }
    }

    /// The value as the request sees it.
    pub(crate) fn value(&self, base: &Record, key: &str) -> Option<Bytes> {
        match self.change(key.as_bytes()) {
            Some(Change::Set { value, .. } | Change::Updated { value, .. }) => Some(value.clone()),
            Some(Change::Removed { .. }) => None,
            None if self.cleared.is_some() => None,
            None => base.value(key),
        }
    }

    pub(crate) fn contains(&self, base: &Record, key: &str) -> bool {
        match self.change(key.as_bytes()) {
            Some(Change::Set { .. } | Change::Updated { .. }) => true,
            Some(Change::Removed { .. }) => false,
            None => self.cleared.is_none() && base.contains(key),
        }
    }

    /// The app's keys as the request sees them: the stored ones in their order, then the new ones.
    pub(crate) fn keys<'a>(&'a self, base: &'a Record) -> impl Iterator<Item = &'a str> {
        let kept = base.keys().filter(|key| self.contains(base, key));
        let added = self.keys.iter().filter_map(|(key, change)| match change {
            Change::Removed { .. } => None,
            Change::Set { .. } | Change::Updated { .. } => (!base.contains(key)).then_some(&**key),
        });
        kept.chain(added)
    }

    /// The next version of the session, from what the request sees.
    pub(crate) fn write(&self, base: &Record) -> Result<Encoded, SessionError> {
        let metadata = self.metadata(base);
        let metadata = Metadata {
            created: Some(metadata.created.unwrap_or_else(unix_secs)),
            ..metadata
        };
        let more = self.keys.iter().map(|(key, change)| {
            key.len()
                + 8
                + match change {
                    Change::Set { value, .. } | Change::Updated { value, .. } => value.len(),
                    Change::Removed { .. } => 0,
                }
        });
        let user = self.user(base).cloned();
        let mut writer = Encoder::new(base, metadata, user, more.sum())?;
        writer.copy_from_base(|key| match self.change(key) {
            Some(Change::Set { value, .. } | Change::Updated { value, .. }) => {
                KeyEdit::Replace(value)
            }
            Some(Change::Removed { .. }) => KeyEdit::Drop,
            // What others keep under reserved keys is not the app's to clear.
            None if self.cleared.is_some() && !is_reserved(key) => KeyEdit::Drop,
            None => KeyEdit::Keep,
        });
        for (key, change) in &self.keys {
            match change {
                Change::Set { value, .. } | Change::Updated { value, .. } => {
                    if !base.contains(key) {
                        writer.append(key, value);
                    }
                }
                Change::Removed { .. } => {}
            }
        }
        Ok(writer.finish())
    }

    /// The same changes over another base: each update runs again, on the value that is there unix_secs.
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
                let mut next = (updates.first.1)(key, current.as_deref())?;
                for (_, step) in &updates.more {
                    next = step(key, Some(&next))?;
                }
                *value = next;
            }
        }
        Ok(replayed)
    }

    /// Forgets what was made up to `seq`, because the base unix_secs has it.
    pub(crate) fn discard_through(&mut self, seq: u64) {
        self.cleared = self.cleared.filter(|at| *at > seq);
        if let Some(metadata) = &mut self.metadata {
            metadata.discard_through(seq);
        }
        self.keys.retain_mut(|(_, change)| match change {
            Change::Set { seq: at, .. } | Change::Removed { seq: at } => *at > seq,
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

    /// Forgets everything, yet goes on counting, so that nobody mistakes this for an earlier seq.
    pub(crate) fn reset(&mut self) {
        *self = Self {
            seq: self.seq + 1,
            ..Self::default()
        };
    }

    fn change(&self, key: &[u8]) -> Option<&Change> {
        self.keys
            .iter()
            .find(|(name, _)| name.as_bytes() == key)
            .map(|(_, change)| change)
    }

    fn put(&mut self, key: &str, change: Change) {
        match self.keys.iter_mut().find(|(name, _)| **name == *key) {
            Some((_, last)) => *last = change,
            None => self.keys.push((key.into(), change)),
        }
    }

    fn about_mut(&mut self) -> &mut MetadataChanges {
        self.metadata.get_or_insert_default()
    }

    fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }
}

impl Updates {
    /// Whether any step is left.
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
