//! What the requests of one layer share.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

use crate::{
    config::Config,
    error::SessionError,
    failure_log::FailureLog,
    id::SessionId,
    stats::Counters,
    store::{Store, UserIndexKey},
    unreadable::UnreadableKeys,
};

/// Lock stripes, at 40 bytes each. Two sessions that share one queue behind each other, so there are many.
const COMMIT_LOCKS: usize = 256;

#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) shared: Arc<Shared>,
}

/// What a layer shares with its clones, whatever options they set.
pub(crate) struct Shared {
    pub(crate) counters: Counters,
    pub(crate) unreadable_keys: UnreadableKeys,
    pub(crate) failures: Arc<FailureLog>,
    /// Commits that continue after their client has disconnected.
    pub(crate) detached_commits: TaskTracker,
    commit_locks: [Mutex<()>; COMMIT_LOCKS],
}

impl Context {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            config: Config::default(),
            store,
            shared: Arc::new(Shared {
                counters: Counters::default(),
                unreadable_keys: UnreadableKeys::default(),
                failures: Arc::default(),
                detached_commits: TaskTracker::new(),
                commit_locks: std::array::from_fn(|_| Mutex::default()),
            }),
        }
    }

    /// The Redis key of a session.
    pub(crate) fn key(&self, id: SessionId) -> String {
        if self.config.hashed_keys {
            id.hashed_key(&self.config.prefix)
        } else {
            id.key(&self.config.prefix)
        }
    }

    /// The part of a session's key after the prefix.
    pub(crate) fn key_suffix(&self, id: SessionId) -> String {
        self.key(id).split_off(self.config.prefix.len())
    }

    pub(crate) fn session_key(&self, suffix: &str) -> String {
        [&self.config.prefix, suffix].concat()
    }

    pub(crate) fn user_index_key(&self, user: &str) -> UserIndexKey {
        UserIndexKey::new(&self.config.prefix, user)
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

    /// The lock for commits to a session that conflict within this process.
    pub(crate) fn commit_lock(&self, id: SessionId) -> &Mutex<()> {
        &self.shared.commit_locks[id.bucket(COMMIT_LOCKS)]
    }

    pub(crate) fn count(&self, counter: impl FnOnce(&Counters) -> &AtomicU64) {
        counter(&self.shared.counters).fetch_add(1, Relaxed);
    }
}
