use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) retries_exhausted: AtomicU64,
    pub(crate) discarded: AtomicU64,
    pub(crate) unreadable: AtomicU64,
}

/// Counters of the saves of a layer and its clones in this process, from [`commit_stats`](crate::RedisSessionLayer::commit_stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommitStats {
    /// Successful writes: sessions created, saved, deleted, rotated or destroyed.
    pub commits: u64,
    /// Retries of saves after a conflict with another request.
    pub retries: u64,
    /// Requests that failed with [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) after all retries.
    pub retries_exhausted: u64,
    /// Requests whose changes were discarded because their session was destroyed, rotated or expired.
    pub discarded: u64,
    /// Loads of a stored value that is not a session of this crate. With
    /// [`with_discard_unreadable`](crate::RedisSessionLayer::with_discard_unreadable), the visitor had an empty session instead.
    pub unreadable: u64,
}

impl Counters {
    pub(crate) fn stats(&self) -> CommitStats {
        CommitStats {
            commits: self.commits.load(Relaxed),
            retries: self.retries.load(Relaxed),
            retries_exhausted: self.retries_exhausted.load(Relaxed),
            discarded: self.discarded.load(Relaxed),
            unreadable: self.unreadable.load(Relaxed),
        }
    }
}
