//! The contract of a store: its operations, each on one key or atomic, and their results.
//!
//! Every operation can be repeated after a lost connection: one that was executed already recognizes its own result.

#[cfg(feature = "local-cache")]
mod cached;
mod deadline;
mod memory;
pub(crate) mod outcome;
mod redis;
mod user_index;

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, TryFutureExt};
use tokio_util::task::TaskTracker;

#[cfg(test)]
pub(crate) use self::outcome::rotate_in_two_steps;
#[cfg(feature = "sentinel")]
pub(crate) use self::redis::Sentinels;
pub(crate) use self::{
    memory::MemoryStore,
    outcome::{Created, Destroyed, Fault, NewVersion, Outcome, Rotation, retry_once},
    redis::{Endpoint, RedisStore, Transport},
    user_index::{AddOptions, Cursor, IndexEntry, UserIndexKey},
};
#[cfg(feature = "local-cache")]
use crate::cache::Cache;
#[cfg(test)]
use crate::testing::stepped::SteppedStore;
use crate::{error::SessionError, failure_log::FailureLog, stats::Counters};

#[derive(Clone)]
pub(crate) enum Store {
    Redis(RedisStore),
    Memory(MemoryStore),
    #[cfg(test)]
    Stepped(SteppedStore),
}

macro_rules! dispatch {
    ($self:ident, $store:ident => $operation:expr) => {
        match $self {
            Store::Redis($store) => $operation,
            Store::Memory($store) => $operation,
            // Boxed, so that futures have the size that they have outside of tests.
            #[cfg(test)]
            Store::Stepped($store) => Box::pin(async move { $operation }).await,
        }
    };
    // An operation that the interleavings do not schedule.
    (unscheduled $self:ident, $store:ident => $operation:expr) => {
        match $self {
            Store::Redis($store) => $operation,
            Store::Memory($store) => $operation,
            #[cfg(test)]
            Store::Stepped(stepped) => {
                let $store = stepped.memory();
                $operation
            }
        }
    };
}

impl Store {
    /// Returns the value under `key`, and sets its TTL to `lifetime`.
    pub(crate) async fn load(&self, key: &str, lifetime: Duration) -> Result<Option<Bytes>, Fault> {
        #[cfg(feature = "local-cache")]
        let _modification = self.cache().map(|cache| cache.modify(key));
        dispatch!(self, store => store.load(key, lifetime).await)
    }

    /// Sets the TTL of `key`, if it exists.
    #[cfg(test)]
    pub(crate) async fn touch(&self, key: &str, lifetime: Duration) -> Result<(), Fault> {
        dispatch!(unscheduled self, store => store.touch(key, lifetime).await)
    }

    /// Sets the TTL of `key` in a task, so that the handler does not wait, and a client that disconnects does not prevent it. If it fails,
    /// the session ends early.
    pub(crate) fn touch_later(
        &self,
        key: String,
        lifetime: Duration,
        deadline: Duration,
        tasks: &TaskTracker,
        failures: &Arc<FailureLog>,
    ) {
        match self {
            Self::Redis(store) => {
                let store = store.clone();
                let failures = failures.clone();
                tasks.spawn(async move {
                    #[cfg(feature = "local-cache")]
                    let _modification = store.cache().map(|cache| cache.modify(&key));
                    let touch = store.touch(&key, lifetime).map_err(Fault::into_error);
                    if let Err(error) = redis_deadline(&store, deadline, touch).await {
                        failures.report(
                            "a session may end too early, since its TTL could not be set",
                            &error,
                        );
                    }
                });
            }
            Self::Memory(store) => drop(store.touch(&key, lifetime).now_or_never()),
            #[cfg(test)]
            Self::Stepped(store) => drop(store.memory().touch(&key, lifetime).now_or_never()),
        }
    }

    /// Stores `value` under a key that does not exist.
    pub(crate) async fn create(
        &self,
        key: &str,
        value: &impl NewVersion,
        lifetime: Duration,
    ) -> Result<Created, Fault> {
        #[cfg(feature = "local-cache")]
        if let Some(cache) = self.cache() {
            return Box::pin(self.create_cached(cache, key, value, lifetime)).await;
        }
        dispatch!(self, store => store.create(key, value.bytes(), lifetime).await)
    }

    /// Replaces the version `expected`.
    pub(crate) async fn save(
        &self,
        key: &str,
        expected: &[u8],
        value: &impl NewVersion,
        lifetime: Duration,
    ) -> Result<Outcome, Fault> {
        #[cfg(feature = "local-cache")]
        if let Some(cache) = self.cache() {
            return Box::pin(self.save_cached(cache, key, expected, value, lifetime)).await;
        }
        dispatch!(self, store => store.save(key, expected, value.bytes(), lifetime).await)
    }

    /// Deletes the version `expected`.
    pub(crate) async fn delete(&self, key: &str, expected: &[u8]) -> Result<Outcome, Fault> {
        #[cfg(feature = "local-cache")]
        let _modification = self.cache().map(|cache| cache.end(key));
        dispatch!(self, store => store.delete(key, expected).await)
    }

    /// Deletes any version and a key of any other type, but not a tombstone.
    pub(crate) async fn destroy(&self, key: &str) -> Result<Destroyed, Fault> {
        #[cfg(feature = "local-cache")]
        let _modification = self.cache().map(|cache| cache.end(key));
        dispatch!(self, store => store.destroy(key).await)
    }

    /// Moves a session to another key. At every moment one of the two keys has it.
    pub(crate) async fn rotate(&self, rotation: &Rotation<'_>) -> Result<Outcome, Fault> {
        #[cfg(feature = "local-cache")]
        if let Some(cache) = self.cache() {
            return self.rotate_cached(cache, rotation).await;
        }
        dispatch!(self, store => store.rotate(rotation).await)
    }

    #[cfg(feature = "local-cache")]
    pub(crate) fn cache(&self) -> Option<&Arc<Cache>> {
        match self {
            Self::Redis(store) => store.cache(),
            Self::Memory(_) => None,
            #[cfg(test)]
            Self::Stepped(store) => store.cache(),
        }
    }

    /// Adds a session to the index. `false`: the limit is reached.
    pub(crate) async fn add_to_index(
        &self,
        index: &UserIndexKey,
        entry: &IndexEntry,
        lifetime: Duration,
        options: AddOptions<'_>,
    ) -> Result<bool, Fault> {
        dispatch!(unscheduled self, store => store.add_to_index(index, entry, lifetime, options).await)
    }

    pub(crate) async fn remove_from_index(
        &self,
        index: &UserIndexKey,
        names: &[String],
    ) -> Result<(), Fault> {
        dispatch!(unscheduled self, store => store.remove_from_index(index, names).await)
    }

    /// The number of entries, those of sessions that have ended included.
    pub(crate) async fn index_len(&self, index: &UserIndexKey) -> Result<usize, Fault> {
        dispatch!(unscheduled self, store => store.index_len(index).await)
    }

    /// At most `count` entries from the cursor on, the oldest first.
    pub(crate) async fn index_page(
        &self,
        index: &UserIndexKey,
        cursor: Cursor,
        count: usize,
    ) -> Result<Vec<IndexEntry>, Fault> {
        dispatch!(unscheduled self, store => store.index_page(index, cursor, count).await)
    }

    /// The value under `key`. Its TTL is not changed.
    pub(crate) async fn value(&self, key: &str) -> Result<Option<Bytes>, Fault> {
        dispatch!(unscheduled self, store => store.value(key).await)
    }

    /// The value under `key` and its TTL, which is not changed.
    pub(crate) async fn peek(&self, key: &str) -> Result<Option<(Bytes, Duration)>, Fault> {
        dispatch!(unscheduled self, store => store.peek(key).await)
    }

    /// What counts its connections, and everything else of its layer.
    pub(crate) fn counters(&self) -> Arc<Counters> {
        match self {
            Self::Redis(store) => store.counters(),
            Self::Memory(_) => Arc::default(),
            #[cfg(test)]
            Self::Stepped(_) => Arc::default(),
        }
    }

    /// Whether the server accepts scripts that it does not know yet, if saves need any.
    pub(crate) async fn check_scripts(&self, key: &str) -> Result<(), Fault> {
        match self {
            Self::Redis(store) => store.check_scripts(key).await,
            Self::Memory(_) => Ok(()),
            #[cfg(test)]
            Self::Stepped(_) => Ok(()),
        }
    }

    /// Of `candidates`, one for each server that has sessions, by its key.
    pub(crate) async fn one_per_server<T>(
        &self,
        candidates: impl Iterator<Item = T>,
        key_of: impl Fn(&T) -> String,
    ) -> Result<Vec<T>, SessionError> {
        match self {
            Self::Redis(store) => store.one_per_server(candidates, key_of).await,
            Self::Memory(_) => Ok(candidates.take(1).collect()),
            #[cfg(test)]
            Self::Stepped(_) => Ok(candidates.take(1).collect()),
        }
    }

    /// Runs `work` for at most `deadline`. The caller pins it, because an async function would store its argument twice.
    pub(crate) fn with_deadline<T>(
        &self,
        deadline: Duration,
        work: impl Future<Output = Result<T, SessionError>> + Unpin,
    ) -> impl Future<Output = Result<T, SessionError>> {
        if let Self::Redis(store) = self {
            redis_deadline(store, deadline, work).left_future()
        } else {
            // The other stores answer at once.
            work.right_future()
        }
    }

    /// Waits before a session that others write to is written again.
    pub(crate) async fn pause(&self, pause: Duration) {
        if let Self::Redis(_) = self {
            tokio::time::sleep(pause).await;
        }
    }
}

fn redis_deadline<T>(
    store: &RedisStore,
    deadline: Duration,
    work: impl Future<Output = Result<T, SessionError>>,
) -> impl Future<Output = Result<T, SessionError>> {
    deadline::with_deadline(deadline, work).map(move |result| {
        let late = || Err(store.late_error(deadline));
        result.unwrap_or_else(late)
    })
}
