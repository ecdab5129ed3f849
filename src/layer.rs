use std::{fmt, sync::Arc, time::Duration};

use http::Response;
use tower_layer::Layer;

#[cfg(feature = "cluster")]
use crate::store::Cluster;
#[cfg(feature = "sentinel")]
use crate::store::Sentinels;
use crate::{
    config::{Config, SameSite},
    context::{CommitStats, Context},
    error::{ConfigError, SessionError},
    id::SessionId,
    service::SessionService,
    store::{Link, MemoryStore, RedisStore, Servers, Source, Store},
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
/// Cloning is cheap, and clones share one connection. Applied twice, as on a router nested in a router, the outer one acts.
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
        let server = Servers::one(client.get_connection_info().clone());
        Self::with_link(Link::server(Source::new(server)))
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
        Self::with_link(Link::Cluster(Arc::new(Cluster::new(&client))))
    }

    /// Keeps sessions in the master that Redis Sentinel names, and follows it through failovers.
    ///
    /// Sentinel is asked at each connecting and twice a second, so that little is written to a master that was demoted, and lost. What
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
        let servers = Servers::Master(Sentinels::new(client));
        Self::with_link(Link::server(Source::new(servers)))
    }

    fn with_link(link: Link) -> Self {
        Self::with_store(Store::Redis(RedisStore::new(link)))
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

    /// What the session's id follows in the Redis key. Default: `session:`.
    pub fn with_prefix(self, prefix: impl Into<String>) -> Self {
        self.configured(|context| context.config.prefix = prefix.into())
    }

    /// Makes the ids, in place of 128 random bits from the operating system.
    ///
    /// An id must be impossible to guess: whoever has it, has the session. Give it 128 bits of a cryptographically secure
    /// generator (ASVS 5.0, 7.2.3).
    ///
    /// ```
    /// use axum_redis_sessions::{RedisSessionLayer, SessionId};
    ///
    /// # fn from_our_security_module() -> [u8; 16] { [7; 16] }
    /// let layer = RedisSessionLayer::in_memory()
    ///     .with_id_generator(|| SessionId::from_bytes(from_our_security_module()));
    /// ```
    pub fn with_id_generator(
        self,
        generate: impl Fn() -> SessionId + Send + Sync + 'static,
    ) -> Self {
        self.configured(|context| context.config.id_generator = Some(Arc::new(generate)))
    }

    /// How long a session lives after its last use, to the millisecond. Default: one day. NIST 800-63B asks for at most an
    /// hour at AAL2.
    pub fn with_idle_timeout(self, timeout: Duration) -> Self {
        self.configured(|context| context.config.idle_timeout = timeout)
    }

    /// How long a session lives after it was begun, however much it is used. Default: no limit. NIST 800-63B asks for at most
    /// 30 days at AAL1, 24 hours at AAL2.
    pub fn with_absolute_timeout(self, timeout: Duration) -> Self {
        self.configured(|context| context.config.absolute_timeout = Some(timeout))
    }

    /// How long a session with [`set_permanent`](crate::Session::set_permanent) lives after its last use, and its cookie's
    /// Max-Age, in whole seconds. Default: 31 days; at most 400 (RFC 6265bis, section 4.1.2.2). The cookie is sent again once a
    /// tenth of this has passed.
    pub fn with_permanent_lifetime(self, lifetime: Duration) -> Self {
        self.configured(|context| context.config.permanent_lifetime = lifetime)
    }

    /// How long loading a session, or saving one, may take altogether: connecting, waiting and trying again included. Then the
    /// request is answered with 503. Default: 500 ms.
    pub fn with_deadline(self, deadline: Duration) -> Self {
        self.configured(|context| context.config.deadline = deadline)
    }

    /// The largest session, in bytes of its stored JSON. A larger one is an error: when it is written, before it is sent; when
    /// it is read, before it is used. Default: 64 KiB. A large value holds up all others on the connection.
    pub fn with_max_size(self, bytes: usize) -> Self {
        self.configured(|context| context.config.max_size = bytes)
    }

    /// Loads the session before the inner service is called, rather than when a handler asks: then the extensions hold a ready
    /// [`Session`](crate::Session), for `Extension<Session>` and for services that cannot wait. Each request with a cookie then
    /// costs a Redis command, and is answered with 503 when Redis is away.
    pub fn with_eager_load(self) -> Self {
        self.configured(|context| context.config.eager = true)
    }

    /// The cookie's name. Default: `__Host-session`, which no other host can set; `__Secure-session` with a Domain or a Path;
    /// `session` without Secure (RFC 6265bis, section 4.1.3; ASVS 5.0, 3.3.1).
    pub fn with_cookie_name(self, name: impl Into<String>) -> Self {
        self.configured(|context| context.config.cookie.name = Some(name.into()))
    }

    /// The cookie's Domain: this host and all below it get the cookie, and each of them can set it. Default: none, this host
    /// alone.
    pub fn with_cookie_domain(self, domain: impl Into<String>) -> Self {
        self.configured(|context| context.config.cookie.domain = Some(domain.into()))
    }

    /// The cookie's Path: the browser sends it below this path alone. Default: `/`. It does not keep other paths of this host
    /// from reading the session.
    pub fn with_cookie_path(self, path: impl Into<String>) -> Self {
        self.configured(|context| context.config.cookie.path = path.into())
    }

    /// When the browser sends the cookie along as another site leads to yours. Default: [`SameSite::Lax`] (ASVS 5.0, 3.3.2).
    pub fn with_same_site(self, same_site: SameSite) -> Self {
        self.configured(|context| context.config.cookie.same_site = same_site)
    }

    /// Adds Partitioned: inside another site's frame the cookie is kept apart for each such site (CHIPS). Default: without.
    pub fn with_partitioned_cookie(self) -> Self {
        self.configured(|context| context.config.cookie.partitioned = true)
    }

    /// Leaves out Secure, so that the cookie also travels over plain HTTP, where anybody on the way can read it and take the
    /// session over. Default: Secure (ASVS 5.0, 3.3.1).
    ///
    /// For development on a host name other than `localhost`: Chromium, Firefox and curl take a Secure cookie from
    /// `http://localhost` as it is; Safari does not.
    pub fn with_insecure_cookie(self) -> Self {
        self.configured(|context| context.config.cookie.secure = false)
    }

    /// Leaves out HttpOnly, so that any script on the page can read the id, one that an attacker slipped in included.
    /// Default: HttpOnly (ASVS 5.0, 3.3.4).
    pub fn with_script_readable_cookie(self) -> Self {
        self.configured(|context| context.config.cookie.http_only = false)
    }

    /// Saves without comparing, for a Redis whose ACL forbids scripts. **Parallel requests then lose each other's changes**, as
    /// in other session crates; logging out still wins over a late save. Default: scripts, and nothing lost.
    pub fn with_last_write_wins(self) -> Self {
        self.with_redis(|store, _| store.with_last_write_wins())
    }

    /// Asks for the password at each connecting, for one that rotates, instead of taking the client's. A connection that the server
    /// turns away for its password is opened anew, with what this says then.
    ///
    /// ```no_run
    /// use axum_redis_sessions::RedisSessionLayer;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = redis::Client::open("redis://app@127.0.0.1/")?;
    /// let layer = RedisSessionLayer::new(client)
    ///     .with_password_provider(|| std::fs::read_to_string("/run/secrets/redis").unwrap_or_default().trim().to_owned());
    /// # Ok(()) }
    /// ```
    pub fn with_password_provider(
        self,
        password: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        self.with_redis(|store, _| store.with_password(Arc::new(password)))
    }

    /// Logging out and rotation wait until this many replicas have them (WAIT), so that a failover does not bring an ended session back.
    /// Default: none are waited for.
    ///
    /// Where fewer confirm within `timeout`, the request is answered with 503 and
    /// [`ErrorKind::Unconfirmed`](crate::ErrorKind::Unconfirmed): the change is made on the master, and may not survive it. Logging out again asks the replicas again. `timeout`
    /// may be a quarter of the deadline at most. Redis confirms that a replica *received* a write; without `appendfsync always` a power failure
    /// of all of them loses it still.
    ///
    /// Such writes have a connection of their own, for WAIT holds up what comes behind it.
    pub fn with_replica_acks(self, replicas: usize, timeout: Duration) -> Self {
        self.configured(|context| context.config.replica_acks = Some((replicas, timeout)))
            .with_redis(|store, config| store.with_replica_acks(config.replica_acks()))
    }

    /// Every save waits for the replicas of [`with_replica_acks`](Self::with_replica_acks), not logging out and rotation alone. It costs
    /// each one a round trip from the master to its replicas.
    pub fn with_replica_acks_for_every_write(self) -> Self {
        self.configured(|context| context.config.replica_acks_for_every_write = true)
            .with_redis(|store, config| store.with_replica_acks(config.replica_acks()))
    }

    /// Makes the responses that tell of a [`SessionError`]: those of the extractor, of a handler that returned one, and the one
    /// that takes a handler's place when its changes could not be saved.
    ///
    /// Default: the error's [`status`](SessionError::status) and its message as plain text, with `Retry-After: 1` for 503.
    ///
    /// ```
    /// use axum_redis_sessions::RedisSessionLayer;
    ///
    /// let layer = RedisSessionLayer::in_memory().with_error_response(|error| {
    ///     http::Response::builder()
    ///         .status(error.status())
    ///         .header("content-type", "application/json")
    ///         .body(format!(r#"{{"error":"session","message":{:?}}}"#, error.to_string()))
    ///         .expect("a valid response")
    /// });
    /// ```
    pub fn with_error_response(
        self,
        response: impl Fn(&SessionError) -> Response<String> + Send + Sync + 'static,
    ) -> Self {
        self.configured(|context| context.config.error_response = Some(Arc::new(response)))
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
        let commits = &self.context.shared.stray_commits;
        // Closed, a tracker tells when it is empty; it goes on taking tasks.
        commits.close();
        commits.wait().await;
    }

    /// How the saves of this layer and its clones went so far.
    #[must_use]
    pub fn commit_stats(&self) -> CommitStats {
        self.context.stats()
    }

    fn with_redis(self, configure: impl FnOnce(RedisStore, &Config) -> RedisStore) -> Self {
        self.configured(|context| {
            if let Store::Redis(store) = &context.store {
                context.store = Store::Redis(configure(store.clone(), &context.config));
            }
        })
    }

    fn configured(mut self, configure: impl FnOnce(&mut Context)) -> Self {
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
            .set_patience(self.context.config.deadline);
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
