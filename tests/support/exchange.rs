//! Requests to an app without a socket in between, on each store.

// Each test binary uses a part of it. It is no part of `support`, which the crate's own tests include.
#![allow(dead_code, unreachable_pub)]

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Query,
    http::{Request, Response, StatusCode, header},
    routing::get,
};
use axum_redis_sessions::{LazySession, RedisSessionLayer, Session, SessionError};
use tower::ServiceExt;

use crate::support::server::Server;

/// Runs `test` on each store, with a layer of its own.
pub async fn on_each_store<F: Future<Output = ()>>(test: impl Fn(RedisSessionLayer) -> F) {
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

pub async fn send(app: &Router, path: &str, cookie: Option<&str>) -> Response<Body> {
    let mut request = Request::builder().uri(path);
    if let Some(cookie) = cookie {
        request = request.header(header::COOKIE, cookie);
    }
    app.clone()
        .oneshot(request.body(Body::empty()).expect("a request"))
        .await
        .expect("infallible")
}

pub fn set_cookie(response: &Response<Body>) -> Option<String> {
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

pub fn pair(line: &str) -> &str {
    line.split(';').next().expect("a cookie")
}

pub async fn text(response: Response<Body>) -> String {
    let bytes = to_bytes(response.into_body(), 1 << 20)
        .await
        .expect("a body in memory");
    String::from_utf8(bytes.to_vec()).expect("text")
}

pub async fn begin(app: &Router, path: &str) -> String {
    let response = send(app, path, None).await;
    assert_eq!(response.status(), StatusCode::OK);
    pair(&set_cookie(&response).expect("a new session")).to_owned()
}

pub async fn visits(session: Session) -> Result<String, SessionError> {
    session
        .update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)
        .map(|n| n.to_string())
}

pub async fn look(session: Session) -> Result<String, SessionError> {
    Ok(format!(
        "{:?} {:?}",
        session.keys(),
        session.get::<u64>("visits")?
    ))
}

pub fn app(layer: RedisSessionLayer) -> Router {
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
