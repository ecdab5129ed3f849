//! A request that failed saves nothing, except what it saved or destroyed explicitly.

use std::{future::pending, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, Request},
    http::{Response, StatusCode},
    middleware::{Next, from_fn},
    response::IntoResponse,
    routing::get,
};
use axum_redis_sessions::{LazySession, RedisSessionLayer, Session, SessionError};
use tower::ServiceBuilder;
use tower_http::{
    catch_panic::CatchPanicLayer, map_response_body::MapResponseBodyLayer, timeout::TimeoutLayer,
};

use crate::{
    client::{Reply, ask, begin_at},
    support::{
        app::{Address, serve},
        server::Server,
    },
    visits,
};

/// What a handler does before it fails. `name` is a text in each stored session.
async fn change(session: &Session, what: &str) -> Result<(), SessionError> {
    session.insert("a", 1)?;
    match what {
        "insert" => {}
        "update" => drop(session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?),
        "log-in" => session.log_in("zoe")?,
        "set-user" => session.set_user("zoe")?,
        "cycle" => session.cycle_id(),
        "permanent" => session.set_permanent(true),
        "clear" => session.clear(),
        "save" => {
            session.save().await?;
            session.insert("b", 2)?;
        }
        "log-in-and-save" => {
            session.log_in("zoe")?;
            session.save().await?;
            session.cycle_id();
        }
        "destroy" => session.destroy(),
        "destroy-and-insert" => {
            session.destroy();
            session.insert("flash", "goodbye")?;
        }
        _ => unreachable!("{what}"),
    }
    Ok(())
}

async fn fail(how: &str) -> Result<Response<Body>, SessionError> {
    let status = match how {
        "500" => StatusCode::INTERNAL_SERVER_ERROR,
        "502" => StatusCode::BAD_GATEWAY,
        "408" => StatusCode::REQUEST_TIMEOUT,
        "404" => StatusCode::NOT_FOUND,
        "panic" => panic!("on purpose"),
        "hang" => pending().await,
        _ => unreachable!("{how}"),
    };
    Ok(status.into_response())
}

async fn handle(
    session: Session,
    Path((what, how)): Path<(String, String)>,
) -> Result<Response<Body>, SessionError> {
    change(&session, &what).await?;
    if how == "error" {
        session.insert("name", "a text")?;
        session.get::<u64>("name")?;
    }
    fail(&how).await
}

/// Holds no `Session` while it panics.
async fn handle_lazily(
    lazy: LazySession,
    Path((what, how)): Path<(String, String)>,
) -> Result<Response<Body>, SessionError> {
    change(&lazy.load().await?, &what).await?;
    fail(&how).await
}

fn routes() -> Router {
    let who = async |session: Session| session.user().unwrap_or_default();
    visits::routes()
        .route("/who", get(who))
        .route("/do/{what}/{how}", get(handle))
        .route("/lazily/{what}/{how}", get(handle_lazily))
}

/// Where the panic becomes a response, and what a handler that hangs becomes.
async fn serve_with(layer: RedisSessionLayer, caught: StatusCode, timeout: StatusCode) -> Address {
    let catch = CatchPanicLayer::custom(move |_: Box<dyn std::any::Any + Send>| {
        let response = Response::builder().status(caught);
        response.body(Body::from("caught")).expect("a response")
    });
    let timeout = TimeoutLayer::with_status_code(timeout, Duration::from_millis(500));
    let hangs = Router::new().route("/hang/{what}/{how}", get(handle));
    let inside = ServiceBuilder::new()
        .layer(layer.with_deadline(visits::PATIENT))
        .layer(MapResponseBodyLayer::new(Body::new))
        .layer(catch);
    serve(routes().merge(hangs.layer(timeout)).layer(inside)).await
}

const FAILURES: [&str; 7] = [
    "do/{}/500",
    "do/{}/502",
    "do/{}/408",
    "do/{}/error",
    "do/{}/panic",
    "hang/{}/hang",
    "lazily/{}/panic",
];

async fn request(app: &Address, failure: &str, what: &str, cookies: &[&str]) -> Reply {
    ask(app, &format!("/{}", failure.replace("{}", what)), cookies).await
}

async fn stored(server: &Server) -> Vec<String> {
    let mut keys = server.session_keys().await;
    keys.sort();
    let mut values = Vec::new();
    for key in keys {
        if server.command::<String>(&["TYPE", &key]).await == "string" {
            values.push(server.command::<String>(&["GET", &key]).await);
        }
    }
    values
}

#[tokio::test]
async fn a_failed_request_saves_nothing() {
    let server = Server::start().await;
    for (caught, timeout) in [
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            StatusCode::REQUEST_TIMEOUT,
        ),
        (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let app = serve_with(RedisSessionLayer::new(server.client()), caught, timeout).await;
        let cookie = begin_at(&app, "/").await;
        let before = stored(&server).await;
        for failure in FAILURES {
            for what in [
                "insert",
                "update",
                "log-in",
                "set-user",
                "cycle",
                "permanent",
                "clear",
            ] {
                // Each waits for the timeout.
                if failure == "hang/{}/hang" && !["insert", "log-in"].contains(&what) {
                    continue;
                }
                for cookies in [&[][..], &[&*cookie]] {
                    let reply = request(&app, failure, what, cookies).await;
                    let told = format!("{failure}, {what}, {cookies:?}: {}", reply.status);
                    let is_panic = failure.contains("panic");
                    let expected = if is_panic { caught.as_u16() } else { 400 };
                    assert!(reply.status >= expected, "{told}");
                    assert!(reply.values("set-cookie").is_empty(), "{told}");
                    assert_eq!(stored(&server).await, before, "{told}");
                }
            }
        }
        // The session is as good as before.
        assert_eq!(ask(&app, "/visits", &[&cookie]).await.body, "1");
        assert_eq!(ask(&app, "/who", &[&cookie]).await.body, "");
    }
}

#[tokio::test]
async fn what_was_saved_explicitly_before_the_failure_stays() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client());
    let app = serve_with(layer, StatusCode::OK, StatusCode::REQUEST_TIMEOUT).await;
    for failure in FAILURES {
        let begun = request(&app, failure, "save", &[]).await;
        let cookie = begun.cookie().expect("a session was saved");
        let look = ask(&app, "/look", &[&cookie]).await.body;
        assert_eq!(look, r#"["a"] None"#, "{failure}");

        let login = request(&app, failure, "log-in-and-save", &[&cookie]).await;
        let id = login.cookie().expect("a new id was saved");
        assert_eq!(ask(&app, "/who", &[&id]).await.body, "zoe", "{failure}");
        assert_eq!(ask(&app, "/who", &[&cookie]).await.body, "", "{failure}");

        for what in ["destroy", "destroy-and-insert"] {
            let cookie = begin_at(&app, "/").await;
            let before = server.session_keys().await.len();
            let reply = request(&app, failure, what, &[&cookie]).await;
            assert!(reply.removes_cookie(), "{failure}, {what}");
            assert_eq!(
                server.session_keys().await.len(),
                before - 1,
                "{failure}, {what}"
            );
        }
    }
}

#[tokio::test]
async fn the_app_can_set_the_rule() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client());
    let strict = layer
        .clone()
        .with_save_rule(|status| status.is_success() || status.is_redirection());
    let lenient = layer.clone().with_save_rule(|_| true);
    for (layer, failure, saves) in [
        (&layer, "do/{}/404", true),
        (&strict, "do/{}/404", false),
        (&strict, "do/{}/500", false),
        (&lenient, "do/{}/500", true),
        (&lenient, "do/{}/408", true),
        (&lenient, "hang/{}/hang", true),
        // Whatever the rule says of the response that a panic becomes.
        (&lenient, "do/{}/panic", false),
        (&lenient, "lazily/{}/panic", false),
    ] {
        let app = serve_with(layer.clone(), StatusCode::OK, StatusCode::REQUEST_TIMEOUT).await;
        let reply = request(&app, failure, "log-in", &[]).await;
        assert_eq!(
            reply.cookie().is_some(),
            saves,
            "{failure}: {}",
            reply.status
        );
        let destroyed = begin_at(&app, "/").await;
        let reply = request(&app, failure, "destroy", &[&destroyed]).await;
        assert!(reply.removes_cookie(), "{failure}");
    }
}

#[tokio::test]
async fn an_error_in_the_apps_own_form_saves_nothing_whatever_its_status() {
    for status in [StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::SEE_OTHER] {
        let layer = RedisSessionLayer::in_memory().with_error_response(move |_, _| {
            let response = Response::builder().status(status);
            response.body(String::new()).expect("a response")
        });
        let app = serve_with(layer, StatusCode::OK, StatusCode::REQUEST_TIMEOUT).await;
        let cookie = begin_at(&app, "/").await;
        for cookies in [&[][..], &[&*cookie]] {
            let reply = request(&app, "do/{}/error", "log-in", cookies).await;
            assert_eq!((reply.status, reply.cookie()), (status.as_u16(), None));
        }
        assert_eq!(ask(&app, "/who", &[&cookie]).await.body, "");
    }
}

#[tokio::test]
async fn a_panic_in_a_task_or_a_middleware_fails_the_request() {
    // The handler's own task, whose panic becomes a response.
    let spawns = async |request: Request, next: Next| {
        let response = tokio::spawn(next.run(request)).await;
        response.unwrap_or_else(|_| "it went wrong".into_response())
    };
    // A panic after the handler has returned.
    let panics = async |session: Session, request: Request, next: Next| {
        let response = next.run(request).await;
        assert!(session.user().is_none(), "on purpose");
        response
    };
    let layer = RedisSessionLayer::in_memory();
    let log_in = async |session: Session| session.log_in("zoe");
    let app = Router::new()
        .route("/late", get(log_in))
        .layer(from_fn(panics))
        .merge(routes())
        .layer(from_fn(spawns))
        .layer(layer);
    let app = serve(app).await;
    let cookie = begin_at(&app, "/").await;
    for path in ["/late", "/do/log-in/panic", "/lazily/log-in/panic"] {
        for cookies in [&[][..], &[&*cookie]] {
            let reply = ask(&app, path, cookies).await;
            assert_eq!(
                (reply.status, &*reply.body),
                (200, "it went wrong"),
                "{path}"
            );
            assert_eq!(reply.cookie(), None, "{path}");
        }
    }
    assert_eq!(ask(&app, "/who", &[&cookie]).await.body, "");
}
