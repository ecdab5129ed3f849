mod cookie_options;
mod session_options;
mod timeouts;

use std::{fmt, sync::Arc, time::Duration};

use redis::{ConnectionInfo, IntoConnectionInfo};
use tower_layer::Layer;

pub use self::timeouts::Timeouts;
#[cfg(feature = "sentinel")]
use crate::store::Sentinels;
use crate::{
    config::Config,
    context::Context,
    error::ConfigError,
    service::SessionService,
    stats::CommitStats,
    store::{Endpoint, MemoryStore, RedisStore, Store, Transport},
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
    /// Keeps sessions in the Redis or Valkey server at this address: Redis 6.2 or later, Valkey 8 or later.
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

    /// Keeps sessions in the server of this client: Redis 6.2 or later, Valkey 8 or later.
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

    /// Keeps sessions in a Redis or Valkey cluster: Redis 6.2 or later, Valkey 8 or later.
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

    fn with_transport(transport: Transport) -> Self {
        Self::with_store(Store::Redis(RedisStore::new(transport)))
    }

    /// Keeps sessions in this process's memory, with the same behaviour, for development and tests. They end with the process, and
    /// other processes do not see them.
    pub fn in_memory() -> Self {
        Self::with_store(Store::Memory(MemoryStore::default()))
    }

    pub(crate) fn with_store(store: Store) -> Self {
        Self {
            context: Arc::new(Context::new(store)),
        }
    }

    /// Sets how long one attempt to connect may take: DNS, TCP, TLS and AUTH together. Default: 5 s.
    ///
    /// A request does not wait that long, but until its [deadline](Self::with_deadline); the attempt goes on for the requests after it.
    pub fn with_connect_timeout(self, timeout: Duration) -> Self {
        self.with_redis(|store, _| store.with_connect_timeout(timeout))
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

/// [`RedisSessionLayer::open`] with `redis://127.0.0.1:6379/`, the server on this machine, as in Flask-Session.
impl Default for RedisSessionLayer {
    fn default() -> Self {
        Self::open("redis://127.0.0.1:6379/").expect("a valid address")
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
