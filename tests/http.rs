//! What a browser sees of a session: on the embedded store and on a real server alike.

mod support;

use std::time::Duration;

use axum::{
    Extension, Router,
    body::{Body, to_bytes},
    extract::Query,
    http::{Request, Response, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use axum_redis_sessions::{
    ErrorKind, LazySession, RedisSessionLayer, Section, Session, SessionError, SessionId,
};
use serde::{Deserialize, Serialize};
use support::server::Server;
use tower::ServiceExt;

/// Runs `test` on each store, with a layer of its own.
async fn on_each_store<F: Future<Output = ()>>(test: impl Fn(RedisSessionLayer) -> F) {
    test(RedisSessionLayer::in_memory()).await;
    let server = Server::start().await;
    test(RedisSessionLayer::new(server.client())).await;
    test(
        RedisSessionLayer::new(server.client())
            .with_prefix("lww:")
            .with_last_write_wins(),
    )
    .await;
}

async fn send(app: &Router, path: &str, cookie: Option<&str>) -> Response<Body> {
    let mut request = Request::builder().uri(path);
    if let Some(cookie) = cookie {
        request = request.header(header::COOKIE, cookie);
    }
    app.clone()
        .oneshot(request.body(Body::empty()).expect("a request"))
        .await
        .expect("infallible")
}

fn set_cookie(response: &Response<Body>) -> Option<String> {
    assert!(
        response
            .headers()
            .get_all(header::SET_COOKIE)
            .iter()
            .count()
            <= 1
    );
    Some(
        response
            .headers()
            .get(header::SET_COOKIE)?
            .to_str()
            .expect("text")
            .to_owned(),
    )
}

fn pair(line: &str) -> &str {
    line.split(';').next().expect("a cookie")
}

async fn text(response: Response<Body>) -> String {
    let bytes = to_bytes(response.into_body(), 1 << 20)
        .await
        .expect("a body in memory");
    String::from_utf8(bytes.to_vec()).expect("text")
}

async fn begin(app: &Router, path: &str) -> String {
    let response = send(app, path, None).await;
    assert_eq!(response.status(), StatusCode::OK);
    pair(&set_cookie(&response).expect("a new session")).to_owned()
}

async fn visits(session: Session) -> Result<String, SessionError> {
    session
        .update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)
        .map(|n| n.to_string())
}

async fn look(session: Session) -> Result<String, SessionError> {
    Ok(format!(
        "{:?} {:?}",
        session.keys(),
        session.get::<u64>("visits")?
    ))
}

fn app(layer: RedisSessionLayer) -> Router {
    Router::new()
        .route("/", get(visits))
        .route("/look", get(look))
        .route("/untouched", get(|| async { "hello" }))
        .route("/lazy", get(|_: LazySession| async { "hello" }))
        .route("/only-if", get(|session: Option<Session>| async move { session.is_some().to_string() }))
        .route("/clear", get(|session: Session| async move { session.clear() }))
        .route("/remove", get(|session: Session| async move { session.remove("visits").to_string() }))
        .route("/destroy", get(|session: Session| async move { session.destroy() }))
        .route("/cycle", get(|session: Session| async move { session.cycle_id() }))
        .route(
            "/farewell",
            get(|session: Session| async move {
                session.destroy();
                session.insert("flash", "goodbye")
            }),
        )
        .route(
            "/permanent",
            get(|session: Session, Query(query): Query<std::collections::HashMap<String, bool>>| async move {
                session.set_permanent(query["is"]);
                session.insert("name", "Zoë")
            }),
        )
        .layer(layer)
}

#[tokio::test]
async fn a_session_begins_with_the_first_insert_and_goes_on_from_there() {
    on_each_store(|layer| async {
        let app = app(layer);
        let first = send(&app, "/", None).await;
        let line = set_cookie(&first).expect("a cookie");
        let (name, id) = pair(&line).split_once('=').expect("a pair");
        assert_eq!(name, "__Host-session");
        assert_eq!(id.len(), 36);
        assert_eq!(
            line,
            format!("__Host-session={id}; HttpOnly; SameSite=Lax; Secure; Path=/")
        );
        assert_eq!(text(first).await, "1");
        let second = send(&app, "/", Some(pair(&line))).await;
        assert_eq!(set_cookie(&second), None, "a cookie is sent once");
        assert_eq!(text(second).await, "2");
        assert_eq!(
            text(send(&app, "/look", Some(pair(&line))).await).await,
            r#"["visits"] Some(2)"#
        );
    })
    .await;
}

#[tokio::test]
async fn a_visitor_who_stores_nothing_gets_nothing() {
    on_each_store(|layer| async {
        let app = app(layer);
        for path in [
            "/look",
            "/clear",
            "/remove",
            "/destroy",
            "/cycle",
            "/only-if",
            "/untouched",
            "/lazy",
        ] {
            assert_eq!(set_cookie(&send(&app, path, None).await), None, "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_that_becomes_empty_is_deleted_with_its_cookie() {
    on_each_store(|layer| async {
        let app = app(layer);
        for path in ["/clear", "/remove", "/destroy"] {
            let cookie = begin(&app, "/").await;
            let line = set_cookie(&send(&app, path, Some(&cookie)).await).expect("a removal");
            assert_eq!(
                line,
                "__Host-session=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
                "{path}"
            );
            assert_eq!(text(send(&app, "/only-if", Some(&cookie)).await).await, "false", "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_inserted_after_a_logout_is_another_session() {
    on_each_store(|layer| async {
        let app = app(layer);
        let cookie = begin(&app, "/").await;
        let line = set_cookie(&send(&app, "/farewell", Some(&cookie)).await).expect("a new cookie");
        assert_ne!(pair(&line), cookie);
        assert_eq!(
            text(send(&app, "/look", Some(pair(&line))).await).await,
            r#"["flash"] None"#
        );
        assert_eq!(
            text(send(&app, "/only-if", Some(&cookie)).await).await,
            "false"
        );
    })
    .await;
}

#[tokio::test]
async fn a_new_id_keeps_the_data_and_retires_the_old_id() {
    on_each_store(|layer| async {
        let app = app(layer);
        let old = begin(&app, "/").await;
        let line = set_cookie(&send(&app, "/cycle", Some(&old)).await).expect("a new id");
        let new = pair(&line);
        assert_ne!(new, old);
        assert_eq!(
            text(send(&app, "/look", Some(new)).await).await,
            r#"["visits"] Some(1)"#
        );
        // A straggler with the old cookie.
        for path in ["/look", "/", "/clear", "/destroy"] {
            let straggler = send(&app, path, Some(&old)).await;
            assert_eq!(
                (straggler.status(), set_cookie(&straggler)),
                (StatusCode::OK, None),
                "{path}"
            );
        }
        assert_eq!(text(send(&app, "/look", Some(&old)).await).await, "[] None");
        assert_eq!(
            text(send(&app, "/look", Some(new)).await).await,
            r#"["visits"] Some(1)"#
        );
    })
    .await;
}

#[tokio::test]
async fn a_permanent_session_outlives_the_browser_until_told_otherwise() {
    on_each_store(|layer| async {
        let app = app(layer.with_permanent_lifetime(Duration::from_secs(1000)));
        let line = set_cookie(&send(&app, "/permanent?is=true", None).await).expect("a cookie");
        let cookie = pair(&line);
        assert!(line.ends_with("; Path=/; Max-Age=1000"), "{line}");
        assert_eq!(
            set_cookie(&send(&app, "/permanent?is=true", Some(cookie)).await),
            None,
            "sent a moment ago"
        );
        let line = set_cookie(&send(&app, "/permanent?is=false", Some(cookie)).await)
            .expect("the same id without Max-Age");
        assert_eq!((pair(&line), line.contains("Max-Age")), (cookie, false));
        assert_eq!(
            set_cookie(&send(&app, "/permanent?is=false", Some(cookie)).await),
            None
        );
    })
    .await;
}

#[tokio::test]
async fn a_session_ends_after_its_idle_timeout_and_its_use_prolongs_it() {
    // Long enough for a slow moment of a busy machine between two requests.
    const IDLE: Duration = Duration::from_millis(1500);
    on_each_store(|layer| async {
        let app = app(layer.with_idle_timeout(IDLE));
        let cookie = begin(&app, "/").await;
        let begun = std::time::Instant::now();
        while begun.elapsed() < IDLE + IDLE / 2 {
            let seen = text(send(&app, "/look", Some(&cookie)).await).await;
            assert_eq!(seen, r#"["visits"] Some(1)"#, "after {:?}", begun.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // To look is to prolong, so nobody looks for longer than it lives.
        tokio::time::sleep(IDLE + Duration::from_millis(200)).await;
        let seen = send(&app, "/only-if", Some(&cookie)).await;
        assert_eq!(text(seen).await, "false");
    })
    .await;
}

#[tokio::test]
async fn a_response_that_depends_on_the_session_says_so_to_caches() {
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
async fn the_handlers_own_vary_and_cache_control_are_kept() {
    async fn with(session: Session, vary: &'static str) -> impl IntoResponse {
        session.insert("a", 1).expect("a number");
        (
            [(header::VARY, vary), (header::CACHE_CONTROL, "private")],
            "",
        )
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
        assert_eq!(response.headers()[header::CACHE_CONTROL], "private");
        assert!(response.headers().contains_key(header::SET_COOKIE));
    }
}

#[tokio::test]
async fn a_clients_unknown_id_is_never_adopted() {
    on_each_store(|layer| async {
        let app = app(layer);
        let unknown = "__Host-session=5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e";
        let looked = send(&app, "/look", Some(unknown)).await;
        assert_eq!(
            (set_cookie(&looked), text(looked).await),
            (None, "[] None".to_owned())
        );
        let line = set_cookie(&send(&app, "/", Some(unknown)).await).expect("an id of our own");
        assert_ne!(pair(&line), unknown);
        assert_eq!(
            text(send(&app, "/only-if", Some(unknown)).await).await,
            "false"
        );
        let in_the_query = format!("/only-if?{}", pair(&line));
        assert_eq!(text(send(&app, &in_the_query, None).await).await, "false");
    })
    .await;
}

#[tokio::test]
async fn nested_routers_share_the_outer_session() {
    let nested = Router::new()
        .route("/visits", get(visits))
        .layer(RedisSessionLayer::in_memory());
    let app = Router::new()
        .route("/", get(visits))
        .nest("/nested", nested)
        .layer(RedisSessionLayer::in_memory());
    let cookie = begin(&app, "/nested/visits").await;
    assert_eq!(text(send(&app, "/", Some(&cookie)).await).await, "2");
    assert_eq!(
        text(send(&app, "/nested/visits", Some(&cookie)).await).await,
        "3"
    );
}

#[tokio::test]
async fn a_middleware_and_the_handler_see_one_session() {
    async fn middleware(
        session: Session,
        request: axum::extract::Request,
        next: axum::middleware::Next,
    ) -> impl IntoResponse {
        session.insert("from", "middleware").expect("text");
        let response = next.run(request).await;
        assert_eq!(session.get::<u64>("visits").expect("a number"), Some(1));
        response
    }
    let app = Router::new()
        .route("/", get(visits))
        .route("/look", get(look))
        .layer(axum::middleware::from_fn(middleware))
        .layer(RedisSessionLayer::in_memory());
    let cookie = begin(&app, "/").await;
    assert_eq!(
        text(send(&app, "/look", Some(&cookie)).await).await,
        r#"["from", "visits"] Some(1)"#
    );
}

#[tokio::test]
async fn an_eager_layer_serves_extension_session() {
    on_each_store(|layer| async {
        let app = Router::new()
            .route(
                "/",
                get(|Extension(session): Extension<Session>| visits(session)),
            )
            .layer(layer.with_eager_load());
        let cookie = begin(&app, "/").await;
        assert_eq!(text(send(&app, "/", Some(&cookie)).await).await, "2");
    })
    .await;
}

#[tokio::test]
async fn a_route_without_the_layer_says_what_is_missing() {
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
                .contains("put `.layer(RedisSessionLayer::new(client))` on the router")
        );
    }
}

#[tokio::test]
async fn the_app_shapes_every_error_response() {
    async fn wrong_type(session: Session) -> Result<(), SessionError> {
        session.insert("name", "Zoë")?;
        session.get::<u64>("name").map(drop)
    }
    async fn too_large(session: Session) -> Result<(), SessionError> {
        session.insert("large", "x".repeat(1000))
    }
    let layer = RedisSessionLayer::in_memory().with_max_size(500);
    let shaped = layer.clone().with_error_response(|error| {
        Response::builder()
            .status(StatusCode::IM_A_TEAPOT)
            .header("x-kind", format!("{:?}", error.kind()))
            .body("shaped".to_owned())
            .expect("a response")
    });
    for (handler, kind, needle) in [
        (get(wrong_type), ErrorKind::Decode, "\"name\" is not a u64"),
        (get(too_large), ErrorKind::TooLarge, "500 are allowed"),
    ] {
        let app = Router::new().route("/", handler);
        let plain = send(&app.clone().layer(layer.clone()), "/", None).await;
        assert_eq!(plain.status(), StatusCode::INTERNAL_SERVER_ERROR);
        // What was inserted before the handler failed is kept, if it can be.
        assert_eq!(set_cookie(&plain).is_some(), kind == ErrorKind::Decode);
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
async fn a_panicking_handler_saves_nothing_and_harms_no_one() {
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

#[tokio::test]
async fn an_own_id_generator_is_used_and_a_broken_one_is_an_error() {
    on_each_store(|layer| async {
        let app = app(layer
            .clone()
            .with_id_generator(|| SessionId::from_bytes([0xab; 16])));
        assert_eq!(
            begin(&app, "/").await,
            "__Host-session=abababab-abab-abab-abab-abababababab"
        );
        let again = send(&app, "/", None).await;
        assert_eq!(
            (again.status(), set_cookie(&again)),
            (StatusCode::INTERNAL_SERVER_ERROR, None),
            "the same id again"
        );
        let zeros = self::app(layer.with_id_generator(|| SessionId::from_bytes([0; 16])));
        assert_eq!(
            send(&zeros, "/", None).await.status(),
            StatusCode::INTERNAL_SERVER_ERROR
        );
    })
    .await;
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Cart {
    items: Vec<u32>,
}

impl Section for Cart {
    const KEY: &'static str = "cart";
}

#[tokio::test]
async fn a_session_is_a_map_with_typed_values() {
    async fn all(session: Session) -> Result<(), SessionError> {
        assert!(session.is_empty());
        assert_eq!(session.id(), None);
        session.insert("name", "Zoë")?;
        session.insert("big", u64::MAX)?;
        session.insert("nothing", None::<u8>)?;
        assert_eq!(
            (
                session.len(),
                session.contains_key("name"),
                session.contains_key("other")
            ),
            (3, true, false)
        );
        assert_eq!(session.get::<String>("name")?.as_deref(), Some("Zoë"));
        assert_eq!(session.get::<u64>("big")?, Some(u64::MAX));
        assert_eq!(session.get::<Option<u8>>("nothing")?, Some(None));
        assert_eq!(session.get::<u8>("other")?, None);
        assert_eq!(
            session.take::<u8>("name").expect_err("text").kind(),
            ErrorKind::Decode
        );
        assert_eq!(session.take::<String>("name")?.as_deref(), Some("Zoë"));
        assert_eq!(session.take::<String>("name")?, None);
        assert!(session.remove("nothing") && !session.remove("nothing"));
        assert_eq!(session.keys(), ["big"]);

        assert_eq!(session.section::<Cart>()?, None);
        session.set_section(&Cart { items: vec![1] })?;
        let cart = session.update_section(|cart: Option<Cart>| {
            let mut cart = cart.unwrap_or_default();
            cart.items.push(2);
            cart
        })?;
        assert_eq!(cart.items, [1, 2]);
        assert_eq!(session.section::<Cart>()?, Some(cart));
        assert!(session.remove_section::<Cart>());

        for key in ["_rev", "_created", "_permanent", "_user", "_"] {
            assert_eq!(
                session.insert(key, 1).expect_err("reserved").kind(),
                ErrorKind::ReservedKey
            );
            assert_eq!(
                session
                    .update(key, |n: Option<u8>| n.unwrap_or(0))
                    .expect_err("reserved")
                    .kind(),
                ErrorKind::ReservedKey
            );
            assert_eq!(
                (
                    session.get::<u8>(key)?,
                    session.remove(key),
                    session.contains_key(key)
                ),
                (None, false, false)
            );
        }

        session.save().await?;
        let id = session.id().expect("saved");
        assert!(!format!("{session:?} {id:?}").contains(&id.expose_secret()));
        session.clear();
        assert!(session.is_empty());
        session.insert("after", 1)?;
        session.save().await?;
        assert_eq!(
            (session.keys(), session.id()),
            (vec!["after".to_owned()], Some(id))
        );
        Ok(())
    }
    on_each_store(|layer| async {
        let app = Router::new().route("/", get(all)).layer(layer);
        let response = send(&app, "/", None).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(
            set_cookie(&response).is_some(),
            "saved early, and the cookie sent at the end"
        );
    })
    .await;
}
