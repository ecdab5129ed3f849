use bytes::{Buf, Bytes};
use http_body_util::{
    BodyExt, Full,
    combinators::{BoxBody, UnsyncBoxBody},
};

/// A response body that [`RedisSessionLayer`](crate::RedisSessionLayer) can create from an error's text.
///
/// If the session cannot be loaded or saved, the layer answers in place of the inner service, with the inner service's type of body.
/// The trait is implemented for axum's body (feature `axum`), `String`, `Vec<u8>`, `Bytes`, and [`http_body_util`]'s [`Full`], [`BoxBody`]
/// and [`UnsyncBoxBody`].
///
/// Some layers wrap the body in a type of their own, such as tower-http's `CompressionLayer`, `TraceLayer` and `RequestBodyLimitLayer`; tonic has
/// its own type as well. If one of them is directly inside of the session layer, add tower-http's `MapResponseBodyLayer` (its feature
/// `map-response-body`) between the two, which turns the body into axum's:
///
/// ```
/// use axum::{Router, body::Body};
/// use axum_redis_sessions::RedisSessionLayer;
/// use tower::ServiceBuilder;
/// use tower_http::{compression::CompressionLayer, map_response_body::MapResponseBodyLayer};
///
/// let app: Router = Router::new().layer(
///     ServiceBuilder::new()
///         .layer(RedisSessionLayer::in_memory())
///         .layer(MapResponseBodyLayer::new(Body::new))
///         .layer(CompressionLayer::new()),
/// );
/// ```
///
/// Layers that are added by separate calls of axum's `Router::layer` need nothing, since the router turns each one's body into axum's.
///
/// # Examples
///
/// A body type of your own:
///
/// ```
/// use axum_redis_sessions::ErrorBody;
///
/// enum Page {
///     Html(String),
///     Error(String),
/// }
///
/// impl ErrorBody for Page {
///     fn from_error_text(text: String) -> Self {
///         Self::Error(text)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`RedisSessionLayer` cannot create an error response with the body `{Self}`: add \
               `tower_http::map_response_body::MapResponseBodyLayer::new(axum::body::Body::new)` directly inside of it",
    label = "`{Self}` is not an `ErrorBody`",
    note = "in a `ServiceBuilder`, directly inside is the next `.layer(…)`; for a body type of your own, implement `ErrorBody`"
)]
pub trait ErrorBody {
    /// Creates the body of an error response from its text.
    fn from_error_text(text: String) -> Self;
}

impl ErrorBody for String {
    fn from_error_text(text: String) -> Self {
        text
    }
}

impl ErrorBody for Vec<u8> {
    fn from_error_text(text: String) -> Self {
        text.into_bytes()
    }
}

impl ErrorBody for Bytes {
    fn from_error_text(text: String) -> Self {
        text.into()
    }
}

impl<D: Buf + From<String>> ErrorBody for Full<D> {
    fn from_error_text(text: String) -> Self {
        Self::new(text.into())
    }
}

impl<D, E> ErrorBody for BoxBody<D, E>
where
    D: Buf + From<String> + Send + Sync + 'static,
{
    fn from_error_text(text: String) -> Self {
        Self::new(Full::<D>::new(text.into()).map_err(|never| match never {}))
    }
}

impl<D, E> ErrorBody for UnsyncBoxBody<D, E>
where
    D: Buf + From<String> + Send + 'static,
{
    fn from_error_text(text: String) -> Self {
        Self::new(Full::<D>::new(text.into()).map_err(|never| match never {}))
    }
}

#[cfg(feature = "axum")]
impl ErrorBody for axum_core::body::Body {
    fn from_error_text(text: String) -> Self {
        text.into()
    }
}
