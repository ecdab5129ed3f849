use std::sync::Arc;

use super::RedisSessionLayer;
#[cfg(feature = "cluster")]
use crate::store::Cluster;
#[cfg(feature = "sentinel")]
use crate::store::Sentinels;
use crate::{
    context::Context,
    store::{ConnectOptions, Endpoint, MemoryStore, RedisStore, Store, Transport},
};

/// # Constructors
impl RedisSessionLayer {
    /// Keeps sessions in the one Redis or Valkey server of this client: Redis 6.2 or later, Valkey 8 or later.
    ///
    /// Nothing happens yet: it connects at the first request that looks at its session, and connects again by itself. It may
    /// be called outside a Tokio runtime.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a layer is made of a client, whatever it takes from it"
    )]
    pub fn new(client: redis::Client) -> Self {
        let server = Endpoint::one(client.get_connection_info().clone());
        Self::with_transport(Transport::server(ConnectOptions::new(server)))
    }

    /// Keeps sessions in a Redis or Valkey cluster, by the same rules: each session is in the slot of its key. Redis 6.2 or later, Valkey 8
    /// or later.
    ///
    /// Nodes, slots that move and failovers are followed; while one master is away, the sessions of the other slots are served as ever.
    /// The client's addresses, credentials and certificates are used; its retries, timeouts and read routing are not, since this layer
    /// has its own. `cycle_id` takes two steps, the new key first, as the two keys are in different slots.
    ///
    /// ```
    /// use axum_redis_sessions::RedisSessionLayer;
    /// use redis::cluster::ClusterClient;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = ClusterClient::new(["redis://10.0.0.1:6379/", "redis://10.0.0.2:6379/"])?;
    /// let layer = RedisSessionLayer::cluster(client);
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "cluster")]
    #[cfg_attr(docsrs, doc(cfg(feature = "cluster")))]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a layer is made of a client, whatever it takes from it"
    )]
    pub fn cluster(client: redis::cluster::ClusterClient) -> Self {
        Self::with_transport(Transport::Cluster(Arc::new(Cluster::new(&client))))
    }

    /// Keeps sessions in the master that Redis Sentinel names, and follows it through failovers.
    ///
    /// Sentinel is asked at each connecting and twice a second, so that little is encoded to a master that was demoted, and lost. What
    /// the master acknowledged a moment before it died may be lost as well: [`with_replica_acks`](Self::with_replica_acks).
    ///
    /// ```
    /// use axum_redis_sessions::RedisSessionLayer;
    /// use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let sentinels = [redis::ConnectionAddr::Tcp("10.0.0.1".to_owned(), 26379)];
    /// let client = SentinelClientBuilder::new(sentinels, "mymaster", SentinelServerType::Master)?.build()?;
    /// let layer = RedisSessionLayer::sentinel(client);
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "sentinel")]
    #[cfg_attr(docsrs, doc(cfg(feature = "sentinel")))]
    pub fn sentinel(client: redis::sentinel::SentinelClient) -> Self {
        let servers = Endpoint::Master(Sentinels::new(client));
        Self::with_transport(Transport::server(ConnectOptions::new(servers)))
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
