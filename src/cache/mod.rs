//! Sessions in this process's memory, which the server invalidates (client tracking).
//!
//! 1. **A ticket** is taken before a command is sent. What the reply holds is put in only if nothing happened since that could make it old:
//!    an invalidation of a key in the same bucket (its generation), or the end of trust in a connection (the epoch).
//! 2. **After putting in, the ticket is checked again**, and the entry removed if it is out of date. An invalidation first advances the
//!    generation and then removes, so one of the two removes the entry.
//! 3. **A modification by this process** advances the generation too, since the server does not report it to its own connection.
//! 4. **An entry is used** while its epoch is current, its connection has shown a sign of life within `max_staleness`, its key has not expired,
//!    and it is younger than [`MAX_AGE`].
//!
//! Nothing here sends commands: `store/cached.rs` does, and the connections report invalidations.

mod entries;
mod flights;
mod modification;
mod options;
mod stats;
mod tracking;

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use quick_cache::{OptionsBuilder, sync};

#[cfg(test)]
pub(crate) use self::options::Broken;
pub(crate) use self::{
    entries::Entry,
    flights::{Flight, Loaded},
    stats::DropCause,
    tracking::{Ticket, Tracking},
};
use self::{
    entries::{Entries, Evictions, Weight},
    flights::Flights,
    stats::CacheCounters,
    tracking::{Epochs, Reports},
};
pub use self::{options::LocalCache, stats::CacheStats};
use crate::record::Record;

/// An entry is read again after this long. It bounds what no invalidation reports: SWAPDB, and a demoted master that is cut off from the new
/// one but still answers PING.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Keys share a generation if they share a bucket, so an invalidation can keep another key's read out of the cache. With this many buckets
/// and 5,000 invalidations a second, that happens to one read of a millisecond in 800. A power of two; 8 bytes each.
const BUCKETS: usize = if cfg!(test) { 16 } else { 4096 };

pub(crate) struct Cache {
    options: LocalCache,
    entries: Entries,
    /// One counter a bucket, incremented by everything that changes one of its keys.
    generations: Box<[AtomicU64]>,
    hasher: RandomState,
    epochs: Arc<Epochs>,
    counters: Arc<CacheCounters>,
    flights: Flights,
    reports: Reports,
}

impl Cache {
    pub(crate) fn new(options: LocalCache) -> Self {
        let counters = Arc::new(CacheCounters::default());
        let weight = options.max_bytes as u64;
        let sizes = OptionsBuilder::new()
            .estimated_items_capacity(options.max_bytes / 1024)
            .weight_capacity(weight)
            // A ghost is the hash of an evicted key; they help little where keys are used until they end.
            .ghost_allocation(0.1)
            .build()
            .expect("all sizes are given");
        Self {
            options,
            entries: sync::Cache::with_options(
                sizes,
                Weight,
                RandomState::new(),
                Evictions(counters.clone()),
            ),
            generations: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
            epochs: Arc::default(),
            counters,
            flights: Flights::default(),
            reports: Reports::default(),
        }
    }

    pub(crate) fn options(&self) -> &LocalCache {
        &self.options
    }

    /// How long the entry's key lives on.
    pub(crate) fn ttl(&self, entry: &Entry) -> Duration {
        entry.expires.saturating_duration_since(self.now())
    }

    pub(crate) fn now(&self) -> Instant {
        #[cfg(test)]
        return Instant::now() + self.options.test.skew();
        #[cfg(not(test))]
        Instant::now()
    }

    /// The entry of `key`, if it may be used.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Entry>> {
        let entry = self.entries.get(key)?;
        match self.doubt(&entry, self.now()) {
            None => Some(entry),
            // The connection may show a sign of life yet.
            Some(DropCause::Stale) => None,
            // Kept for an outage.
            Some(DropCause::Disconnected) if self.options.stale_if_error.is_some() => None,
            Some(cause) => {
                self.remove_entry(key, &entry, cause);
                None
            }
        }
    }

    /// The entry of `key`, if it may be used while the store cannot be reached.
    pub(crate) fn get_stale(&self, key: &str) -> Option<Arc<Entry>> {
        let limit = self.options.stale_if_error?;
        let entry = self.entries.get(key)?;
        let now = self.now();
        let is_usable = self.epochs.is_trusted(&entry.ticket)
            && now < entry.expires
            && entry.ticket.tracking.is_fresh(now, limit);
        is_usable.then_some(entry)
    }

    /// Why an entry may not be used, if so.
    fn doubt(&self, entry: &Entry, now: Instant) -> Option<DropCause> {
        let Entry {
            ticket, expires, ..
        } = entry;
        if !self.epochs.is_current(ticket) {
            Some(DropCause::Disconnected)
        } else if now >= *expires {
            Some(DropCause::Expired)
        } else if now.duration_since(ticket.sent) >= MAX_AGE {
            Some(DropCause::Aged)
        } else if !ticket.tracking.is_fresh(now, self.options.max_staleness) {
            Some(DropCause::Stale)
        } else {
            None
        }
    }

    /// Taken before a read or a write of `key` is sent. `tracking` is asked for the connection after the epoch was noted, so that a
    /// connection that is replaced meanwhile makes the ticket worthless.
    pub(crate) fn ticket(
        &self,
        key: &str,
        tracking: impl FnOnce() -> Option<Arc<Tracking>>,
    ) -> Option<Ticket> {
        let generation = self.generation(key).load(SeqCst);
        let (epoch, flushes) = self.epochs.now();
        Some(Ticket {
            generation,
            epoch,
            flushes,
            tracking: tracking()?,
            sent: self.now(),
        })
    }

    /// Puts in what a read with this ticket returned, unless that may be old by now. Then a present entry goes too, since the reader has
    /// seen something else.
    pub(crate) fn install(&self, key: &str, ticket: Ticket, record: &Record, ttl: Duration) {
        let generation = ticket.generation;
        self.install_if(key, ticket, generation, record, ttl);
    }

    fn install_if(
        &self,
        key: &str,
        mut ticket: Ticket,
        generation: u64,
        record: &Record,
        ttl: Duration,
    ) {
        ticket.generation = generation;
        #[cfg(test)]
        let ttl = self.options.test.ttl(ttl);
        let expires = ticket.sent.checked_add(ttl);
        let Some(expires) = expires.filter(|_| self.is_current(key, &ticket)) else {
            self.remove(key, DropCause::Raced);
            return;
        };
        let entry = Arc::new(Entry {
            record: record.shared(),
            ticket,
            expires,
        });
        let key: Arc<str> = key.into();
        let mut evictions = Some(key.clone());
        self.entries
            .insert_with_lifecycle(key.clone(), entry.clone(), &mut evictions);
        if !self.is_current(&key, &entry.ticket) {
            self.remove(&key, DropCause::Raced);
        }
    }

    /// The server reports that another connection changed `key`.
    pub(crate) fn invalidate_reported(&self, key: &str) {
        self.counters.invalidations.fetch_add(1, Relaxed);
        self.invalidate(key, DropCause::Invalidated);
    }

    /// A reply about `key` came over a connection that is not the key's.
    #[cfg(feature = "cluster")]
    pub(crate) fn invalidate_redirected(&self, key: &str) {
        self.invalidate(key, DropCause::Raced);
    }

    /// The server is not a master any more, so its reports may be late.
    pub(crate) fn distrust(&self) {
        self.epochs.advance();
    }

    /// The stored sessions may be others altogether: the server was flushed, or said what is not known.
    pub(crate) fn flush(&self) {
        self.epochs.flush();
    }

    /// Keys have moved to other servers.
    #[cfg(feature = "cluster")]
    pub(crate) fn topology_changed(&self) {
        self.epochs.advance();
    }

    /// For a new connection.
    pub(crate) fn tracking(&self) -> Arc<Tracking> {
        Arc::new(Tracking::new(self.epochs.clone()))
    }

    /// Makes all reads of `key` that are in flight worthless, and removes its entry.
    fn invalidate(&self, key: &str, cause: DropCause) {
        self.generation(key).fetch_add(1, SeqCst);
        self.remove(key, cause);
    }

    /// What was just read under `key` is not a live session, or cannot be kept.
    pub(crate) fn remove_ended(&self, key: &str) {
        self.remove(key, DropCause::Expired);
    }

    fn remove(&self, key: &str, cause: DropCause) {
        if self.entries.remove(key).is_some() {
            self.counters.dropped(cause);
        }
    }

    fn remove_entry(&self, key: &str, entry: &Arc<Entry>, cause: DropCause) {
        let is_same = |present: &Arc<Entry>| Arc::ptr_eq(present, entry);
        if self.entries.remove_if(key, is_same).is_some() {
            self.counters.dropped(cause);
        }
    }

    fn generation(&self, key: &str) -> &AtomicU64 {
        let hash = self.hasher.hash_one(key);
        &self.generations[hash as usize % BUCKETS]
    }

    /// Whether a read that began with `ticket` would be put in if it ended now.
    fn is_current(&self, key: &str, ticket: &Ticket) -> bool {
        #[cfg(test)]
        if self.options.test.is_broken(Broken::NoFence) {
            return true;
        }
        self.generation(key).load(SeqCst) == ticket.generation && self.epochs.is_current(ticket)
    }

    /// The read of `key` that is in flight, to be joined, or a new one.
    pub(crate) fn flight<'a>(&'a self, key: &'a str, ticket: Ticket) -> Flight<'a> {
        let limit = self.options.max_staleness;
        self.flights.join(key, ticket, |present| {
            !self.is_current(key, present) || present.sent + limit <= self.now()
        })
    }

    /// Removes what can never be used again, so that ended sessions do not stay in memory.
    pub(crate) fn sweep(&self) {
        let now = self.now();
        let keeps = |entry: &Entry| match self.doubt(entry, now) {
            None | Some(DropCause::Stale) => Ok(()),
            Some(cause) => match self.options.stale_if_error {
                Some(limit) if now < entry.expires => {
                    let is_fresh = entry.ticket.tracking.is_fresh(now, limit);
                    is_fresh.then_some(()).ok_or(cause)
                }
                _ => Err(cause),
            },
        };
        self.entries.retain(|_, entry| match keeps(entry) {
            Ok(()) => true,
            Err(cause) => {
                self.counters.dropped(cause);
                false
            }
        });
    }

    /// Whether the server reports changes, and why not.
    pub(crate) fn reports(&self) -> &Reports {
        &self.reports
    }

    pub(crate) fn count_hit(&self) {
        self.counters.hits.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_stale_hit(&self) {
        self.counters.stale_hits.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_miss(&self) {
        self.counters.misses.fetch_add(1, Relaxed);
    }

    pub(crate) fn stats(&self) -> CacheStats {
        self.counters
            .stats(self.entries.len(), self.entries.weight())
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
