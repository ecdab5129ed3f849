//! One multiplexed connection that is opened at the first use and again after it broke.
//!
//! Deliberately not `redis::aio::ConnectionManager`: it panics when it is built outside a runtime, waits for seconds when the
//! server is away, and keeps some errors for ever.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, RedisError, ServerErrorKind, Value,
    aio::MultiplexedConnection,
};

use super::Fault;
use crate::error::{ErrorKind, SessionError};

/// After a connection failed, requests fail at once for this long, rather than each trying on its own.
const REST: Duration = Duration::from_millis(50);

/// A connection that missed this many deadlines in a row is taken for half-open, and replaced.
const SILENCES: u32 = 3;

pub(crate) struct Connection {
    client: Client,
    slot: Mutex<Slot>,
    /// Held while connecting, so that one request connects and the others wait for it. Asynchronous, since it is held
    /// across that await on purpose.
    connecting: tokio::sync::Mutex<()>,
    silences: AtomicU32,
    /// The server behind the present connection does not know `SET … IFEQ`.
    no_conditional_set: AtomicBool,
}

#[derive(Default)]
struct Slot {
    open: Option<MultiplexedConnection>,
    /// Counts the connections, so that an error of an old one does not close the new one.
    generation: u64,
    failed: Option<(Instant, SessionError)>,
}

impl Connection {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client: without_delay(client),
            slot: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            silences: AtomicU32::new(0),
            no_conditional_set: AtomicBool::new(false),
        }
    }

    pub(crate) async fn send(&self, command: &Cmd) -> Result<Value, Fault> {
        self.exchange(command)
            .await?
            .map_err(|(error, _)| Fault::Failed(refused(&error)))
    }

    /// `None`: the server does not have the script.
    pub(crate) async fn send_unless_missing(&self, command: &Cmd) -> Result<Option<Value>, Fault> {
        match self.exchange(command).await? {
            Ok(value) => Ok(Some(value)),
            Err((_, Some(ServerErrorKind::NoScript))) => Ok(None),
            Err((error, _)) => Err(Fault::Failed(refused(&error))),
        }
    }

    /// Whether `SET … IFEQ` is worth a try. That the server does not know it is found out once for each connection.
    pub(crate) fn may_know_conditional_set(&self) -> bool {
        !self.no_conditional_set.load(Relaxed)
    }

    /// `None`: the server does not know this form of SET.
    pub(crate) async fn send_conditional_set(&self, command: &Cmd) -> Result<Option<Value>, Fault> {
        match self.exchange(command).await? {
            Ok(value) => Ok(Some(value)),
            // `ERR syntax error`.
            Err((_, Some(ServerErrorKind::ResponseError))) => {
                self.no_conditional_set.store(true, Relaxed);
                Ok(None)
            }
            Err((error, _)) => Err(Fault::Failed(refused(&error))),
        }
    }

    /// A deadline passed without an answer.
    pub(crate) fn note_silence(&self) {
        if self.silences.fetch_add(1, Relaxed) + 1 >= SILENCES {
            self.silences.store(0, Relaxed);
            self.slot().open = None;
        }
    }

    /// The outer error: no answer. The inner one: the server's own.
    async fn exchange(
        &self,
        command: &Cmd,
    ) -> Result<Result<Value, (RedisError, Option<ServerErrorKind>)>, Fault> {
        let ready = self.ready().map_err(Fault::Failed)?;
        let (mut connection, generation) = match ready {
            Some(ready) => ready,
            // Boxed, so that what is rare does not enlarge every request's future.
            None => Box::pin(self.connect()).await.map_err(Fault::Failed)?,
        };
        let reply = connection.send_packed_command(command).await;
        let error = match reply.and_then(Value::extract_error) {
            Ok(value) => {
                if self.silences.load(Relaxed) != 0 {
                    self.silences.store(0, Relaxed);
                }
                return Ok(Ok(value));
            }
            Err(error) => error,
        };
        match error.kind() {
            redis::ErrorKind::Server(kind) => {
                // A demoted master, or one that lost its own: ask the address again.
                if matches!(
                    kind,
                    ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown
                ) {
                    self.close(generation);
                }
                Ok(Err((error, Some(kind))))
            }
            redis::ErrorKind::Extension => {
                if matches!(error.code(), Some("NOAUTH" | "WRONGPASS")) {
                    self.close(generation);
                }
                Ok(Err((error, None)))
            }
            _ => {
                self.close(generation);
                Err(Fault::Dropped(unreachable(&error)))
            }
        }
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, u64), SessionError> {
        let _turn = self.connecting.lock().await;
        // Whoever had the turn before may have connected, or failed to.
        if let Some(ready) = self.ready()? {
            return Ok(ready);
        }
        // The deadline of the whole step bounds both.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let opened = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await;
        let mut slot = self.slot();
        match opened {
            Ok(connection) => {
                self.no_conditional_set.store(false, Relaxed);
                slot.generation += 1;
                slot.failed = None;
                slot.open = Some(connection.clone());
                Ok((connection, slot.generation))
            }
            Err(error) => {
                let error = unreachable(&error);
                slot.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    fn ready(&self) -> Result<Option<(MultiplexedConnection, u64)>, SessionError> {
        let slot = self.slot();
        if let Some(connection) = &slot.open {
            return Ok(Some((connection.clone(), slot.generation)));
        }
        match &slot.failed {
            Some((at, error)) if at.elapsed() < REST => Err(error.clone()),
            _ => Ok(None),
        }
    }

    fn close(&self, generation: u64) {
        let mut slot = self.slot();
        if slot.generation == generation {
            slot.open = None;
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nagle's algorithm holds small commands back for the acknowledgement of the last; redis-rs leaves it on.
fn without_delay(client: Client) -> Client {
    let info = client.get_connection_info().clone();
    let settings = info.tcp_settings().clone();
    Client::open(info.set_tcp_settings(settings.set_nodelay(true))).unwrap_or(client)
}

fn unreachable(error: &RedisError) -> SessionError {
    SessionError::new(
        ErrorKind::Unavailable,
        format!(
            "Redis cannot be reached ({}); the session was left alone: check the client's address and credentials, and \
             that the server is up",
            what(error)
        ),
    )
}

fn refused(error: &RedisError) -> SessionError {
    let mend = match error.code() {
        Some("NOPERM") => {
            "allow GETEX, GET, GETRANGE, SET, DEL, PEXPIRE, EVALSHA and EVAL on the layer's prefix in the user's ACL"
        }
        Some("WRONGTYPE") => {
            "the session's key holds a list, a hash or the like: give the layer a prefix of its own"
        }
        Some("OOM") => "the server is at its maxmemory: raise it, or choose an eviction policy",
        Some("READONLY") => "this server is a replica: connect to the master",
        Some("NOAUTH" | "WRONGPASS") => "check the client's user and password",
        Some("LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY") => {
            "try again in a moment"
        }
        _ => "look into the server's log",
    };
    let kind = match error.code() {
        Some("WRONGTYPE") => ErrorKind::Corrupt,
        Some("LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY" | "READONLY") => {
            ErrorKind::Unavailable
        }
        _ => ErrorKind::Refused,
    };
    SessionError::new(
        kind,
        format!("Redis answered with an error ({}): {mend}", what(error)),
    )
}

/// The error's kind or code. Never its text: Redis echoes arguments, and with them ids and values.
fn what(error: &RedisError) -> String {
    match error.code() {
        Some(code) => code.to_owned(),
        None => error.category().to_owned(),
    }
}
