//! Sessions of other apps that are taken over.

use std::time::Duration;

use axum::{Router, http::HeaderMap, routing::get};
use axum_redis_sessions::{
    LazySession, RedisSessionLayer, Session, SessionError,
    format::{Express, Flask, Migration},
};
use futures_util::future::join_all;

use crate::{
    client::ask,
    support::{
        app::{Address, serve},
        server::Server,
    },
};

const FLASK: &str = "session=BTVKkDcA2ZjsLMC0BGr7vXgE6FomuHvWCJIG0JA2DEE";
const FLASK_KEY: &str = "session:BTVKkDcA2ZjsLMC0BGr7vXgE6FomuHvWCJIG0JA2DEE";
const FLASK_VALUE: &str =
    r#"{"_permanent":true,"user_id":42,"name":"Zoë","count":0,"big":1180591620717411303424}"#;

fn routes(layer: RedisSessionLayer) -> Router {
    let name = async |session: Session| {
        Ok::<_, SessionError>(format!(
            "{:?} {:?}",
            session.get::<String>("name")?,
            session.user()
        ))
    };
    let count = async |session: Session| {
        let count = session.update("count", |n: Option<u64>| n.unwrap_or(0) + 1)?;
        Ok::<_, SessionError>(count.to_string())
    };
    let read = async |session: Session| {
        Ok::<_, SessionError>(session.get::<u64>("count")?.unwrap_or(0).to_string())
    };
    let big = async |session: Session| {
        let big = session.get::<Box<serde_json::value::RawValue>>("big")?;
        Ok::<_, SessionError>(big.map(|big| big.to_string()).unwrap_or_default())
    };
    let devices = async |session: Session| {
        let sessions = session.user_sessions().expect("a user").list().await?;
        Ok::<_, SessionError>(sessions.len().to_string())
    };
    Router::new()
        .route("/name", get(name))
        .route("/count", get(count))
        .route("/read", get(read))
        .route("/big", get(big))
        .route("/devices", get(devices))
        .route("/logout", get(async |session: Session| session.destroy()))
        .route(
            "/logout-unseen",
            get(async |lazy: LazySession| lazy.destroy()),
        )
        .route("/cycle", get(async |session: Session| session.cycle_id()))
        .layer(layer)
}

fn layer(server: &Server) -> RedisSessionLayer {
    let flask = Migration::from(Flask::new()).with_user_at("/user_id");
    RedisSessionLayer::new(server.client())
        .with_deadline(crate::visits::PATIENT)
        .with_migration_from(flask)
}

async fn app(server: &Server) -> Address {
    serve(routes(layer(server))).await
}

async fn set(server: &Server, key: &str, value: &str) {
    let _: () = server.command(&["SET", key, value, "EX", "600"]).await;
}

async fn keys(server: &Server, pattern: &str) -> Vec<String> {
    server.command(&["KEYS", pattern]).await
}

/// Sessions under our own keys: those with the form of a UUID that are no tombstones.
async fn new_sessions(server: &Server) -> usize {
    let all = keys(server, "session:????????-????-????-????-????????????").await;
    all.len()
}

fn new_cookie(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all("set-cookie").iter();
    let lines = lines.map(|line| line.to_str().expect("text"));
    let line = lines.into_iter().find(|line| {
        line.starts_with("__Host-session=") && !line.starts_with("__Host-session=;")
    })?;
    Some(line.split(';').next().expect("a pair").to_owned())
}

#[tokio::test]
async fn an_old_session_goes_on_under_a_new_id() {
    let server = Server::start().await;
    let app = app(&server).await;
    set(&server, FLASK_KEY, FLASK_VALUE).await;
    let reply = ask(&app, "/name", &[FLASK]).await;
    assert_eq!(reply.body, r#"Some("Zoë") Some("42")"#);
    let lines = reply.values("set-cookie");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("Max-Age=2678"), "permanent: {lines:?}");
    assert_eq!(
        lines[1],
        "session=; HttpOnly; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
    );
    assert_eq!(reply.values("cache-control"), ["no-store"]);
    let new = new_cookie(&reply.headers).expect("a new id");
    assert_eq!(ask(&app, "/devices", &[&new]).await.body, "1");
    assert_eq!(
        ask(&app, "/big", &[&new]).await.body,
        "1180591620717411303424"
    );
    assert!(keys(&server, FLASK_KEY).await.is_empty(), "retired");
    let reply = ask(&app, "/name", &[FLASK]).await;
    assert_eq!(reply.body, "None None", "the old cookie is worth nothing");
    assert!(reply.values("set-cookie").is_empty());
    assert_eq!(new_sessions(&server).await, 1);
    let stored: String = server
        .command(&["GET", &new.replace("__Host-session=", "session:")])
        .await;
    assert!(!stored.contains("_moved_from"), "{stored}");
}

#[tokio::test]
async fn parallel_first_requests_make_one_session_and_lose_no_change() {
    let server = Server::start().await;
    let apps = [app(&server).await, app(&server).await];
    for round in 0..5 {
        let key = format!("session:{round}TVKkDcA2ZjsLMC0BGr7vXgE6FomuHvWCJIG0JA2DEE");
        let cookie = key.replace("session:", "session=");
        set(&server, &key, FLASK_VALUE).await;
        let cookies = [cookie.as_str()];
        let requests = (0..20).map(|index| ask(&apps[index % 2], "/count", &cookies));
        let replies = join_all(requests).await;
        let mut new: Vec<_> = replies
            .iter()
            .map(|reply| {
                assert_eq!(reply.status, 200, "{}", reply.body);
                new_cookie(&reply.headers).expect("each response has the new cookie")
            })
            .collect();
        new.sort_unstable();
        new.dedup();
        assert_eq!(new.len(), 1, "one session");
        assert_eq!(ask(&apps[0], "/read", &[&new[0]]).await.body, "20");
    }
    assert_eq!(new_sessions(&server).await, 5);
}

#[tokio::test]
async fn a_lost_first_response_logs_nobody_out() {
    let server = Server::start().await;
    let app = app(&server).await;
    set(&server, FLASK_KEY, FLASK_VALUE).await;
    let first = ask(&app, "/count", &[FLASK]).await;
    let again = ask(&app, "/count", &[FLASK]).await;
    assert_eq!(again.body, "2");
    assert_eq!(new_cookie(&first.headers), new_cookie(&again.headers));
    assert_eq!(
        again.values("set-cookie").len(),
        2,
        "the old cookie is removed again"
    );
}

#[tokio::test]
async fn a_logout_during_the_move_is_not_undone() {
    let server = Server::start().await;
    let app = app(&server).await;
    for round in 0..10 {
        let key = format!("session:{round}TVKkDcA2ZjsLMC0BGr7vXgE6FomuHvWCJIG0JA2DEE");
        let cookie = key.replace("session:", "session=");
        set(&server, &key, FLASK_VALUE).await;
        let cookies = [cookie.as_str()];
        let paths = ["/count", "/logout", "/count", "/name", "/count"];
        // A logout without a load finds the session wherever it is.
        let paths = paths.map(|path| match (path, round % 2) {
            ("/logout", 1) => "/logout-unseen",
            (path, _) => path,
        });
        join_all(paths.map(|path| ask(&app, path, &cookies))).await;
        let after = ask(&app, "/name", &cookies).await;
        assert_eq!(after.body, "None None", "round {round}");
        assert_eq!(ask(&app, "/read", &cookies).await.body, "0");
    }
}

#[tokio::test]
async fn a_logout_without_a_load_ends_the_old_session() {
    let server = Server::start().await;
    let app = app(&server).await;
    set(&server, FLASK_KEY, FLASK_VALUE).await;
    let reply = ask(&app, "/logout-unseen", &[FLASK]).await;
    let lines = reply.values("set-cookie");
    assert!(
        lines.len() == 2 && lines.iter().all(|line| line.contains("Max-Age=0")),
        "{lines:?}"
    );
    assert!(keys(&server, "session:*").await.is_empty());
    set(&server, FLASK_KEY, FLASK_VALUE).await;
    ask(&app, "/name", &[FLASK]).await;
    ask(&app, "/logout-unseen", &[FLASK]).await;
    assert_eq!(new_sessions(&server).await, 0, "also where it is by now");
    assert!(keys(&server, FLASK_KEY).await.is_empty());
}

#[tokio::test]
async fn the_old_cookie_is_removed_with_its_own_attributes() {
    let server = Server::start().await;
    let secret = "keyboard cat";
    let express = Migration::from(Express::new(["new cat", secret]))
        .with_cookie_name("sid")
        .with_cookie_domain("example.com")
        .with_cookie_path("/app")
        .with_prefix("shop:")
        .with_user_at("/passport/user");
    let layer = RedisSessionLayer::new(server.client()).with_migration_from(express);
    let app = serve(routes(layer)).await;
    let cookie =
        "sid=s%3AkYBTlFg8nfjpd_XUHJJLIufS2K-ZMxlC.QG6YgyCLCWQETY%2F2xPyf7mz9j7PPVGkA8HnY%2BYB3J14";
    let value = r#"{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"user_id":42,"name":"Zoë","passport":{"user":7}}"#;
    set(&server, "shop:kYBTlFg8nfjpd_XUHJJLIufS2K-ZMxlC", value).await;
    let forged = cookie.replace("kYB", "xYB");
    set(&server, "shop:xYBTlFg8nfjpd_XUHJJLIufS2K-ZMxlC", value).await;
    assert_eq!(ask(&app, "/name", &[&forged]).await.body, "None None");
    let reply = ask(&app, "/name", &[cookie]).await;
    assert_eq!(reply.body, r#"Some("Zoë") Some("7")"#);
    let lines = reply.values("set-cookie");
    assert!(
        !lines[0].contains("Max-Age"),
        "ends with the browser: {lines:?}"
    );
    assert_eq!(
        lines[1],
        "sid=; HttpOnly; Path=/app; Domain=example.com; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
    );
}

/// The predecessor's world: the same cookie name, the same prefix, ids of the same form, pickles.
#[tokio::test]
async fn the_same_cookie_and_key_are_no_obstacle() {
    let server = Server::start().await;
    let layer = layer(&server)
        .with_secure(false)
        .with_cookie_name("session");
    let stats = layer.clone();
    let app = serve(routes(layer)).await;
    let id = "5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e";
    let cookie = format!("session={id}");
    // {'user_id': 42, 'name': 'Zoë'}
    let pickle = b"\x80\x04}\x94(\x8c\x07user_id\x94K*\x8c\x04name\x94\x8c\x04Zo\xc3\xab\x94u.";
    let mut connection = server.connection().await;
    let _: () = redis::cmd("SET")
        .arg(format!("session:{id}"))
        .arg(pickle)
        .query_async(&mut connection)
        .await
        .expect("stored");
    let cookies = [cookie.as_str()];
    let replies = join_all((0..10).map(|_| ask(&app, "/count", &cookies))).await;
    let mut new: Vec<_> = replies
        .iter()
        .map(|reply| {
            let lines = reply.values("set-cookie");
            assert_eq!(
                lines.len(),
                1,
                "the new cookie replaces the old one: {lines:?}"
            );
            lines[0].split(';').next().expect("a pair").to_owned()
        })
        .collect();
    new.dedup();
    assert_eq!(new.len(), 1);
    assert_eq!(ask(&app, "/read", &[&new[0]]).await.body, "10");
    assert_eq!(
        ask(&app, "/name", &[&new[0]]).await.body,
        r#"Some("Zoë") Some("42")"#
    );
    assert_eq!(ask(&app, "/name", &cookies).await.body, "None None");
    assert_eq!(stats.stats().unreadable, 0);
    assert_eq!(stats.stats().migrated, 1);
}

#[tokio::test]
async fn an_unreadable_old_session_is_none_and_counted_once() {
    let server = Server::start().await;
    let layer = layer(&server);
    let stats = layer.clone();
    let app = serve(routes(layer)).await;
    for value in ["not a session", "\u{1f}\u{8b}", "{\"a\":1,\"a\":2}", "[1]"] {
        set(&server, FLASK_KEY, value).await;
        let reply = ask(&app, "/name", &[FLASK]).await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (200, "None None"),
            "{value}"
        );
        assert!(reply.values("set-cookie").is_empty());
    }
    assert_eq!(stats.stats().unreadable, 1);
    let stored: String = server.command(&["GET", FLASK_KEY]).await;
    assert_eq!(stored, "[1]", "unchanged");
    let _: () = server.command(&["DEL", FLASK_KEY]).await;
    let _: () = server.command(&["LPUSH", FLASK_KEY, "a"]).await;
    assert_eq!(ask(&app, "/name", &[FLASK]).await.body, "None None");
}

#[tokio::test]
async fn our_own_cookie_wins() {
    let server = Server::start().await;
    let app = app(&server).await;
    let own = ask(&app, "/count", &[]).await;
    let own = new_cookie(&own.headers).expect("a session");
    set(&server, FLASK_KEY, FLASK_VALUE).await;
    let both = format!("{FLASK}; {own}");
    assert_eq!(ask(&app, "/name", &[&both]).await.body, "None None");
    assert_eq!(ask(&app, "/read", &[&both]).await.body, "1");
    let stored: String = server.command(&["GET", FLASK_KEY]).await;
    assert_eq!(stored, FLASK_VALUE);
}

#[tokio::test]
async fn an_outage_is_503_and_loses_nothing() {
    let server = Server::start().await;
    let app = app(&server).await;
    set(&server, FLASK_KEY, FLASK_VALUE).await;
    server.stop();
    let reply = ask(&app, "/name", &[FLASK]).await;
    assert_eq!(reply.status, 503);
    assert!(reply.values("set-cookie").is_empty());
    server.resume();
    crate::support::eventually(Duration::from_secs(20), async || {
        ask(&app, "/name", &[FLASK]).await.body == r#"Some("Zoë") Some("42")"#
    })
    .await;
    assert_eq!(new_sessions(&server).await, 1);
}

#[cfg(feature = "encryption")]
#[tokio::test]
async fn the_pointer_shows_no_id_and_the_new_session_is_encrypted() {
    let server = Server::start().await;
    let layer = layer(&server)
        .with_hashed_keys()
        .with_encryption_keys([[1; 32]])
        .with_encryption_required();
    let app = serve(routes(layer)).await;
    set(&server, FLASK_KEY, FLASK_VALUE).await;
    let reply = ask(&app, "/count", &[FLASK]).await;
    let new = new_cookie(&reply.headers).expect("a new id");
    let id = new.split_once('=').expect("a pair").1;
    for key in keys(&server, "session:*").await {
        if key.contains(":user:") {
            continue;
        }
        let value: Vec<u8> = server.command(&["GET", &key]).await;
        let value = String::from_utf8_lossy(&value);
        assert!(
            !value.contains(id) && !value.contains("Zo"),
            "{key}: {value}"
        );
    }
    assert_eq!(ask(&app, "/count", &[FLASK]).await.body, "2");
    assert_eq!(ask(&app, "/count", &[&new]).await.body, "3");
}

#[test]
fn invalid_settings_are_a_configuration_error() {
    let layer = RedisSessionLayer::in_memory;
    let flask = || Migration::from(Flask::new());
    for (layer, text) in [
        (
            layer().with_migration_from(flask().with_user_at("user_id")),
            "with_user_at",
        ),
        (
            layer().with_migration_from(flask().with_cookie_name("a\nb")),
            "cookie name",
        ),
        (
            layer().with_migration_from(flask().with_cookie_name("")),
            "cookie name",
        ),
        (
            layer().with_migration_from(flask().with_cookie_path("/\r")),
            "Path",
        ),
        (
            layer()
                .with_bearer_token()
                .without_cookie()
                .with_migration_from(flask()),
            "without_cookie",
        ),
    ] {
        let error = layer.validate().expect_err("refused").to_string();
        assert!(error.contains(text), "{error}");
    }
}
