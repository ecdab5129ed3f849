//! What can be set about the cookie.

use super::RedisSessionLayer;
use crate::{config::SameSite, signing::Signer};

impl RedisSessionLayer {
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
    pub fn with_secure(self, secure: bool) -> Self {
        self.configured(|context| context.config.cookie.secure = secure)
    }

    /// Leaves out HttpOnly, so that any script on the page can read the id, one that an attacker slipped in included.
    /// Default: HttpOnly (ASVS 5.0, 3.3.4).
    pub fn with_http_only(self, http_only: bool) -> Self {
        self.configured(|context| context.config.cookie.http_only = http_only)
    }

    /// Signs the cookie (HMAC-SHA-256), so that a forged or a foreign id costs no Redis command. The first key signs, and all of them
    /// verify. Default: unsigned, for an id of 128 random bits cannot be guessed either.
    ///
    /// Each key is 32 random bytes or more, as from `openssl rand -base64 32`, the same on all nodes, and not kept with the code.
    ///
    /// To change keys without logging anyone out, put the new one first and leave the old one behind it. A cookie that the old key signed is
    /// sent anew, signed by the first, when its session is next used; once the longest timeout has passed, the old key can go.
    ///
    /// ```
    /// use axum_redis_sessions::RedisSessionLayer;
    ///
    /// # fn secret(name: &str) -> Vec<u8> { vec![7; 32] }
    /// let layer = RedisSessionLayer::in_memory()
    ///     .with_signing_keys([secret("session-key-2026-11"), secret("session-key-2026-05")]);
    /// ```
    pub fn with_signing_keys(self, keys: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        let signer = Signer::new(keys);
        self.configured(|context| context.config.cookie.signer = Some(signer))
    }
}
