//! What the layer keeps of a request until its response.

use http::{Request, request::Parts};

use crate::{config::Config, cookie::PresentedIds, plain_http};

#[derive(Default)]
pub(crate) struct RequestHead {
    /// Parsed when the session is loaded.
    pub(crate) presented: PresentedIds,
    /// For the app's form of an error.
    pub(crate) parts: Option<Box<Parts>>,
    /// The browser drops the cookie of this layer.
    pub(crate) drops_cookie: bool,
}

impl RequestHead {
    pub(crate) fn new<B>(request: &Request<B>, config: &Config) -> Self {
        Self {
            presented: PresentedIds::from_headers(request.headers(), config),
            parts: config
                .error_response
                .is_some()
                .then(|| Box::new(clone_parts(request))),
            drops_cookie: config.cookie.secure && plain_http::drops_secure_cookie(request),
        }
    }
}

/// With the extensions, where outer layers put a request id or a language.
fn clone_parts<B>(request: &Request<B>) -> Parts {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = request.method().clone();
    parts.uri = request.uri().clone();
    parts.version = request.version();
    parts.headers = request.headers().clone();
    parts.extensions = request.extensions().clone();
    parts
}
