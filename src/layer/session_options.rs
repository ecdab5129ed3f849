use std::sync::Arc;

use http::{Response, StatusCode, request::Parts};

use super::RedisSessionLayer;
#[cfg(feature = "encryption")]
use crate::encryption::Encryption;
#[cfg(feature = "migration")]
use crate::format::{Migration, Sharing};
use crate::{config::SessionLimit, error::SessionError, id::SessionId};

/// # Session options
impl RedisSessionLayer {
    /// Sets the start of each Redis key. Default: `session:`, so a session is under `session:<id>`.
    pub fn with_prefix(self, prefix: impl Into<String>) -> Self {
        self.configured(|context| context.config.prefix = prefix.into())
    }

    /// Stores SHA-256(id) in the key, so that read access to Redis does not reveal session ids. Default: the id itself.
    ///
    /// The key is `session:<64 hexadecimal digits>`. This protects sessions if keys become visible in a dump, a backup, MONITOR or SLOWLOG
    /// (ASVS 5.0, 11.4 and 16.2.5). To find the session of a known id: `printf %s ID | sha256sum`.
    ///
    /// Changing this option on a running system ends all sessions, because keys of the other form are not looked up.
    pub fn with_hashed_keys(self) -> Self {
        self.configured(|context| context.config.hashed_keys = true)
    }

    /// Encrypts sessions in Redis by AES-256-GCM-SIV, so that read access to Redis, a dump or a backup does not show their data. Default: off
    /// (ASVS 5.0, 14.1.2, asks an app to decide).
    ///
    /// The first key encrypts; all of them decrypt. Each key is at least 32 random bytes, the same on all nodes of the app. Redis sees the
    /// revision of a session and its size. The Redis key is authenticated with the value, so a value that was copied to another session's
    /// key is refused with [`ErrorKind::InvalidData`](crate::ErrorKind::InvalidData), and so is a changed one. An older value of the same session is not
    /// recognised as such.
    ///
    /// To change keys without logging anyone out, add the new key in front of the old one. A session that was encrypted by the old key, or
    /// stored before this option was set, is encrypted by the new key when it is next loaded. Remove the old key after the longest timeout
    /// has passed. During a rolling deployment, add the new key behind the old one on all nodes first, since each node has to read what the others
    /// write.
    ///
    /// What it costs is measured in [performance](crate::docs::performance#encryption-at-rest): about a tenth more CPU time for a session of 300 bytes, on a
    /// processor with instructions for AES.
    ///
    /// Session ids stay readable in the Redis keys: add [`with_hashed_keys`](Self::with_hashed_keys). The index of a user's sessions has the
    /// user's name in its key.
    ///
    /// # Examples
    ///
    /// Keys from an environment variable, separated by commas, each made with `openssl rand -base64 32`:
    ///
    /// ```no_run
    /// use axum_redis_sessions::RedisSessionLayer;
    ///
    /// # fn main() -> Result<(), std::env::VarError> {
    /// let layer = RedisSessionLayer::default()
    ///     .with_encryption_keys(std::env::var("SESSION_ENCRYPTION_KEYS")?.split(','));
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "encryption")]
    #[cfg_attr(docsrs, doc(cfg(feature = "encryption")))]
    pub fn with_encryption_keys(self, keys: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        let keys = Encryption::new(keys);
        self.configured(|context| context.config.encryption = Some(keys))
    }

    /// Refuses sessions that are not encrypted. Default: they are loaded, and encrypted.
    ///
    /// Without it, a program that can write to Redis can store a session in the clear, under the id that it wants. Set it once all sessions
    /// from before [`with_encryption_keys`](Self::with_encryption_keys) have ended or been loaded.
    #[cfg(feature = "encryption")]
    #[cfg_attr(docsrs, doc(cfg(feature = "encryption")))]
    pub fn with_encryption_required(self) -> Self {
        self.configured(|context| context.config.encryption_required = true)
    }

    /// Limits the number of concurrent sessions per user. Default: no limit (ASVS 5.0, 7.1.2, asks an app to decide).
    ///
    /// `at_limit` is what happens at a login beyond it. The user is the one of [`set_user`](crate::Session::set_user).
    pub fn with_sessions_per_user(self, max: usize, at_limit: SessionLimit) -> Self {
        self.configured(|context| context.config.sessions_per_user = Some((max, at_limit)))
    }

    /// Sets the maximum size of a session, in bytes of its JSON. Default: 65,536 (64 KiB).
    ///
    /// Saving a larger session is [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge). One that is stored already can be read, and made smaller. A large value
    /// delays all other commands on the connection.
    pub fn with_max_size(self, bytes: usize) -> Self {
        self.configured(|context| context.config.max_size = bytes)
    }

    /// Treats a stored value that is not a session of this crate as missing: its visitor has an empty session. Default: off, so that each
    /// request that loads it fails with [`ErrorKind::InvalidData`](crate::ErrorKind::InvalidData).
    ///
    /// For the move from another session library under the same prefix and cookie name, whose users then log in again. The value is left to
    /// its TTL. The first one is logged as a warning, and all are counted in [`Stats`](crate::Stats). A mistake in the
    /// prefix then looks as if all visitors were logged out.
    ///
    /// A process prolongs such a value once, by the load that finds it; later loads leave its TTL alone. For up to 1,024 keys.
    pub fn with_discard_unreadable(self) -> Self {
        self.configured(|context| context.config.discard_unreadable = true)
    }

    /// Takes over the sessions of another app, so that its users stay logged in. Default: none. May be called several times.
    ///
    /// A request with a cookie of the old app and none of this one gets its old session, under a new id and with the timeouts of this layer. Its response sets
    /// the new cookie and removes the old one. Once the browser has shown the new cookie, the old one is worth nothing. An old session that
    /// cannot be read counts as missing, is counted in [`Stats::unreadable`](crate::Stats::unreadable), and is logged. The old app's keys must be
    /// in the Redis of this layer.
    ///
    /// [`docs::migrate`](crate::docs::migrate) has the steps for each framework.
    ///
    /// # Examples
    ///
    /// ```
    /// use axum_redis_sessions::{RedisSessionLayer, format::{Flask, Migration}};
    ///
    /// let layer = RedisSessionLayer::in_memory()
    ///     .with_migration_from(Migration::from(Flask::new()).with_user_at("/user_id"));
    /// ```
    #[cfg(feature = "migration")]
    #[cfg_attr(docsrs, doc(cfg(feature = "migration")))]
    pub fn with_migration_from(self, migration: impl Into<Migration>) -> Self {
        let migration = Arc::new(migration.into());
        self.configured(|context| context.config.migrations.push(migration))
    }

    /// Shares live sessions with an app of another framework: both read and write the same cookie and the same key in Redis. Default: off.
    ///
    /// Each sees the other's changes at its next request, logins and logouts included. Sets the cookie's name, the prefix of the keys and the timeouts of the
    /// framework; options that are set after it override them. Secure, SameSite, Domain and Path of the cookie must be set as in the other app, and
    /// the framework's secrets are needed where it signs its cookies.
    ///
    /// A save of this crate compares the whole value, so it never overwrites a change of the other app. The other app does not compare: if it writes
    /// while a request of this one does, it can overwrite that change, as it overwrites its own. [`docs::share`](crate::docs::share) has the
    /// details for each framework.
    ///
    /// # Examples
    ///
    /// ```
    /// use axum_redis_sessions::{RedisSessionLayer, format::{Flask, Sharing}};
    ///
    /// // Flask-Login keeps the user's id in `_user_id`.
    /// let flask = Sharing::from(Flask::new()).with_user_at("/_user_id");
    /// let layer = RedisSessionLayer::in_memory().with_format(flask);
    /// # layer.validate()?;
    /// # Ok::<(), axum_redis_sessions::ConfigError>(())
    /// ```
    #[cfg(feature = "migration")]
    #[cfg_attr(docsrs, doc(cfg(feature = "migration")))]
    pub fn with_format(self, format: impl Into<Sharing>) -> Self {
        let sharing = format.into();
        self.configured(|context| {
            let config = &mut context.config;
            let format = sharing.format();
            config.cookie.name = Some(format.cookie_name().to_owned());
            config.prefix = format.prefix().to_owned();
            config.idle_timeout = format.idle_timeout();
            config.permanent_lifetime = format.permanent_lifetime();
            config.cookie.sharing = Some(sharing);
        })
    }

    /// Loads the session before the inner service is called, and adds it to the request's extensions. Default: loaded by the extractor.
    ///
    /// This is for `Extension<Session>`, and for services that cannot wait. Each request with a session cookie then costs a Redis command, and is
    /// answered with 503 while Redis is unavailable.
    pub fn with_eager_load(self) -> Self {
        self.configured(|context| context.config.eager = true)
    }

    /// Sets the source of session ids. Default: 128 random bits from the operating system.
    ///
    /// Ids must be unpredictable: each needs 128 bits of a cryptographically secure generator (ASVS 5.0, 7.2.3).
    ///
    /// # Examples
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

    /// Sets which requests save their changes, by the status of their response. Default: all but 5xx and 408.
    ///
    /// A failed request saves nothing, so a login whose handler returned 500 has not taken place. What
    /// [`Session::save`](crate::Session::save) and [`Session::destroy`](crate::Session::destroy) asked for explicitly is done in any
    /// case. A handler that returned a [`SessionError`] or panicked saves nothing, whatever its response is.
    ///
    /// # Examples
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

    /// Sets the page where [`LoggedIn`](crate::LoggedIn) and [`RecentLogin`](crate::RecentLogin) send browsers. Default: none, so they answer
    /// 401.
    ///
    /// `page` is a path on this host, as browsers see it. A GET or HEAD request that accepts HTML is redirected there, with the path that was
    /// asked for: `/sign-in?next=/cart`. [`NextPath`](crate::NextPath) reads it. All other requests are answered with 401.
    ///
    /// # Examples
    ///
    /// ```
    /// use axum_redis_sessions::RedisSessionLayer;
    ///
    /// let layer = RedisSessionLayer::in_memory().with_sign_in_page("/sign-in");
    /// ```
    #[cfg(feature = "axum")]
    #[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
    pub fn with_sign_in_page(self, page: impl Into<String>) -> Self {
        self.configured(|context| context.config.sign_in_page = Some(page.into()))
    }

    /// Sets the response to a [`SessionError`]: one that the extractor or a handler returned, or that a failed save caused. Default:
    /// [`SessionError::to_response`].
    ///
    /// `response` also sees the head of the request: method, URI, headers, and the extensions of outer layers. It is cloned for each
    /// request, which costs a few allocations, only if this option is set.
    ///
    /// A response without Cache-Control gets `no-store`, since an error is temporary; one with status 503 and without Retry-After gets
    /// `Retry-After: 1`. `Vary: Cookie` is added in any case.
    ///
    /// # Examples
    ///
    /// JSON for the routes of an API, a page for all others:
    ///
    /// ```
    /// use axum_redis_sessions::RedisSessionLayer;
    /// use http::{Response, header::CONTENT_TYPE};
    ///
    /// let layer = RedisSessionLayer::in_memory().with_error_response(|error, request| {
    ///     let (content_type, body) = if request.uri.path().starts_with("/api/") {
    ///         ("application/json", r#"{"error":"session"}"#)
    ///     } else {
    ///         ("text/html", "<h1>Please try again</h1>")
    ///     };
    ///     Response::builder()
    ///         .status(error.status())
    ///         .header(CONTENT_TYPE, content_type)
    ///         .body(body.to_owned())
    ///         .expect("a valid response")
    /// });
    /// ```
    pub fn with_error_response(
        self,
        response: impl Fn(&SessionError, &Parts) -> Response<String> + Send + Sync + 'static,
    ) -> Self {
        self.configured(|context| context.config.error_response = Some(Arc::new(response)))
    }
}
