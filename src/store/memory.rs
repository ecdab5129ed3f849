//! The store in this process's memory, with the same contract, for development and tests.

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
use crate::record::{is_tombstone, same_revision};

#[derive(Clone, Default)]
pub(crate) struct MemoryStore {
    keys: Arc<Mutex<Keys>>,
}

#[derive(Default)]
struct Keys {
    indexes: HashMap<Box<str>, UserIndex>,
    values: HashMap<Box<str>, Value>,
    /// Expired values are removed when there are this many values, which then is set to twice the rest.
    sweep_at: usize,
}

struct Value {
    bytes: Bytes,
    expires: Instant,
}

// Asynchronous, so that all stores are called alike.
#[allow(clippy::unused_async)]
impl MemoryStore {
    pub(crate) async fn load(&self, key: &str, lifetime: Duration) -> Result<Option<Bytes>, Fault> {
        Ok(self.keys().live(key).map(|value| {
            value.expires = Instant::now() + lifetime;
            value.bytes.clone()
        }))
    }

    pub(crate) async fn touch(&self, key: &str, lifetime: Duration) -> Result<(), Fault> {
        if let Some(value) = self.keys().live(key) {
            value.expires = Instant::now() + lifetime;
        }
        Ok(())
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
                Created::Created
            } else {
                Created::AlreadyExists
            });
        }
        keys.put(key, value, lifetime);
        Ok(Created::Created)
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
        if keys
            .live(key)
            .is_some_and(|value| is_tombstone(&value.bytes))
        {
            return Ok(Destroyed::Tombstone);
        }
        keys.values.remove(key);
        Ok(Destroyed::Deleted)
    }

    pub(crate) async fn rotate(&self, rotation: &Rotation<'_>) -> Result<Outcome, Fault> {
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

    /// All values that have not expired.
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
            self.indexes.retain(|_, index| index.expires > now);
            self.sweep_at = (self.values.len() * 2).max(1024);
        }
        let value = Value {
            bytes: bytes.clone(),
            expires: now + lifetime,
        };
        self.values.insert(key.into(), value);
    }
}

struct UserIndex {
    /// The oldest first.
    entries: Vec<IndexEntry>,
    expires: Instant,
}

#[allow(clippy::unused_async)]
impl MemoryStore {
    pub(crate) async fn add_to_index(
        &self,
        index: &UserIndexKey,
        entry: &IndexEntry,
        lifetime: Duration,
        options: AddOptions<'_>,
    ) -> Result<bool, Fault> {
        let mut keys = self.keys();
        let expires = Instant::now() + lifetime;
        let index = keys.indexes.entry(index.key.as_str().into());
        let index = index.or_insert_with(|| UserIndex {
            entries: Vec::new(),
            expires,
        });
        let entries = &mut index.entries;
        let is_known = |name: &str| entries.iter().any(|other| other.name == name);
        if options.max.is_some_and(|max| entries.len() >= max)
            && !is_known(&entry.name)
            && !options.replaces.is_some_and(is_known)
        {
            return Ok(false);
        }
        entries.retain(|other| other.name != entry.name);
        let place = entries.partition_point(|other| other.added_at <= entry.added_at);
        entries.insert(place, entry.clone());
        index.expires = index.expires.max(expires);
        Ok(true)
    }

    pub(crate) async fn remove_from_index(
        &self,
        index: &UserIndexKey,
        names: &[String],
    ) -> Result<(), Fault> {
        let mut keys = self.keys();
        if let Some(found) = keys.indexes.get_mut(&*index.key) {
            found.entries.retain(|entry| !names.contains(&entry.name));
            if found.entries.is_empty() {
                keys.indexes.remove(&*index.key);
            }
        }
        Ok(())
    }

    pub(crate) async fn index_len(&self, index: &UserIndexKey) -> Result<usize, Fault> {
        let keys = self.keys();
        let found = keys.indexes.get(&*index.key);
        Ok(found.map_or(0, |index| index.entries.len()))
    }

    pub(crate) async fn index_page(
        &self,
        index: &UserIndexKey,
        cursor: Cursor,
        count: usize,
    ) -> Result<Vec<IndexEntry>, Fault> {
        let keys = self.keys();
        let Some(UserIndex { entries, .. }) = keys.indexes.get(&*index.key) else {
            return Ok(Vec::new());
        };
        let first = entries.partition_point(|other| other.added_at < cursor.added_at);
        let rest = entries[first..].iter().skip(cursor.seen);
        Ok(rest.take(count).cloned().collect())
    }

    pub(crate) async fn value(&self, key: &str) -> Result<Option<Bytes>, Fault> {
        Ok(self.keys().live(key).map(|value| value.bytes.clone()))
    }

    pub(crate) async fn peek(&self, key: &str) -> Result<Option<(Bytes, Duration)>, Fault> {
        let mut keys = self.keys();
        let Some(value) = keys.live(key) else {
            return Ok(None);
        };
        let ttl = value.expires.saturating_duration_since(Instant::now());
        Ok(Some((value.bytes.clone(), ttl)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn expired_values_and_indexes_are_freed() {
        let store = MemoryStore::default();
        let value = Bytes::from_static(b"{}");
        let enter = async |user: &str, lifetime| {
            let index = UserIndexKey::new("", user);
            let entry = IndexEntry {
                name: "name".to_owned(),
                added_at: 1,
            };
            let options = AddOptions::default();
            let added = store.add_to_index(&index, &entry, lifetime, options);
            assert!(added.await.expect("no fault"));
        };
        store.create("live", &value, LONG).await.expect("no fault");
        enter("live", LONG).await;
        for number in 0..5000 {
            let name = number.to_string();
            let created = store.create(&name, &value, Duration::ZERO);
            created.await.expect("no fault");
            enter(&name, Duration::ZERO).await;
        }
        let keys = store.keys();
        // As many as two sweeps are apart.
        assert!(keys.values.len() <= 1024, "{} values", keys.values.len());
        assert!(keys.indexes.len() <= 1024, "{} indexes", keys.indexes.len());
        assert!(keys.values.contains_key("live"));
        assert!(keys.indexes.contains_key("user:live"));
    }
}
