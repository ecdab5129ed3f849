//! One multiplexed connection to one server, that is opened at the first use and again after it broke.
//!
//! 1. Connecting is a task of its own, so that a request which reaches its deadline, or whose client leaves, does not begin it anew
//!    for the next one. There is one attempt at a time, whoever asks.
//! 2. While the server is known to be down, requests fail at once, but for the one that looks whether it came back.
//! 3. A connection is replaced when it breaks, when the server stays silent, and when the server says that it is not the one
//!    to talk to any more.
//!
//! Deliberately not `redis::aio::ConnectionManager`: it panics when it is built outside a runtime, waits for seconds when the
//! server is away, and keeps some errors for ever.

use std::{
    mem,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use redis::{Pipeline, RedisError, ServerErrorKind, Value, aio::MultiplexedConnection};
use tokio::sync::Notify;

use super::{
    command_pool::{Command, InFlight},
    connect::{self, ConnectOptions},
    error::{self, CommandError},
};
use crate::{error::SessionError, random::random_unit};

/// After an attempt to connect failed, nobody tries for between half of this and one and a half of it. Of random length, so that
/// a fleet does not knock in step.
const BACKOFF: Duration = Duration::from_millis(50);

/// When a connection broke, the next one is opened after up to this long, for the same reason.
const RECONNECT_JITTER: Duration = Duration::from_millis(10);

/// What was found out about a server this long ago says nothing about it now.
const FAILURE_TTL: Duration = Duration::from_secs(1);

/// A connection that missed this many deadlines in a row is taken for half-open, and replaced.
const MAX_CONSECUTIVE_TIMEOUTS: u32 = 3;

/// Of the attempts to reach a server that is known to be down, each fourth one has as long as a request; the others have this, so
/// that one which hangs does not stand in the way when the server comes back.
const PROBE_TIMEOUT: Duration = Duration::from_millis(125);

/// A connection that the server answers but refuses to work on is replaced at most this often.
const MIN_CONNECTION_AGE: Duration = Duration::from_millis(250);

pub(crate) struct Connection {
    source: ConnectOptions,
    slot: Mutex<ConnectionState>,
    attempt_ended: Notify,
    /// Deadlines in a row that passed without an answer.
    consecutive_timeouts: AtomicU32,
    /// The server behind the present connection does not know `SET … IFEQ`.
    set_ifeq_unsupported: AtomicBool,
    /// In milliseconds.
    request_timeout: AtomicU64,
}

#[derive(Default)]
struct ConnectionState {
    open: Option<MultiplexedConnection>,
    opened: Option<Instant>,
    /// Counts the connections, so that an error of an old one does not close the new one.
    generation: u64,
    attempting: bool,
    /// Why the last attempt failed, if it did.
    down: Option<LastFailure>,
}

struct LastFailure {
    at: Instant,
    backoff: Duration,
    attempts: u32,
    error: SessionError,
}

impl Connection {
    pub(crate) fn new(source: ConnectOptions) -> Arc<Self> {
        Arc::new(Self {
            source,
            slot: Mutex::default(),
            attempt_ended: Notify::new(),
            consecutive_timeouts: AtomicU32::new(0),
            set_ifeq_unsupported: AtomicBool::new(false),
            request_timeout: AtomicU64::new(500),
        })
    }

    pub(crate) fn source(&self) -> ConnectOptions {
        self.source.clone()
    }

    /// How long a request waits at most.
    pub(crate) fn set_request_timeout(&self, request_timeout: Duration) {
        let millis = u64::try_from(request_timeout.as_millis()).unwrap_or(u64::MAX);
        self.request_timeout.store(millis, Relaxed);
    }

    /// Whether `SET … IFEQ` is worth a try. That the server does not know it is found out once for each connection.
    pub(crate) fn supports_set_ifeq(&self) -> bool {
        !self.set_ifeq_unsupported.load(Relaxed)
    }

    pub(crate) fn mark_set_ifeq_unsupported(&self) {
        self.set_ifeq_unsupported.store(true, Relaxed);
    }

    pub(super) async fn send(
        self: &Arc<Self>,
        command: &mut Command,
    ) -> Result<Value, CommandError> {
        let Some(ready) = self.ready().map_err(CommandError::NotSent)? else {
            // Boxed, so that what is rare does not enlarge every request's future.
            return Box::pin(self.send_once_connected(command)).await;
        };
        self.send_over(ready, command).await
    }

    async fn send_once_connected(
        self: &Arc<Self>,
        command: &mut Command,
    ) -> Result<Value, CommandError> {
        let ready = self.connected().await.map_err(CommandError::NotSent)?;
        self.send_over(ready, command).await
    }

    fn send_over(
        &self,
        (connection, generation): (MultiplexedConnection, u64),
        command: &mut Command,
    ) -> impl Future<Output = Result<Value, CommandError>> {
        let mut exchange = InFlight::new(connection, command);
        async move {
            let unanswered = self.unanswered(generation);
            let reply = (&mut exchange).await;
            unanswered.answered();
            reply
                .and_then(Value::extract_error)
                .map_err(|error| self.failed(error, generation))
        }
    }

    /// Several commands, one right behind the other: the last one's reply, and the number of the connection that it came over.
    pub(crate) async fn send_together(
        self: &Arc<Self>,
        commands: &Pipeline,
    ) -> Result<(Value, u64), CommandError> {
        let (mut connection, generation) = self.connected().await.map_err(CommandError::NotSent)?;
        let unanswered = self.unanswered(generation);
        let replies = connection
            .send_packed_commands(commands, 0, commands.len())
            .await;
        unanswered.answered();
        replies
            .and_then(|mut replies| replies.pop().unwrap_or(Value::Nil).extract_error())
            .map(|reply| (reply, generation))
            .map_err(|error| self.failed(error, generation))
    }

    fn unanswered(&self, generation: u64) -> InFlightGuard<'_> {
        InFlightGuard {
            connection: self,
            generation,
            since: Instant::now(),
        }
    }

    fn failed(&self, error: RedisError, generation: u64) -> CommandError {
        let is_elsewhere = match error.kind() {
            // A demoted master, or one that lost its own: ask the address again.
            redis::ErrorKind::Server(kind) => {
                matches!(
                    kind,
                    ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown
                )
            }
            redis::ErrorKind::Extension => matches!(error.code(), Some("NOAUTH" | "WRONGPASS")),
            redis::ErrorKind::AuthenticationFailed => true,
            _ => {
                self.close(generation);
                return CommandError::ConnectionLost(error::unreachable(&error));
            }
        };
        if is_elsewhere && self.close_unless_new(generation) {
            return CommandError::NotExecuted(error::from_server_error(&error, ""));
        }
        CommandError::Server(error)
    }

    /// The connection, if it is there; an error, if the server is known to be down; else it is for the caller to connect.
    fn ready(&self) -> Result<Option<(MultiplexedConnection, u64)>, SessionError> {
        let slot = self.slot();
        if let Some(connection) = &slot.open {
            return Ok(Some((connection.clone(), slot.generation)));
        }
        match &slot.down {
            Some(down) if down.fails_fast(slot.attempting) => Err(down.error.clone()),
            _ => Ok(None),
        }
    }

    /// The connection, once it is there.
    async fn connected(self: &Arc<Self>) -> Result<(MultiplexedConnection, u64), SessionError> {
        let mut waited = false;
        loop {
            let mut ended = pin!(self.attempt_ended.notified());
            // From here on no end of an attempt is missed.
            ended.as_mut().enable();
            if let Some(ready) = self.ready()? {
                return Ok(ready);
            }
            {
                let mut slot = self.slot();
                if let Some(down) = &slot.down
                    && waited
                {
                    return Err(down.error.clone());
                }
                if slot.open.is_none() && !slot.attempting {
                    slot.attempting = true;
                    tokio::spawn(Attempt(self.clone()).run());
                }
            }
            ended.await;
            waited = true;
        }
    }

    /// A deadline passed without an answer.
    fn count_timeout(&self, generation: u64) {
        if self.consecutive_timeouts.fetch_add(1, Relaxed) + 1 >= MAX_CONSECUTIVE_TIMEOUTS {
            self.consecutive_timeouts.store(0, Relaxed);
            self.close(generation);
        }
    }

    pub(crate) fn close(&self, generation: u64) {
        let mut slot = self.slot();
        if slot.generation == generation {
            slot.open = None;
        }
    }

    /// Whether another connection may do better.
    fn close_unless_new(&self, generation: u64) -> bool {
        let mut slot = self.slot();
        if slot.generation != generation {
            return true;
        }
        let is_new = slot
            .opened
            .is_some_and(|opened| opened.elapsed() < MIN_CONNECTION_AGE);
        if !is_new {
            slot.open = None;
        }
        !is_new
    }

    /// Whether it is open, and nobody waits in vain.
    #[cfg(feature = "cluster")]
    pub(crate) fn answers(&self) -> bool {
        self.consecutive_timeouts.load(Relaxed) == 0 && self.slot().open.is_some()
    }

    /// Whether this is the connection that is in use.
    #[cfg(feature = "sentinel")]
    pub(crate) fn is_open(&self, generation: u64) -> bool {
        let slot = self.slot();
        slot.generation == generation && slot.open.is_some()
    }

    fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout.load(Relaxed))
    }

    fn slot(&self) -> MutexGuard<'_, ConnectionState> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LastFailure {
    fn fails_fast(&self, attempting: bool) -> bool {
        let age = self.at.elapsed();
        age < if attempting {
            FAILURE_TTL
        } else {
            self.backoff
        }
    }
}

/// An attempt to connect. However it ends, a panic and the end of its runtime included, the next one may begin.
struct Attempt(Arc<Connection>);

impl Attempt {
    async fn run(self) {
        let connection = &self.0;
        let (attempts, generation) = {
            let slot = connection.slot();
            let attempts = slot
                .down
                .as_ref()
                .filter(|down| down.at.elapsed() < FAILURE_TTL)
                .map_or(0, |down| down.attempts);
            (attempts, slot.generation + 1)
        };
        let request_timeout = match attempts % 4 {
            0 => connection.request_timeout(),
            _ => connection.request_timeout().min(PROBE_TIMEOUT),
        };
        // When the server closes the connection, nobody need fail to find that out.
        let closed = {
            let connection = Arc::downgrade(connection);
            move || {
                if let Some(connection) = Weak::upgrade(&connection) {
                    connection.close(generation);
                }
            }
        };
        if attempts == 0 && generation > 1 {
            tokio::time::sleep(RECONNECT_JITTER.mul_f64(random_unit())).await;
        }
        let opened =
            tokio::time::timeout(request_timeout, connect::open(&connection.source, closed)).await;
        let error = match opened {
            Ok(Ok(open)) => {
                connection.set_ifeq_unsupported.store(false, Relaxed);
                connection.consecutive_timeouts.store(0, Relaxed);
                let mut slot = connection.slot();
                slot.generation = generation;
                slot.down = None;
                slot.open = Some(open.connection);
                slot.opened = Some(Instant::now());
                drop(slot);
                #[cfg(feature = "sentinel")]
                if let Some((sentinels, address)) = open.master {
                    super::sentinel::watch(sentinels, connection, generation, address);
                }
                return;
            }
            Ok(Err(error)) => error,
            Err(_) => error::connect_timed_out(request_timeout),
        };
        connection.slot().down = Some(LastFailure {
            at: Instant::now(),
            backoff: BACKOFF.mul_f64(0.5 + random_unit()),
            attempts: attempts + 1,
            error,
        });
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.slot().attempting = false;
        self.0.attempt_ended.notify_waiters();
    }
}

/// A command that is on its way. Dropped without an answer after most of a request's time, it counts as a silence; a client that
/// leaves early says nothing about the server.
struct InFlightGuard<'a> {
    connection: &'a Connection,
    generation: u64,
    since: Instant,
}

impl InFlightGuard<'_> {
    /// The row of consecutive_timeouts ends.
    fn answered(self) {
        if self.connection.consecutive_timeouts.load(Relaxed) != 0 {
            self.connection.consecutive_timeouts.store(0, Relaxed);
        }
        mem::forget(self);
    }
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        if self.since.elapsed() >= self.connection.request_timeout().mul_f64(0.75) {
            self.connection.count_timeout(self.generation);
        }
    }
}
