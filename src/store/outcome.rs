//! The results of a store's operations, and why they can fail.

use std::{future::Future, time::Duration};

use bytes::Bytes;

use crate::{error::SessionError, record::Record};

/// Why an operation failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The connection broke: the operation may have been executed, or not. It can be tried once more.
    ConnectionLost(SessionError),
    /// It was not sent.
    NotSent(SessionError),
    Failed(SessionError),
}

impl Fault {
    pub(crate) fn into_error(self) -> SessionError {
        match self {
            Self::ConnectionLost(error) | Self::NotSent(error) | Self::Failed(error) => error,
        }
    }
}

/// Runs an operation, and once more if the connection was lost.
pub(crate) async fn retry_once<T, F>(operation: impl Fn() -> F) -> Result<T, Fault>
where
    F: Future<Output = Result<T, Fault>>,
{
    match operation().await {
        // Boxed, since it is rare and would enlarge the future of every request.
        Err(Fault::ConnectionLost(_)) => Box::pin(operation()).await,
        answer => answer,
    }
}

/// The result of an operation that expects a version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Saved,
    /// Another version is stored: these bytes.
    Conflict(Bytes),
    /// Nothing is stored any more.
    Gone,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Created {
    Created,
    /// Another session has this key.
    AlreadyExists,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Destroyed {
    Deleted,
    /// The key has a tombstone, which stays: the session lives under another id, which the tombstone does not tell.
    Tombstone,
}

/// A value to store. If it is a record, the local cache keeps it.
pub(crate) trait NewVersion {
    fn bytes(&self) -> &Bytes;

    #[cfg(feature = "local-cache")]
    fn record(&self) -> Option<&Record>;
}

impl NewVersion for Bytes {
    fn bytes(&self) -> &Bytes {
        self
    }

    #[cfg(feature = "local-cache")]
    fn record(&self) -> Option<&Record> {
        None
    }
}

impl NewVersion for Record {
    fn bytes(&self) -> &Bytes {
        self.stored()
    }

    #[cfg(feature = "local-cache")]
    fn record(&self) -> Option<&Record> {
        Some(self)
    }
}

/// Moves a session from one key to another.
pub(crate) struct Rotation<'a> {
    pub(crate) from: &'a str,
    /// The version that must still be stored under `from`.
    pub(crate) expected: &'a [u8],
    pub(crate) to: &'a str,
    pub(crate) value: &'a Bytes,
    /// The value's record, for the local cache.
    #[cfg_attr(not(feature = "local-cache"), expect(dead_code))]
    pub(crate) record: Option<&'a Record>,
    pub(crate) lifetime: Duration,
    pub(crate) tombstone: &'a Bytes,
    pub(crate) tombstone_lifetime: Duration,
}

/// Rotates by operations on one key each: the new key first, so that a crash in between leaves the old one.
pub(crate) async fn rotate_in_two_steps<'a, C, S, D>(
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
        Created::Created => {}
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
        // No browser has the new id yet.
        Outcome::Conflict(_) | Outcome::Gone => {
            destroy(rotation.to).await?;
        }
    }
    Ok(outcome)
}
