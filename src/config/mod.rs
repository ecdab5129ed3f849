//! All options of a layer, with their defaults and checks.

mod checks;
mod cookie;

use std::{fmt, sync::Arc, time::Duration};

use http::{Response, StatusCode, request::Parts};

#[cfg(feature = "encryption")]
use self::checks::check_keys;
use self::checks::error;
pub use self::cookie::SameSite;
pub(crate) use self::cookie::{CookieConfig, HeaderConfig};
#[cfg(feature = "encryption")]
use crate::encryption::Encryption;
#[cfg(feature = "migration")]
use crate::format::Migration;
use crate::{
    error::{ConfigError, SessionError},
    id::SessionId,
    next_path,
};

/// 1 day, as in the Flask snippet that this crate follows.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// 31 days, Flask's `PERMANENT_SESSION_LIFETIME`.
pub(crate) const PERMANENT_LIFETIME: Duration = Duration::from_secs(31 * 24 * 60 * 60);
/// Longer than the response to a login takes: by then a browser has the new cookie, or never gets it.
pub(crate) const ROTATION_GRACE: Duration = Duration::from_secs(10);
/// Long enough for a stall of Redis, such as a fork for a snapshot; short enough for a user who waits.
pub(crate) const DEADLINE: Duration = Duration::from_millis(500);
/// A large value delays all commands behind it on the connection.
pub(crate) const MAX_SIZE: usize = 64 * 1024;
/// RFC 6265bis, section 4.1.2.2: browsers cap a cookie's lifetime at 400 days.
pub(crate) const MAX_MAX_AGE: Duration = Duration::from_secs(400 * 24 * 60 * 60);
/// 100 years. Redis adds a TTL to the present time, and refuses a sum that overflows.
pub(crate) const MAX_TIMEOUT: Duration = Duration::from_secs(100 * 366 * 86_400);

/// What happens at a login beyond [`with_sessions_per_user`](crate::RedisSessionLayer::with_sessions_per_user).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionLimit {
    /// The login succeeds and the user's oldest session is revoked. If revoking it fails, the login still succeeds, and the user's next login
    /// revokes it.
    RevokeOldest,
    /// The login fails with [`ErrorKind::TooManySessions`](crate::ErrorKind::TooManySessions) and nothing is stored. Of concurrent logins for the last
    /// place, one succeeds; with [`with_last_write_wins`](crate::RedisSessionLayer::with_last_write_wins), several may. A login that was
    /// interrupted by an outage can occupy a place for up to a minute.
    Reject,
}

/// How many replicas have to confirm a write, how long to wait for them, and for which writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplicaAcks {
    pub(crate) replicas: usize,
    pub(crate) timeout: Duration,
    pub(crate) every_write: bool,
}

pub(crate) type IdGenerator = Arc<dyn Fn() -> SessionId + Send + Sync>;
pub(crate) type SaveRule = Arc<dyn Fn(StatusCode) -> bool + Send + Sync>;
pub(crate) type ErrorResponse =
    Arc<dyn Fn(&SessionError, &Parts) -> Response<String> + Send + Sync>;

/// All options of a layer.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) prefix: String,
    pub(crate) hashed_keys: bool,
    pub(crate) idle_timeout: Duration,
    pub(crate) absolute_timeout: Option<Duration>,
    pub(crate) permanent_lifetime: Duration,
    /// How long a request with a rotated id may read what the session held.
    pub(crate) rotation_grace: Duration,
    pub(crate) deadline: Duration,
    pub(crate) max_size: usize,
    /// Number of replicas, and how long a write waits for them.
    pub(crate) replica_acks: Option<(usize, Duration)>,
    pub(crate) replica_acks_for_every_write: bool,
    pub(crate) sessions_per_user: Option<(usize, SessionLimit)>,
    pub(crate) eager: bool,
    /// A stored value that is not a session counts as missing.
    pub(crate) discard_unreadable: bool,
    pub(crate) cookie: CookieConfig,
    pub(crate) has_cookie: bool,
    pub(crate) header: Option<HeaderConfig>,
    /// A name that is not one of a header.
    pub(crate) invalid_header: Option<String>,
    #[cfg(feature = "encryption")]
    pub(crate) encryption: Option<Encryption>,
    /// A session in the clear is not accepted.
    #[cfg(feature = "encryption")]
    pub(crate) encryption_required: bool,
    #[cfg(feature = "migration")]
    pub(crate) migrations: Vec<Arc<Migration>>,
    pub(crate) id_generator: Option<IdGenerator>,
    pub(crate) error_response: Option<ErrorResponse>,
    pub(crate) save_rule: Option<SaveRule>,
    /// Where guards send browsers that are not logged in.
    pub(crate) sign_in_page: Option<String>,
    /// The first option that was set and that the store does not have.
    pub(crate) unsupported_option: Option<&'static str>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            prefix: "session:".to_owned(),
            hashed_keys: false,
            idle_timeout: IDLE_TIMEOUT,
            absolute_timeout: None,
            permanent_lifetime: PERMANENT_LIFETIME,
            rotation_grace: ROTATION_GRACE,
            deadline: DEADLINE,
            max_size: MAX_SIZE,
            replica_acks: None,
            replica_acks_for_every_write: false,
            sessions_per_user: None,
            eager: false,
            discard_unreadable: false,
            cookie: CookieConfig::default(),
            has_cookie: true,
            header: None,
            invalid_header: None,
            #[cfg(feature = "encryption")]
            encryption: None,
            #[cfg(feature = "encryption")]
            encryption_required: false,
            #[cfg(feature = "migration")]
            migrations: Vec::new(),
            id_generator: None,
            error_response: None,
            save_rule: None,
            sign_in_page: None,
            unsupported_option: None,
        }
    }
}

impl Config {
    /// What tells the layers of an app apart: the name of the cookie; without one, that of the header.
    pub(crate) fn session_name(&self) -> &str {
        match &self.header {
            Some(header) if !self.has_cookie => header.name.as_str(),
            _ => self.cookie.name(),
        }
    }

    /// Whether the changes of a request with this response status are saved.
    pub(crate) fn saves_after(&self, status: StatusCode) -> bool {
        match &self.save_rule {
            Some(rule) => rule(status),
            None => !status.is_server_error() && status != StatusCode::REQUEST_TIMEOUT,
        }
    }

    pub(crate) fn replica_acks(&self) -> Option<ReplicaAcks> {
        let (replicas, timeout) = self.replica_acks?;
        Some(ReplicaAcks {
            replicas,
            timeout,
            every_write: self.replica_acks_for_every_write,
        })
    }

    fn check_header(&self) -> Result<(), ConfigError> {
        if let Some(name) = &self.invalid_header {
            return error(format!(
                "{name:?} is not a valid header name: use letters, digits and - (RFC 9110, section 5.1)"
            ));
        }
        match &self.header {
            Some(header) => header.check(),
            None if self.has_cookie => Ok(()),
            None => error(
                "without_cookie leaves no way for an id to travel: add with_header_transport or with_bearer_token",
            ),
        }
    }

    #[cfg(feature = "migration")]
    fn check_migrations(&self) -> Result<(), ConfigError> {
        if !self.migrations.is_empty() && !self.has_cookie {
            return error(
                "with_migration_from needs the session cookie, since old cookies become new ones: remove without_cookie",
            );
        }
        match self
            .migrations
            .iter()
            .find_map(|migration| migration.check())
        {
            Some(text) => error(text),
            None => Ok(()),
        }
    }

    /// What another framework would not understand is refused.
    #[cfg(feature = "migration")]
    fn check_sharing(&self) -> Result<(), ConfigError> {
        let Some(sharing) = &self.cookie.sharing else {
            return Ok(());
        };
        if let Some(text) = sharing.check() {
            return error(text);
        }
        #[cfg(feature = "encryption")]
        let encrypts = self.encryption.is_some();
        #[cfg(not(feature = "encryption"))]
        let encrypts = false;
        for (is_set, option) in [
            (self.cookie.signer.is_some(), "with_signing_keys"),
            (self.hashed_keys, "with_hashed_keys"),
            (encrypts, "with_encryption_keys"),
            (self.id_generator.is_some(), "with_id_generator"),
            (!self.migrations.is_empty(), "with_migration_from"),
        ] {
            if is_set {
                return error(format!(
                    "{option} and with_format exclude each other, since the other framework has its own ids, keys and values: remove one of them"
                ));
            }
        }
        Ok(())
    }

    /// Checks each option, and their combination.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.cookie.check()?;
        self.check_header()?;
        #[cfg(feature = "encryption")]
        if let Some(encryption) = &self.encryption {
            check_keys("with_encryption_keys", encryption.shortest_key())?;
        } else if self.encryption_required {
            return error("with_encryption_required needs keys: add with_encryption_keys");
        }
        #[cfg(feature = "migration")]
        {
            self.check_migrations()?;
            self.check_sharing()?;
        }
        for (name, duration) in [
            ("with_idle_timeout", Some(self.idle_timeout)),
            ("with_permanent_lifetime", Some(self.permanent_lifetime)),
            ("with_absolute_timeout", self.absolute_timeout),
            ("with_deadline", Some(self.deadline)),
        ] {
            if duration.is_some_and(|duration| duration < Duration::from_millis(1)) {
                return error(format!(
                    "{name} is shorter than a millisecond: make it longer"
                ));
            }
        }
        if self.permanent_lifetime > MAX_MAX_AGE {
            return error(format!(
                "with_permanent_lifetime is {} days, and browsers keep a cookie for at most 400 (RFC 6265bis, section 4.1.2.2): \
                 make it at most 400 days",
                self.permanent_lifetime.as_secs() / 86_400
            ));
        }
        if self.permanent_lifetime.as_secs() == 0 {
            return error(
                "with_permanent_lifetime is shorter than a second, the unit of a cookie's Max-Age: make it longer",
            );
        }
        if self.idle_timeout > MAX_TIMEOUT {
            return error("with_idle_timeout is longer than 100 years: make it shorter");
        }
        match self.replica_acks {
            Some((0, _)) => {
                return error("with_replica_acks has 0 replicas: use at least 1, or remove it");
            }
            Some((_, timeout))
                if timeout < Duration::from_millis(1) || timeout > self.deadline / 4 =>
            {
                return error(format!(
                    "with_replica_acks has a timeout of {timeout:?}, and with_deadline is {:?}: make the timeout at least 1 ms, and at most a \
                     quarter of the deadline, since a write may wait twice, and servers check timeouts ten times a second",
                    self.deadline
                ));
            }
            None if self.replica_acks_for_every_write => {
                return error(
                    "with_replica_acks_for_every_write needs the number of replicas: add with_replica_acks",
                );
            }
            _ => {}
        }
        if matches!(self.sessions_per_user, Some((0, _))) {
            return error(
                "with_sessions_per_user is 0, so no user could log in: make it at least 1",
            );
        }
        if let Some(page) = &self.sign_in_page
            && !next_path::is_safe(page)
        {
            return error(format!(
                "{page:?} is not a page for with_sign_in_page: use a path on this host such as \"/sign-in\""
            ));
        }
        if self.max_size == 0 || u32::try_from(self.max_size).is_err() {
            return error(
                "with_max_size is outside of 1 byte to 4 GiB: choose a size between them",
            );
        }
        Ok(())
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("prefix", &self.prefix)
            .field("hashed_keys", &self.hashed_keys)
            .field("idle_timeout", &self.idle_timeout)
            .field("absolute_timeout", &self.absolute_timeout)
            .field("permanent_lifetime", &self.permanent_lifetime)
            .field("rotation_grace", &self.rotation_grace)
            .field("deadline", &self.deadline)
            .field("max_size", &self.max_size)
            .field("replica_acks", &self.replica_acks())
            .field("sessions_per_user", &self.sessions_per_user)
            .field("eager", &self.eager)
            .field("discard_unreadable", &self.discard_unreadable)
            .field("cookie", &self.cookie)
            .finish_non_exhaustive()
    }
}
