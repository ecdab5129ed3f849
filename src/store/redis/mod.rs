//! The store in Redis: one command per operation, and a script where an operation must read before it writes.

mod commands;
mod readiness;
mod scripts;
#[cfg(feature = "local-cache")]
mod tracked;
pub(crate) mod transport;
mod user_index;

use std::{sync::Arc, time::Duration};

use ::redis::{ServerErrorKind, Value};
use bytes::Bytes;
use futures_util::{TryFutureExt, future::try_join};

#[cfg(feature = "sentinel")]
pub(crate) use self::transport::sentinel::Sentinels;
pub(crate) use self::transport::{Transport, endpoint::Endpoint};
use self::{
    commands::{getex, pexpire, rotate_command, save_command, set_if, set_if_equal},
    scripts::Scripts,
    transport::{
        authentication::CredentialSource,
        command_pool::{Command, command},
        connect::{ConnectSettings, Feature},
        error::{self, CommandError},
    },
};
use super::outcome::{Created, Destroyed, Fault, Outcome, Rotation, rotate_in_two_steps};
#[cfg(feature = "local-cache")]
use crate::cache::Cache;
use crate::{
    config::ReplicaAcks,
    credentials::CredentialsProvider,
    error::SessionError,
    id::prefix_of,
    record::{revision, same_revision},
};

#[derive(Clone)]
pub(crate) struct RedisStore {
    transport: Transport,
    /// `None`: last write wins.
    scripts: Option<Arc<Scripts>>,
    acks: Option<ReplicaAcks>,
    #[cfg(feature = "local-cache")]
    cache: Option<Arc<Cache>>,
}

/// Whether a failover may undo an acknowledged write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// A change that the user can make again.
    Normal,
    /// A logout or a rotation. Undone, it would give access back that was revoked.
    Critical,
}

/// Up to this size, in bytes, the whole stored value is compared by `SET … IFEQ`, if the server supports it (Valkey 8.1, Redis 8.4).
/// It costs the server a fifth less than the script, but the old value is sent along.
const MAX_IFEQ_LEN: usize = 4096;

impl RedisStore {
    pub(crate) fn new(transport: Transport) -> Self {
        Self {
            transport,
            scripts: Some(Arc::new(Scripts::new())),
            acks: None,
            #[cfg(feature = "local-cache")]
            cache: None,
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

    pub(crate) fn with_credentials(self, provider: CredentialsProvider) -> Self {
        let source = Arc::new(CredentialSource::new(provider));
        self.configured(|settings| settings.credentials = Some(source))
    }

    pub(crate) fn with_connect_timeout(self, timeout: Duration) -> Self {
        self.configured(|settings| settings.timeout = timeout)
    }

    #[cfg(feature = "cluster")]
    pub(crate) fn with_address_map(self, map: transport::connect::AddressMap) -> Self {
        self.configured(|settings| settings.address_map = Some(map))
    }

    fn configured(self, configure: impl FnOnce(&mut ConnectSettings)) -> Self {
        Self {
            transport: self.transport.configured(configure),
            ..self
        }
    }

    /// The error of a request that reached its deadline.
    pub(crate) fn late_error(&self, deadline: Duration) -> SessionError {
        let connecting = self.transport.late_error(deadline);
        connecting.unwrap_or_else(|| SessionError::deadline_exceeded(deadline))
    }

    pub(crate) async fn load(&self, key: &str, lifetime: Duration) -> Result<Option<Bytes>, Fault> {
        let capabilities = self.transport.capabilities();
        if capabilities.may_support(Feature::GetEx) {
            match self.transport.send(key, &mut getex(key, lifetime)).await {
                Ok(reply) => return value(reply),
                Err(error) if error.is_unsupported("getex") => {
                    capabilities.mark_unsupported(Feature::GetEx);
                }
                Err(error) => return Err(error.into_fault(prefix_of(key))),
            }
        }
        // Boxed, since it is rare and would enlarge the future of every request.
        Box::pin(self.get_and_expire(key, lifetime)).await
    }

    /// Before Redis 6.2, reading and setting the TTL are two commands, in one write to the connection.
    async fn get_and_expire(&self, key: &str, ttl: Duration) -> Result<Option<Bytes>, Fault> {
        let mut touch = pexpire(key, ttl);
        let touch = self.read(key, &mut touch);
        let (value, _) = try_join(self.value(key), touch).await?;
        Ok(value)
    }

    /// GETEX does the same, for a user who may not call PEXPIRE.
    pub(crate) async fn touch(&self, key: &str, lifetime: Duration) -> Result<(), Fault> {
        let capabilities = self.transport.capabilities();
        if capabilities.may_support(Feature::PExpire) {
            match self.transport.send(key, &mut pexpire(key, lifetime)).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_denied() => {
                    if capabilities.mark_unsupported(Feature::PExpire) {
                        tracing::warn!(
                            "the ACL denies PEXPIRE, so GETEX is used, which sends the whole session: add +pexpire"
                        );
                    }
                }
                Err(error) => return Err(error.into_fault(prefix_of(key))),
            }
        }
        let mut touch = getex(key, lifetime);
        self.read(key, &mut touch).await.map(drop)
    }

    pub(crate) fn create(
        &self,
        key: &str,
        value: &Bytes,
        lifetime: Duration,
    ) -> impl Future<Output = Result<Created, Fault>> {
        self.set_new(Durability::Normal, key, value, lifetime)
    }

    async fn set_new(
        &self,
        durability: Durability,
        key: &str,
        value: &Bytes,
        lifetime: Duration,
    ) -> Result<Created, Fault> {
        let mut set = set_if("NX", key, value, lifetime);
        match self.write(key, &mut set, durability).await? {
            Value::Okay => Ok(Created::Created),
            // Ids are random, so this is the own first try, whose reply was lost with its connection. To be sure, compare.
            Value::Nil => match Box::pin(self.value(key)).await? {
                Some(stored) if same_revision(&stored, value) => Ok(Created::Created),
                Some(_) | None => Ok(Created::AlreadyExists),
            },
            _ => Err(unexpected_reply()),
        }
    }

    pub(crate) fn save(
        &self,
        key: &str,
        expected: &[u8],
        value: &Bytes,
        lifetime: Duration,
    ) -> impl Future<Output = Result<Outcome, Fault>> {
        self.replace(Durability::Normal, key, expected, value, lifetime)
    }

    async fn replace(
        &self,
        durability: Durability,
        key: &str,
        expected: &[u8],
        value: &Bytes,
        lifetime: Duration,
    ) -> Result<Outcome, Fault> {
        let Some(scripts) = &self.scripts else {
            return Box::pin(self.overwrite(durability, key, value, lifetime)).await;
        };
        let capabilities = self.transport.capabilities();
        let has_ifeq = expected.len() <= MAX_IFEQ_LEN && capabilities.may_support(Feature::SetIfEq);
        let mut save = match has_ifeq {
            true => set_if_equal(key, expected, value, lifetime),
            false => save_command(&scripts.save, key, revision(expected), value, lifetime),
        };
        let compared = match self.execute(key, &mut save, durability).await {
            Ok(Value::Okay) => return Ok(Outcome::Saved),
            // The script finds out why. By the whole value, since a foreign writer may have kept the revision.
            Ok(_) if has_ifeq => expected,
            Err(error) if has_ifeq && error.is_syntax_error() => {
                capabilities.mark_unsupported(Feature::SetIfEq);
                revision(expected)
            }
            reply => return outcome(reply.map_err(|error| error.into_fault(prefix_of(key)))?),
        };
        save = save_command(&scripts.save, key, compared, value, lifetime);
        // Boxed, since it is rare and would enlarge the future of every request.
        outcome(Box::pin(self.write(key, &mut save, durability)).await?)
    }

    /// Does not compare, but XX keeps a late save from undoing a logout.
    async fn overwrite(
        &self,
        durability: Durability,
        key: &str,
        value: &Bytes,
        lifetime: Duration,
    ) -> Result<Outcome, Fault> {
        let mut set = set_if("XX", key, value, lifetime);
        match self.write(key, &mut set, durability).await? {
            Value::Okay => Ok(Outcome::Saved),
            Value::Nil => Ok(Outcome::Gone),
            _ => Err(unexpected_reply()),
        }
    }

    pub(crate) async fn delete(&self, key: &str, expected: &[u8]) -> Result<Outcome, Fault> {
        let mut delete = match &self.scripts {
            Some(scripts) => scripts.delete.command(&[key], &[revision(expected)]),
            None => command("DEL", &[key.as_bytes()]),
        };
        outcome(self.write(key, &mut delete, Durability::Normal).await?)
    }

    pub(crate) async fn destroy(&self, key: &str) -> Result<Destroyed, Fault> {
        let Some(scripts) = &self.scripts else {
            let mut delete = command("DEL", &[key.as_bytes()]);
            self.write(key, &mut delete, Durability::Critical).await?;
            return Ok(Destroyed::Deleted);
        };
        let confirm: &[&[u8]] = match self.acks {
            Some(_) => &[b"confirm"],
            None => &[],
        };
        let mut destroy = scripts.destroy.command(&[key], confirm);
        match self.write(key, &mut destroy, Durability::Critical).await? {
            Value::Int(1) => Ok(Destroyed::Deleted),
            // 2: the script wrote to it, so that WAIT covers it.
            Value::Int(2 | 0) => Ok(Destroyed::Tombstone),
            _ => Err(unexpected_reply()),
        }
    }

    pub(crate) async fn rotate(&self, rotation: &Rotation<'_>) -> Result<Outcome, Fault> {
        let durability = Durability::Critical;
        let capabilities = self.transport.capabilities();
        // Without scripts, or with the keys in two slots, each key is written by itself.
        let can_write_both =
            !self.transport.is_cluster() && capabilities.may_support(Feature::CrossSlot);
        let Some(scripts) = self.scripts.as_ref().filter(|_| can_write_both) else {
            return Box::pin(self.rotate_in_two_steps(rotation)).await;
        };
        let mut rotate = rotate_command(&scripts.rotate, rotation);
        match self.execute(rotation.from, &mut rotate, durability).await {
            Ok(reply) => outcome(reply),
            // One address in front of a cluster.
            Err(error) if error.is(ServerErrorKind::CrossSlot) => {
                capabilities.mark_unsupported(Feature::CrossSlot);
                Box::pin(self.rotate_in_two_steps(rotation)).await
            }
            Err(error) => Err(error.into_fault(prefix_of(rotation.from))),
        }
    }

    async fn rotate_in_two_steps(&self, rotation: &Rotation<'_>) -> Result<Outcome, Fault> {
        let durability = Durability::Critical;
        rotate_in_two_steps(
            rotation,
            |key, value, lifetime| self.set_new(durability, key, value, lifetime),
            |key, expected, value, lifetime| {
                self.replace(durability, key, expected, value, lifetime)
            },
            |key| self.destroy(key),
        )
        .await
    }

    async fn read(&self, key: &str, command: &mut Command) -> Result<Value, Fault> {
        let reply = self.transport.send(key, command).await;
        reply.map_err(|error| error.into_fault(prefix_of(key)))
    }

    fn write<'a>(
        &'a self,
        key: &'a str,
        command: &'a mut Command,
        durability: Durability,
    ) -> impl Future<Output = Result<Value, Fault>> + use<'a> {
        self.execute(key, command, durability)
            .map_err(|error| error.into_fault(prefix_of(key)))
    }

    /// Sends a command, and waits for replicas if this `durability` asks for it. A script is sent by its hash, and with its text only if the
    /// server does not have it.
    async fn execute(
        &self,
        key: &str,
        command: &mut Command,
        durability: Durability,
    ) -> Result<Value, CommandError> {
        let error = {
            let reply = match self.acks(durability) {
                None => self.transport.send(key, command).await,
                Some(acks) => Box::pin(self.send_and_wait(key, command, acks)).await,
            };
            match reply {
                Err(error) if error.is(ServerErrorKind::NoScript) => error,
                reply => return reply,
            }
        };
        // Boxed, since it is rare and would enlarge the future of every request.
        Box::pin(self.evaluate(key, command, durability, error)).await
    }

    /// Sends the text of the script that the server does not have.
    async fn evaluate(
        &self,
        key: &str,
        command: &Command,
        durability: Durability,
        error: CommandError,
    ) -> Result<Value, CommandError> {
        match command.to_eval() {
            Some(mut eval) => self.execute(key, &mut eval, durability).await,
            None => Err(error),
        }
    }

    fn acks(&self, durability: Durability) -> Option<ReplicaAcks> {
        let acks = self.acks;
        match durability {
            Durability::Normal => acks.filter(|acks| acks.every_write),
            Durability::Critical => acks,
        }
    }

    async fn send_and_wait(
        &self,
        key: &str,
        command: &mut Command,
        acks: ReplicaAcks,
    ) -> Result<Value, CommandError> {
        let (reply, confirmed) = self.transport.send_and_wait(key, command, acks).await?;
        // Where nothing was written, there is nothing to confirm.
        let was_written = matches!(reply, Value::Okay | Value::Int(1 | 2));
        if was_written && confirmed < acks.replicas {
            let error = error::not_replicated(confirmed, acks);
            return Err(CommandError::NotReplicated(error));
        }
        Ok(reply)
    }
}

fn value(reply: Value) -> Result<Option<Bytes>, Fault> {
    match reply {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes.into())),
        _ => Err(unexpected_reply()),
    }
}

fn outcome(reply: Value) -> Result<Outcome, Fault> {
    match reply {
        Value::Int(1) => Ok(Outcome::Saved),
        Value::Int(0) => Ok(Outcome::Gone),
        Value::BulkString(stored) => Ok(Outcome::Conflict(stored.into())),
        _ => Err(unexpected_reply()),
    }
}

fn unexpected_reply() -> Fault {
    Fault::Failed(error::unexpected_reply())
}
