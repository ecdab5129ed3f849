use super::RedisSessionLayer;
use crate::{config::SameSite, signing::Signer};

/// # Cookie options
impl RedisSessionLayer {
    /// Sets the cookie's name. Default: `__Host-session`; `__Secure-session` with a Domain or Path; `session` without Secure.
    ///
    /// Browsers accept a `__Host-` cookie only with Secure, with Path `/` and without Domain, so another host cannot set it (RFC 6265bis,
    /// section 4.1.3; ASVS 5.0, 3.3.1).
    ///
    /// Cookies do not depend on the port. Two apps on one host, such as `localhost:3000` and `localhost:4000`, replace each other's cookie,
    /// so a login at one is a logout at the other: give each a name of its own, such as `__Host-shop`. An id of the other app costs one
    /// read and changes nothing.
    pub fn with_cookie_name(self, name: impl Into<String>) -> Self {
        self.configured(|context| context.config.cookie.name = Some(name.into()))
    }

    /// Sets the cookie's Domain, such as `example.com`. Default: none, so only this host receives the cookie.
    ///
    /// With a Domain, that host and all its subdomains receive the cookie, and each of them can overwrite it (RFC 6265bis, section
    /// 4.1.2.3).
    pub fn with_cookie_domain(self, domain: impl Into<String>) -> Self {
        self.configured(|context| context.config.cookie.domain = Some(domain.into()))
    }

    /// Sets the cookie's Path. Default: `/`.
    ///
    /// The browser sends the cookie only with requests below this path. This is not a security boundary: pages at other paths of the
    /// host can make such requests as well (RFC 6265bis, section 8.5).
    pub fn with_cookie_path(self, path: impl Into<String>) -> Self {
        self.configured(|context| context.config.cookie.path = path.into())
    }

    /// Sets the cookie's SameSite attribute: whether requests that come from other sites carry it. Default: [`SameSite::Lax`] (ASVS 5.0,
    /// 3.3.2).
    ///
    /// # Examples
    ///
    /// ```
    /// use axum_redis_sessions::{ConfigError, RedisSessionLayer};
    ///
    /// # fn main() -> Result<(), ConfigError> {
    /// let same_site = std::env::var("SESSION_SAME_SITE").unwrap_or_else(|_| "lax".to_owned());
    /// let layer = RedisSessionLayer::in_memory().with_same_site(same_site.parse()?);
    /// # Ok(()) }
    /// ```
    pub fn with_same_site(self, same_site: SameSite) -> Self {
        self.configured(|context| context.config.cookie.same_site = same_site)
    }

    /// Adds Partitioned: in frames of other sites, the browser keeps one cookie per embedding site
    /// ([CHIPS](https://developer.mozilla.org/docs/Web/Privacy/Guides/Privacy_sandbox/Partitioned_cookies)). Default: not set.
    ///
    /// Requires Secure; used with [`SameSite::None`].
    pub fn with_partitioned_cookie(self) -> Self {
        self.configured(|context| context.config.cookie.partitioned = true)
    }

    /// Sets whether the cookie has Secure, so that the browser sends it over HTTPS only. Default: `true` (ASVS 5.0, 3.3.1).
    ///
    /// `false` lets the id travel over plain HTTP, where anyone on the network can read it. It is meant for development on a host name
    /// other than `localhost`: Chromium, Firefox and curl accept a Secure cookie from `http://localhost`; Safari does not.
    ///
    /// If a Secure cookie is sent to another host, and neither the URI nor a header such as X-Forwarded-Proto says that the browser uses
    /// HTTPS, the browser drops it, and each request begins a new session. That is logged as a warning, once in a process, among its
    /// first 10,000 requests.
    pub fn with_secure(self, secure: bool) -> Self {
        self.configured(|context| context.config.cookie.secure = secure)
    }

    /// Sets whether the cookie has HttpOnly, so that scripts cannot read it. Default: `true` (ASVS 5.0, 3.3.4).
    ///
    /// With `false`, a script injected into a page (XSS) can steal the session id.
    pub fn with_http_only(self, http_only: bool) -> Self {
        self.configured(|context| context.config.cookie.http_only = http_only)
    }

    /// Signs the cookie with HMAC-SHA-256, so that a forged id is rejected without a Redis command. Default: not signed.
    ///
    /// The first key signs; all of them verify. Each key is at least 32 random bytes (RFC 2104, section 3; ASVS 5.0, 11.2.3), the same on
    /// all nodes of the app. Signing is optional because 128 random bits cannot be guessed either.
    ///
    /// To change keys without logging anyone out, add the new key in front of the old one. Cookies signed with the old key are signed again when
    /// they are next used. Remove the old key after the longest timeout has passed.
    ///
    /// # Examples
    ///
    /// A key from an environment variable, made with `openssl rand -base64 32`:
    ///
    /// ```no_run
    /// use axum_redis_sessions::RedisSessionLayer;
    ///
    /// # fn main() -> Result<(), std::env::VarError> {
    /// let layer = RedisSessionLayer::default().with_signing_keys([std::env::var("SESSION_KEY")?]);
    /// # Ok(()) }
    /// ```
    ///
    /// Several keys in one variable, separated by commas, for rotation:
    ///
    /// ```no_run
    /// use axum_redis_sessions::RedisSessionLayer;
    ///
    /// # fn main() -> Result<(), std::env::VarError> {
    /// let layer = RedisSessionLayer::default()
    ///     .with_signing_keys(std::env::var("SESSION_KEYS")?.split(','));
    /// # Ok(()) }
    /// ```
    pub fn with_signing_keys(self, keys: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        let signer = Signer::new(keys);
        self.configured(|context| context.config.cookie.signer = Some(signer))
    }
}
