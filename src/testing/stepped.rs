//! A store that stops before every step until a scheduler lets it go on, and that can be told to break its contract.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;

#[cfg(feature = "local-cache")]
use super::link::Link;
use crate::{
    clock::unix_millis,
    error::{ErrorKind, SessionError},
    record::{Decoded, Record, tombstone},
    store::{Created, Destroyed, Fault, MemoryStore, Outcome, Rotation, rotate_in_two_steps},
};

/// How faithful the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    OneStepRotation,
    TwoStepRotation,
    /// A mutant: saves without looking, as SETEX does.
    PlainSetex,
    /// A mutant: rotation retires the old key before the new one exists.
    RetireBeforeCreate,
    /// A mutant: a logout deletes a tombstone too, as DEL does.
    DestroyDeletesTombstones,
    /// A mutant: the former id still leads to the session as it was, and a save through it is stored.
    GraceLetsWritesThrough,
    /// A mutant: a tombstone shows what the session held although it has a user.
    GraceShowsUsers,
}

/// What happens to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    Pass,
    /// Carried out, but the connection breaks before the answer.
    DropAfter,
    /// The connection breaks before it is carried out.
    DropBefore,
}

/// What an operation does to keys. Which keys it writes is seen by comparing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "local-cache"), expect(dead_code))]
pub(super) enum Access<'a> {
    Read(&'a str),
    /// Sets the TTL, which counts as a write.
    Touch(&'a str),
    /// Sets the TTL, and reads the key again.
    TouchAndRead(&'a str),
    Write,
    /// Reads the key that it wrote.
    WriteAndRead(&'a str),
}

#[derive(Clone)]
pub(crate) struct SteppedStore {
    memory: MemoryStore,
    gate: Arc<Mutex<Gate>>,
    /// What rotated keys held, for a mutant.
    rotated: Arc<Mutex<BTreeMap<String, Bytes>>>,
    protocol: Protocol,
    /// The connection of a node with a cache, or of one beside it.
    #[cfg(feature = "local-cache")]
    link: Option<Arc<Link>>,
}

#[derive(Default)]
struct Gate {
    /// Everybody passes: for setting the stage.
    open: bool,
    /// The request that is being polled.
    current: usize,
    waiting: BTreeMap<usize, Option<Grant>>,
}

impl SteppedStore {
    pub(crate) fn new(protocol: Protocol) -> Self {
        let gate = Arc::new(Mutex::new(Gate {
            open: true,
            ..Gate::default()
        }));
        Self {
            memory: MemoryStore::default(),
            gate,
            rotated: Arc::default(),
            protocol,
            #[cfg(feature = "local-cache")]
            link: None,
        }
    }

    /// The same store, over a node's connection.
    #[cfg(feature = "local-cache")]
    pub(super) fn linked(&self, link: Arc<Link>) -> Self {
        Self {
            link: Some(link),
            ..self.clone()
        }
    }

    #[cfg(feature = "local-cache")]
    pub(super) fn link(&self) -> Option<&Link> {
        self.link.as_deref()
    }

    pub(crate) fn close_gate(&self) {
        self.gate().open = false;
    }

    /// Says which request is polled next.
    pub(crate) fn enter(&self, request: usize) {
        self.gate().current = request;
    }

    pub(crate) fn is_waiting(&self, request: usize) -> bool {
        self.gate().waiting.contains_key(&request)
    }

    pub(crate) fn grant(&self, request: usize, grant: Grant) {
        self.gate().waiting.insert(request, Some(grant));
    }

    pub(crate) fn forget(&self, request: usize) {
        self.gate().waiting.remove(&request);
    }

    pub(crate) fn memory(&self) -> &MemoryStore {
        &self.memory
    }

    pub(crate) async fn load(&self, key: &str, lifetime: Duration) -> Result<Option<Bytes>, Fault> {
        let load = async {
            let former = self.rotated.lock().expect("no panic").get(key).cloned();
            match former.filter(|_| self.protocol == Protocol::GraceLetsWritesThrough) {
                Some(former) => Ok(Some(former)),
                None => self.memory.load(key, lifetime).await,
            }
        };
        self.scheduled(Access::Touch(key), load).await
    }

    pub(crate) async fn create(
        &self,
        key: &str,
        value: &Bytes,
        lifetime: Duration,
    ) -> Result<Created, Fault> {
        self.scheduled(Access::Write, self.memory.create(key, value, lifetime))
            .await
    }

    pub(crate) async fn save(
        &self,
        key: &str,
        expected: &[u8],
        value: &Bytes,
        lifetime: Duration,
    ) -> Result<Outcome, Fault> {
        let save = async {
            let is_rotated = || self.rotated.lock().expect("no panic").contains_key(key);
            if self.protocol == Protocol::PlainSetex
                || self.protocol == Protocol::GraceLetsWritesThrough && is_rotated()
            {
                self.memory.overwrite(key, value, lifetime);
                return Ok(Outcome::Saved);
            }
            self.memory.save(key, expected, value, lifetime).await
        };
        self.scheduled(Access::Write, save).await
    }

    pub(crate) async fn delete(&self, key: &str, expected: &[u8]) -> Result<Outcome, Fault> {
        self.scheduled(Access::Write, self.memory.delete(key, expected))
            .await
    }

    pub(crate) async fn destroy(&self, key: &str) -> Result<Destroyed, Fault> {
        let destroy = async {
            if self.protocol == Protocol::DestroyDeletesTombstones {
                self.memory.erase(key);
                return Ok(Destroyed::Deleted);
            }
            self.memory.destroy(key).await
        };
        self.scheduled(Access::Write, destroy).await
    }

    pub(crate) async fn rotate(&self, rotation: &Rotation<'_>) -> Result<Outcome, Fault> {
        if self.protocol == Protocol::TwoStepRotation {
            return rotate_in_two_steps(
                rotation,
                |key, value, lifetime| self.create(key, value, lifetime),
                |key, expected, value, lifetime| self.save(key, expected, value, lifetime),
                |key| self.destroy(key),
            )
            .await;
        }
        if self.protocol == Protocol::RetireBeforeCreate {
            let Rotation {
                from,
                expected,
                tombstone,
                tombstone_lifetime,
                ..
            } = rotation;
            let retired = self
                .scheduled(
                    Access::Write,
                    self.memory
                        .save(from, expected, tombstone, *tombstone_lifetime),
                )
                .await?;
            if retired == Outcome::Saved {
                self.scheduled(
                    Access::Write,
                    self.memory
                        .create(rotation.to, rotation.value, rotation.lifetime),
                )
                .await?;
            }
            return Ok(retired);
        }
        let rotate = async {
            let former = self.memory.value(rotation.from).await?;
            let shown = former.as_ref().map(shown_to_former_id);
            let tombstone = match &shown {
                Some(shown) if self.protocol == Protocol::GraceShowsUsers => shown,
                _ => rotation.tombstone,
            };
            let outcome = self
                .memory
                .rotate(&Rotation {
                    tombstone,
                    ..*rotation
                })
                .await?;
            if let (Outcome::Saved, Some(former)) = (&outcome, former) {
                let mut rotated = self.rotated.lock().expect("no panic");
                rotated.insert(rotation.from.to_owned(), former);
            }
            Ok(outcome)
        };
        self.scheduled(Access::Write, rotate).await
    }

    /// Carries `work` out once the scheduler says so, and as it says.
    pub(super) async fn scheduled<T>(
        &self,
        access: Access<'_>,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let grant = poll_fn(|_| {
            let mut gate = self.gate();
            if gate.open {
                return Poll::Ready(Grant::Pass);
            }
            let current = gate.current;
            match gate.waiting.get(&current) {
                Some(Some(grant)) => {
                    let grant = *grant;
                    gate.waiting.remove(&current);
                    Poll::Ready(grant)
                }
                Some(None) => Poll::Pending,
                None => {
                    gate.waiting.insert(current, None);
                    Poll::Pending
                }
            }
        })
        .await;
        let dropped = || {
            Fault::ConnectionLost(SessionError::new(
                ErrorKind::Unavailable,
                "the connection broke",
            ))
        };
        #[cfg(feature = "local-cache")]
        if let (Some(link), Grant::Pass) = (&self.link, grant) {
            let request = self.gate().current;
            let replied = link.execute(request, &self.memory, access, work);
            return replied.await.unwrap_or_else(|| Err(dropped()));
        }
        #[cfg(not(feature = "local-cache"))]
        let _ = access;
        match grant {
            Grant::Pass => work.await,
            Grant::DropAfter => {
                work.await?;
                Err(dropped())
            }
            Grant::DropBefore => Err(dropped()),
        }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tombstone that shows all of the session.
fn shown_to_former_id(session: &Bytes) -> Bytes {
    let in_a_minute = unix_millis() + 60_000;
    match Record::decode(session) {
        Ok(Decoded::Session(record)) => {
            tombstone(in_a_minute, Some((in_a_minute, &record))).expect("random numbers")
        }
        _ => tombstone(in_a_minute, None).expect("random numbers"),
    }
}
