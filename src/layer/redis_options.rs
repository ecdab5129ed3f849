use std::{error::Error, sync::Arc, time::Duration};

use super::RedisSessionLayer;
use crate::{
    config::Config,
    credentials::Credentials,
    store::{RedisStore, Store},
};

/// # Redis options
///
/// All but the deadline are refused by [`validate`](Self::validate) for sessions in memory.
impl RedisSessionLayer {
    /// Sets how long one load or one save may take in total, including connecting, waiting and retries. Default: 500 ms.
    ///
    /// After that, the request is answered with 503 ([`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable)). At least 1 ms. Sessions in memory
    /// never wait.
    pub fn with_deadline(self, deadline: Duration) -> Self {
        self.configured(|context| context.config.deadline = deadline)
    }

    /// Sets how long one attempt to connect may take: DNS, TCP, TLS and AUTH together. Default: 5 s.
    ///
    /// A request does not wait that long, but until its [deadline](Self::with_deadline); the attempt goes on for the requests after it.
    pub fn with_connect_timeout(self, timeout: Duration) -> Self {
        self.with_redis("with_connect_timeout", |store, _| {
            store.with_connect_timeout(timeout)
        })
    }

    /// Translates the addresses that the nodes of a cluster announce, for clients that reach them by others: behind NAT, in containers, or with
    /// names in TLS certificates. Default: the announced addresses.
    ///
    /// ```
    /// use axum_redis_sessions::RedisSessionLayer;
    ///
    /// let layer = RedisSessionLayer::cluster(["redis://redis.example.com:7001/"])?
    ///     .with_cluster_address_map(|_host, port| ("redis.example.com".to_owned(), port));
    /// # Ok::<(), axum_redis_sessions::ConfigError>(())
    /// ```
    #[cfg(feature = "cluster")]
    #[cfg_attr(docsrs, doc(cfg(feature = "cluster")))]
    pub fn with_cluster_address_map(
        self,
        map: impl Fn(&str, u16) -> (String, u16) + Send + Sync + 'static,
    ) -> Self {
        self.with_redis("with_cluster_address_map", |store, _| {
            store.with_address_map(Arc::new(map))
        })
    }

    /// Sets a function that returns the password, for passwords that rotate. Default: the password of the URL or client.
    ///
    /// It is called for each new connection. If the server rejects a connection because of its password, a new connection is made with the
    /// password that the function then returns.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use axum_redis_sessions::RedisSessionLayer;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = redis::Client::open("redis://app@127.0.0.1/")?;
    /// let layer = RedisSessionLayer::new(client).with_password_provider(|| {
    ///     let password = std::fs::read_to_string("/run/secrets/redis").unwrap_or_default();
    ///     password.trim().to_owned()
    /// });
    /// # Ok(()) }
    /// ```
    pub fn with_password_provider(
        self,
        password: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        self.with_redis("with_password_provider", |store, _| {
            store.with_credentials(Arc::new(move || {
                let credentials = Credentials::password(password());
                Box::pin(async move { Ok(credentials) })
            }))
        })
    }

    /// Sets an asynchronous function that fetches the user name and password, such as a token that is valid for minutes (AWS IAM, Microsoft
    /// Entra). Default: those of the URL or client.
    ///
    /// With [`Credentials::valid_for`], they are fetched again after three quarters of that time, and open connections are authenticated anew
    /// (AUTH), without a failed request; all connections of the layer share them. Without, they are fetched for each new connection, as by
    /// [`with_password_provider`](Self::with_password_provider), whose place this option takes. While the function waits, so does the attempt to
    /// connect, for [`with_connect_timeout`](Self::with_connect_timeout) at most. Its error is not shown, since it may contain a token: log it
    /// in the function.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use axum_redis_sessions::{Credentials, RedisSessionLayer};
    ///
    /// # async fn fetch_token() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = RedisSessionLayer::open("redis://redis.example.com/")?.with_credentials_provider(async || {
    ///     let token = fetch_token().await?;
    ///     Ok(Credentials::new("app", token).valid_for(Duration::from_secs(15 * 60)))
    /// });
    /// # Ok(()) }
    /// ```
    pub fn with_credentials_provider<F>(self, fetch: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Credentials, Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        self.with_redis("with_credentials_provider", |store, _| {
            store.with_credentials(Arc::new(move || Box::pin(fetch())))
        })
    }

    /// Makes logout and rotation wait until `replicas` replicas have received them (WAIT), so that a failover does not restore an ended session.
    /// Default: no wait.
    ///
    /// If fewer replicas confirm within `timeout`, the request is answered with 503 and
    /// [`ErrorKind::NotReplicated`](crate::ErrorKind::NotReplicated): the master has made the change, but a failover may undo it. A repeated logout asks the
    /// replicas again. `timeout` is between 1 ms and a quarter of [`with_deadline`](Self::with_deadline).
    ///
    /// Replicas confirm that they received a write, not that it is on disk: without `appendfsync always`, a power failure of all of them
    /// loses it. These writes use a connection of their own, because WAIT blocks the commands behind it.
    pub fn with_replica_acks(self, replicas: usize, timeout: Duration) -> Self {
        self.configured(|context| context.config.replica_acks = Some((replicas, timeout)))
            .with_redis("with_replica_acks", |store, config| {
                store.with_replica_acks(config.replica_acks())
            })
    }

    /// Makes every save wait for the replicas of [`with_replica_acks`](Self::with_replica_acks). Default: only logout and rotation.
    ///
    /// Each save then takes a round trip between the master and its replicas longer.
    pub fn with_replica_acks_for_every_write(self) -> Self {
        self.configured(|context| context.config.replica_acks_for_every_write = true)
            .with_redis("with_replica_acks_for_every_write", |store, config| {
                store.with_replica_acks(config.replica_acks())
            })
    }

    /// Saves without comparing versions, for a Redis user whose ACL forbids scripts. **Concurrent requests then overwrite each other's changes.**
    /// Default: compare-and-set by a script, without lost updates.
    ///
    /// A save still cannot restore a session that was logged out.
    pub fn with_last_write_wins(self) -> Self {
        self.with_redis("with_last_write_wins", |store, _| {
            store.with_last_write_wins()
        })
    }

    /// Keeps sessions in this process's memory, and lets Redis report their changes (client tracking): a load costs no command, and a save one.
    /// Default: off.
    ///
    /// A save compares versions as ever, so no update is lost. But another node can read a session that was changed or **ended** elsewhere until
    /// the report arrives, normally for a few milliseconds, and for [`max_staleness`](crate::LocalCache::max_staleness) if its connection is
    /// stuck. [The docs](crate::docs::local_cache) say when not to use it, and what the Redis user and server need: RESP3 and `+client|tracking`.
    /// Without these, nothing is cached, and a warning says so.
    ///
    /// Clones of the layer share the cache.
    ///
    /// ```
    /// use axum_redis_sessions::{LocalCache, RedisSessionLayer};
    ///
    /// let layer = RedisSessionLayer::open("redis://127.0.0.1/")?.with_local_cache(LocalCache::new());
    /// # Ok::<(), axum_redis_sessions::ConfigError>(())
    /// ```
    #[cfg(feature = "local-cache")]
    #[cfg_attr(docsrs, doc(cfg(feature = "local-cache")))]
    pub fn with_local_cache(self, cache: crate::LocalCache) -> Self {
        self.with_redis("with_local_cache", |store, _| {
            store.with_cache(crate::cache::Cache::new(cache))
        })
    }

    fn with_redis(
        self,
        option: &'static str,
        configure: impl FnOnce(RedisStore, &Config) -> RedisStore,
    ) -> Self {
        self.configured(|context| {
            if let Store::Redis(store) = &context.store {
                context.store = Store::Redis(configure(store.clone(), &context.config));
            } else {
                context.config.unsupported_option.get_or_insert(option);
            }
        })
    }
}
