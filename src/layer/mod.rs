// rustdoc lists the impl blocks of these modules in this order, and then this file's.
mod constructors;
mod cookie_options;
mod header_options;
mod redis_options;
mod session_options;
mod timeouts;

use std::{fmt, sync::Arc};

use tower_layer::Layer;

pub use self::timeouts::Timeouts;
use crate::{
    context::Context,
    error::{ConfigError, SessionError},
    health,
    service::SessionService,
    sessions::Sessions,
    stats::Stats,
    users::Users,
};

/// The tower layer that adds a [`Session`](crate::Session) to each request.
///
/// It is created by one of the [constructors](#constructors), configured by the options below, and added after the routes. Cloning it is cheap;
/// clones share one connection. If one layer is inside another, only the outer one acts.
///
/// # Examples
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
/// # Options
///
/// | option | default | meaning |
/// |---|---|---|
/// | [`with_timeouts`](Self::with_timeouts) | | the next three together, such as [`Timeouts::NIST_AAL2`] |
/// | [`with_idle_timeout`](Self::with_idle_timeout) | 1 day | lifetime of a session after its last use |
/// | [`with_permanent_lifetime`](Self::with_permanent_lifetime) | 31 days | the same for permanent sessions, and their cookie's Max-Age |
/// | [`with_absolute_timeout`](Self::with_absolute_timeout) | none | lifetime of a session after its creation |
/// | [`with_rotation_grace`](Self::with_rotation_grace) | 10 s | how long a rotated id may read an anonymous session |
/// | [`with_cookie_name`](Self::with_cookie_name) | `__Host-session` | the cookie's name |
/// | [`with_cookie_domain`](Self::with_cookie_domain) | none | the cookie's Domain: also send it to subdomains |
/// | [`with_cookie_path`](Self::with_cookie_path) | `/` | the cookie's Path |
/// | [`with_same_site`](Self::with_same_site) | `Lax` | the cookie's SameSite |
/// | [`with_secure`](Self::with_secure) | `true` | the cookie's Secure |
/// | [`with_http_only`](Self::with_http_only) | `true` | the cookie's HttpOnly |
/// | [`with_partitioned_cookie`](Self::with_partitioned_cookie) | off | the cookie's Partitioned |
/// | [`with_signing_keys`](Self::with_signing_keys) | unsigned | sign the cookie |
/// | [`with_header_transport`](Self::with_header_transport) | off | the id in a header instead of a cookie |
/// | [`with_bearer_token`](Self::with_bearer_token) | off | the id in the Authorization header instead of a cookie |
/// | [`without_cookie`](Self::without_cookie) | off | no cookie beside the header |
/// | [`with_prefix`](Self::with_prefix) | `session:` | start of the Redis keys |
/// | [`with_hashed_keys`](Self::with_hashed_keys) | off | SHA-256 of the id in the Redis key |
#[cfg_attr(
    feature = "encryption",
    doc = "| [`with_encryption_keys`](Self::with_encryption_keys) | off | encrypt sessions in Redis |\n\
           | [`with_encryption_required`](Self::with_encryption_required) | off | refuse sessions that are not encrypted |"
)]
#[cfg_attr(
    feature = "migration",
    doc = "| [`with_migration_from`](Self::with_migration_from) | none | take over the sessions of another framework |\n\
           | [`with_format`](Self::with_format) | own | share live sessions with another framework |"
)]
/// | [`with_sessions_per_user`](Self::with_sessions_per_user) | no limit | maximum of concurrent sessions per user |
/// | [`with_max_size`](Self::with_max_size) | 64 KiB | maximum size of a session |
/// | [`with_discard_unreadable`](Self::with_discard_unreadable) | off | a stored value that is not a session counts as missing |
/// | [`with_eager_load`](Self::with_eager_load) | off | load before the inner service is called |
/// | [`with_id_generator`](Self::with_id_generator) | operating system | source of session ids |
/// | [`with_save_rule`](Self::with_save_rule) | all but 5xx and 408 | which requests save their changes, by status |
/// | [`with_error_response`](Self::with_error_response) | plain text | response to an error |
#[cfg_attr(
    feature = "axum",
    doc = "| [`with_sign_in_page`](Self::with_sign_in_page) | none | where guards send browsers that are not logged in |"
)]
/// | [`with_deadline`](Self::with_deadline) | 500 ms | maximum duration of a load or a save |
/// | [`with_connect_timeout`](Self::with_connect_timeout) | 5 s | maximum duration of an attempt to connect |
#[cfg_attr(
    feature = "cluster",
    doc = "| [`with_cluster_address_map`](Self::with_cluster_address_map) | none | translate the addresses of cluster nodes |"
)]
#[cfg_attr(
    feature = "local-cache",
    doc = "| [`with_local_cache`](Self::with_local_cache) | off | sessions in this process's memory, which Redis invalidates |"
)]
/// | [`with_password_provider`](Self::with_password_provider) | the client's | the password of each new connection |
/// | [`with_credentials_provider`](Self::with_credentials_provider) | the client's | fetched credentials, such as tokens that are valid for minutes |
/// | [`with_replica_acks`](Self::with_replica_acks) | none | logout and rotation wait for replicas |
/// | [`with_replica_acks_for_every_write`](Self::with_replica_acks_for_every_write) | off | every save waits for replicas |
/// | [`with_last_write_wins`](Self::with_last_write_wins) | off | save without scripts and without comparing versions |
///
/// The combination is checked when the layer is added to a router, which panics on a mistake; [`validate`](Self::validate) returns the
/// mistake as an error.
#[derive(Clone)]
#[must_use = "a layer does nothing until it is added to a router or a service"]
pub struct RedisSessionLayer {
    context: Arc<Context>,
}

/// # Use
impl RedisSessionLayer {
    /// Checks the combination of options, such as a `__Host-` cookie with a Domain.
    ///
    /// Adding the layer to a router makes the same check and panics on a mistake.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], whose text says what to change.
    ///
    /// # Examples
    ///
    /// ```
    /// use axum_redis_sessions::RedisSessionLayer;
    ///
    /// let error = RedisSessionLayer::in_memory()
    ///     .with_cookie_name("__Host-sid")
    ///     .with_cookie_domain("example.com")
    ///     .validate()
    ///     .unwrap_err();
    /// assert!(error.to_string().contains("remove with_cookie_domain"));
    /// ```
    pub fn validate(self) -> Result<Self, ConfigError> {
        self.check()?;
        Ok(self)
    }

    /// Returns access to the sessions of any user, outside a request: for an administrator, or after a change of password.
    ///
    /// # Examples
    ///
    /// ```
    /// # use axum_redis_sessions::{RedisSessionLayer, SessionError};
    /// async fn disable_account(layer: &RedisSessionLayer, user: &str) -> Result<usize, SessionError> {
    ///     layer.users().of(user)?.revoke_all().await
    /// }
    /// ```
    #[must_use]
    pub fn users(&self) -> Users {
        Users::new(self.context().clone())
    }

    /// Returns access to sessions outside a request: for background jobs, administration and tests.
    ///
    /// # Panics
    ///
    /// Panics on an invalid configuration, as adding the layer to a router does. See [`validate`](Self::validate).
    ///
    /// # Examples
    ///
    /// The cookie of a logged-in user, for a test of the app:
    ///
    /// ```
    /// # use axum_redis_sessions::{RedisSessionLayer, SessionError};
    /// # async fn example() -> Result<(), SessionError> {
    /// let layer = RedisSessionLayer::in_memory();
    /// let cookie = layer.sessions().create(|session| session.log_in("42")).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        self.assert_valid();
        Sessions::new(self.context().clone())
    }

    /// Checks that Redis can do all that sessions need, within the [deadline](Self::with_deadline): for a readiness probe, and at start.
    ///
    /// It creates, loads, saves, rotates, lists and ends a session and an entry of a user's index, under random keys that end after 10 s. So
    /// it finds a wrong address, a missing permission, a replica, a full memory, and replicas that
    /// [`with_replica_acks`](Self::with_replica_acks) waits for in vain, before a visitor does. If there is a local cache, it also finds that the
    /// server reports no changes. In a cluster it asks each master. About 12 commands on each server, in 7 round trips. Sessions in memory are
    /// always ready.
    ///
    /// # Errors
    ///
    /// The [`SessionError`] of the first step that failed. Its text says which step, why, and what to do. It is also logged.
    ///
    /// # Examples
    ///
    /// ```
    /// use axum::{Router, http::StatusCode, routing::get};
    /// use axum_redis_sessions::RedisSessionLayer;
    ///
    /// fn app(sessions: RedisSessionLayer) -> Router {
    ///     let ready = {
    ///         let sessions = sessions.clone();
    ///         async move || sessions.ready().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
    ///     };
    ///     Router::new()
    ///         // … routes …
    ///         .layer(sessions)
    ///         .route("/ready", get(ready))
    /// }
    /// ```
    pub async fn ready(&self) -> Result<(), SessionError> {
        health::check(&self.context).await
    }

    /// Waits until all saves and logouts have finished whose clients have disconnected, of this layer and its clones. Each takes at most
    /// the deadline.
    ///
    /// Call it at the end of the process, after the server has stopped. axum's graceful shutdown waits only for requests whose clients are
    /// still connected.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use axum_redis_sessions::RedisSessionLayer;
    /// # async fn shutdown_signal() {}
    /// # async fn example(listener: tokio::net::TcpListener) -> std::io::Result<()> {
    /// let sessions = RedisSessionLayer::default();
    /// let app = axum::Router::new().layer(sessions.clone());
    /// axum::serve(listener, app).with_graceful_shutdown(shutdown_signal()).await?;
    /// sessions.drain().await;
    /// # Ok(()) }
    /// ```
    pub async fn drain(&self) {
        let commits = &self.context.shared.detached_commits;
        // `wait` returns only on a closed tracker; a closed one still accepts tasks.
        commits.close();
        commits.wait().await;
    }

    /// Returns the counters of this layer and its clones: loads, saves, sessions and connections.
    ///
    /// With the feature `metrics`, the same numbers are exported through the facade of that name: see
    /// [deployment](crate::docs::deployment#metrics-and-traces).
    ///
    /// # Examples
    ///
    /// ```
    /// use axum_redis_sessions::RedisSessionLayer;
    ///
    /// let layer = RedisSessionLayer::in_memory();
    /// assert_eq!(layer.stats().commits, 0);
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.context.shared.counters.stats()
    }

    /// Returns counters of the local cache; `None` without [`with_local_cache`](Self::with_local_cache).
    #[cfg(feature = "local-cache")]
    #[cfg_attr(docsrs, doc(cfg(feature = "local-cache")))]
    #[must_use]
    pub fn cache_stats(&self) -> Option<crate::CacheStats> {
        Some(self.context.store.cache()?.stats())
    }

    pub(crate) fn configured(mut self, configure: impl FnOnce(&mut Context)) -> Self {
        configure(Arc::make_mut(&mut self.context));
        self
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    fn assert_valid(&self) {
        if let Err(error) = self.check() {
            panic!("RedisSessionLayer: {error}");
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let config = &self.context.config;
        config.check()?;
        #[cfg(feature = "local-cache")]
        if let Some(cache) = self.context.store.cache() {
            cache.options().check()?;
        }
        match config.unsupported_option {
            Some(option) => Err(ConfigError(
                format!("{option} needs Redis, and this layer keeps sessions in memory: remove it")
                    .into(),
            )),
            None => Ok(()),
        }
    }
}

impl<S> Layer<S> for RedisSessionLayer {
    type Service = SessionService<S>;

    /// # Panics
    ///
    /// Panics on an invalid configuration, with the text of the [`ConfigError`] that [`RedisSessionLayer::validate`] returns.
    fn layer(&self, inner: S) -> Self::Service {
        self.assert_valid();
        SessionService::new(inner, self.context.clone())
    }
}

/// Shows the configuration, without the server's address and password.
impl fmt::Debug for RedisSessionLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSessionLayer")
            .field("config", &self.context.config)
            .finish_non_exhaustive()
    }
}
