//! The layer on plain tower services, without axum: these tests also run with `--no-default-features`.

use std::convert::Infallible;

use axum_redis_sessions::{ErrorKind, LazySession, RedisSessionLayer, Session, SessionError};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use tower::{Layer, Service, ServiceExt, service_fn};

type Body = Full<bytes::Bytes>;

fn request(cookie: Option<&str>) -> Request<()> {
    let mut request = Request::new(());
    if let Some(cookie) = cookie {
        request
            .headers_mut()
            .insert(header::COOKIE, cookie.parse().expect("a header value"));
    }
    request
}

fn cookie(response: &Response<Body>) -> Option<String> {
    let line = response
        .headers()
        .get(header::SET_COOKIE)?
        .to_str()
        .expect("text");
    line.split(';').next().map(str::to_owned)
}

async fn count(request: Request<()>) -> Result<Response<Body>, Infallible> {
    let counted = async {
        let session = LazySession::from_extensions(request.extensions())?
            .load()
            .await?;
        session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)
    };
    Ok(match counted.await {
        Ok(visits) => Response::new(Body::from(visits.to_string())),
        Err(error) => Response::builder()
            .status(error.status())
            .body(Body::from(error.to_string()))
            .expect("a response"),
    })
}

async fn body(response: Response<Body>) -> String {
    use http_body_util::BodyExt;
    let bytes = response
        .into_body()
        .collect()
        .await
        .expect("a body in memory")
        .to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[tokio::test]
async fn a_plain_service_can_load_the_session() {
    let service = RedisSessionLayer::in_memory().layer(service_fn(count));
    let first = service
        .clone()
        .oneshot(request(None))
        .await
        .expect("infallible");
    let cookie = cookie(&first).expect("a cookie");
    assert_eq!(body(first).await, "1");
    let second = service
        .oneshot(request(Some(&cookie)))
        .await
        .expect("infallible");
    assert_eq!(second.headers().get(header::SET_COOKIE), None);
    assert_eq!(body(second).await, "2");
}

#[tokio::test]
async fn eager_load_puts_the_session_into_the_extensions() {
    let service = RedisSessionLayer::in_memory()
        .with_eager_load()
        .layer(service_fn(|request: Request<()>| async move {
            let session = request
                .extensions()
                .get::<Session>()
                .expect("loaded eagerly");
            session.insert("seen", true)?;
            Ok::<_, SessionError>(Response::new(String::new()))
        }));
    let response = service.oneshot(request(None)).await.expect("saved");
    assert!(response.headers().contains_key(header::SET_COOKIE));
    assert_eq!(response.headers()[header::VARY], "Cookie");
}

#[tokio::test]
async fn the_service_that_was_polled_ready_is_called() {
    /// Panics when a clone is called that was not polled ready, as a concurrency limit may.
    #[derive(Default)]
    struct Picky {
        ready: bool,
    }

    impl Clone for Picky {
        fn clone(&self) -> Self {
            Self { ready: false }
        }
    }

    impl Service<Request<()>> for Picky {
        type Response = Response<String>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), Infallible>> {
            self.ready = true;
            std::task::Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            assert!(self.ready, "called without being ready");
            std::future::ready(Ok(Response::default()))
        }
    }

    for layer in [
        RedisSessionLayer::in_memory(),
        RedisSessionLayer::in_memory().with_eager_load(),
    ] {
        let response = layer.layer(Picky::default()).oneshot(request(None)).await;
        assert_eq!(response.expect("infallible").status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn concurrent_loads_of_a_request_share_one_session() {
    let service =
        RedisSessionLayer::in_memory().layer(service_fn(|request: Request<()>| async move {
            let lazy = LazySession::from_extensions(request.extensions()).expect("the layer");
            assert!(lazy.loaded().is_none());
            let (one, two) = tokio::join!(lazy.load(), lazy.load());
            one.expect("loaded").insert("a", 1).expect("a number");
            let two = two.expect("loaded").get::<u32>("a");
            Ok::<_, Infallible>(Response::new(format!("{two:?}")))
        }));
    let response = service.oneshot(request(None)).await.expect("infallible");
    assert_eq!(response.into_body(), "Ok(Some(1))");
}

#[tokio::test]
async fn a_plain_service_reports_a_missing_layer() {
    let error = LazySession::from_extensions(request(None).extensions()).expect_err("no layer");
    assert_eq!(error.kind(), ErrorKind::MissingLayer);
    assert!(
        error
            .to_string()
            .contains(".layer(RedisSessionLayer::new(client))"),
        "{error}"
    );
}

#[tokio::test]
async fn a_service_that_fails_saves_nothing() {
    let layer = RedisSessionLayer::in_memory();
    let failing = layer
        .clone()
        .layer(service_fn(|request: Request<()>| async move {
            let session = LazySession::from_extensions(request.extensions())?
                .load()
                .await?;
            session.insert("a", 1)?;
            Err::<Response<String>, SessionError>(
                session.get::<String>("a").expect_err("a number is no text"),
            )
        }));
    let error = failing.oneshot(request(None)).await.expect_err("failed");
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert_eq!(layer.stats().commits, 0);
}

#[tokio::test]
async fn the_layer_applied_twice_acts_once() {
    let inner = RedisSessionLayer::in_memory();
    let outer = RedisSessionLayer::in_memory();
    let service = outer.layer(inner.layer(service_fn(count)));
    let response = service.oneshot(request(None)).await.expect("infallible");
    assert_eq!(
        response
            .headers()
            .get_all(header::SET_COOKIE)
            .iter()
            .count(),
        1
    );
    assert_eq!((outer.stats().commits, inner.stats().commits), (1, 0));
}

#[test]
fn a_layer_can_be_built_outside_a_runtime() {
    fn is_shareable<T: Clone + Send + Sync + 'static>(_: &T) {}
    let client = redis::Client::open("redis://127.0.0.1:1/").expect("an address");
    is_shareable(&RedisSessionLayer::new(client));
    is_shareable(&RedisSessionLayer::default());
}
