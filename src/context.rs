//! What all requests through one layer share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio_util::task::TaskTracker;

use crate::{
    config::{Config, MAX_MAX_AGE, MAX_TIMEOUT},
    error::SessionError,
    id::SessionId,
    record::Metadata,
    store::{Store, UserIndexKey},
};

/// Requests that conflict take turns in this many commit_locks, by session. A session in the line of one that many write to at once waits
/// with them, so there are many, at 40 bytes each.
const COMMIT_LOCKS: usize = 256;

#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) shared: Arc<Shared>,
}

/// What stays common to a layer and its clones, however each is configured further.
pub(crate) struct Shared {
    pub(crate) counters: Counters,
    /// Saves that go on though their clients have gone.
    pub(crate) detached_commits: TaskTracker,
    commit_locks: [tokio::sync::Mutex<()>; COMMIT_LOCKS],
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) retries_exhausted: AtomicU64,
    pub(crate) discarded: AtomicU64,
}

/// How the saves of a layer went since it was made, over all its clones in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommitStats {
    /// Changes that reached the store: sessions created, saved, deleted, rotated or destroyed.
    pub commits: u64,
    /// Times that a request's changes were done again, because another request had saved in between.
    pub retries: u64,
    /// Requests that gave up, with [`ErrorKind::Conflict`](crate::ErrorKind::Conflict).
    pub retries_exhausted: u64,
    /// Requests whose changes were dropped, because their session had been logged out, rotated away or had expired.
    pub discarded: u64,
}

impl Context {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            config: Config::default(),
            store,
            shared: Arc::new(Shared {
                counters: Counters::default(),
                detached_commits: TaskTracker::new(),
                commit_locks: std::array::from_fn(|_| tokio::sync::Mutex::default()),
            }),
        }
    }

    /// The key of the session of this [`name`](Self::name).
    pub(crate) fn session_key(&self, name: &str) -> String {
        [&self.config.prefix, name].concat()
    }

    /// What follows the prefix in a session's key.
    pub(crate) fn key_suffix(&self, id: SessionId) -> String {
        let mut key = self.key(id);
        key.split_off(self.config.prefix.len())
    }

    pub(crate) fn user_index_key(&self, user: &str) -> UserIndexKey {
        UserIndexKey::new(&self.config.prefix, user)
    }

    pub(crate) fn key(&self, id: SessionId) -> String {
        let Config {
            prefix,
            hashed_keys,
            ..
        } = &self.config;
        if *hashed_keys {
            id.hashed_key(prefix)
        } else {
            id.key(prefix)
        }
    }

    pub(crate) fn generate_id(&self) -> Result<SessionId, SessionError> {
        let Some(generate) = &self.config.id_generator else {
            return SessionId::random();
        };
        let id = generate();
        if id.is_nil() {
            Err(SessionError::id_taken())
        } else {
            Ok(id)
        }
    }

    /// How long a session may lie in the store from now on; `None` if its absolute timeout has passed.
    pub(crate) fn lifetime(&self, metadata: Metadata) -> Option<Duration> {
        // A stored time that is beyond what Redis can add to the present is as good as the longest that a setter takes.
        let idle = self.idle_timeout(metadata).min(MAX_TIMEOUT);
        if idle.is_zero() {
            return None;
        }
        let absolute = match metadata.absolute_timeout {
            Some(millis) => Some(Duration::from_millis(millis)),
            None => self.config.absolute_timeout,
        };
        let (Some(absolute), Some(created)) = (absolute, metadata.created) else {
            return Some(idle);
        };
        let now = now();
        // A creation time that is not a time, or in the future by more than clocks differ, is as good as long ago.
        let age = Duration::from_secs(match now.checked_sub(created) {
            Some(age) => age,
            None if created - now <= CLOCK_SKEW => 0,
            None => return None,
        });
        let left = absolute.checked_sub(age).filter(|left| !left.is_zero())?;
        Some(idle.min(left))
    }

    fn idle_timeout(&self, metadata: Metadata) -> Duration {
        match (metadata.idle_timeout, metadata.permanent) {
            (Some(millis), _) => Duration::from_millis(millis),
            (None, Some(_)) => self.config.permanent_lifetime,
            (None, None) => self.config.idle_timeout,
        }
    }

    /// How long the browser is to keep the cookie; `None`: until it closes.
    pub(crate) fn max_age(&self, metadata: Metadata) -> Option<Duration> {
        metadata.permanent?;
        Some(self.lifetime(metadata)?.min(MAX_MAX_AGE))
    }

    /// Whether a lasting cookie is due to be sent again: once a tenth of its time has passed.
    pub(crate) fn cookie_needs_refresh(&self, metadata: Metadata) -> bool {
        metadata.permanent.is_some_and(|sent| {
            now().saturating_sub(sent) >= (self.idle_timeout(metadata).as_secs() / 10).max(1)
        })
    }

    /// Whether a session is due to be entered among its user's again: once a tenth of its time has passed.
    pub(crate) fn index_entry_needs_refresh(&self, metadata: Metadata) -> bool {
        let listed = metadata.indexed_at.unwrap_or(0);
        now().saturating_sub(listed) >= (self.idle_timeout(metadata).as_secs() / 10).max(1)
    }

    /// The line in which the requests of this process that conflict over one session take turns.
    pub(crate) fn commit_lock(&self, id: SessionId) -> &tokio::sync::Mutex<()> {
        &self.shared.commit_locks[id.bucket(COMMIT_LOCKS)]
    }

    pub(crate) fn count(&self, counter: impl FnOnce(&Counters) -> &AtomicU64) {
        counter(&self.shared.counters).fetch_add(1, Relaxed);
    }

    pub(crate) fn stats(&self) -> CommitStats {
        let counters = &self.shared.counters;
        CommitStats {
            commits: counters.commits.load(Relaxed),
            retries: counters.retries.load(Relaxed),
            retries_exhausted: counters.retries_exhausted.load(Relaxed),
            discarded: counters.discarded.load(Relaxed),
        }
    }
}

/// An hour, in seconds: nodes' clocks that differ by more are broken.
const CLOCK_SKEW: u64 = 3600;

/// Unix seconds.
pub(crate) fn now() -> u64 {
    since_epoch().as_secs()
}

/// Unix milliseconds.
pub(crate) fn unix_millis() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}

/// Unix microseconds.
pub(crate) fn unix_micros() -> u64 {
    u64::try_from(since_epoch().as_micros()).unwrap_or(u64::MAX)
}

/// Unix nanoseconds, or rather their lower 64 bits.
pub(crate) fn unix_nanos() -> u64 {
    since_epoch().as_nanos() as u64
}

fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
