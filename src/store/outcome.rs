//! What the operations of a store answer, and why they may fail.

use std::{future::Future, time::Duration};

use bytes::Bytes;

use crate::error::SessionError;

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

/// A rotation in steps on one key each: the new one first, so that a crash in between leaves the old one.
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
