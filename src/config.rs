use std::{fmt, sync::Arc, time::Duration};

use http::{Response, StatusCode};

use crate::{
    error::{ConfigError, SessionError},
    id::SessionId,
    signing::{self, MIN_KEY, Signer},
};

/// One day, as in the Flask snippet that this crate grew out of.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// 31 days, Flask's `PERMANENT_SESSION_LIFETIME`.
pub(crate) const PERMANENT_LIFETIME: Duration = Duration::from_secs(31 * 24 * 60 * 60);
/// Long enough for a slow moment of Redis, short enough for a person.
pub(crate) const DEADLINE: Duration = Duration::from_millis(500);
/// One large value holds up all those behind it on the connection.
pub(crate) const MAX_SIZE: usize = 64 * 1024;
/// RFC 6265bis, section 4.1.2.2: browsers keep no cookie longer.
pub(crate) const MAX_MAX_AGE: Duration = Duration::from_secs(400 * 24 * 60 * 60);
/// A hundred years, beyond which a sum with the present time overflows somewhere in Redis.
pub(crate) const MAX_TIMEOUT: Duration = Duration::from_secs(100 * 366 * 86_400);
/// RFC 6265bis, section 5.6: a browser drops a cookie whose name and value are longer than 4096 octets.
const MAX_NAME: usize = 4096 - 36 - signing::LENGTH;

/// Whether the browser sends the cookie along when another site leads to yours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SameSite {
    /// Never. A person who follows a link from elsewhere, or comes back from an OAuth provider, arrives without a session.
    Strict,
    /// Only when a person follows a link, and not with a form that posts. The default.
    Lax,
    /// Always: your site inside another one's frame. Needs Secure, and a defence against CSRF.
    None,
}

/// What becomes of a login that is one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionLimit {
    /// It succeeds, and the user's oldest session ends. Where ending it fails the login succeeds all the same, and the next one makes up
    /// for it.
    RevokeOldest,
    /// It fails with [`ErrorKind::TooManySessions`](crate::ErrorKind::TooManySessions), and nothing is stored. Of logins that race for the last
    /// place one has it; with [`with_last_write_wins`](crate::RedisSessionLayer::with_last_write_wins) it may be several. A login that an outage
    /// interrupted can hold a place for a minute.
    Reject,
}

/// Replicas that are asked whether they have a write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplicaAcks {
    pub(crate) replicas: usize,
    pub(crate) timeout: Duration,
    pub(crate) every_write: bool,
}

pub(crate) type IdGenerator = Arc<dyn Fn() -> SessionId + Send + Sync>;
pub(crate) type SaveRule = Arc<dyn Fn(StatusCode) -> bool + Send + Sync>;
pub(crate) type ErrorResponse = Arc<dyn Fn(&SessionError) -> Response<String> + Send + Sync>;

/// All that a user can set, with its default.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) prefix: String,
    pub(crate) hashed_keys: bool,
    pub(crate) idle_timeout: Duration,
    pub(crate) absolute_timeout: Option<Duration>,
    pub(crate) permanent_lifetime: Duration,
    pub(crate) deadline: Duration,
    pub(crate) max_size: usize,
    /// How many, and how long a write waits for them.
    pub(crate) replica_acks: Option<(usize, Duration)>,
    pub(crate) replica_acks_for_every_write: bool,
    /// How many a user may have, and what becomes of the next.
    pub(crate) sessions_per_user: Option<(usize, SessionLimit)>,
    pub(crate) eager: bool,
    pub(crate) cookie: CookieConfig,
    pub(crate) id_generator: Option<IdGenerator>,
    pub(crate) error_response: Option<ErrorResponse>,
    pub(crate) save_rule: Option<SaveRule>,
}

#[derive(Clone, Debug)]
pub(crate) struct CookieConfig {
    /// `None`: the safest name that the other attributes allow.
    pub(crate) name: Option<String>,
    pub(crate) domain: Option<String>,
    pub(crate) path: String,
    pub(crate) http_only: bool,
    pub(crate) secure: bool,
    pub(crate) same_site: SameSite,
    pub(crate) partitioned: bool,
    /// `None`: unsigned.
    pub(crate) signer: Option<Signer>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            prefix: "session:".to_owned(),
            hashed_keys: false,
            idle_timeout: IDLE_TIMEOUT,
            absolute_timeout: None,
            permanent_lifetime: PERMANENT_LIFETIME,
            deadline: DEADLINE,
            max_size: MAX_SIZE,
            replica_acks: None,
            replica_acks_for_every_write: false,
            sessions_per_user: None,
            eager: false,
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
            id_generator: None,
            error_response: None,
            save_rule: None,
        }
    }
}

impl CookieConfig {
    /// `__Host-session`, unless a Domain, a Path or the lack of Secure forbids that prefix (RFC 6265bis, section 4.1.3).
    pub(crate) fn name(&self) -> &str {
        match &self.name {
            Some(name) => name,
            None if !self.secure => "session",
            None if self.domain.is_some() || self.path != "/" => "__Secure-session",
            None => "__Host-session",
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let name = self.name();
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_token) {
            return error(format!(
                "{name:?} is no name for a cookie: use letters, digits, - and _ (RFC 6265, section 4.1.1), at most {MAX_NAME} of them"
            ));
        }
        // Browsers compare the prefixes without regard to case.
        let prefix = |prefix: &str| {
            name.get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        if prefix("__Host-") && self.domain.is_some() {
            return error(format!(
                "a browser refuses the cookie {name:?} with a Domain: leave with_cookie_domain out, or name it __Secure-…"
            ));
        }
        if prefix("__Host-") && self.path != "/" {
            return error(format!(
                "a browser refuses the cookie {name:?} with a Path other than \"/\": leave with_cookie_path out, or name it __Secure-…"
            ));
        }
        if (prefix("__Host-") || prefix("__Secure-")) && !self.secure {
            return error(format!(
                "a browser refuses the cookie {name:?} without Secure: leave with_secure(false) out, or choose a name without the prefix"
            ));
        }
        if self.same_site == SameSite::None && !self.secure {
            return error(
                "a browser refuses SameSite=None without Secure: leave with_secure(false) out, or use SameSite::Lax",
            );
        }
        if self.partitioned && !self.secure {
            return error(
                "a browser refuses Partitioned without Secure: leave with_secure(false) out",
            );
        }
        if let Some(signer) = &self.signer {
            let shortest = signer.shortest_key();
            if shortest < MIN_KEY {
                return error(format!(
                    "with_signing_keys has a key of {shortest} bytes, or none: give it at least {MIN_KEY} random bytes for each, as \
                     from `openssl rand -base64 32`"
                ));
            }
        }
        if !self.path.starts_with('/') || !self.path.bytes().all(is_attribute) {
            return error(format!(
                "{:?} is no Path for a cookie: begin it with \"/\", and leave out \";\" and control characters",
                self.path
            ));
        }
        match &self.domain {
            Some(domain) if !is_domain(domain) => error(format!(
                "{domain:?} is no Domain for a cookie: give a host name such as \"example.com\", without scheme, port or path"
            )),
            _ => Ok(()),
        }
    }
}

impl Config {
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

    /// What a setter alone cannot see.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.cookie.check()?;
        for (name, duration) in [
            ("with_idle_timeout", Some(self.idle_timeout)),
            ("with_permanent_lifetime", Some(self.permanent_lifetime)),
            ("with_absolute_timeout", self.absolute_timeout),
            ("with_deadline", Some(self.deadline)),
        ] {
            if duration.is_some_and(|duration| duration < Duration::from_millis(1)) {
                return error(format!(
                    "{name} needs at least a millisecond: with zero no session would live to be used"
                ));
            }
        }
        if self.permanent_lifetime > MAX_MAX_AGE {
            return error(format!(
                "with_permanent_lifetime is {} days, and browsers keep no cookie longer than 400 (RFC 6265bis, section 4.1.2.2): \
                 make it at most 400 days",
                self.permanent_lifetime.as_secs() / 86_400
            ));
        }
        if self.permanent_lifetime.as_secs() == 0 {
            return error(
                "with_permanent_lifetime needs at least a second: a cookie's Max-Age counts in seconds",
            );
        }
        if self.idle_timeout > MAX_TIMEOUT {
            return error("with_idle_timeout is over a hundred years: make it shorter");
        }
        match self.replica_acks {
            Some((0, _)) => {
                return error(
                    "with_replica_acks needs at least one replica: leave it out to wait for none",
                );
            }
            Some((_, timeout))
                if timeout < Duration::from_millis(1) || timeout > self.deadline / 4 =>
            {
                return error(format!(
                    "with_replica_acks waits for {timeout:?}, and the deadline is {:?}: make it at least a millisecond, and at most a quarter \
                     of with_deadline, since a write may have to wait retry_once, and servers look at the clock ten times a second",
                    self.deadline
                ));
            }
            None if self.replica_acks_for_every_write => {
                return error(
                    "with_replica_acks_for_every_write says when, and with_replica_acks for how many: add it",
                );
            }
            _ => {}
        }
        if matches!(self.sessions_per_user, Some((0, _))) {
            return error(
                "with_sessions_per_user needs at least one: with none nobody could log in",
            );
        }
        if self.max_size == 0 || u32::try_from(self.max_size).is_err() {
            return error("with_max_size needs between one byte and 4 GiB");
        }
        Ok(())
    }
}

fn error(text: impl Into<std::borrow::Cow<'static, str>>) -> Result<(), ConfigError> {
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
            .field("deadline", &self.deadline)
            .field("max_size", &self.max_size)
            .field("replica_acks", &self.replica_acks())
            .field("sessions_per_user", &self.sessions_per_user)
            .field("eager", &self.eager)
            .field("cookie", &self.cookie)
            .finish_non_exhaustive()
    }
}
