//! What can be set about sessions and about the way to them.

use std::{sync::Arc, time::Duration};

use http::{Response, StatusCode};

use super::RedisSessionLayer;
use crate::{config::SessionLimit, error::SessionError, id::SessionId, users::Users};

impl RedisSessionLayer {
    /// Any user's sessions, outside a request: for an administrator, or after a change of password.
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

    /// How many sessions a user may have at once, and what becomes of a login that is one too many. Default: any number (ASVS 5.0, 7.1.2,
    /// asks an app to decide).
    pub fn with_sessions_per_user(self, max: usize, at_limit: SessionLimit) -> Self {
        self.configured(|context| context.config.sessions_per_user = Some((max, at_limit)))
    }

    /// What the session's id follows in the Redis key. Default: `session:`.
    pub fn with_prefix(self, prefix: impl Into<String>) -> Self {
        self.configured(|context| context.config.prefix = prefix.into())
    }

    /// Puts a hash of the id (SHA-256) into the Redis key, `session:<64 hexadecimal digits>`, so that whoever reads keys, in a dump, a backup,
    /// MONITOR or SLOWLOG, has nobody's session (ASVS 5.0, 11.4 and 16.2.5). Default: the id itself, which `redis-cli` then finds.
    ///
    /// Switched on or off on a running system, it ends the sessions that are there: the keys of the other form are not looked for.
    ///
    /// An operator who has an id finds its session by `printf %s ID | sha256sum`.
    pub fn with_hashed_keys(self) -> Self {
        self.configured(|context| context.config.hashed_keys = true)
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

    /// The largest session, in bytes of its stored JSON. A larger one is an error: when it is encoded, before it is sent; when
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
    /// [`ErrorKind::NotReplicated`](crate::ErrorKind::NotReplicated): the change is made on the master, and may not survive it. Logging out again asks the replicas again. `timeout`
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

    /// Sets which requests save their changes, by the status of their response. Default: all but 5xx and 408.
    ///
    /// A request that fails saves nothing that is half done: not a login whose handler returned 500, nor one that a
    /// `TimeoutLayer` further in ended with 408. What [`Session::save`](crate::Session::save) and
    /// [`Session::destroy`](crate::Session::destroy) asked for explicitly is done in any case. A handler that panicked saves
    /// nothing, whatever response a layer further in made of that.
    ///
    /// ```
    /// use axum_redis_sessions::RedisSessionLayer;
    ///
    /// let layer = RedisSessionLayer::in_memory()
    ///     .with_save_rule(|status| !status.is_server_error() && !status.is_client_error());
    /// ```
    pub fn with_save_rule(self, rule: impl Fn(StatusCode) -> bool + Send + Sync + 'static) -> Self {
        self.configured(|context| context.config.save_rule = Some(Arc::new(rule)))
    }

    /// Makes the responses that tell of a [`SessionError`]: those of the extractor, of a handler that returned one, and the one
    /// that takes a handler's place when its changes could not be saved.
    ///
    /// Default: the error's [`status`](SessionError::status) and its message as plain text, with `Retry-After: 1` for 503.
    /// A response without a Cache-Control gets `no-store`, for an error is of the moment, whatever its status.
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
}
