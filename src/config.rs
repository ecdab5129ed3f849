use std::{borrow::Cow, fmt, str::FromStr, sync::Arc, time::Duration};

use http::{HeaderName, Response, StatusCode, header};

#[cfg(feature = "encryption")]
use crate::encryption::Encryption;
use crate::{
    error::{ConfigError, SessionError},
    id::SessionId,
    signing::{self, MIN_KEY, Signer},
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
/// RFC 6265bis, section 5.6: browsers ignore a cookie whose name and value exceed 4096 octets. The value is a UUID and a signature.
const MAX_NAME: usize = 4096 - 36 - signing::LENGTH;

/// Headers with a purpose of their own, beside those that a client may not set.
static NOT_FOR_IDS: [HeaderName; 14] = [
    header::ACCEPT,
    header::AUTHORIZATION,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::HOST,
    header::LOCATION,
    header::ORIGIN,
    header::REFERER,
    header::SET_COOKIE,
    header::TRANSFER_ENCODING,
    header::USER_AGENT,
    header::VARY,
];

/// The cookie's SameSite attribute: whether requests that come from other sites carry the cookie.
///
/// Parsed from `strict`, `lax` or `none`, in any case:
///
/// ```
/// # use axum_redis_sessions::{ConfigError, SameSite};
/// # fn main() -> Result<(), ConfigError> {
/// assert_eq!("lax".parse::<SameSite>()?, SameSite::Lax);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SameSite {
    /// Never. A user who follows a link from another site, or returns from an OAuth provider, arrives without a session.
    Strict,
    /// Only when the user navigates to this site with a safe method, such as by a link; not with a form that posts. The default.
    Lax,
    /// Always, such as in a frame of another site. Requires Secure and a defence against CSRF.
    None,
}

impl FromStr for SameSite {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        for (name, value) in [
            ("strict", Self::Strict),
            ("lax", Self::Lax),
            ("none", Self::None),
        ] {
            if text.eq_ignore_ascii_case(name) {
                return Ok(value);
            }
        }
        Err(ConfigError(
            format!("{text:?} is not a value of SameSite: use strict, lax or none").into(),
        ))
    }
}

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
pub(crate) type ErrorResponse = Arc<dyn Fn(&SessionError) -> Response<String> + Send + Sync>;

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
    pub(crate) id_generator: Option<IdGenerator>,
    pub(crate) error_response: Option<ErrorResponse>,
    pub(crate) save_rule: Option<SaveRule>,
    /// The first option that was set and that the store does not have.
    pub(crate) unsupported_option: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub(crate) struct CookieConfig {
    /// `None`: the strictest prefix that the other attributes allow.
    pub(crate) name: Option<String>,
    pub(crate) domain: Option<String>,
    pub(crate) path: String,
    pub(crate) http_only: bool,
    pub(crate) secure: bool,
    pub(crate) same_site: SameSite,
    pub(crate) partitioned: bool,
    pub(crate) signer: Option<Signer>,
}

/// The header that carries an id instead of a cookie.
#[derive(Clone, Debug)]
pub(crate) struct HeaderConfig {
    pub(crate) name: HeaderName,
    /// `Bearer <id>`.
    pub(crate) is_bearer: bool,
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
            cookie: CookieConfig {
                name: None,
                domain: None,
                path: "/".to_owned(),
                http_only: true,
                secure: true,
                same_site: SameSite::Lax,
                partitioned: false,
                signer: None,
            },
            has_cookie: true,
            header: None,
            invalid_header: None,
            #[cfg(feature = "encryption")]
            encryption: None,
            #[cfg(feature = "encryption")]
            encryption_required: false,
            id_generator: None,
            error_response: None,
            save_rule: None,
            unsupported_option: None,
        }
    }
}

impl CookieConfig {
    /// The cookie's name; by default with the strictest prefix that the other attributes allow (RFC 6265bis, section 4.1.3).
    pub(crate) fn name(&self) -> &str {
        match &self.name {
            Some(name) => name,
            None if !self.secure => "session",
            // Another name than that of a cookie outside of the partition, since a request can carry both.
            None if self.partitioned && self.domain.is_none() && self.path == "/" => {
                "__Host-session-partitioned"
            }
            None if self.partitioned => "__Secure-session-partitioned",
            None if self.domain.is_some() || self.path != "/" => "__Secure-session",
            None => "__Host-session",
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let name = self.name();
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_token) {
            return error(format!(
                "{name:?} is not a valid cookie name: use letters, digits, - and _ (RFC 6265, section 4.1.1), at most {MAX_NAME}"
            ));
        }
        // Browsers compare the prefixes case-insensitively.
        let prefix = |prefix: &str| {
            name.get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        if prefix("__Host-") && self.domain.is_some() {
            return error(format!(
                "browsers reject the cookie {name:?} with a Domain: remove with_cookie_domain, or use the prefix __Secure-"
            ));
        }
        if prefix("__Host-") && self.path != "/" {
            return error(format!(
                "browsers reject the cookie {name:?} with a Path other than \"/\": remove with_cookie_path, or use the prefix __Secure-"
            ));
        }
        if (prefix("__Host-") || prefix("__Secure-")) && !self.secure {
            return error(format!(
                "browsers reject the cookie {name:?} without Secure: remove with_secure(false), or use a name without the prefix"
            ));
        }
        if self.same_site == SameSite::None && !self.secure {
            return error(
                "browsers reject SameSite=None without Secure: remove with_secure(false), or use SameSite::Lax",
            );
        }
        if self.partitioned && !self.secure {
            return error("browsers reject Partitioned without Secure: remove with_secure(false)");
        }
        if let Some(signer) = &self.signer {
            check_keys("with_signing_keys", signer.shortest_key())?;
        }
        if !self.path.starts_with('/') || !self.path.bytes().all(is_attribute) {
            return error(format!(
                "{:?} is not a valid cookie Path: begin it with \"/\", without \";\" or control characters",
                self.path
            ));
        }
        match &self.domain {
            Some(domain) if !is_domain(domain) => error(format!(
                "{domain:?} is not a valid cookie Domain: use a host name such as \"example.com\", without scheme, port or path"
            )),
            _ => Ok(()),
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

    /// Checks each option, and their combination.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.cookie.check()?;
        if let Some(name) = &self.invalid_header {
            return error(format!(
                "{name:?} is not a valid header name: use letters, digits and - (RFC 9110, section 5.1)"
            ));
        }
        match &self.header {
            None if !self.has_cookie => {
                return error(
                    "without_cookie leaves no way for an id to travel: add with_header_transport or with_bearer_token",
                );
            }
            Some(header) if !header.is_bearer && NOT_FOR_IDS.contains(&header.name) => {
                return error(format!(
                    "the header {:?} has another purpose: use a name of its own, such as \"x-session-id\", or with_bearer_token",
                    header.name
                ));
            }
            _ => {}
        }
        #[cfg(feature = "encryption")]
        if let Some(encryption) = &self.encryption {
            check_keys("with_encryption_keys", encryption.shortest_key())?;
        } else if self.encryption_required {
            return error("with_encryption_required needs keys: add with_encryption_keys");
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
        if self.max_size == 0 || u32::try_from(self.max_size).is_err() {
            return error(
                "with_max_size is outside of 1 byte to 4 GiB: choose a size between them",
            );
        }
        Ok(())
    }
}

fn check_keys(option: &str, shortest: usize) -> Result<(), ConfigError> {
    if shortest >= MIN_KEY {
        return Ok(());
    }
    error(format!(
        "{option} has a key of {shortest} bytes, or no key: use at least {MIN_KEY} random bytes per key, such as the output of \
         `openssl rand -base64 32`"
    ))
}

fn error(text: impl Into<Cow<'static, str>>) -> Result<(), ConfigError> {
    Err(ConfigError(text.into()))
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 6265, section 4.1.1: `av-octet`.
fn is_attribute(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte) && byte != b';'
}

fn is_domain(domain: &str) -> bool {
    let host = domain.strip_prefix('.').unwrap_or(domain);
    host.split('.').all(|label| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
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
