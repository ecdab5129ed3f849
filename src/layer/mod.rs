mod cookie_options;
mod session_options;
mod timeouts;

use std::{fmt, sync::Arc};

pub use self::timeouts::Timeouts;
use tower_layer::Layer;

#[cfg(feature = "cluster")]
use crate::store::Cluster;
#[cfg(feature = "sentinel")]
use crate::store::Sentinels;
use crate::{
    config::Config,
    context::Context,
    error::ConfigError,
    service::SessionService,
    stats::CommitStats,
    store::{ConnectOptions, Endpoint, MemoryStore, RedisStore, Store, Transport},
};

/// Gives every request below it a [`Session`](crate::Session), kept in Redis.
///
/// ```
/// use axum::{Router, routing::get};
/// use axum_redis_sessions::{RedisSessionLayer, Session, SessionError};
///
/// async fn visits(session: Session) -> Result<String, SessionError> {
///     let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
///     Ok(format!("visit {visits}"))
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = redis::Client::open("redis://127.0.0.1/")?;
/// let app: Router = Router::new()
///     .route("/", get(visits))
///     .layer(RedisSessionLayer::new(client));
/// # Ok(()) }
/// ```
///
/// Cloning is cheap, and clones share one connection. Applied retry_once, as on a router nested in a router, the outer one acts.
#[derive(Clone)]
#[must_use = "a layer does nothing until it is put on a router or a service"]
pub struct RedisSessionLayer {
    context: Arc<Context>,
}

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

    fn with_transport(transport: Transport) -> Self {
        Self::with_store(Store::Redis(RedisStore::new(transport)))
    }

    /// Keeps sessions in this process's memory, by the same rules, for development and tests. They end with the process, and
    /// other processes do not see them.
    pub fn in_memory() -> Self {
        Self::with_store(Store::Memory(MemoryStore::default()))
    }

    pub(crate) fn with_store(store: Store) -> Self {
        Self {
            context: Arc::new(Context::new(store)),
        }
    }

    /// Checks what the setters alone could not see, such as a `__Host-` cookie with a Domain.
    ///
    /// Putting the layer on a router checks the same, and panics, while the app starts; this is for those who want an error.
    ///
    /// ```
    /// use axum_redis_sessions::{RedisSessionLayer, SameSite};
    ///
    /// let error = RedisSessionLayer::in_memory()
    ///     .with_cookie_name("__Host-sid")
    ///     .with_cookie_domain("example.com")
    ///     .validate()
    ///     .unwrap_err();
    /// assert!(error.to_string().contains("leave with_cookie_domain out"));
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError`], which says what to change.
    pub fn validate(self) -> Result<Self, ConfigError> {
        self.context.config.check()?;
        Ok(self)
    }

    /// Waits for the saves that are still on their way though their clients have gone, over this layer and its clones. Each ends within
    /// the deadline.
    ///
    /// For the end of the process, after the server has stopped: axum's graceful shutdown waits for the requests that still have
    /// a client, and this for the rest.
    ///
    /// ```no_run
    /// # use axum_redis_sessions::RedisSessionLayer;
    /// # async fn stopped() {}
    /// # async fn example(listener: tokio::net::TcpListener) -> std::io::Result<()> {
    /// let sessions = RedisSessionLayer::default();
    /// let app = axum::Router::new().layer(sessions.clone());
    /// axum::serve(listener, app).with_graceful_shutdown(stopped()).await?;
    /// sessions.drain().await;
    /// # Ok(()) }
    /// ```
    pub async fn drain(&self) {
        let commits = &self.context.shared.detached_commits;
        // Closed, a tracker tells when it is empty; it goes on taking tasks.
        commits.close();
        commits.wait().await;
    }

    /// How the saves of this layer and its clones went so far.
    #[must_use]
    pub fn commit_stats(&self) -> CommitStats {
        self.context.shared.counters.stats()
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    fn with_redis(self, configure: impl FnOnce(RedisStore, &Config) -> RedisStore) -> Self {
        self.configured(|context| {
            if let Store::Redis(store) = &context.store {
                context.store = Store::Redis(configure(store.clone(), &context.config));
            }
        })
    }

    pub(crate) fn configured(mut self, configure: impl FnOnce(&mut Context)) -> Self {
        configure(Arc::make_mut(&mut self.context));
        self
    }
}

/// [`RedisSessionLayer::new`] with the server at `redis://127.0.0.1:6379/`.
impl Default for RedisSessionLayer {
    fn default() -> Self {
        Self::new(redis::Client::open("redis://127.0.0.1:6379/").expect("a valid address"))
    }
}

impl<S> Layer<S> for RedisSessionLayer {
    type Service = SessionService<S>;

    /// # Panics
    ///
    /// On a mistake in the configuration, with the text of the [`ConfigError`] that [`RedisSessionLayer::validate`] gives.
    fn layer(&self, inner: S) -> Self::Service {
        if let Err(error) = self.context.config.check() {
            panic!("RedisSessionLayer: {error}");
        }
        self.context
            .store
            .set_request_timeout(self.context.config.deadline);
        SessionService::new(inner, self.context.clone())
    }
}

/// Shows the configuration; neither the server's address nor its password.
impl fmt::Debug for RedisSessionLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSessionLayer")
            .field("config", &self.context.config)
            .finish_non_exhaustive()
    }
}
