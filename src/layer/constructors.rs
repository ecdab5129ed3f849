use std::sync::Arc;

use redis::{ConnectionInfo, IntoConnectionInfo};

use super::RedisSessionLayer;
#[cfg(feature = "sentinel")]
use crate::store::Sentinels;
use crate::{
    context::Context,
    error::ConfigError,
    store::{Endpoint, MemoryStore, RedisStore, Store, Transport},
};

/// # Constructors
impl RedisSessionLayer {
    /// Keeps sessions in the Redis or Valkey server at this address: Redis 6.2 or later, Valkey 8.1 or later.
    ///
    /// An address is `redis://user:password@host:6379/0`, with `rediss://` for TLS (feature `tls-rustls`), or `redis+unix:///path`.
    /// A [`redis::ConnectionInfo`] is accepted as well. See [`new`](Self::new).
    ///
    /// ```
    /// use axum_redis_sessions::RedisSessionLayer;
    ///
    /// let layer = RedisSessionLayer::open("redis://127.0.0.1/")?;
    /// # Ok::<(), axum_redis_sessions::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the address is not valid.
    pub fn open(server: impl IntoConnectionInfo) -> Result<Self, ConfigError> {
        let server = Endpoint::server(connection_info("address", server)?);
        Ok(Self::with_transport(Transport::new(server)))
    }

    /// Keeps sessions in the server of this client: Redis 6.2 or later, Valkey 8.1 or later.
    ///
    /// The layer opens a connection of its own, with the client's address, credentials and certificates, at the first request that loads its
    /// session. It reconnects by itself. The constructor can be called outside a Tokio runtime.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a client is cheap, and callers have no other use for it"
    )]
    pub fn new(client: redis::Client) -> Self {
        let server = Endpoint::server(client.get_connection_info().clone());
        Self::with_transport(Transport::new(server))
    }

    /// Keeps sessions in a Redis or Valkey cluster: Redis 6.2 or later, Valkey 8.1 or later.
    ///
    /// `nodes` are the addresses of some of its nodes, which tell the others. The credentials and TLS settings of the first one are used for
    /// the nodes that are not listed. Slots that move and failovers are followed; while one master is down, the sessions in the slots of the
    /// others are served. `cycle_id` takes two commands, since the two keys are in different slots.
    ///
    /// ```
    /// use axum_redis_sessions::RedisSessionLayer;
    ///
    /// let layer = RedisSessionLayer::cluster(["redis://10.0.0.1:6379/", "redis://10.0.0.2:6379/"])?;
    /// # Ok::<(), axum_redis_sessions::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if there is no node, or an address is not valid.
    #[cfg(feature = "cluster")]
    #[cfg_attr(docsrs, doc(cfg(feature = "cluster")))]
    pub fn cluster<N>(nodes: N) -> Result<Self, ConfigError>
    where
        N: IntoIterator<Item: IntoConnectionInfo>,
    {
        let nodes = connection_infos("node", nodes)?;
        Ok(Self::with_transport(Transport::cluster(nodes)))
    }

    /// Keeps sessions in the master that Redis Sentinel names, and follows it through failovers.
    ///
    /// `sentinels` are the addresses of the sentinels, with their own credentials and TLS settings. `master` gives the credentials, the database
    /// and the TLS settings for the master; its host and port are not used. Sentinel is asked at each connect, and twice a second whether there
    /// is a new master. What a master acknowledged just before it died may be lost: see [`with_replica_acks`](Self::with_replica_acks).
    ///
    /// ```
    /// use axum_redis_sessions::RedisSessionLayer;
    ///
    /// let sentinels = ["redis://10.0.0.1:26379/", "redis://10.0.0.2:26379/", "redis://10.0.0.3:26379/"];
    /// let layer = RedisSessionLayer::sentinel("mymaster", sentinels, "redis://app:secret@mymaster/0")?;
    /// # Ok::<(), axum_redis_sessions::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if there is no sentinel, or an address is not valid.
    #[cfg(feature = "sentinel")]
    #[cfg_attr(docsrs, doc(cfg(feature = "sentinel")))]
    pub fn sentinel<N>(
        master_name: impl Into<String>,
        sentinels: N,
        master: impl IntoConnectionInfo,
    ) -> Result<Self, ConfigError>
    where
        N: IntoIterator<Item: IntoConnectionInfo>,
    {
        let sentinels = connection_infos("sentinel", sentinels)?;
        let master = connection_info("master's address", master)?;
        let sentinels = Sentinels::new(master_name.into(), sentinels, master);
        let endpoint = Endpoint::Master(Arc::new(sentinels));
        Ok(Self::with_transport(Transport::new(endpoint)))
    }

    /// Keeps sessions in this process's memory, for development and tests.
    ///
    /// They behave as in Redis, but end with the process and are not shared with other processes.
    pub fn in_memory() -> Self {
        Self::with_store(Store::Memory(MemoryStore::default()))
    }

    fn with_transport(transport: Transport) -> Self {
        Self::with_store(Store::Redis(RedisStore::new(transport)))
    }

    pub(crate) fn with_store(store: Store) -> Self {
        Self {
            context: Arc::new(Context::new(store)),
        }
    }
}

/// The server at `redis://127.0.0.1:6379/`, as in the Flask snippet that this crate follows; for development.
impl Default for RedisSessionLayer {
    fn default() -> Self {
        Self::new(redis::Client::open("redis://127.0.0.1:6379/").expect("a valid address"))
    }
}

#[cfg(any(feature = "cluster", feature = "sentinel"))]
fn connection_infos<N>(what: &str, nodes: N) -> Result<Vec<ConnectionInfo>, ConfigError>
where
    N: IntoIterator<Item: IntoConnectionInfo>,
{
    let infos = nodes.into_iter().map(|node| connection_info(what, node));
    let infos = infos.collect::<Result<Vec<_>, _>>()?;
    if infos.is_empty() {
        let error = format!("there is no {what}: give the address of one at least");
        return Err(ConfigError(error.into()));
    }
    Ok(infos)
}

/// Without the address in the error, since it may contain a password.
fn connection_info(
    what: &str,
    server: impl IntoConnectionInfo,
) -> Result<ConnectionInfo, ConfigError> {
    server.into_connection_info().map_err(|_| {
        let error = format!(
            "the {what} is not valid: use redis://user:password@host:port/database, or rediss:// with the feature tls-rustls"
        );
        ConfigError(error.into())
    })
}
