//! The embedded store: the same contract in this process's memory, for development and tests.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    outcome::{Created, Destroyed, Fault, Outcome, Rotation},
    user_index::{AddOptions, Cursor, IndexEntry, UserIndexKey},
};
use crate::record::{Decoded, Record, same_revision};

#[derive(Clone, Default)]
pub(crate) struct MemoryStore {
    keys: Arc<Mutex<Keys>>,
}

#[derive(Default)]
struct Keys {
    users: HashMap<Box<str>, UserIndex>,
    values: HashMap<Box<str>, Value>,
    /// Expired values are swept when this many are held, which then doubles with what is left.
    sweep_at: usize,
}

struct Value {
    bytes: Bytes,
    expires: Instant,
}

// Asynchronous like the store that it stands in for, so that both are called alike.
#[allow(clippy::unused_async)]
impl MemoryStore {
    pub(crate) async fn load(&self, key: &str, lifetime: Duration) -> Result<Option<Bytes>, Fault> {
        Ok(self.keys().live(key).map(|value| {
            value.expires = Instant::now() + lifetime;
            value.bytes.clone()
        }))
    }

    pub(crate) fn touch(&self, key: &str, lifetime: Duration) {
        if let Some(value) = self.keys().live(key) {
            value.expires = Instant::now() + lifetime;
        }
    }

    pub(crate) async fn create(
        &self,
        key: &str,
        value: &Bytes,
        lifetime: Duration,
    ) -> Result<Created, Fault> {
        let mut keys = self.keys();
        if let Some(other) = keys.live(key) {
            let own = same_revision(&other.bytes, value);
            return Ok(if own {
                Created::Yes
            } else {
                Created::AlreadyExists
            });
        }
        keys.put(key, value, lifetime);
        Ok(Created::Yes)
    }

    pub(crate) async fn save(
        &self,
        key: &str,
        expected: &[u8],
        value: &Bytes,
        lifetime: Duration,
    ) -> Result<Outcome, Fault> {
        let mut keys = self.keys();
        let outcome = keys.compare(key, expected, value);
        if outcome == Outcome::Saved {
            keys.put(key, value, lifetime);
        }
        Ok(outcome)
    }

    pub(crate) async fn delete(&self, key: &str, expected: &[u8]) -> Result<Outcome, Fault> {
        let mut keys = self.keys();
        let outcome = keys.compare(key, expected, expected);
        if outcome == Outcome::Saved {
            keys.values.remove(key);
        }
        Ok(outcome)
    }

    pub(crate) async fn destroy(&self, key: &str) -> Result<Destroyed, Fault> {
        let mut keys = self.keys();
        let retired = keys.live(key).is_some_and(|value| {
            matches!(Record::decode(&value.bytes), Ok(Decoded::Tombstone { .. }))
        });
        if retired {
            return Ok(Destroyed::Tombstone);
        }
        keys.values.remove(key);
        Ok(Destroyed::Deleted)
    }

    pub(crate) fn rotate(&self, rotation: &Rotation<'_>) -> Result<Outcome, Fault> {
        let mut keys = self.keys();
        let outcome = keys.compare(rotation.from, rotation.expected, rotation.tombstone);
        if outcome == Outcome::Saved {
            keys.put(rotation.to, rotation.value, rotation.lifetime);
            keys.put(
                rotation.from,
                rotation.tombstone,
                rotation.tombstone_lifetime,
            );
        }
        Ok(outcome)
    }

    /// Everything that has not expired.
    #[cfg(test)]
    pub(crate) fn dump(&self) -> Vec<(String, Bytes)> {
        let keys = self.keys();
        let live = keys
            .values
            .iter()
            .filter(|(_, value)| value.expires > Instant::now());
        live.map(|(key, value)| (key.to_string(), value.bytes.clone()))
            .collect()
    }

    #[cfg(test)]
    pub(crate) fn erase(&self, key: &str) {
        self.keys().values.remove(key);
    }

    #[cfg(test)]
    pub(crate) fn overwrite(&self, key: &str, value: &Bytes, lifetime: Duration) {
        self.keys().put(key, value, lifetime);
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys {
    fn live(&mut self, key: &str) -> Option<&mut Value> {
        self.values
            .get_mut(key)
            .filter(|value| value.expires > Instant::now())
    }

    fn compare(&mut self, key: &str, expected: &[u8], own: &[u8]) -> Outcome {
        match self.live(key) {
            None => Outcome::Gone,
            Some(stored)
                if same_revision(&stored.bytes, expected) || same_revision(&stored.bytes, own) =>
            {
                Outcome::Saved
            }
            Some(stored) => Outcome::Conflict(stored.bytes.clone()),
        }
    }

    fn put(&mut self, key: &str, bytes: &Bytes, lifetime: Duration) {
        let now = Instant::now();
        if self.values.len() >= self.sweep_at {
            self.values.retain(|_, value| value.expires > now);
            self.users.retain(|_, members| members.expires > now);
            self.sweep_at = (self.values.len() * 2).max(1024);
        }
        let value = Value {
            bytes: bytes.clone(),
            expires: now + lifetime,
        };
        self.values.insert(key.into(), value);
    }
}

/// A set of the embedded store.
struct UserIndex {
    /// The one first that was entered the longest ago.
    listed: Vec<IndexEntry>,
    expires: Instant,
}

impl MemoryStore {
    pub(super) fn enter(
        &self,
        set: &UserIndexKey,
        session: &IndexEntry,
        lifetime: Duration,
        entry: AddOptions<'_>,
    ) -> bool {
        let mut keys = self.keys();
        let expires = Instant::now() + lifetime;
        let members = keys.users.entry(set.key.as_str().into());
        let members = members.or_insert_with(|| UserIndex {
            listed: Vec::new(),
            expires,
        });
        let listed = &mut members.listed;
        let is_known = |name: &str| listed.iter().any(|other| other.name == name);
        if entry.max.is_some_and(|max| listed.len() >= max)
            && !is_known(&session.name)
            && !entry.replaces.is_some_and(is_known)
        {
            return false;
        }
        listed.retain(|other| other.name != session.name);
        let place = listed.partition_point(|other| other.added_at <= session.added_at);
        listed.insert(place, session.clone());
        members.expires = members.expires.max(expires);
        true
    }

    pub(super) fn leave(&self, set: &UserIndexKey, names: &[String]) {
        let mut keys = self.keys();
        if let Some(members) = keys.users.get_mut(&*set.key) {
            members
                .listed
                .retain(|session| !names.contains(&session.name));
            if members.listed.is_empty() {
                keys.users.remove(&*set.key);
            }
        }
    }

    pub(super) fn entered(&self, set: &UserIndexKey) -> usize {
        let keys = self.keys();
        keys.users
            .get(&*set.key)
            .map_or(0, |members| members.listed.len())
    }

    pub(super) fn listed(
        &self,
        set: &UserIndexKey,
        cursor: Cursor,
        count: usize,
    ) -> Vec<IndexEntry> {
        let keys = self.keys();
        let Some(members) = keys.users.get(&*set.key) else {
            return Vec::new();
        };
        let listed = &members.listed;
        let first = listed.partition_point(|other| other.added_at < cursor.added_at);
        let from_there = listed[first..].iter().skip(cursor.seen);
        from_there.take(count).cloned().collect()
    }

    pub(super) fn peek(&self, key: &str) -> Option<(Bytes, Duration)> {
        let mut keys = self.keys();
        let value = keys.live(key)?;
        let left = value.expires.saturating_duration_since(Instant::now());
        Some((value.bytes.clone(), left))
    }
}
