//! The id changes whenever the user of a session does, and ending one's own session by any way is a `destroy`.

use axum::{
    Router,
    extract::{Path, Request},
    middleware::{Next, from_fn},
    response::Response,
    routing::get,
};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionError, SessionLimit};

use crate::{
    client::{ask, begin_at},
    support::{
        app::{Address, serve},
        server::Server,
    },
    visits,
};

async fn act(session: Session, Path(how): Path<String>) -> Result<(), SessionError> {
    for step in how.split('+') {
        match step {
            "log-in-zoe" => session.log_in("zoe")?,
            "log-in-max" => session.log_in("max")?,
            "set-zoe" => session.set_user("zoe")?,
            "set-max" => session.set_user("max")?,
            "remove-user" => session.remove_user(),
            "clear" => session.clear(),
            "insert" => session.insert("flash", "hello")?,
            "permanent" => session.set_permanent(true),
            "save" => session.save().await?,
            "revoke" => {
                let handle = session.handle().expect("stored");
                let sessions = session.user_sessions().expect("a user");
                sessions.revoke(&handle).await?;
            }
            "revoke-all" => {
                let sessions = session.user_sessions().expect("a user");
                sessions.revoke_all().await?;
            }
            _ => unreachable!("{step}"),
        }
    }
    Ok(())
}

fn routes() -> Router {
    let who = async |session: Session| {
        let user = session.user().unwrap_or_default();
        format!("{user} {:?} {}", session.keys(), session.is_permanent())
    };
    visits::routes()
        .route("/act/{how}", get(act))
        .route("/who", get(who))
}

async fn start(layer: RedisSessionLayer) -> Address {
    serve(routes().layer(layer.with_deadline(visits::PATIENT))).await
}

#[tokio::test]
async fn the_id_changes_with_the_user() {
    let server = Server::start().await;
    for layer in [
        RedisSessionLayer::new(server.client()),
        RedisSessionLayer::new(server.client())
            .with_hashed_keys()
            .with_prefix("hashed:"),
        RedisSessionLayer::new(server.client())
            .with_last_write_wins()
            .with_prefix("lww:"),
        RedisSessionLayer::in_memory(),
    ] {
        let app = start(layer).await;
        for (before, how, changes, user) in [
            ("insert", "log-in-zoe", true, "zoe"),
            ("insert", "set-zoe", true, "zoe"),
            ("insert", "set-zoe+set-zoe", true, "zoe"),
            ("insert", "set-zoe+clear", true, "zoe"),
            ("insert", "set-zoe+save+insert", true, "zoe"),
            ("insert", "remove-user", false, ""),
            ("set-zoe+insert", "log-in-zoe", true, "zoe"),
            ("set-zoe+insert", "set-zoe", false, "zoe"),
            ("set-zoe+insert", "set-zoe+clear", false, "zoe"),
            ("set-zoe+insert", "log-in-max", true, "max"),
            ("set-zoe+insert", "set-max", true, "max"),
            ("set-zoe+insert", "set-max+set-zoe", true, "zoe"),
            ("set-zoe+insert", "remove-user", true, ""),
            ("set-zoe+insert", "remove-user+set-zoe", true, "zoe"),
            ("set-zoe+insert", "remove-user+save+set-max", true, "max"),
        ] {
            // An attacker knows the id from before.
            let known = begin_at(&app, &format!("/act/{before}")).await;
            let reply = ask(&app, &format!("/act/{how}"), &[&known]).await;
            assert_eq!(reply.status, 200, "{how}: {}", reply.body);
            let cookie = reply.cookie();
            assert_eq!(cookie.is_some(), changes, "{before}, then {how}");
            if let Some(new) = &cookie {
                assert_ne!(*new, known, "{before}, then {how}");
                let told = ask(&app, "/who", &[&known]).await.body;
                assert!(told.starts_with(' '), "{before}, then {how}: {told}");
            }
            let told = ask(&app, "/who", &[cookie.as_ref().unwrap_or(&known)])
                .await
                .body;
            let keys = if how.contains("clear") {
                "[]"
            } else {
                "[\"flash\"]"
            };
            assert_eq!(told, format!("{user} {keys} false"), "{before}, then {how}");
        }
    }
}

#[tokio::test]
async fn a_session_without_user_and_data_ends_when_its_user_is_removed() {
    let app = start(RedisSessionLayer::in_memory()).await;
    let cookie = begin_at(&app, "/act/set-zoe").await;
    assert!(
        ask(&app, "/act/remove-user", &[&cookie])
            .await
            .removes_cookie()
    );
    assert_eq!(ask(&app, "/only-if", &[&cookie]).await.body, "false");
}

#[tokio::test]
async fn after_one_has_ended_ones_own_session_inserts_begin_a_new_one() {
    let server = Server::start().await;
    for layer in [
        RedisSessionLayer::new(server.client()),
        RedisSessionLayer::new(server.client())
            .with_hashed_keys()
            .with_prefix("hashed:"),
        RedisSessionLayer::in_memory(),
    ] {
        let app = start(layer).await;
        for how in ["revoke", "revoke-all"] {
            let begin = async || begin_at(&app, "/act/log-in-zoe+permanent+insert").await;
            let [cookie, other] = [begin().await, begin().await];
            let reply = ask(&app, &format!("/act/insert+{how}"), &[&cookie]).await;
            assert!(reply.removes_cookie(), "{how}");
            let others = if how == "revoke" { "true" } else { "false" };
            assert_eq!(ask(&app, "/only-if", &[&other]).await.body, others, "{how}");

            let [cookie, _] = [begin().await, begin().await];
            let reply = ask(&app, &format!("/act/{how}+insert"), &[&cookie]).await;
            let new = reply.cookie().expect("a new session");
            assert_ne!(new, cookie, "{how}");
            assert!(!reply.values("set-cookie")[0].contains("Max-Age"), "{how}");
            assert_eq!(
                ask(&app, "/who", &[&new]).await.body,
                " [\"flash\"] false",
                "{how}"
            );

            // And a login.
            let cookie = begin().await;
            let reply = ask(&app, &format!("/act/{how}+log-in-max"), &[&cookie]).await;
            let new = reply.cookie().expect("a new session");
            assert_eq!(
                ask(&app, "/who", &[&new]).await.body,
                "max [] false",
                "{how}"
            );
            ask(&app, "/act/revoke-all", &[&begin().await]).await;
        }
    }
}

#[tokio::test]
async fn a_login_beyond_the_limit_keeps_its_own_session() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client());
    let layer = layer.with_sessions_per_user(1, SessionLimit::RevokeOldest);
    let app = start(layer).await;
    let first = begin_at(&app, "/act/log-in-zoe").await;
    // The same session again, then another one.
    let again = ask(&app, "/act/log-in-zoe", &[&first])
        .await
        .cookie()
        .expect("an id");
    assert_eq!(ask(&app, "/who", &[&again]).await.body, "zoe [] false");
    let second = begin_at(&app, "/act/log-in-zoe").await;
    assert_eq!(ask(&app, "/who", &[&second]).await.body, "zoe [] false");
    assert_eq!(ask(&app, "/only-if", &[&again]).await.body, "false");
}

/// What a middleware does before a handler with `Option<Session>`.
async fn prepare(session: Session, request: Request, next: Next) -> Result<Response, SessionError> {
    match request.uri().query().unwrap_or_default() {
        "insert" => session.insert("a", 1)?,
        "insert-and-remove" => {
            session.insert("a", 1)?;
            session.remove("a");
        }
        "set-user" => session.set_user("zoe")?,
        "permanent" => session.set_permanent(true),
        "cycle" => session.cycle_id(),
        "clear" => session.clear(),
        "save" => {
            session.insert("a", 1)?;
            session.save().await?;
            session.remove("a");
        }
        "destroy" => session.destroy(),
        "destroy-and-insert" => {
            session.destroy();
            session.insert("a", 1)?;
        }
        _ => {}
    }
    Ok(next.run(request).await)
}

#[tokio::test]
async fn an_optional_session_is_some_if_it_is_stored_or_has_something_in_it() {
    let routes = visits::routes().layer(from_fn(prepare));
    let app = serve(routes.layer(RedisSessionLayer::in_memory())).await;
    for (how, new, stored) in [
        ("nothing", "false", "true"),
        ("insert", "true", "true"),
        ("insert-and-remove", "false", "true"),
        ("set-user", "true", "true"),
        ("permanent", "false", "true"),
        ("cycle", "false", "true"),
        ("clear", "false", "true"),
        ("save", "true", "true"),
        ("destroy", "false", "false"),
        ("destroy-and-insert", "true", "true"),
    ] {
        let path = format!("/only-if?{how}");
        assert_eq!(ask(&app, &path, &[]).await.body, new, "{how}");
        let cookie = begin_at(&app, "/").await;
        assert_eq!(
            ask(&app, &path, &[&cookie]).await.body,
            stored,
            "{how}, stored"
        );
    }
}
