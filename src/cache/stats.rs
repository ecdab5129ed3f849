use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why an entry left the cache, or was not put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DropCause {
    /// The server reported a change by another connection.
    Invalidated,
    /// This process changed or ended the session.
    Modified,
    /// Something happened to the key while it was read or written.
    Raced,
    /// The key expired, or its session was found to have ended.
    Expired,
    /// The entry was older than the longest time without a read.
    Aged,
    /// The connection ended, or the server forgot what it tracks.
    Disconnected,
    /// The connection showed no sign of life. The entry stays.
    Stale,
    /// Other sessions needed the room.
    Evicted,
}

const CAUSES: usize = 8;

#[derive(Default)]
pub(super) struct CacheCounters {
    pub(super) hits: AtomicU64,
    pub(super) stale_hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) invalidations: AtomicU64,
    dropped: [AtomicU64; CAUSES],
}

/// Counters of the local cache, from [`cache_stats`](crate::RedisSessionLayer::cache_stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Loads that were answered from the cache.
    pub hits: u64,
    /// Of these, loads during an outage, by [`stale_if_error`](crate::LocalCache::stale_if_error).
    pub stale_hits: u64,
    /// Loads that asked Redis.
    pub misses: u64,
    /// Keys whose change Redis reported, cached or not.
    pub invalidations: u64,
    /// Sessions in the cache now.
    pub entries: u64,
    /// The memory that they take, about.
    pub bytes: u64,
    /// Entries dropped because Redis reported a change.
    pub dropped_invalidated: u64,
    /// Entries dropped because this process changed or ended the session.
    pub dropped_modified: u64,
    /// Entries dropped because something happened to the session while it was read or written.
    pub dropped_raced: u64,
    /// Entries dropped because the session expired or was found to have ended.
    pub dropped_expired: u64,
    /// Entries dropped because they were a minute old.
    pub dropped_aged: u64,
    /// Entries dropped because the connection to Redis ended or Redis was flushed.
    pub dropped_disconnected: u64,
    /// Entries dropped to make room.
    pub dropped_evicted: u64,
}

impl CacheCounters {
    pub(super) fn dropped(&self, cause: DropCause) {
        self.dropped[cause as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn stats(&self, entries: usize, bytes: u64) -> CacheStats {
        let dropped = |cause: DropCause| self.dropped[cause as usize].load(Relaxed);
        let stale_hits = self.stale_hits.load(Relaxed);
        CacheStats {
            hits: self.hits.load(Relaxed) + stale_hits,
            stale_hits,
            misses: self.misses.load(Relaxed),
            invalidations: self.invalidations.load(Relaxed),
            entries: entries as u64,
            bytes,
            dropped_invalidated: dropped(DropCause::Invalidated),
            dropped_modified: dropped(DropCause::Modified),
            dropped_raced: dropped(DropCause::Raced),
            dropped_expired: dropped(DropCause::Expired),
            dropped_aged: dropped(DropCause::Aged),
            dropped_disconnected: dropped(DropCause::Disconnected),
            dropped_evicted: dropped(DropCause::Evicted),
        }
    }
}
