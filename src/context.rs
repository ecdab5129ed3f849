//! What all requests through one layer share.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio_util::task::TaskTracker;

use crate::{
    config::Config,
    error::SessionError,
    id::SessionId,
    stats::Counters,
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

    /// The line in which the requests of this process that conflict over one session take turns.
    pub(crate) fn commit_lock(&self, id: SessionId) -> &tokio::sync::Mutex<()> {
        &self.shared.commit_locks[id.bucket(COMMIT_LOCKS)]
    }

    pub(crate) fn count(&self, counter: impl FnOnce(&Counters) -> &AtomicU64) {
        counter(&self.shared.counters).fetch_add(1, Relaxed);
    }
}
