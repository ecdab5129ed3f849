//! The entries, and what they weigh.

use std::{hash::RandomState, sync::Arc, time::Instant};

use quick_cache::{Lifecycle, Weighter, sync};

use super::{
    stats::{CacheCounters, DropCause},
    tracking::Ticket,
};
use crate::record::Record;

/// What an entry takes beside its key and its record: itself, the map's slot (74 bytes), and for each of its five allocations what the allocator and
/// the reference counts add.
const ENTRY_OVERHEAD: usize = size_of::<Entry>() + 74 + 5 * 32;

pub(super) type Entries = sync::Cache<Arc<str>, Arc<Entry>, Weight, RandomState, Evictions>;

/// A session as it was stored when the server reported that it would announce changes.
pub(crate) struct Entry {
    pub(crate) record: Record,
    pub(super) ticket: Ticket,
    /// When the key expires, by the TTL at the time when it was asked for.
    pub(super) expires: Instant,
}

/// In bytes, about.
#[derive(Clone)]
pub(super) struct Weight;

impl Weighter<Arc<str>, Arc<Entry>> for Weight {
    fn weight(&self, key: &Arc<str>, entry: &Arc<Entry>) -> u64 {
        (key.len() + entry.record.size() + ENTRY_OVERHEAD) as u64
    }
}

/// Counts what has to make room.
#[derive(Clone)]
pub(super) struct Evictions(pub(super) Arc<CacheCounters>);

impl Lifecycle<Arc<str>, Arc<Entry>> for Evictions {
    /// The key that is put in: its former entry is not evicted.
    type RequestState = Option<Arc<str>>;

    fn on_evict(&self, inserted: &mut Self::RequestState, key: Arc<str>, _: Arc<Entry>) {
        if inserted.as_ref() != Some(&key) {
            self.0.dropped(DropCause::Evicted);
        }
    }
}
