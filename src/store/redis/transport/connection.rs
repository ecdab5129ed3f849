//! One multiplexed connection to one endpoint, opened at the first use and again after it broke.
//!
//! 1. **Connecting** is a task with a timeout of its own. A request waits for it until the request's deadline; the attempt goes on.
//! 2. **An attempt that hangs** does not block the next one: short attempts are made beside it, one after the other, and the first
//!    attempt that opens a connection wins.
//! 3. **While the server is known to be down**, requests fail at once.
//! 4. **Missing replies.** If a request gives up on a command, a task goes on waiting for the reply (`connection_watch`). If that does not come within
//!    150 ms of the command, a second connection is opened and replaces the first as soon as it is open. Requests that come in
//!    between wait for either. What counts is the oldest unanswered command, not how long its request was willing to wait.
//! 5. **Replacement.** A connection is also replaced when it breaks, and when the server says that it must not be used (a replica, a
//!    password that changed).
//!
//! Deliberately not `redis::aio::ConnectionManager`: it panics if it is built outside a runtime, waits for seconds while the server is
//! away, and keeps some errors for ever.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use redis::{Pipeline, RedisError, ServerErrorKind, Value, aio::MultiplexedConnection};
use tokio::{sync::Notify, time::timeout};

use super::{
    authentication,
    command_pool::Command,
    connect::ConnectSettings,
    connection_state::{AttemptKind, ConnectionState, LastFailure},
    endpoint::Endpoint,
    error::{self, CommandError},
    error_text,
    unanswered::InFlight,
    write_batch::WriteBatch,
};
use crate::{
    error::SessionError,
    random::random_unit,
    stats::{Event, OpenConnection},
};

/// How long a short attempt may take.
const PROBE_TIMEOUT: Duration = Duration::from_millis(125);

/// After a failed attempt to connect there is none for between half of this and one and a half of it. Of random length, so that the
/// processes of a fleet do not connect at the same moment.
const BACKOFF: Duration = Duration::from_millis(50);

/// After a connection broke, the next one is opened after up to this long, for the same reason.
const RECONNECT_JITTER: Duration = Duration::from_millis(10);

/// A connection over which the server refuses to work is replaced at most this often.
const MIN_CONNECTION_AGE: Duration = Duration::from_millis(250);

pub(crate) struct Connection {
    endpoint: Endpoint,
    pub(super) settings: ConnectSettings,
    state: Mutex<ConnectionState>,
    /// An attempt to connect ended.
    attempt_ended: Notify,
    /// The attempts so far; each one's number is also that of its connection.
    attempts: AtomicU64,
    pub(super) write_batch: Arc<WriteBatch>,
}

/// A clone of the open connection, and its number.
type Ready = (MultiplexedConnection, u64);

impl Connection {
    pub(crate) fn new(endpoint: Endpoint, settings: ConnectSettings) -> Arc<Self> {
        Arc::new(Self {
            endpoint,
            settings,
            state: Mutex::default(),
            attempt_ended: Notify::new(),
            attempts: AtomicU64::new(0),
            write_batch: Arc::default(),
        })
    }

    pub(super) async fn send(
        self: &Arc<Self>,
        command: &mut Command,
    ) -> Result<Value, CommandError> {
        let mut send_over = |(connection, generation): Ready| {
            let sent = command.send_over(connection);
            (sent, generation)
        };
        let ready = self.state().ready();
        let (sent, generation) = match ready.map(&mut send_over) {
            Some(sent) => sent,
            // Boxed, since it is rare and would enlarge the future of every request.
            None => Box::pin(self.connected())
                .await
                .map(send_over)
                .map_err(CommandError::NotSent)?,
        };
        let ((reply, sent), future) = InFlight::new(sent, self, generation).await;
        command.recycle(sent, future);
        reply
            .and_then(Value::extract_error)
            .map_err(|error| self.command_failed(error, generation))
    }

    /// Sends several commands, one right behind the other. Returns the last reply, and the number of the connection.
    pub(super) async fn send_pipeline(
        self: &Arc<Self>,
        commands: Pipeline,
    ) -> Result<(Value, u64), CommandError> {
        let (mut connection, generation) = self.connected().await.map_err(CommandError::NotSent)?;
        let sent = Box::pin(async move {
            connection
                .send_packed_commands(&commands, 0, commands.len())
                .await
        });
        let (replies, _) = InFlight::new(sent, self, generation).await;
        replies
            .and_then(|mut replies| replies.pop().unwrap_or(Value::Nil).extract_error())
            .map(|reply| (reply, generation))
            .map_err(|error| self.command_failed(error, generation))
    }

    fn command_failed(&self, error: RedisError, generation: u64) -> CommandError {
        let error = error_text::unwrap_script_error(error);
        if error_text::is_upstream_failure(&error) {
            // The connection to the proxy is good.
            return CommandError::ConnectionLost(error::upstream_failure());
        }
        let is_wrong_server = match error.kind() {
            // A demoted master, or a replica that lost its master: the address may lead to another server by now.
            redis::ErrorKind::Server(kind) => {
                matches!(
                    kind,
                    ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown
                )
            }
            redis::ErrorKind::Extension => matches!(error.code(), Some("NOAUTH" | "WRONGPASS")),
            _ => {
                self.close(generation);
                return CommandError::ConnectionLost(error::unreachable(&error));
            }
        };
        #[cfg(feature = "local-cache")]
        if let (true, Some(cache)) = (is_wrong_server, &self.settings.cache) {
            cache.distrust();
        }
        if is_wrong_server
            && self
                .state()
                .close_unless_young(generation, MIN_CONNECTION_AGE)
        {
            return CommandError::NotExecuted(error::from_server_error(&error, ""));
        }
        CommandError::Server(error)
    }

    /// Waits until the connection is open, or until an attempt to open it has failed.
    async fn connected(self: &Arc<Self>) -> Result<Ready, SessionError> {
        let begun = Instant::now();
        let mut is_first_look = true;
        loop {
            let mut attempt_ended = pin!(self.attempt_ended.notified());
            // From here on, no end of an attempt is missed.
            attempt_ended.as_mut().enable();
            let known = {
                let state = self.state();
                if let Some(ready) = state.ready() {
                    return Ok(ready);
                }
                let is_told = |failure: &&LastFailure| {
                    failure.at >= begun
                        || is_first_look && failure.is_current(state.is_connecting())
                };
                let failure = state.failure().filter(is_told);
                failure.map(|failure| (failure.error.clone(), state.is_connecting()))
            };
            match known {
                // Not before the backoff is over.
                Some((error, false)) => return Err(error),
                Some((error, true)) => {
                    self.begin_due_attempt();
                    return Err(error);
                }
                None => self.begin_due_attempt(),
            }
            is_first_look = false;
            // If an attempt ends without a word, as with its runtime, this request begins the next one.
            let _ = timeout(PROBE_TIMEOUT, attempt_ended).await;
        }
    }

    fn begin_due_attempt(self: &Arc<Self>) {
        let (kind, number, delay) = {
            let mut state = self.state();
            let Some(kind) = state.due_attempt(self.settings.timeout, PROBE_TIMEOUT) else {
                return;
            };
            let number = self.attempts.fetch_add(1, Relaxed) + 1;
            let is_reconnect = number > 1 && state.failure().is_none();
            state.begin(kind, number);
            let delay = match kind {
                AttemptKind::Patient if is_reconnect => RECONNECT_JITTER.mul_f64(random_unit()),
                AttemptKind::Patient | AttemptKind::Probe => Duration::ZERO,
            };
            (kind, number, delay)
        };
        let attempt = Attempt {
            connection: self.clone(),
            number,
        };
        // Not under the lock: a runtime that is shutting down drops the attempt at once.
        let task = tokio::spawn(attempt.run(kind, delay));
        self.state().set_task(number, task.abort_handle());
    }

    /// Opens a second connection beside this one, which it will replace. Returns whether this one is still in use.
    pub(super) fn begin_replacement(self: &Arc<Self>, generation: u64) -> bool {
        let is_open = self.state().is_open(generation);
        if is_open {
            self.begin_due_attempt();
        }
        is_open
    }

    pub(super) fn close(&self, generation: u64) {
        self.state().close(generation);
    }

    pub(super) fn is_connecting(&self) -> bool {
        self.state().is_connecting()
    }

    /// Whether it is open, and no command waits for a reply in vain.
    #[cfg(feature = "cluster")]
    pub(super) fn is_responsive(&self) -> bool {
        self.state().is_responsive()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, ConnectionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl authentication::Open for Connection {
    fn open_connection(&self, generation: u64) -> Option<MultiplexedConnection> {
        let ready = self.state().ready();
        ready
            .filter(|(_, number)| *number == generation)
            .map(|(connection, _)| connection)
    }
}

#[cfg(feature = "sentinel")]
impl super::sentinel::Watched for Connection {
    fn is_open(&self, generation: u64) -> bool {
        self.state().is_open(generation)
    }

    fn replace(self: &Arc<Self>, generation: u64) {
        self.begin_replacement(generation);
    }
}

/// An attempt to connect. However it ends, by a panic or with its runtime too, the next one can begin.
struct Attempt {
    connection: Arc<Connection>,
    number: u64,
}

impl Attempt {
    async fn run(self, kind: AttemptKind, delay: Duration) {
        let connection = &self.connection;
        let limit = match kind {
            AttemptKind::Patient => connection.settings.timeout,
            AttemptKind::Probe => PROBE_TIMEOUT,
        };
        // If the server closes the connection, no request has to fail to find that out.
        let on_close = {
            let connection = Arc::downgrade(connection);
            let number = self.number;
            move || {
                if let Some(connection) = Weak::upgrade(&connection) {
                    connection.close(number);
                }
            }
        };
        if delay != Duration::ZERO {
            tokio::time::sleep(delay).await;
        }
        let opened = connection.endpoint.open(&connection.settings, on_close);
        let error = match timeout(limit, opened).await {
            Ok(Ok(opened)) => {
                let open = OpenConnection::new(connection.settings.counters.clone());
                let is_used = connection
                    .state()
                    .opened(self.number, opened.connected, open);
                if is_used {
                    // Only now, so that the task of the connection before is not left without its place.
                    let slot_taker = connection.write_batch.begin();
                    connection.state().set_slot_taker(self.number, slot_taker);
                }
                #[cfg(feature = "local-cache")]
                if is_used {
                    connection.begin_heartbeat(self.number);
                }
                if let (true, Some(source)) = (is_used, &connection.settings.credentials) {
                    let renewed = Arc::downgrade(connection);
                    tokio::spawn(source.clone().keep_authenticated(renewed, self.number));
                }
                #[cfg(feature = "sentinel")]
                if let (true, Some(master), Endpoint::Master(sentinels)) =
                    (is_used, opened.master, &connection.endpoint)
                {
                    tokio::spawn(sentinels.clone().watch(master, connection, self.number));
                }
                return;
            }
            Ok(Err(error)) => error,
            Err(_) if kind == AttemptKind::Probe => return,
            Err(_) => error::connect_timed_out(limit),
        };
        connection.settings.counters.count(Event::ConnectionFailed);
        let failure = LastFailure {
            at: Instant::now(),
            backoff: BACKOFF.mul_f64(0.5 + random_unit()),
            error,
        };
        connection.state().attempt_failed(self.number, failure);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.connection.state().attempt_ended(self.number);
        self.connection.attempt_ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
