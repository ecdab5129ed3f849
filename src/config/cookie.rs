//! The settings of the cookie, and of the header in its place.

use std::{fmt, str::FromStr};

use http::{HeaderName, header};

use super::checks::{check_keys, error, is_attribute, is_domain, is_token};
#[cfg(feature = "migration")]
use crate::format::{CookieAttributes, Sharing};
use crate::{
    error::ConfigError,
    signing::{self, Signer},
};

/// RFC 6265bis, section 5.6: browsers ignore a cookie whose name and value exceed 4096 octets. The value is a UUID and a signature.
const MAX_NAME: usize = 4096 - 36 - signing::LENGTH;

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

#[derive(Clone)]
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
    /// The ids, the cookie's value and the stored sessions are those of another framework.
    #[cfg(feature = "migration")]
    pub(crate) sharing: Option<Sharing>,
}

/// The header that carries an id instead of a cookie.
#[derive(Clone, Debug)]
pub(crate) struct HeaderConfig {
    pub(crate) name: HeaderName,
    /// `Bearer <id>`.
    pub(crate) is_bearer: bool,
}

impl Default for CookieConfig {
    fn default() -> Self {
        Self {
            name: None,
            domain: None,
            path: "/".to_owned(),
            http_only: true,
            secure: true,
            same_site: SameSite::Lax,
            partitioned: false,
            signer: None,
            #[cfg(feature = "migration")]
            sharing: None,
        }
    }
}

/// The same with and without the features of options that are not set.
impl fmt::Debug for CookieConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("CookieConfig");
        debug
            .field("name", &self.name)
            .field("domain", &self.domain)
            .field("path", &self.path)
            .field("http_only", &self.http_only)
            .field("secure", &self.secure)
            .field("same_site", &self.same_site)
            .field("partitioned", &self.partitioned)
            .field("signer", &self.signer);
        #[cfg(feature = "migration")]
        if let Some(sharing) = &self.sharing {
            debug.field("sharing", sharing);
        }
        debug.finish()
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

    #[cfg(feature = "migration")]
    pub(crate) fn attributes(&self) -> CookieAttributes<'_> {
        CookieAttributes {
            path: &self.path,
            domain: self.domain.as_deref(),
            http_only: self.http_only,
            secure: self.secure,
            same_site: match self.same_site {
                SameSite::Strict => "strict",
                SameSite::Lax => "lax",
                SameSite::None => "none",
            },
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
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

impl HeaderConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.is_bearer || !NOT_FOR_IDS.contains(&self.name) {
            return Ok(());
        }
        error(format!(
            "the header {:?} has another purpose: use a name of its own, such as \"x-session-id\", or with_bearer_token",
            self.name
        ))
    }
}

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
