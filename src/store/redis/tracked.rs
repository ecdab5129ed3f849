//! Operations for the local cache: each reads the key in the same write to the connection, so that the server reports the next change.
//!
//! The server tracks the keys that a connection reads. A change by the connection itself ends that silently, so it must be read again: by the
//! script that writes it, or without scripts by a command behind it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use ::redis::{ServerErrorKind, Value};
use bytes::Bytes;
use futures_util::future::join;

use super::{
    Durability, RedisStore,
    commands::{create_command, getex, pexpire, rotate_command, save_command, set_if},
    outcome,
    transport::{
        command_pool::{Command, command},
        connect::Feature,
    },
    unexpected_reply, value,
};
use crate::{
    cache::{Cache, Ticket},
    id::prefix_of,
    record::{revision, same_revision},
    store::{
        outcome::{Created, Fault, Outcome, Rotation, rotate_in_two_steps},
        redis::transport::error::CommandError,
    },
};

/// The last byte of the revision that every version of this crate begins with.
const REVISION_END: &[u8] = b"25";

impl RedisStore {
    pub(crate) fn with_cache(self, cache: Cache) -> Self {
        let cache = Arc::new(cache);
        let mut store = self.configured(|settings| settings.cache = Some(cache.clone()));
        store.cache = Some(cache);
        store
    }

    pub(crate) fn cache(&self) -> Option<&Arc<Cache>> {
        self.cache.as_ref()
    }

    /// `None`: the server reports no changes, or there is no connection yet.
    pub(crate) fn ticket(&self, key: &str) -> Option<Ticket> {
        let cache = self.cache.as_ref()?;
        cache.ticket(key, || self.transport.tracking(key))
    }

    /// The value under `key` and its TTL, which is not changed; `None` for a key without TTL.
    ///
    /// PTTL comes first, since it is what makes the server track the key. Deliberately not GET: a replica answers it, so a process whose server was
    /// demoted would go on reading there. GETEX without options changes nothing, and a replica answers READONLY.
    pub(crate) async fn fetch(
        &self,
        key: &str,
    ) -> Result<Option<(Bytes, Option<Duration>)>, Fault> {
        let capabilities = self.transport.capabilities();
        loop {
            let has_getex = capabilities.may_support(Feature::GetEx);
            let name = if has_getex { "GETEX" } else { "GET" };
            let mut pttl = command("PTTL", &[key.as_bytes()]);
            let pttl = self.read(key, &mut pttl);
            let mut get = command(name, &[key.as_bytes()]);
            let (ttl, stored) = join(pttl, self.transport.send(key, &mut get)).await;
            let stored = match stored {
                Ok(stored) => value(stored)?,
                Err(error) if has_getex && error.is_unsupported("getex") => {
                    capabilities.mark_unsupported(Feature::GetEx);
                    continue;
                }
                Err(error) => return Err(error.into_fault(prefix_of(key))),
            };
            let Value::Int(ttl) = ttl? else {
                return Err(unexpected_reply());
            };
            let ttl = u64::try_from(ttl).ok().map(Duration::from_millis);
            return Ok(stored.map(|stored| (stored, ttl)));
        }
    }

    /// Sets the TTL of `key` and returns its value.
    pub(crate) async fn touch_and_fetch(
        &self,
        key: &str,
        lifetime: Duration,
    ) -> Result<Option<Bytes>, Fault> {
        let capabilities = self.transport.capabilities();
        loop {
            let has_getex = capabilities.may_support(Feature::GetEx);
            let mut touch = match has_getex {
                true => getex(key, lifetime),
                false => pexpire(key, lifetime),
            };
            let touch = self.transport.send(key, &mut touch);
            let mut get = command("GET", &[key.as_bytes()]);
            let get = self.read(key, &mut get);
            let (touched, stored) = join(touch, get).await;
            match touched {
                Ok(_) => return value(stored?),
                Err(error) if has_getex && error.is_unsupported("getex") => {
                    capabilities.mark_unsupported(Feature::GetEx);
                }
                Err(error) => return Err(error.into_fault(prefix_of(key))),
            }
        }
    }

    /// Whether a write with this durability goes over the connection whose reports the cache gets.
    pub(crate) fn is_tracked(&self, durability: Durability) -> bool {
        self.acks(durability).is_none()
    }

    /// Also returns whether the key is tracked and holds `value`.
    pub(crate) async fn create_tracked(
        &self,
        key: &str,
        value: &Bytes,
        lifetime: Duration,
    ) -> Result<(Created, bool), Fault> {
        self.set_new_tracked(Durability::Normal, key, value, lifetime)
            .await
    }

    async fn set_new_tracked(
        &self,
        durability: Durability,
        key: &str,
        value: &Bytes,
        lifetime: Duration,
    ) -> Result<(Created, bool), Fault> {
        if !self.is_tracked(durability) {
            let created = Box::pin(self.set_new(durability, key, value, lifetime)).await?;
            return Ok((created, false));
        }
        if let Some(scripts) = &self.scripts {
            let mut create = create_command(&scripts.tracked.create, key, value, lifetime);
            return match self.write(key, &mut create, durability).await? {
                Value::Int(1) => Ok((Created::Created, true)),
                Value::Int(0) => Ok((Created::AlreadyExists, false)),
                _ => Err(unexpected_reply()),
            };
        }
        let set = set_if("NX", key, value, lifetime);
        let (reply, is_stored) = Box::pin(self.send_and_look(key, set, value)).await;
        match reply.map_err(|error| error.into_fault(prefix_of(key)))? {
            Value::Okay => Ok((Created::Created, is_stored)),
            // As in `set_new`.
            Value::Nil if is_stored => Ok((Created::Created, true)),
            Value::Nil => Ok((Created::AlreadyExists, false)),
            _ => Err(unexpected_reply()),
        }
    }

    /// Also returns whether the key is tracked and holds `value`.
    pub(crate) async fn save_tracked(
        &self,
        key: &str,
        expected: &[u8],
        value: &Bytes,
        lifetime: Duration,
    ) -> Result<(Outcome, bool), Fault> {
        let durability = Durability::Normal;
        if !self.is_tracked(durability) {
            let saved = Box::pin(self.save(key, expected, value, lifetime)).await?;
            return Ok((saved, false));
        }
        let Some(scripts) = &self.scripts else {
            let set = set_if("XX", key, value, lifetime);
            let (reply, is_stored) = Box::pin(self.send_and_look(key, set, value)).await;
            return match reply.map_err(|error| error.into_fault(prefix_of(key)))? {
                Value::Okay => Ok((Outcome::Saved, is_stored)),
                Value::Nil => Ok((Outcome::Gone, false)),
                _ => Err(unexpected_reply()),
            };
        };
        // Also where the server has `SET … IFEQ`, which would have to be followed by a command that reads the key.
        let expected = revision(expected);
        let mut save = save_command(&scripts.tracked.save, key, expected, value, lifetime);
        let saved = outcome(self.write(key, &mut save, durability).await?)?;
        let is_saved = saved == Outcome::Saved;
        Ok((saved, is_saved))
    }

    /// Also returns whether the new key is tracked and holds the value.
    pub(crate) async fn rotate_tracked(
        &self,
        rotation: &Rotation<'_>,
    ) -> Result<(Outcome, bool), Fault> {
        let durability = Durability::Critical;
        if !self.is_tracked(durability) {
            return Ok((Box::pin(self.rotate(rotation)).await?, false));
        }
        let capabilities = self.transport.capabilities();
        let can_write_both =
            !self.transport.is_cluster() && capabilities.may_support(Feature::CrossSlot);
        let Some(scripts) = self.scripts.as_ref().filter(|_| can_write_both) else {
            return Box::pin(self.rotate_tracked_in_two_steps(rotation)).await;
        };
        let mut rotate = rotate_command(&scripts.tracked.rotate, rotation);
        match self.execute(rotation.from, &mut rotate, durability).await {
            Ok(Value::Int(2)) => Ok((Outcome::Saved, false)),
            Ok(reply) => {
                let rotated = outcome(reply)?;
                let is_rotated = rotated == Outcome::Saved;
                Ok((rotated, is_rotated))
            }
            // One address in front of a cluster.
            Err(error) if error.is(ServerErrorKind::CrossSlot) => {
                capabilities.mark_unsupported(Feature::CrossSlot);
                Box::pin(self.rotate_tracked_in_two_steps(rotation)).await
            }
            Err(error) => Err(error.into_fault(prefix_of(rotation.from))),
        }
    }

    async fn rotate_tracked_in_two_steps(
        &self,
        rotation: &Rotation<'_>,
    ) -> Result<(Outcome, bool), Fault> {
        let durability = Durability::Critical;
        let is_stored = AtomicBool::new(false);
        let outcome = rotate_in_two_steps(
            rotation,
            async |key, value, lifetime| {
                let created = self.set_new_tracked(durability, key, value, lifetime);
                let (created, stored) = created.await?;
                is_stored.store(stored, Relaxed);
                Ok(created)
            },
            |key, expected, value, lifetime| {
                self.replace(durability, key, expected, value, lifetime)
            },
            |key| self.destroy(key),
        )
        .await?;
        Ok((outcome, is_stored.into_inner()))
    }

    /// Sends a SET, and right behind it a command that reads the key. Also returns whether that found the revision of `value`: another
    /// client's write may come between the two.
    async fn send_and_look(
        &self,
        key: &str,
        mut set: Command,
        value: &Bytes,
    ) -> (Result<Value, CommandError>, bool) {
        let mut look = command("GETRANGE", &[key.as_bytes(), b"0", REVISION_END]);
        let set = self.transport.send(key, &mut set);
        let (reply, found) = join(set, self.transport.send(key, &mut look)).await;
        let is_stored = matches!(
            found,
            Ok(Value::BulkString(head)) if same_revision(&head, value)
        );
        (reply, is_stored)
    }
}
