use http::{HeaderName, header};

use super::RedisSessionLayer;
use crate::config::HeaderConfig;

/// # Ids without cookies
///
/// For mobile apps and other API clients. The id travels in a header of the request, and comes back in the same header of the response when it is
/// issued or changed, and empty when the session has ended. It is never read from a URL or a body.
///
/// A client begins with an empty header. A request with the header has no cookie: the Cookie header is not read, and no Set-Cookie is sent, so that a
/// script in a page cannot learn the id of a cookie that is `HttpOnly`. Other requests use the cookie, unless
/// [`without_cookie`](RedisSessionLayer::without_cookie) is set.
///
/// A browser adds the header to no request by itself, and not to one of another site unless CORS allows it, so these requests need no defence
/// against CSRF. With [signing keys](RedisSessionLayer::with_signing_keys), the header is signed as the cookie is.
impl RedisSessionLayer {
    /// Lets the id travel in this header, such as `x-session-id`. Default: in the cookie only.
    ///
    /// # Examples
    ///
    /// ```
    /// use axum_redis_sessions::RedisSessionLayer;
    ///
    /// let layer = RedisSessionLayer::in_memory().with_header_transport("x-session-id");
    /// ```
    ///
    /// ```text
    /// POST /login HTTP/1.1            HTTP/1.1 200 OK
    /// x-session-id:                   x-session-id: 5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e
    /// ```
    pub fn with_header_transport(self, name: impl AsRef<str>) -> Self {
        let name = name.as_ref();
        self.configured(|context| match HeaderName::try_from(name) {
            Ok(name) => {
                context.config.header = Some(HeaderConfig {
                    name,
                    is_bearer: false,
                });
            }
            Err(_) => context.config.invalid_header = Some(name.to_owned()),
        })
    }

    /// Lets the id travel as `Authorization: Bearer <id>` (RFC 6750), in requests and in responses. Default: in the cookie only.
    ///
    /// A client begins with `Authorization: Bearer`, without an id. Requests with another scheme, such as Basic, use the cookie.
    pub fn with_bearer_token(self) -> Self {
        self.configured(|context| {
            context.config.header = Some(HeaderConfig {
                name: header::AUTHORIZATION,
                is_bearer: true,
            });
        })
    }

    /// Neither reads nor sets a cookie. Default: requests without the header use the cookie.
    ///
    /// Requires [`with_header_transport`](Self::with_header_transport) or [`with_bearer_token`](Self::with_bearer_token). A request without the
    /// header has a new session, whose id its response then carries.
    ///
    /// # Examples
    ///
    /// ```
    /// use axum_redis_sessions::RedisSessionLayer;
    ///
    /// let api = RedisSessionLayer::in_memory().with_bearer_token().without_cookie();
    /// ```
    pub fn without_cookie(self) -> Self {
        self.configured(|context| context.config.has_cookie = false)
    }
}
