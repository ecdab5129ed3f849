//! The contract in Redis commands: one command a step, and a script where a step must look before it writes.

mod script;

use std::{future::Future, sync::Arc, time::Duration};

use ::redis::{ServerErrorKind, Value};
use bytes::Bytes;
use futures_util::{FutureExt, TryFutureExt};

use self::script::{Program, Scripts};
use super::{
    Created, Destroyed, Fault, Outcome, Rotation,
    connect::Password,
    exchange::{Command, command},
    failure::{self, CommandError},
    link::Link,
};
use crate::{
    id::prefix_of,
    record::{fingerprint, same_version},
};

#[derive(Clone)]
pub(crate) struct RedisStore {
    link: Link,
    /// `None`: last write wins.
    scripts: Option<Arc<Scripts>>,
    acks: Option<ReplicaAcks>,
}

/// Replicas that are asked whether they have a write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplicaAcks {
    pub(crate) replicas: usize,
    pub(crate) timeout: Duration,
    pub(crate) every_write: bool,
}

/// Whether a failover may undo a write that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// A change: at worst its user makes it again.
    Usual,
    /// A logout or a rotation, without which somebody keeps an access that was taken away.
    Grave,
}

/// Up to this size, in bytes, a version is compared as a whole where the server can do so by itself (Valkey 8.1, Redis 8.4): it
/// costs the server a fifth less than the script, whatever the size, but the old version travels along.
const SMALL: usize = 4096;

impl RedisStore {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            link,
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

    pub(crate) fn with_password(self, password: Password) -> Self {
        Self {
            link: self.link.with_password(password),
            ..self
        }
    }

    /// How long a request waits at most, which tells a slow server from a silent one.
    pub(crate) fn set_patience(&self, patience: Duration) {
        self.link.set_patience(patience);
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
        self.create_as(Weight::Usual, key, value, lifetime)
    }

    async fn create_as(
        &self,
        weight: Weight,
        key: &str,
        value: &Bytes,
        lifetime: Duration,
    ) -> Result<Created, Fault> {
        let mut set = command("SET", &[key.as_bytes(), value]);
        set.arg("PX").arg(millis(lifetime)).arg("NX");
        match self.write(weight, key, &mut set).await? {
            Value::Okay => Ok(Created::Yes),
            // An id is random, so this is our own first try, whose answer a broken connection swallowed; but look.
            Value::Nil => match self
                .send(key, &mut command("GET", &[key.as_bytes()]))
                .await?
            {
                Value::BulkString(stored) if same_version(&stored, value) => Ok(Created::Yes),
                _ => Ok(Created::Taken),
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
        self.save_as(Weight::Usual, key, expected, value, lifetime)
    }

    fn save_as<'a>(
        &'a self,
        weight: Weight,
        key: &'a str,
        expected: &'a [u8],
        value: &'a Bytes,
        lifetime: Duration,
    ) -> impl Future<Output = Result<Outcome, Fault>> + use<'a> {
        let by_condition = expected.len() <= SMALL && self.link.may_know_conditional_set();
        match &self.scripts {
            Some(scripts) if !by_condition => self
                .save_by_script(scripts, weight, key, expected, value, lifetime)
                .left_future(),
            Some(scripts) => self
                .save_by_condition(scripts, weight, key, expected, value, lifetime)
                .left_future()
                .right_future(),
            None => self
                .overwrite(weight, key, value, lifetime)
                .right_future()
                .right_future(),
        }
    }

    fn save_by_script<'a>(
        &'a self,
        scripts: &'a Scripts,
        weight: Weight,
        key: &'a str,
        expected: &[u8],
        value: &Bytes,
        lifetime: Duration,
    ) -> impl Future<Output = Result<Outcome, Fault>> + use<'a> {
        let mut digits = itoa::Buffer::new();
        let lifetime = digits.format(millis(lifetime)).as_bytes();
        let arguments = [fingerprint(expected), value, lifetime];
        self.run(weight, &scripts.save, &[key], &arguments)
            .map(|reply| outcome(reply?))
    }

    async fn save_by_condition(
        &self,
        scripts: &Scripts,
        weight: Weight,
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
        match self.exchange(weight, key, &mut set).await {
            Ok(Value::Okay) => return Ok(Outcome::Saved),
            // Anything but success is for the script to look into.
            Ok(_) => {}
            Err(failure) if failure.is(ServerErrorKind::ResponseError) => {
                // `ERR syntax error`.
                self.link.note_no_conditional_set();
            }
            Err(failure) => return Err(failure.into_fault(prefix_of(key))),
        }
        Box::pin(self.save_by_script(scripts, weight, key, expected, value, lifetime)).await
    }

    /// The last write wins. But not over a logout: hence XX.
    async fn overwrite(
        &self,
        weight: Weight,
        key: &str,
        value: &Bytes,
        lifetime: Duration,
    ) -> Result<Outcome, Fault> {
        let mut command = command("SET", &[key.as_bytes(), value]);
        command.arg("PX").arg(millis(lifetime)).arg("XX");
        match self.write(weight, key, &mut command).await? {
            Value::Okay => Ok(Outcome::Saved),
            Value::Nil => Ok(Outcome::Gone),
            _ => Err(unexpected()),
        }
    }

    pub(crate) async fn delete(&self, key: &str, expected: &[u8]) -> Result<Outcome, Fault> {
        let weight = Weight::Usual;
        outcome(match &self.scripts {
            Some(scripts) => {
                let arguments = [fingerprint(expected)];
                self.run(weight, &scripts.delete, &[key], &arguments)
                    .await?
            }
            None => {
                self.write(weight, key, &mut command("DEL", &[key.as_bytes()]))
                    .await?
            }
        })
    }

    pub(crate) async fn destroy(&self, key: &str) -> Result<Destroyed, Fault> {
        let weight = Weight::Grave;
        let Some(scripts) = &self.scripts else {
            self.write(weight, key, &mut command("DEL", &[key.as_bytes()]))
                .await?;
            return Ok(Destroyed::Yes);
        };
        let confirm: &[&[u8]] = match self.acks {
            Some(_) => &[b"confirm"],
            None => &[],
        };
        match self.run(weight, &scripts.destroy, &[key], confirm).await? {
            Value::Int(1) => Ok(Destroyed::Yes),
            // With and without having touched it.
            Value::Int(2 | 0) => Ok(Destroyed::Retired),
            _ => Err(unexpected()),
        }
    }

    pub(crate) async fn rotate(&self, rotation: &Rotation<'_>) -> Result<Outcome, Fault> {
        // Without scripts, or with keys in two slots, each key is a step.
        let Some(scripts) = self.scripts.as_ref().filter(|_| !self.link.is_in_slots()) else {
            return super::rotate_in_two_steps(
                rotation,
                |key, value, lifetime| self.create_as(Weight::Grave, key, value, lifetime),
                |key, expected, value, lifetime| {
                    self.save_as(Weight::Grave, key, expected, value, lifetime)
                },
                |key| self.destroy(key),
            )
            .await;
        };
        let mut digits = [itoa::Buffer::new(); 2];
        let [lifetime, tombstone_lifetime] = &mut digits;
        let arguments = [
            fingerprint(rotation.expected),
            rotation.value,
            lifetime.format(millis(rotation.lifetime)).as_bytes(),
            rotation.tombstone,
            tombstone_lifetime
                .format(millis(rotation.tombstone_lifetime))
                .as_bytes(),
        ];
        let keys = [rotation.from, rotation.to];
        let reply = self
            .run(Weight::Grave, &scripts.rotate, &keys, &arguments)
            .await?;
        outcome(reply)
    }

    pub(super) fn scripts(&self) -> Option<&Scripts> {
        self.scripts.as_deref()
    }

    /// EVALSHA, and the whole script only when the server does not have it (any more).
    ///
    /// Here and in `run` the command is made at once, so that the future need not keep what it is made of.
    pub(super) fn invoke<'a>(
        &'a self,
        weight: Weight,
        program: &'a Program,
        keys: &[&'a str],
        arguments: &[&[u8]],
    ) -> impl Future<Output = Result<Value, CommandError>> + use<'a> {
        let key = keys[0];
        let mut short = program.short(keys, arguments);
        async move {
            match self.exchange(weight, key, &mut short).await {
                Err(failure) if failure.is(ServerErrorKind::NoScript) => {
                    let mut whole = program.whole(&short);
                    Box::pin(self.exchange(weight, key, &mut whole)).await
                }
                reply => reply,
            }
        }
    }

    fn run<'a>(
        &'a self,
        weight: Weight,
        program: &'a Program,
        keys: &[&'a str],
        arguments: &[&[u8]],
    ) -> impl Future<Output = Result<Value, Fault>> + use<'a> {
        let key = keys[0];
        self.invoke(weight, program, keys, arguments)
            .map_err(move |failure| failure.into_fault(prefix_of(key)))
    }

    /// `key` is the one that an error is about.
    pub(super) async fn send(&self, key: &str, command: &mut Command) -> Result<Value, Fault> {
        self.link
            .send(key, command)
            .await
            .map_err(|failure| failure.into_fault(prefix_of(key)))
    }

    async fn write(
        &self,
        weight: Weight,
        key: &str,
        command: &mut Command,
    ) -> Result<Value, Fault> {
        self.exchange(weight, key, command)
            .await
            .map_err(|failure| failure.into_fault(prefix_of(key)))
    }

    pub(super) async fn exchange(
        &self,
        weight: Weight,
        key: &str,
        command: &mut Command,
    ) -> Result<Value, CommandError> {
        let Some(acks) = self
            .acks
            .filter(|acks| acks.every_write || weight == Weight::Grave)
        else {
            return self.link.send(key, command).await;
        };
        // What is rare is boxed, so that it does not enlarge every request's future.
        let (reply, confirmed) = Box::pin(self.link.send_and_wait(key, command, acks)).await?;
        // Where nothing was written there is nothing to confirm.
        let was_written = matches!(reply, Value::Okay | Value::Int(1 | 2));
        if was_written && confirmed < acks.replicas {
            return Err(CommandError::NotReplicated(failure::unconfirmed(
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
    Fault::Failed(failure::unexpected())
}
