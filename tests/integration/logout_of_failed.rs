//! `destroy` is carried out although its request has no response of its own: cancelled, timed out, panicked, or ended by an error.

use std::{future::pending, sync::Arc, time::Duration};

use axum::{
    BoxError, Extension, Router,
    body::Body,
    error_handling::HandleErrorLayer,
    extract::{Path, Request},
    http::{Response, StatusCode, header},
    middleware::{Next, from_fn},
    response::IntoResponse,
    routing::get,
};
use axum_redis_sessions::{LazySession, RedisSessionLayer, Session, SessionError};
use tokio::sync::Notify;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn, timeout::TimeoutLayer};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    client::{ask, begin, begin_at, on_each_store},
    support::{app::serve, eventually, server::Server},
    visits::{self, PATIENT},
};

/// How a handler asks for the end of its session. All but the first go on with the session afterwards.
const WAYS: [&str; 5] = ["destroy", "and-insert", "and-log-in", "lazily", "revoke"];

async fn end(lazy: &LazySession, way: &str) -> Result<(), SessionError> {
    if way == "lazily" {
        lazy.destroy();
        return lazy.load().await?.insert("a", 1);
    }
    let session = lazy.load().await?;
    match way {
        "destroy" => session.destroy(),
        "and-insert" => {
            session.destroy();
            session.insert("a", 1)?;
        }
        "and-log-in" => {
            session.destroy();
            session.log_in("zoe")?;
        }
        "revoke" => {
            session.insert("a", 1)?;
            let others = session.user_sessions().expect("a user");
            others.revoke_all().await?;
        }
        _ => unreachable!("{way}"),
    }
    Ok(())
}

async fn handle(
    lazy: LazySession,
    Path((way, how)): Path<(String, String)>,
    Extension(has_ended): Extension<Arc<Notify>>,
) -> Result<(), SessionError> {
    if way == "none" {
        lazy.load().await?.insert("a", 1)?;
    } else {
        end(&lazy, &way).await?;
    }
    assert!(how != "panic", "on purpose");
    has_ended.notify_one();
    pending().await
}

/// With what tells that a handler hangs.
fn routes() -> (Router, Arc<Notify>) {
    let log_in = async |session: Session| session.log_in("zoe");
    let has_ended = Arc::new(Notify::new());
    let routes = visits::routes()
        .route("/log-in", get(log_in))
        .route("/do/{way}/{how}", get(handle))
        .layer(Extension(has_ended.clone()));
    (routes, has_ended)
}

/// Whether a session is stored under the cookie's id.
async fn is_stored(server: &Server, cookie: &str) -> bool {
    let key = cookie.replace("__Host-session=", "session:");
    server.command::<u64>(&["EXISTS", &key]).await == 1
}

#[tokio::test]
async fn a_logout_whose_client_disconnects_is_carried_out() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client()).with_deadline(PATIENT);
    let (routes, has_ended) = routes();
    let app = serve(routes.layer(layer)).await;
    for way in WAYS {
        let cookie = begin_at(&app, "/log-in").await;
        let path = format!("/do/{way}/hang");
        let cookies = [&*cookie];
        tokio::select! {
            reply = ask(&app, &path, &cookies) => panic!("{way}: {}", reply.status),
            () = has_ended.notified() => {}
        }
        eventually(PATIENT, async || !is_stored(&server, &cookie).await).await;
        let reply = ask(&app, "/look", &[&cookie]).await;
        assert_eq!(reply.body, "[] None", "{way}");
    }
    // Nor did what came after the logout begin a session.
    let keys = server.session_keys().await;
    let sessions = keys.iter().filter(|key| !key.contains(":user:"));
    assert_eq!(sessions.count(), 0, "{keys:?}");
}

#[tokio::test]
async fn a_logout_outlives_a_panic_and_a_timeout_outside_of_the_layer() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client()).with_deadline(PATIENT);
    let timed_out = async |_: BoxError| StatusCode::GATEWAY_TIMEOUT;
    let outside = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(timed_out))
        .layer(TimeoutLayer::new(Duration::from_millis(300)));
    // A middleware that gives up by itself.
    let gives_up = async |request: Request, next: Next| {
        let limit = Duration::from_millis(300);
        let response = tokio::time::timeout(limit, next.run(request)).await;
        response.unwrap_or_else(|_| StatusCode::GATEWAY_TIMEOUT.into_response())
    };
    let inside = routes().0.layer(layer);
    for app in [
        inside.clone().layer(outside),
        inside.clone().layer(from_fn(gives_up)),
        inside.layer(CatchPanicLayer::new()),
    ]
    .into_iter()
    .zip(["hang", "hang", "panic"])
    {
        let (app, how) = (serve(app.0).await, app.1);
        for way in WAYS {
            let cookie = begin_at(&app, "/log-in").await;
            // On a busy machine, the time may be over before the handler has begun.
            eventually(PATIENT, async || {
                let reply = ask(&app, &format!("/do/{way}/{how}"), &[&cookie]).await;
                assert!(reply.status >= 500, "{way}, {how}: {}", reply.status);
                !is_stored(&server, &cookie).await
            })
            .await;
        }
        // Without a logout, nothing was changed.
        let cookie = begin_at(&app, "/").await;
        let reply = ask(&app, &format!("/do/none/{how}"), &[&cookie]).await;
        assert!(reply.status >= 500, "{how}: {}", reply.status);
        let look = ask(&app, "/look", &[&cookie]).await.body;
        assert_eq!(look, "[\"visits\"] Some(1)", "{how}");
    }
}

#[tokio::test]
async fn a_logout_is_carried_out_before_the_inner_services_error_is_returned() {
    on_each_store(async |layer| {
        let layer = layer.with_deadline(PATIENT);
        for way in WAYS {
            let mut service = layer.layer(service_fn(async |request: http::Request<String>| {
                let lazy = LazySession::from_extensions(request.extensions())?;
                match request.body().as_str() {
                    "log-in" => lazy.load().await?.log_in("zoe")?,
                    "who" => {
                        let user = lazy.load().await?.user();
                        return Ok(Response::new(user.unwrap_or_default()));
                    }
                    way => {
                        end(&lazy, way).await?;
                        return Err(BoxError::from("the handler failed"));
                    }
                }
                Ok(Response::new(String::new()))
            }));
            let mut call = async |cookie: &str, body: &str| {
                let request = http::Request::builder().header(header::COOKIE, cookie);
                let request = request.body(body.to_owned()).expect("a request");
                service.ready().await.expect("ready").call(request).await
            };
            let begun = call("", "log-in").await.expect("logged in");
            let line = begun.headers()[header::SET_COOKIE].to_str().expect("text");
            let cookie = line.split(';').next().expect("a pair");
            assert_eq!(call(cookie, "who").await.expect("served").body(), "zoe");
            let error = call(cookie, way).await.expect_err("failed");
            assert_eq!(error.to_string(), "the handler failed", "{way}");
            let who = call(cookie, "who").await.expect("served");
            assert_eq!(who.body(), "", "{way}");
        }
    })
    .await;
}

#[tokio::test]
async fn drain_waits_for_a_logout_whose_client_has_disconnected() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client()).with_deadline(PATIENT);
    let (routes, has_ended) = routes();
    let app = routes.layer(layer.clone());
    let cookie = begin(&app, "/log-in").await;
    let request = Request::builder()
        .uri("/do/destroy/hang")
        .header(header::COOKIE, &cookie)
        .body(Body::empty())
        .expect("a request");
    tokio::select! {
        response = app.oneshot(request) => panic!("{response:?}"),
        () = has_ended.notified() => {}
    }
    let drained = tokio::time::timeout(PATIENT, layer.drain()).await;
    drained.expect("it ends");
    assert!(!is_stored(&server, &cookie).await);
}
