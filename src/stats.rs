//! Counters of a layer's saves.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) retries_exhausted: AtomicU64,
    pub(crate) discarded: AtomicU64,
}

/// Counters of the saves of a layer and all its clones in this process, since the layer was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommitStats {
    /// Changes that reached the store: sessions created, saved, deleted, rotated or destroyed.
    pub commits: u64,
    /// Saves that were retried on top of another request's version.
    pub retries: u64,
    /// Requests that gave up, with [`ErrorKind::Conflict`](crate::ErrorKind::Conflict).
    pub retries_exhausted: u64,
    /// Requests whose changes were discarded, because their session had been destroyed, rotated or had expired.
    pub discarded: u64,
}

impl Counters {
    pub(crate) fn stats(&self) -> CommitStats {
        CommitStats {
            commits: self.commits.load(Relaxed),
            retries: self.retries.load(Relaxed),
            retries_exhausted: self.retries_exhausted.load(Relaxed),
            discarded: self.discarded.load(Relaxed),
        }
    }
}
