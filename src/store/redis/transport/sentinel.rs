//! The master that Redis Sentinel names, and the end of a connection to one that it names no longer.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use redis::{
    ConnectionAddr, ConnectionInfo, Value, aio::MultiplexedConnection, sentinel::SentinelClient,
};
use tokio::sync::Mutex;

use super::{connection::Connection, error};
use crate::error::{ErrorKind, SessionError};

/// A demoted master goes on accepting writes until Sentinel reaches it, and these are lost; so Sentinel is asked this often. That a
/// master died is noticed by its connection, at once.
const INTERVAL: Duration = Duration::from_millis(500);
/// Bounds a question to Sentinel, which asks the master in turn.
const PATIENCE: Duration = Duration::from_secs(1);

/// Behind a lock, since the client remembers its connections to the sentinels.
pub(crate) struct Sentinels(Mutex<SentinelClient>);

impl Sentinels {
    pub(crate) fn new(client: SentinelClient) -> Arc<Self> {
        Arc::new(Self(Mutex::new(client)))
    }

    /// The master of the moment.
    pub(crate) async fn master(&self) -> Result<ConnectionInfo, SessionError> {
        let client = self.0.lock().await.async_get_client().await;
        match client {
            Ok(client) => Ok(client.get_connection_info().clone()),
            Err(error) => Err(error::no_master(&error)),
        }
    }
}

impl fmt::Debug for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sentinels").finish_non_exhaustive()
    }
}

/// Sentinel's word may be a moment old; the server knows for sure. An ACL that forbids ROLE is taken for a yes.
pub(crate) async fn check_role(connection: &MultiplexedConnection) -> Result<(), SessionError> {
    let reply = connection
        .clone()
        .send_packed_command(&redis::cmd("ROLE"))
        .await;
    let role = match reply {
        Ok(Value::Array(parts)) => parts.into_iter().next(),
        _ => None,
    };
    match role {
        Some(Value::BulkString(role)) if role != b"master" => Err(SessionError::new(
            ErrorKind::Unavailable,
            "the server that Sentinel names is no master yet, as during a failover: try again in a moment, and build the \
             SentinelClient for masters",
        )),
        _ => Ok(()),
    }
}

/// Closes the connection when Sentinel names another master, as long as it is in use.
pub(crate) fn watch(
    sentinels: Arc<Sentinels>,
    connection: &Arc<Connection>,
    generation: u64,
    address: ConnectionAddr,
) {
    let connection = Arc::downgrade(connection);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if !in_use(&connection, generation) {
                return;
            }
            let master = tokio::time::timeout(PATIENCE, sentinels.master()).await;
            // Without an answer there is nothing better than what we have.
            if let Ok(Ok(master)) = master
                && *master.addr() != address
                && let Some(connection) = Weak::upgrade(&connection)
            {
                connection.close(generation);
            }
        }
    });
}

fn in_use(connection: &Weak<Connection>, generation: u64) -> bool {
    Weak::upgrade(connection).is_some_and(|connection| connection.is_open(generation))
}
