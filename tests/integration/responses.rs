//! Response headers that the layer adds, and error responses.

use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode, header},
    middleware::{self, Next},
    response::IntoResponse,
    routing::get,
};
use axum_redis_sessions::{ErrorKind, LazySession, RedisSessionLayer, Session, SessionError};

use crate::{
    client::{begin, on_each_store, send, set_cookie, text},
    visits::{app, visits},
};

#[tokio::test]
async fn a_response_that_uses_the_session_varies_by_cookie() {
    on_each_store(|layer| async {
        let app = app(layer);
        let cookie = begin(&app, "/").await;
        for (path, cookie, vary, cache_control) in [
            ("/untouched", Some(&cookie), None, None),
            ("/lazy", Some(&cookie), None, None),
            ("/look", Some(&cookie), Some("Cookie"), None),
            ("/look", None, Some("Cookie"), None),
            ("/only-if", None, Some("Cookie"), None),
            ("/", None, Some("Cookie"), Some("no-store")),
            ("/", Some(&cookie), Some("Cookie"), None),
            ("/clear", Some(&cookie), Some("Cookie"), Some("no-store")),
        ] {
            let response = send(&app, path, cookie.map(String::as_str)).await;
            let header = |name| {
                response
                    .headers()
                    .get(name)
                    .map(|value| value.to_str().expect("text"))
            };
            assert_eq!(header(header::VARY), vary, "{path}");
            assert_eq!(header(header::CACHE_CONTROL), cache_control, "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_vary_header_of_the_handler_is_kept() {
    async fn with(session: Session, vary: &'static str) -> impl IntoResponse {
        session.insert("a", 1).expect("a number");
        ([(header::VARY, vary)], "")
    }
    let app = Router::new()
        .route("/other", get(|session| with(session, "Accept-Encoding")))
        .route("/same", get(|session| with(session, "accept, COOKIE")))
        .route("/all", get(|session| with(session, "*")))
        .layer(RedisSessionLayer::in_memory());
    for (path, expected) in [
        ("/other", vec!["Accept-Encoding", "Cookie"]),
        ("/same", vec!["accept, COOKIE"]),
        ("/all", vec!["*"]),
    ] {
        let response = send(&app, path, None).await;
        let vary: Vec<_> = response
            .headers()
            .get_all(header::VARY)
            .iter()
            .map(|value| value.to_str().expect("text"))
            .collect();
        assert_eq!(vary, expected, "{path}");
        assert!(response.headers().contains_key(header::SET_COOKIE));
    }
}

#[tokio::test]
async fn a_missing_layer_is_an_error_that_says_so() {
    for handler in [
        get(visits),
        get(|_: Option<Session>| async {}),
        get(|_: LazySession| async {}),
    ] {
        let response = send(&Router::new().route("/", handler), "/", None).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(
            text(response)
                .await
                .contains("add `.layer(RedisSessionLayer::new(client))` to the router")
        );
    }
}

#[tokio::test]
async fn what_was_added_after_the_layer_is_named_by_the_error() {
    async fn visit(session: Session) -> Result<(), SessionError> {
        session.insert("visits", 1)
    }
    async fn count(_: Session, request: Request<Body>, next: Next) -> Response<Body> {
        next.run(request).await
    }
    let layered = || {
        Router::new()
            .route("/", get(visit))
            .layer(RedisSessionLayer::in_memory())
    };
    let late = || Router::new().route("/late", get(visit));
    for (name, app, path) in [
        (
            "a middleware",
            layered().layer(middleware::from_fn(count)),
            "/",
        ),
        ("a fallback", layered().fallback(visit), "/unknown"),
        ("a route", layered().merge(late()), "/late"),
        (
            "a nested router",
            layered().nest("/nested", late()),
            "/nested/late",
        ),
    ] {
        let response = send(&app, path, None).await;
        assert_eq!(
            response.status(),
            StatusCode::INTERNAL_SERVER_ERROR,
            "{name}"
        );
        let text = text(response).await;
        for case in [
            "a middleware that was added after it",
            "a route or fallback that was added after it",
        ] {
            assert!(text.contains(case), "{name}: {text}");
        }
    }
    // The same, added before.
    let app = Router::new()
        .route("/", get(visit))
        .merge(late())
        .fallback(visit)
        .layer(middleware::from_fn(count))
        .layer(RedisSessionLayer::in_memory());
    for path in ["/", "/late", "/unknown"] {
        assert_eq!(
            send(&app, path, None).await.status(),
            StatusCode::OK,
            "{path}"
        );
    }
}

#[tokio::test]
async fn with_error_response_shapes_every_error() {
    async fn wrong_type(session: Session) -> Result<(), SessionError> {
        session.insert("name", "Zoë")?;
        session.get::<u64>("name").map(drop)
    }
    async fn too_large(session: Session) -> Result<(), SessionError> {
        session.insert("large", "x".repeat(1000))
    }
    let layer = RedisSessionLayer::in_memory().with_max_size(500);
    let shaped = layer.clone().with_error_response(|error, _| {
        Response::builder()
            .status(StatusCode::IM_A_TEAPOT)
            .header("x-kind", format!("{:?}", error.kind()))
            .body("shaped".to_owned())
            .expect("a response")
    });
    for (handler, kind, needle) in [
        (get(wrong_type), ErrorKind::Decode, "\"name\" is not a u64"),
        (
            get(too_large),
            ErrorKind::TooLarge,
            "with_max_size allows 500",
        ),
    ] {
        let app = Router::new().route("/", handler);
        let plain = send(&app.clone().layer(layer.clone()), "/", None).await;
        assert_eq!(plain.status(), StatusCode::INTERNAL_SERVER_ERROR);
        // What the handler inserted before it failed is not saved.
        assert_eq!(set_cookie(&plain), None);
        let plain = text(plain).await;
        assert!(plain.contains(needle), "{plain}");
        assert!(!plain.contains("Zoë") && !plain.contains("xxx"), "{plain}");
        let shaped = send(&app.layer(shaped.clone()), "/", None).await;
        assert_eq!(shaped.status(), StatusCode::IM_A_TEAPOT);
        assert_eq!(shaped.headers()["x-kind"], format!("{kind:?}"));
        assert_eq!(text(shaped).await, "shaped");
    }
}

#[tokio::test]
async fn a_panic_saves_nothing_and_later_requests_succeed() {
    let layer = RedisSessionLayer::in_memory();
    let app = app(layer.clone()).merge(
        Router::new()
            .route(
                "/panic",
                get(|session: Session| async move {
                    session.insert("visits", 99).expect("a number");
                    assert!(session.is_empty(), "on purpose");
                }),
            )
            .layer(layer),
    );
    let cookie = begin(&app, "/").await;
    let panicking = tokio::spawn({
        let (app, cookie) = (app.clone(), cookie.clone());
        async move { send(&app, "/panic", Some(&cookie)).await }
    });
    assert!(panicking.await.expect_err("a panic").is_panic());
    assert_eq!(text(send(&app, "/", Some(&cookie)).await).await, "2");
}
