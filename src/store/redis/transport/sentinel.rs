//! Finds the master by Redis Sentinel, and notices when Sentinel names another one.
//!
//! 1. All sentinels are asked, the one that was right last time first. The first server that a sentinel names **and that says of itself
//!    that it is a master** is used. So a sentinel that hangs, is down, or names an old master only costs a moment.
//! 2. The connections to the sentinels are kept.
//! 3. While a connection to a master is open, Sentinel is asked twice a second. If it names another server, a connection to the new
//!    master replaces the open one.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use redis::{ConnectionAddr, ConnectionInfo, RedisError, Value, aio::MultiplexedConnection};

use super::{
    connect::{self, ConnectSettings, Connected},
    error,
};
use crate::error::SessionError;

/// A demoted master accepts writes until Sentinel reconfigures it, and these are lost. So Sentinel is asked this often. That a master
/// died is noticed by its connection, at once.
const INTERVAL: Duration = Duration::from_millis(500);
/// The next sentinel is asked this much later, unless the one before answered.
const STAGGER: Duration = Duration::from_millis(50);
/// A sentinel that does not answer within this time is asked over a new connection the next time.
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) struct Sentinels {
    master_name: String,
    sentinels: Vec<Sentinel>,
    /// Its credentials, database and TLS settings are used; its address is not.
    master: ConnectionInfo,
    /// The sentinel that named the present master.
    preferred: AtomicUsize,
}

struct Sentinel {
    info: ConnectionInfo,
    connection: Mutex<Option<MultiplexedConnection>>,
}

/// What one step on the way to a master came to.
enum Step {
    Named(usize, Result<Option<ConnectionAddr>, RedisError>),
    Opened(usize, ConnectionAddr, Result<Connected, SessionError>),
}

impl Sentinels {
    pub(crate) fn new(
        master_name: String,
        sentinels: Vec<ConnectionInfo>,
        master: ConnectionInfo,
    ) -> Self {
        let kept = |info| Sentinel {
            info,
            connection: Mutex::default(),
        };
        Self {
            master_name,
            sentinels: sentinels.into_iter().map(kept).collect(),
            master,
            preferred: AtomicUsize::new(0),
        }
    }

    /// Opens a connection to the master.
    pub(super) async fn open_master(
        &self,
        settings: &ConnectSettings,
        on_close: impl Fn() + Clone + Send + Sync + 'static,
    ) -> Result<(Connected, ConnectionAddr), SessionError> {
        let mut steps: FuturesUnordered<BoxFuture<'_, Step>> = self.ask_all();
        let mut tried = Vec::new();
        let mut failure = None;
        while let Some(step) = steps.next().await {
            match step {
                Step::Named(sentinel, Ok(Some(address))) => {
                    if !tried.contains(&address) {
                        tried.push(address.clone());
                        let on_close = on_close.clone();
                        let open = async move {
                            let opened = self.open_if_master(&address, settings, on_close).await;
                            Step::Opened(sentinel, address, opened)
                        };
                        steps.push(open.boxed());
                    }
                }
                Step::Named(_, Ok(None)) => {
                    failure.get_or_insert_with(error::unknown_master_name);
                }
                Step::Named(_, Err(error)) => {
                    failure.get_or_insert_with(|| error::sentinel_unreachable(&error));
                }
                Step::Opened(sentinel, address, Ok(connected)) => {
                    self.preferred.store(sentinel, Relaxed);
                    return Ok((connected, address));
                }
                // Says more than that a sentinel is down.
                Step::Opened(_, _, Err(error)) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(error::unknown_master_name))
    }

    /// Asks for the master as long as this connection is in use. `master` is its address.
    pub(super) fn watch<C: Watched>(
        self: Arc<Self>,
        master: ConnectionAddr,
        connection: &Arc<C>,
        generation: u64,
    ) -> impl Future<Output = ()> + Send + use<C> {
        let connection = Arc::downgrade(connection);
        let is_open = move |connection: &Weak<C>| {
            Weak::upgrade(connection).filter(|connection| connection.is_open(generation))
        };
        async move {
            loop {
                tokio::time::sleep(INTERVAL).await;
                if is_open(&connection).is_none() {
                    return;
                }
                // Without an answer there is nothing better than the open connection.
                if let Some(named) = self.named_master().await
                    && named != master
                    && let Some(open) = is_open(&connection)
                {
                    open.replace(generation);
                }
            }
        }
    }

    /// The first address that a sentinel gives.
    async fn named_master(&self) -> Option<ConnectionAddr> {
        let mut steps = self.ask_all();
        while let Some(step) = steps.next().await {
            if let Step::Named(_, Ok(Some(address))) = step {
                return Some(address);
            }
        }
        None
    }

    fn ask_all(&self) -> FuturesUnordered<BoxFuture<'_, Step>> {
        let preferred = self.preferred.load(Relaxed);
        let count = self.sentinels.len();
        let asked = (0..count).zip(0_u32..).map(|(offset, rank)| {
            let number = (preferred + offset) % count;
            let ask = async move {
                tokio::time::sleep(STAGGER * rank).await;
                Step::Named(number, self.ask(&self.sentinels[number]).await)
            };
            ask.boxed()
        });
        asked.collect()
    }

    /// The address of the master, as this sentinel knows it.
    async fn ask(&self, sentinel: &Sentinel) -> Result<Option<ConnectionAddr>, RedisError> {
        let mut command = redis::cmd("SENTINEL");
        command
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(&self.master_name);
        let kept = sentinel.take();
        if let Some(mut connection) = kept
            && let Ok(Ok(reply)) =
                tokio::time::timeout(REPLY_TIMEOUT, connection.send_packed_command(&command)).await
            && let Ok(address) = self.address(&reply)
        {
            sentinel.keep(connection);
            return Ok(address);
        }
        // Without the credentials of the master.
        let own = ConnectSettings::default();
        let mut connection = connect::open(&sentinel.info, &own, || {}).await?.connection;
        let reply = connection.send_packed_command(&command).await?;
        let address = self.address(&reply.extract_error()?)?;
        sentinel.keep(connection);
        Ok(address)
    }

    /// Reads `[host, port]`, or nil for a name that the sentinel does not know.
    fn address(&self, reply: &Value) -> Result<Option<ConnectionAddr>, RedisError> {
        let reply: Option<(String, u16)> = redis::from_redis_value_ref(reply)?;
        Ok(reply.map(|(host, port)| connect::with_host(self.master.addr(), host, port)))
    }

    async fn open_if_master(
        &self,
        address: &ConnectionAddr,
        settings: &ConnectSettings,
        on_close: impl Fn() + Clone + Send + Sync + 'static,
    ) -> Result<Connected, SessionError> {
        let info = self.master.clone().set_addr(address.clone());
        let opened = connect::open(&info, settings, on_close).await;
        let mut connected = opened.map_err(|error| error::unreachable(&error))?;
        let role = redis::cmd("ROLE");
        let reply = connected.connection.send_packed_command(&role).await;
        let role = match reply {
            Ok(Value::Array(parts)) => parts.into_iter().next(),
            // An ACL that forbids ROLE counts as a yes.
            _ => None,
        };
        match role {
            Some(Value::BulkString(role)) if role != b"master" => Err(error::not_a_master()),
            _ => Ok(connected),
        }
    }
}

impl Sentinel {
    fn take(&self) -> Option<MultiplexedConnection> {
        let kept = self.connection.lock();
        kept.unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep(&self, connection: MultiplexedConnection) {
        let kept = self.connection.lock();
        *kept.unwrap_or_else(PoisonError::into_inner) = Some(connection);
    }
}

impl fmt::Debug for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sentinels").finish_non_exhaustive()
    }
}

/// A connection to a master that Sentinel named.
pub(super) trait Watched: Send + Sync + 'static {
    /// Whether the connection of this number is in use.
    fn is_open(&self, generation: u64) -> bool;

    /// Opens another connection, which takes its place.
    fn replace(self: &Arc<Self>, generation: u64);
}

#[cfg(test)]
mod tests;
