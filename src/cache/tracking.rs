//! What is known of the connections that report changes.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

/// Advanced when a change may have gone unreported. Entries of an earlier epoch are not used.
#[derive(Default)]
pub(super) struct Epochs {
    epoch: AtomicU64,
    /// Advanced when the stored sessions may be others altogether. Older entries are not even used in an outage.
    flushes: AtomicU64,
}

/// One connection on which the server reports changes of the keys that were read over it.
pub(crate) struct Tracking {
    epochs: Arc<Epochs>,
    created: Instant,
    /// When the last answered command was sent, in nanoseconds since `created`, and one. An answer proves that everything was handled that the
    /// server reported before. 0: none yet.
    confirmed: AtomicU64,
}

/// Whether the server reports changes.
#[derive(Default)]
pub(crate) struct Reports {
    /// Why the last connection has none.
    why_off: Mutex<Option<&'static str>>,
    /// The operator was told.
    was_warned: AtomicBool,
}

/// What was known when a command was sent.
#[derive(Clone)]
pub(crate) struct Ticket {
    pub(super) generation: u64,
    pub(super) epoch: u64,
    pub(super) flushes: u64,
    pub(super) tracking: Arc<Tracking>,
    pub(super) sent: Instant,
}

impl Epochs {
    pub(super) fn now(&self) -> (u64, u64) {
        (self.epoch.load(SeqCst), self.flushes.load(SeqCst))
    }

    pub(super) fn is_current(&self, ticket: &Ticket) -> bool {
        self.epoch.load(SeqCst) == ticket.epoch
    }

    pub(super) fn is_trusted(&self, ticket: &Ticket) -> bool {
        self.flushes.load(SeqCst) == ticket.flushes
    }

    /// A connection began or ended, or keys moved to another server.
    pub(super) fn advance(&self) {
        self.epoch.fetch_add(1, SeqCst);
    }

    pub(super) fn flush(&self) {
        self.flushes.fetch_add(1, SeqCst);
        self.advance();
    }
}

impl Tracking {
    pub(super) fn new(epochs: Arc<Epochs>) -> Self {
        Self {
            epochs,
            created: Instant::now(),
            confirmed: AtomicU64::new(0),
        }
    }

    /// The server has turned tracking on, by a command that was sent at this time.
    pub(crate) fn begin(&self, sent: Instant) {
        self.epochs.advance();
        self.confirm(sent);
    }

    /// The connection is not used any more, for whatever reason.
    pub(crate) fn end(&self) {
        self.epochs.advance();
    }

    /// A command was answered that was sent at this time.
    pub(crate) fn confirm(&self, sent: Instant) {
        self.confirmed.fetch_max(self.nanos(sent) + 1, SeqCst);
    }

    /// Whether the last sign of life is not older than `limit`.
    pub(super) fn is_fresh(&self, now: Instant, limit: Duration) -> bool {
        let confirmed = self.confirmed.load(SeqCst);
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        confirmed != 0 && self.nanos(now) < (confirmed - 1).saturating_add(limit)
    }

    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.created);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX - 1)
    }
}

impl Reports {
    pub(crate) fn on(&self) {
        self.set_why_off(None);
    }

    /// Logs once why the server reports no changes, so that nothing is cached.
    pub(crate) fn off(&self, why: &'static str) {
        self.set_why_off(Some(why));
        if !self.was_warned.swap(true, Relaxed) {
            tracing::warn!("{why}");
        }
    }

    pub(crate) fn why_off(&self) -> Option<&'static str> {
        *self.why_off.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_why_off(&self, why: Option<&'static str>) {
        *self.why_off.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}
