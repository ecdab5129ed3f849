//! The contract of a store: seven steps, each on one key or atomic, and what each may answer.
//!
//! All steps may be repeated after a broken connection: a step that was carried out recognises itself.

mod memory;
pub(crate) mod outcome;
mod redis;
mod user_index;

use std::{future::Future, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, TryFutureExt};

#[cfg(test)]
pub(crate) use self::outcome::rotate_in_two_steps;
#[cfg(feature = "cluster")]
pub(crate) use self::redis::Cluster;
#[cfg(feature = "sentinel")]
pub(crate) use self::redis::Sentinels;
pub(crate) use self::{
    memory::MemoryStore,
    outcome::{Created, Destroyed, Fault, Outcome, Rotation, retry_once},
    redis::{ConnectOptions, Endpoint, RedisStore, Transport},
    user_index::{AddOptions, Cursor, IndexEntry, UserIndexKey},
};
use crate::error::SessionError;
#[cfg(test)]
use crate::testing::stepped::SteppedStore;

#[derive(Clone)]
pub(crate) enum Store {
    Redis(RedisStore),
    Memory(MemoryStore),
    #[cfg(test)]
    Stepped(SteppedStore),
}

macro_rules! each_store {
    ($self:ident, $store:ident => $step:expr) => {
        match $self {
            Store::Redis($store) => $step,
            Store::Memory($store) => $step,
            #[cfg(test)]
            Store::Stepped($store) => $step,
        }
    };
}

impl Store {
    /// How long a request waits at most.
    pub(crate) fn set_request_timeout(&self, request_timeout: Duration) {
        match self {
            Self::Redis(store) => store.set_request_timeout(request_timeout),
            Self::Memory(_) => {}
            #[cfg(test)]
            Self::Stepped(_) => {}
        }
    }

    /// The value under `key`, which now lives for `lifetime` from here.
    pub(crate) async fn load(&self, key: &str, lifetime: Duration) -> Result<Option<Bytes>, Fault> {
        each_store!(self, store => store.load(key, lifetime).await)
    }

    /// Lets `key` live for `lifetime` from here, if it is there.
    #[cfg(test)]
    pub(crate) async fn touch(&self, key: &str, lifetime: Duration) -> Result<(), Fault> {
        match self {
            Self::Redis(store) => return store.touch(key, lifetime).await,
            Self::Memory(store) => store.touch(key, lifetime),
            Self::Stepped(store) => store.touch(key, lifetime),
        }
        Ok(())
    }

    /// Lets `key` live for `lifetime` from here, without waiting, so that neither the handler waits nor a client that goes away prevents it. If it
    /// fails, the session ends early rather than late.
    pub(crate) fn touch_later(&self, key: String, lifetime: Duration, deadline: Duration) {
        match self {
            Self::Redis(store) => {
                let store = store.clone();
                tokio::spawn(async move {
                    let touch = store.touch(&key, lifetime).map_err(Fault::into_error);
                    if let Err(error) = with_timeout(deadline, touch).await {
                        tracing::debug!(%error, "a session's lifetime was not set");
                    }
                });
            }
            Self::Memory(store) => store.touch(&key, lifetime),
            #[cfg(test)]
            Self::Stepped(store) => store.touch(&key, lifetime),
        }
    }

    /// Stores `value` under a key that nobody has.
    pub(crate) async fn create(
        &self,
        key: &str,
        value: &Bytes,
        lifetime: Duration,
    ) -> Result<Created, Fault> {
        each_store!(self, store => store.create(key, value, lifetime).await)
    }

    /// Replaces the version `expected`.
    pub(crate) async fn save(
        &self,
        key: &str,
        expected: &[u8],
        value: &Bytes,
        lifetime: Duration,
    ) -> Result<Outcome, Fault> {
        each_store!(self, store => store.save(key, expected, value, lifetime).await)
    }

    /// Deletes the version `expected`.
    pub(crate) async fn delete(&self, key: &str, expected: &[u8]) -> Result<Outcome, Fault> {
        each_store!(self, store => store.delete(key, expected).await)
    }

    /// Deletes whatever version is there, but not a tombstone.
    pub(crate) async fn destroy(&self, key: &str) -> Result<Destroyed, Fault> {
        each_store!(self, store => store.destroy(key).await)
    }

    /// Moves a session, so that at no moment neither key has it.
    pub(crate) async fn rotate(&self, rotation: &Rotation<'_>) -> Result<Outcome, Fault> {
        match self {
            Self::Redis(store) => store.rotate(rotation).await,
            Self::Memory(store) => store.rotate(rotation),
            #[cfg(test)]
            Self::Stepped(store) => store.rotate(rotation).await,
        }
    }

    /// `work`, but no longer than `deadline`. Pinned by the caller, for an argument of an asynchronous function is stored twice.
    pub(crate) fn with_deadline<T>(
        &self,
        deadline: Duration,
        work: impl Future<Output = Result<T, SessionError>> + Unpin,
    ) -> impl Future<Output = Result<T, SessionError>> {
        if let Self::Redis(_) = self {
            with_timeout(deadline, work).left_future()
        } else {
            // The others answer at once.
            work.right_future()
        }
    }

    /// Waits before contending for a session again.
    pub(crate) async fn pause(&self, pause: Duration) {
        match self {
            Self::Redis(_) => tokio::time::sleep(pause).await,
            // Nothing to wait for: the winner is on this very thread's heap.
            Self::Memory(_) => {}
            #[cfg(test)]
            Self::Stepped(_) => {}
        }
    }
}

fn with_timeout<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, SessionError>>,
) -> impl Future<Output = Result<T, SessionError>> {
    tokio::time::timeout(deadline, work).map(move |result| {
        result.unwrap_or_else(|_| Err(SessionError::deadline_exceeded(deadline)))
    })
}

impl Store {
    /// Enters a session; `false`: there are too many.
    pub(crate) async fn enter(
        &self,
        set: &UserIndexKey,
        session: &IndexEntry,
        lifetime: Duration,
        entry: AddOptions<'_>,
    ) -> Result<bool, Fault> {
        match self {
            Self::Redis(store) => store.enter(set, session, lifetime, entry).await,
            Self::Memory(store) => Ok(store.enter(set, session, lifetime, entry)),
            #[cfg(test)]
            Self::Stepped(store) => Ok(store.memory().enter(set, session, lifetime, entry)),
        }
    }

    /// Takes sessions out.
    pub(crate) async fn leave(&self, set: &UserIndexKey, names: &[String]) -> Result<(), Fault> {
        match self {
            Self::Redis(store) => store.leave(set, names).await?,
            Self::Memory(store) => store.leave(set, names),
            #[cfg(test)]
            Self::Stepped(store) => store.memory().leave(set, names),
        }
        Ok(())
    }

    /// How many were entered and not taken out, dead or alive.
    pub(crate) async fn entered(&self, set: &UserIndexKey) -> Result<usize, Fault> {
        match self {
            Self::Redis(store) => store.entered(set).await,
            Self::Memory(store) => Ok(store.entered(set)),
            #[cfg(test)]
            Self::Stepped(store) => Ok(store.memory().entered(set)),
        }
    }

    /// At max `count` of them, from the cursor on, the one first that was entered the longest ago.
    pub(crate) async fn listed(
        &self,
        set: &UserIndexKey,
        cursor: Cursor,
        count: usize,
    ) -> Result<Vec<IndexEntry>, Fault> {
        match self {
            Self::Redis(store) => store.listed(set, cursor, count).await,
            Self::Memory(store) => Ok(store.listed(set, cursor, count)),
            #[cfg(test)]
            Self::Stepped(store) => Ok(store.memory().listed(set, cursor, count)),
        }
    }

    /// The value under `key`, without letting it live longer.
    pub(crate) async fn value(&self, key: &str) -> Result<Option<Bytes>, Fault> {
        match self {
            Self::Redis(store) => store.value(key).await,
            Self::Memory(store) => Ok(store.peek(key).map(|(value, _)| value)),
            #[cfg(test)]
            Self::Stepped(store) => Ok(store.memory().peek(key).map(|(value, _)| value)),
        }
    }

    /// The value under `key` and how long it is still to live, without letting it live longer.
    pub(crate) async fn peek(&self, key: &str) -> Result<Option<(Bytes, Duration)>, Fault> {
        match self {
            Self::Redis(store) => store.peek(key).await,
            Self::Memory(store) => Ok(store.peek(key)),
            #[cfg(test)]
            Self::Stepped(store) => Ok(store.memory().peek(key)),
        }
    }
}
