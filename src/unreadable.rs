//! The keys whose values turned out to be no sessions.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// At 8 bytes each. Beyond it, the oldest is forgotten.
const MAX_KEYS: usize = 1024;

/// Remembers keys whose values cannot be read, so that the next load does not prolong them.
///
/// A load reads the value and sets its TTL by one command, so the first one prolongs what it cannot use; its former TTL is not known
/// any more. Each process finds out for itself.
#[derive(Default)]
pub(crate) struct UnreadableKeys {
    /// So that loads take no lock where there are none.
    any: AtomicBool,
    hasher: RandomState,
    hashes: Mutex<Hashes>,
}

#[derive(Default)]
struct Hashes {
    hashes: Vec<u64>,
    oldest: usize,
}

impl UnreadableKeys {
    pub(crate) fn contains(&self, key: &str) -> bool {
        self.any.load(Relaxed) && self.with(|keys| keys.hashes.contains(&self.hasher.hash_one(key)))
    }

    pub(crate) fn add(&self, key: &str) {
        let hash = self.hasher.hash_one(key);
        self.any.store(true, Relaxed);
        self.with(|keys| {
            if keys.hashes.contains(&hash) {
                return;
            }
            if keys.hashes.len() < MAX_KEYS {
                keys.hashes.push(hash);
            } else {
                keys.hashes[keys.oldest] = hash;
                keys.oldest = (keys.oldest + 1) % MAX_KEYS;
            }
        });
    }

    /// The key has a session again.
    pub(crate) fn remove(&self, key: &str) {
        let hash = self.hasher.hash_one(key);
        self.with(|keys| {
            keys.hashes.retain(|other| *other != hash);
            keys.oldest = 0;
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut Hashes) -> T) -> T {
        work(&mut self.hashes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_keys_is_bounded() {
        let keys = UnreadableKeys::default();
        assert!(!keys.contains("0"));
        for key in 0..=MAX_KEYS {
            keys.add(&key.to_string());
            keys.add(&key.to_string());
        }
        let held = (0..=MAX_KEYS).filter(|key| keys.contains(&key.to_string()));
        assert_eq!(held.count(), MAX_KEYS);
        assert!(!keys.contains("0"), "the oldest is forgotten");
        keys.remove("1");
        assert!(!keys.contains("1") && keys.contains("2"));
    }
}
