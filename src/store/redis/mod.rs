//! The contract in Redis commands: one command a step, and a script where a step must look before it writes.

mod scripts;
pub(crate) mod transport;
mod user_index;

use std::{future::Future, sync::Arc, time::Duration};

use ::redis::{ServerErrorKind, Value};
use bytes::Bytes;
use futures_util::{FutureExt, TryFutureExt};

use self::scripts::{CachedScript, Scripts};
#[cfg(feature = "cluster")]
pub(crate) use self::transport::cluster::Cluster;
#[cfg(feature = "sentinel")]
pub(crate) use self::transport::sentinel::Sentinels;
pub(crate) use self::transport::{
    Transport,
    connect::{ConnectOptions, Endpoint, PasswordProvider},
};
use self::transport::{
    command_pool::{Command, command},
    error::{self, CommandError},
};
use super::outcome::{Created, Destroyed, Fault, Outcome, Rotation, rotate_in_two_steps};
use crate::{
    config::ReplicaAcks,
    id::prefix_of,
    record::{revision, same_revision},
};

#[derive(Clone)]
pub(crate) struct RedisStore {
    transport: Transport,
    /// `None`: last write wins.
    scripts: Option<Arc<Scripts>>,
    acks: Option<ReplicaAcks>,
}

/// Whether a failover may undo a write that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// A change: at worst its user makes it again.
    Normal,
    /// A logout or a rotation, without which somebody keeps an access that was taken away.
    Critical,
}

/// Up to this size, in bytes, a version is compared as a whole where the server can do so by itself (Valkey 8.1, Redis 8.4): it
/// costs the server a fifth less than the script, whatever the size, but the old version travels along.
const MAX_IFEQ_LEN: usize = 4096;

impl RedisStore {
    pub(crate) fn new(transport: Transport) -> Self {
        Self {
            transport,
            scripts: Some(Arc::new(Scripts::new())),
            acks: None,
        }
    }

    pub(crate) fn with_last_write_wins(self) -> Self {
        Self {
            scripts: None,
            ..self
        }
    }

    pub(crate) fn with_replica_acks(self, acks: Option<ReplicaAcks>) -> Self {
        Self { acks, ..self }
    }

    pub(crate) fn with_password(self, password: PasswordProvider) -> Self {
        Self {
            transport: self.transport.with_password(password),
            ..self
        }
    }

    /// How long a request waits at most, which tells a slow server from a silent one.
    pub(crate) fn set_request_timeout(&self, request_timeout: Duration) {
        self.transport.set_request_timeout(request_timeout);
    }

    pub(crate) async fn load(&self, key: &str, lifetime: Duration) -> Result<Option<Bytes>, Fault> {
        let mut command = command("GETEX", &[key.as_bytes()]);
        command.arg("PX").arg(millis(lifetime));
        match self.send(key, &mut command).await? {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => Ok(Some(bytes.into())),
            _ => Err(unexpected()),
        }
    }

    pub(crate) async fn touch(&self, key: &str, lifetime: Duration) -> Result<(), Fault> {
        let mut command = command("PEXPIRE", &[key.as_bytes()]);
        command.arg(millis(lifetime));
        self.send(key, &mut command).await.map(drop)
    }

    pub(crate) fn create(
        &self,
        key: &str,
        value: &Bytes,
        lifetime: Duration,
    ) -> impl Future<Output = Result<Created, Fault>> {
        self.create_as(Durability::Normal, key, value, lifetime)
    }

    async fn create_as(
        &self,
        durability: Durability,
        key: &str,
        value: &Bytes,
        lifetime: Duration,
    ) -> Result<Created, Fault> {
        let mut set = command("SET", &[key.as_bytes(), value]);
        set.arg("PX").arg(millis(lifetime)).arg("NX");
        match self.write(durability, key, &mut set).await? {
            Value::Okay => Ok(Created::Yes),
            // An id is random, so this is our own first try, whose answer a broken connection swallowed; but look.
            Value::Nil => match self
                .send(key, &mut command("GET", &[key.as_bytes()]))
                .await?
            {
                Value::BulkString(stored) if same_revision(&stored, value) => Ok(Created::Yes),
                _ => Ok(Created::AlreadyExists),
            },
            _ => Err(unexpected()),
        }
    }

    pub(crate) fn save<'a>(
        &'a self,
        key: &'a str,
        expected: &'a [u8],
        value: &'a Bytes,
        lifetime: Duration,
    ) -> impl Future<Output = Result<Outcome, Fault>> + use<'a> {
        self.save_as(Durability::Normal, key, expected, value, lifetime)
    }

    fn save_as<'a>(
        &'a self,
        durability: Durability,
        key: &'a str,
        expected: &'a [u8],
        value: &'a Bytes,
        lifetime: Duration,
    ) -> impl Future<Output = Result<Outcome, Fault>> + use<'a> {
        let if_eq = expected.len() <= MAX_IFEQ_LEN && self.transport.supports_set_ifeq();
        match &self.scripts {
            Some(scripts) if !if_eq => self
                .save_by_script(scripts, durability, key, expected, value, lifetime)
                .left_future(),
            Some(scripts) => self
                .save_if_eq(scripts, durability, key, expected, value, lifetime)
                .left_future()
                .right_future(),
            None => self
                .overwrite(durability, key, value, lifetime)
                .right_future()
                .right_future(),
        }
    }

    fn save_by_script<'a>(
        &'a self,
        scripts: &'a Scripts,
        durability: Durability,
        key: &'a str,
        expected: &[u8],
        value: &Bytes,
        lifetime: Duration,
    ) -> impl Future<Output = Result<Outcome, Fault>> + use<'a> {
        let mut digits = itoa::Buffer::new();
        let lifetime = digits.format(millis(lifetime)).as_bytes();
        let arguments = [revision(expected), value, lifetime];
        self.run(durability, &scripts.save, &[key], &arguments)
            .map(|reply| outcome(reply?))
    }

    async fn save_if_eq(
        &self,
        scripts: &Scripts,
        durability: Durability,
        key: &str,
        expected: &[u8],
        value: &Bytes,
        lifetime: Duration,
    ) -> Result<Outcome, Fault> {
        let mut set = command("SET", &[key.as_bytes(), value]);
        set.arg("IFEQ")
            .arg(expected)
            .arg("PX")
            .arg(millis(lifetime));
        match self.send_durable(durability, key, &mut set).await {
            Ok(Value::Okay) => return Ok(Outcome::Saved),
            // Anything but success is for the script to look into.
            Ok(_) => {}
            Err(failure) if failure.is(ServerErrorKind::ResponseError) => {
                // `ERR syntax error`.
                self.transport.mark_set_ifeq_unsupported();
            }
            Err(failure) => return Err(failure.into_fault(prefix_of(key))),
        }
        Box::pin(self.save_by_script(scripts, durability, key, expected, value, lifetime)).await
    }

    /// The last write wins. But not over a logout: hence XX.
    async fn overwrite(
        &self,
        durability: Durability,
        key: &str,
        value: &Bytes,
        lifetime: Duration,
    ) -> Result<Outcome, Fault> {
        let mut command = command("SET", &[key.as_bytes(), value]);
        command.arg("PX").arg(millis(lifetime)).arg("XX");
        match self.write(durability, key, &mut command).await? {
            Value::Okay => Ok(Outcome::Saved),
            Value::Nil => Ok(Outcome::Gone),
            _ => Err(unexpected()),
        }
    }

    pub(crate) async fn delete(&self, key: &str, expected: &[u8]) -> Result<Outcome, Fault> {
        let durability = Durability::Normal;
        outcome(match &self.scripts {
            Some(scripts) => {
                let arguments = [revision(expected)];
                self.run(durability, &scripts.delete, &[key], &arguments)
                    .await?
            }
            None => {
                self.write(durability, key, &mut command("DEL", &[key.as_bytes()]))
                    .await?
            }
        })
    }

    pub(crate) async fn destroy(&self, key: &str) -> Result<Destroyed, Fault> {
        let durability = Durability::Critical;
        let Some(scripts) = &self.scripts else {
            self.write(durability, key, &mut command("DEL", &[key.as_bytes()]))
                .await?;
            return Ok(Destroyed::Deleted);
        };
        let confirm: &[&[u8]] = match self.acks {
            Some(_) => &[b"confirm"],
            None => &[],
        };
        match self
            .run(durability, &scripts.destroy, &[key], confirm)
            .await?
        {
            Value::Int(1) => Ok(Destroyed::Deleted),
            // With and without having touched it.
            Value::Int(2 | 0) => Ok(Destroyed::Tombstone),
            _ => Err(unexpected()),
        }
    }

    pub(crate) async fn rotate(&self, rotation: &Rotation<'_>) -> Result<Outcome, Fault> {
        // Without scripts, or with keys in two slots, each key is a step.
        let Some(scripts) = self
            .scripts
            .as_ref()
            .filter(|_| !self.transport.is_cluster())
        else {
            return rotate_in_two_steps(
                rotation,
                |key, value, lifetime| self.create_as(Durability::Critical, key, value, lifetime),
                |key, expected, value, lifetime| {
                    self.save_as(Durability::Critical, key, expected, value, lifetime)
                },
                |key| self.destroy(key),
            )
            .await;
        };
        let mut digits = [itoa::Buffer::new(); 2];
        let [lifetime, tombstone_lifetime] = &mut digits;
        let arguments = [
            revision(rotation.expected),
            rotation.value,
            lifetime.format(millis(rotation.lifetime)).as_bytes(),
            rotation.tombstone,
            tombstone_lifetime
                .format(millis(rotation.tombstone_lifetime))
                .as_bytes(),
        ];
        let keys = [rotation.from, rotation.to];
        let reply = self
            .run(Durability::Critical, &scripts.rotate, &keys, &arguments)
            .await?;
        outcome(reply)
    }

    fn scripts(&self) -> Option<&Scripts> {
        self.scripts.as_deref()
    }

    /// EVALSHA, and the whole script only when the server does not have it (any more).
    ///
    /// Here and in `run` the command is made at once, so that the future need not keep what it is made of.
    fn invoke<'a>(
        &'a self,
        durability: Durability,
        program: &'a CachedScript,
        keys: &[&'a str],
        arguments: &[&[u8]],
    ) -> impl Future<Output = Result<Value, CommandError>> + use<'a> {
        let key = keys[0];
        let mut short = program.evalsha(keys, arguments);
        async move {
            match self.send_durable(durability, key, &mut short).await {
                Err(failure) if failure.is(ServerErrorKind::NoScript) => {
                    let mut whole = program.eval(&short);
                    Box::pin(self.send_durable(durability, key, &mut whole)).await
                }
                reply => reply,
            }
        }
    }

    fn run<'a>(
        &'a self,
        durability: Durability,
        program: &'a CachedScript,
        keys: &[&'a str],
        arguments: &[&[u8]],
    ) -> impl Future<Output = Result<Value, Fault>> + use<'a> {
        let key = keys[0];
        self.invoke(durability, program, keys, arguments)
            .map_err(move |failure| failure.into_fault(prefix_of(key)))
    }

    /// `key` is the one that an error is about.
    pub(super) async fn send(&self, key: &str, command: &mut Command) -> Result<Value, Fault> {
        self.transport
            .send(key, command)
            .await
            .map_err(|failure| failure.into_fault(prefix_of(key)))
    }

    async fn write(
        &self,
        durability: Durability,
        key: &str,
        command: &mut Command,
    ) -> Result<Value, Fault> {
        self.send_durable(durability, key, command)
            .await
            .map_err(|failure| failure.into_fault(prefix_of(key)))
    }

    pub(super) async fn send_durable(
        &self,
        durability: Durability,
        key: &str,
        command: &mut Command,
    ) -> Result<Value, CommandError> {
        let Some(acks) = self
            .acks
            .filter(|acks| acks.every_write || durability == Durability::Critical)
        else {
            return self.transport.send(key, command).await;
        };
        // What is rare is boxed, so that it does not enlarge every request's future.
        let (reply, confirmed) = Box::pin(self.transport.send_and_wait(key, command, acks)).await?;
        // Where nothing was encoded there is nothing to confirm.
        let was_written = matches!(reply, Value::Okay | Value::Int(1 | 2));
        if was_written && confirmed < acks.replicas {
            return Err(CommandError::NotReplicated(error::unconfirmed(
                confirmed, acks,
            )));
        }
        Ok(reply)
    }
}

fn outcome(reply: Value) -> Result<Outcome, Fault> {
    match reply {
        Value::Int(1) => Ok(Outcome::Saved),
        Value::Int(0) => Ok(Outcome::Gone),
        Value::BulkString(winner) => Ok(Outcome::Conflict(winner.into())),
        _ => Err(unexpected()),
    }
}

/// Redis refuses a lifetime of 0.
pub(super) fn millis(lifetime: Duration) -> u64 {
    u64::try_from(lifetime.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

pub(super) fn unexpected() -> Fault {
    Fault::Failed(error::unexpected())
}
