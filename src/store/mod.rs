//! The contract of a store: seven steps, each on one key or atomic, and what each may answer.
//!
//! All steps may be repeated after a broken connection: a step that was carried out recognises itself.

#[cfg(feature = "cluster")]
mod cluster;
mod command_pool;
mod connect;
mod connection;
#[cfg(test)]
mod contract;
mod failure;
mod memory;
mod redis;
mod replica_wait;
#[cfg(feature = "sentinel")]
mod sentinel;
#[cfg(test)]
pub(crate) mod stepped;
mod transport;
mod users;

use std::{future::Future, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, TryFutureExt};

#[cfg(feature = "cluster")]
pub(crate) use self::cluster::Cluster;
#[cfg(feature = "sentinel")]
pub(crate) use self::sentinel::Sentinels;
pub(crate) use self::{
    connect::{ConnectOptions, Endpoint},
    memory::MemoryStore,
    redis::{RedisStore, ReplicaAcks},
    transport::Transport,
    users::{AddOptions, Cursor, IndexEntry, UserIndexKey},
};
use crate::error::SessionError;

#[derive(Clone)]
pub(crate) enum Store {
    Redis(RedisStore),
    Memory(MemoryStore),
    #[cfg(test)]
    Stepped(stepped::SteppedStore),
}

/// Why a step gave no answer.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The connection broke underneath: the step may have been carried out, or not. Worth one more try.
    ConnectionLost(SessionError),
    Failed(SessionError),
}

impl Fault {
    pub(crate) fn into_error(self) -> SessionError {
        match self {
            Self::ConnectionLost(error) | Self::Failed(error) => error,
        }
    }
}

/// A step, and once more if the connection broke underneath.
pub(crate) async fn retry_once<T, F>(step: impl Fn() -> F) -> Result<T, Fault>
where
    F: Future<Output = Result<T, Fault>>,
{
    match step().await {
        Err(Fault::ConnectionLost(_)) => step().await,
        answer => answer,
    }
}

/// What became of a step that depends on the version that was loaded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Saved,
    /// Another version is there: these bytes.
    Conflict(Bytes),
    /// Nothing is there any more.
    Gone,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Created {
    Yes,
    /// Somebody else's session has this key.
    AlreadyExists,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Destroyed {
    Deleted,
    /// The key holds a tombstone, which stays: the session lives on under an id that nobody can find from here.
    Tombstone,
}

/// A session moves from one key to another.
pub(crate) struct Rotation<'a> {
    pub(crate) from: &'a str,
    /// The version that must still be at `from`.
    pub(crate) expected: &'a [u8],
    pub(crate) to: &'a str,
    pub(crate) value: &'a Bytes,
    pub(crate) lifetime: Duration,
    pub(crate) tombstone: &'a Bytes,
    pub(crate) tombstone_lifetime: Duration,
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
    tokio::time::timeout(deadline, work)
        .map(move |result| result.unwrap_or_else(|_| Err(failure::deadline_exceeded(deadline))))
}

/// A rotation in steps on one key each: the new one first, so that a crash in between leaves the old one.
async fn rotate_in_two_steps<'a, C, S, D>(
    rotation: &Rotation<'a>,
    create: impl FnOnce(&'a str, &'a Bytes, Duration) -> C,
    save: impl FnOnce(&'a str, &'a [u8], &'a Bytes, Duration) -> S,
    destroy: impl FnOnce(&'a str) -> D,
) -> Result<Outcome, Fault>
where
    C: Future<Output = Result<Created, Fault>>,
    S: Future<Output = Result<Outcome, Fault>>,
    D: Future<Output = Result<Destroyed, Fault>>,
{
    match create(rotation.to, rotation.value, rotation.lifetime).await? {
        Created::Yes => {}
        Created::AlreadyExists => return Err(Fault::Failed(SessionError::id_taken())),
    }
    let outcome = save(
        rotation.from,
        rotation.expected,
        rotation.tombstone,
        rotation.tombstone_lifetime,
    )
    .await?;
    match outcome {
        Outcome::Saved => {}
        // Nobody knows the new id yet, so nobody misses it.
        Outcome::Conflict(_) | Outcome::Gone => {
            destroy(rotation.to).await?;
        }
    }
    Ok(outcome)
}
