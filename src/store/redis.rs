//! The contract in Redis commands: one command a step, and a script where a step must look before it writes.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use ::redis::{Cmd, Script, Value};
use bytes::Bytes;

use super::{Created, Destroyed, Fault, Outcome, Rotation, connection::Connection};
use crate::{
    error::{ErrorKind, SessionError},
    record::{fingerprint, same_version},
};

#[derive(Clone)]
pub(crate) struct RedisStore {
    connection: Arc<Connection>,
    /// `None`: last write wins.
    scripts: Option<Arc<Scripts>>,
}

struct Scripts {
    save: Program,
    delete: Program,
    destroy: Program,
    rotate: Program,
}

/// A script with its size on the wire, so that a command is allocated once.
struct Program {
    source: &'static str,
    hash: String,
}

/// Up to this size, in bytes, a version is compared as a whole where the server can do so by itself (Valkey 8.1, Redis 8.4): it
/// costs the server a fifth less than the script, whatever the size, but the old version travels along.
const SMALL: usize = 4096;

/// 26 is the length of the fingerprint that every version of ours begins with.
///
/// Compares by GETRANGE, so that a large session does not pass through Lua only to have its first 26 bytes looked at.
/// A key that holds an empty string counts as gone.
const SAVE: &str = "\
local head = redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1)
if head == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return 1
end
if head == '' then return 0 end
local stored = redis.call('GET', KEYS[1])
if string.sub(stored, 1, 26) == string.sub(ARGV[2], 1, 26) then return 1 end
return stored";

const DELETE: &str = "\
local head = redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1)
if head == ARGV[1] then
  redis.call('DEL', KEYS[1])
  return 1
end
if head == '' then return 0 end
return redis.call('GET', KEYS[1])";

/// `,\"_rotated\":` follows the fingerprint of a tombstone, and of nothing else.
const DESTROY: &str = "\
if redis.call('GETRANGE', KEYS[1], 26, 37) == ',\"_rotated\":' then return 0 end
redis.call('DEL', KEYS[1])
return 1";

const ROTATE: &str = "\
local head = redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1)
if head == ARGV[1] then
  redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
  return 1
end
if head == '' then return 0 end
local stored = redis.call('GET', KEYS[1])
if stored == ARGV[4] then return 1 end
return stored";

impl RedisStore {
    pub(crate) fn new(client: ::redis::Client) -> Self {
        Self {
            connection: Arc::new(Connection::new(client)),
            scripts: Some(Arc::new(Scripts {
                save: Program::new(SAVE),
                delete: Program::new(DELETE),
                destroy: Program::new(DESTROY),
                rotate: Program::new(ROTATE),
            })),
        }
    }

    pub(crate) fn with_last_write_wins(self) -> Self {
        Self {
            scripts: None,
            ..self
        }
    }

    pub(crate) async fn load(&self, key: &str, lifetime: Duration) -> Result<Option<Bytes>, Fault> {
        let mut command = command("GETEX", &[key.as_bytes()]);
        command.arg("PX").arg(millis(lifetime));
        match self.connection.send(&command).await? {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => Ok(Some(bytes.into())),
            _ => Err(unexpected()),
        }
    }

    pub(crate) async fn touch(&self, key: &str, lifetime: Duration) -> Result<(), Fault> {
        let mut command = command("PEXPIRE", &[key.as_bytes()]);
        command.arg(millis(lifetime));
        self.connection.send(&command).await.map(drop)
    }

    pub(crate) async fn create(
        &self,
        key: &str,
        value: &Bytes,
        lifetime: Duration,
    ) -> Result<Created, Fault> {
        let mut set = command("SET", &[key.as_bytes(), value]);
        set.arg("PX").arg(millis(lifetime)).arg("NX");
        match self.connection.send(&set).await? {
            Value::Okay => Ok(Created::Yes),
            // An id is random, so this is our own first try, whose answer a broken connection swallowed; but look.
            Value::Nil => match self
                .connection
                .send(&command("GET", &[key.as_bytes()]))
                .await?
            {
                Value::BulkString(stored) if same_version(&stored, value) => Ok(Created::Yes),
                _ => Ok(Created::Taken),
            },
            _ => Err(unexpected()),
        }
    }

    pub(crate) async fn save(
        &self,
        key: &str,
        expected: &[u8],
        value: &Bytes,
        lifetime: Duration,
    ) -> Result<Outcome, Fault> {
        let Some(scripts) = &self.scripts else {
            // XX, since even where the last write wins it must not undo a logout.
            let mut command = command("SET", &[key.as_bytes(), value]);
            command.arg("PX").arg(millis(lifetime)).arg("XX");
            return match self.connection.send(&command).await? {
                Value::Okay => Ok(Outcome::Saved),
                Value::Nil => Ok(Outcome::Gone),
                _ => Err(unexpected()),
            };
        };
        if expected.len() <= SMALL && self.connection.may_know_conditional_set() {
            let mut set = command("SET", &[key.as_bytes(), value]);
            set.arg("IFEQ")
                .arg(expected)
                .arg("PX")
                .arg(millis(lifetime));
            // Anything but success is for the script to look into.
            if let Some(Value::Okay) = self.connection.send_conditional_set(&set).await? {
                return Ok(Outcome::Saved);
            }
        }
        let lifetime = millis(lifetime).to_string();
        let arguments = [fingerprint(expected), value, lifetime.as_bytes()];
        outcome(self.run(&scripts.save, &[key], &arguments).await?)
    }

    pub(crate) async fn delete(&self, key: &str, expected: &[u8]) -> Result<Outcome, Fault> {
        let reply = match &self.scripts {
            Some(scripts) => {
                self.run(&scripts.delete, &[key], &[fingerprint(expected)])
                    .await?
            }
            None => {
                self.connection
                    .send(&command("DEL", &[key.as_bytes()]))
                    .await?
            }
        };
        outcome(reply)
    }

    pub(crate) async fn destroy(&self, key: &str) -> Result<Destroyed, Fault> {
        let Some(scripts) = &self.scripts else {
            self.connection
                .send(&command("DEL", &[key.as_bytes()]))
                .await?;
            return Ok(Destroyed::Yes);
        };
        match self.run(&scripts.destroy, &[key], &[]).await? {
            Value::Int(1) => Ok(Destroyed::Yes),
            Value::Int(0) => Ok(Destroyed::Retired),
            _ => Err(unexpected()),
        }
    }

    pub(crate) fn rotates_in_one_step(&self) -> bool {
        self.scripts.is_some()
    }

    pub(crate) async fn rotate(&self, rotation: &Rotation<'_>) -> Result<Outcome, Fault> {
        let Some(scripts) = &self.scripts else {
            return Err(unexpected());
        };
        let lifetime = millis(rotation.lifetime).to_string();
        let tombstone_lifetime = millis(rotation.tombstone_lifetime).to_string();
        let arguments = [
            fingerprint(rotation.expected),
            rotation.value,
            lifetime.as_bytes(),
            rotation.tombstone,
            tombstone_lifetime.as_bytes(),
        ];
        outcome(
            self.run(&scripts.rotate, &[rotation.from, rotation.to], &arguments)
                .await?,
        )
    }

    pub(crate) async fn within<T>(
        &self,
        deadline: Duration,
        work: Pin<&mut impl Future<Output = Result<T, SessionError>>>,
    ) -> Result<T, SessionError> {
        match tokio::time::timeout(deadline, work).await {
            Ok(result) => result,
            Err(_) => {
                self.connection.note_silence();
                Err(SessionError::new(
                    ErrorKind::Unavailable,
                    format!(
                        "Redis did not answer within {deadline:?}; the session was left alone: check that the server is up, \
                         and how slow it is, before raising the deadline"
                    ),
                ))
            }
        }
    }

    /// EVALSHA, and the whole script only when the server does not have it (any more).
    async fn run(
        &self,
        program: &Program,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> Result<Value, Fault> {
        match self
            .connection
            .send_unless_missing(&program.invocation("EVALSHA", &program.hash, keys, arguments))
            .await?
        {
            Some(reply) => Ok(reply),
            None => {
                self.connection
                    .send(&program.invocation("EVAL", program.source, keys, arguments))
                    .await
            }
        }
    }
}

impl Program {
    fn new(source: &'static str) -> Self {
        Self {
            source,
            hash: Script::new(source).get_hash().to_owned(),
        }
    }

    fn invocation(&self, verb: &str, script: &str, keys: &[&str], arguments: &[&[u8]]) -> Cmd {
        let size = keys.iter().map(|key| key.len()).sum::<usize>()
            + arguments
                .iter()
                .map(|argument| argument.len())
                .sum::<usize>();
        let count = 3 + keys.len() + arguments.len();
        let mut command = Cmd::with_capacity(count, verb.len() + script.len() + 1 + size);
        command.arg(verb).arg(script).arg(keys.len());
        for key in keys {
            command.arg(*key);
        }
        for argument in arguments {
            command.arg(*argument);
        }
        command
    }
}

fn command(verb: &str, arguments: &[&[u8]]) -> Cmd {
    let size = arguments
        .iter()
        .map(|argument| argument.len())
        .sum::<usize>();
    // Room for the options that follow: `PX`, a time, `NX`.
    let mut command = Cmd::with_capacity(arguments.len() + 4, verb.len() + size + 24);
    command.arg(verb);
    for argument in arguments {
        command.arg(*argument);
    }
    command
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
fn millis(lifetime: Duration) -> u64 {
    u64::try_from(lifetime.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

fn unexpected() -> Fault {
    Fault::Failed(SessionError::new(
        ErrorKind::Refused,
        "the server answered in a way that Redis and Valkey do not: check what listens at the address of the client",
    ))
}
