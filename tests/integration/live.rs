//! Sessions that are shared with another framework, whose writes are commands here. The frameworks themselves are in `frameworks`.

use std::time::Duration;

use axum::{Router, extract::Path, routing::get};
use axum_redis_sessions::{
    RedisSessionLayer, Session, SessionError,
    format::{Django, Express, Flask, Migration, Serialization, Sharing},
};
use futures_util::future::join_all;

use crate::{
    client::ask,
    support::{
        app::{Address, serve},
        eventually,
        server::Server,
    },
};

const SOON: Duration = Duration::from_secs(10);

fn routes(layer: RedisSessionLayer) -> Router {
    let show = async |session: Session| {
        let mut keys = session.keys();
        keys.sort();
        format!("{} {:?}", keys.join(" "), session.user())
    };
    let count = async |session: Session| {
        let count = session.update("count", |n: Option<u64>| n.unwrap_or(0) + 1)?;
        Ok::<_, SessionError>(count.to_string())
    };
    let log_in = async |session: Session, Path(user): Path<String>| session.log_in(user);
    let revoke = async |session: Session| {
        let sessions = session.user_sessions().expect("a user");
        let count = sessions.list().await?.len();
        sessions.revoke_all().await?;
        Ok::<_, SessionError>(count.to_string())
    };
    let set = async |session: Session, Path((key, value)): Path<(String, String)>| {
        session.insert(&key, value)
    };
    Router::new()
        .route("/", get(show))
        .route("/count", get(count))
        .route("/set/{key}/{value}", get(set))
        .route("/login/{user}", get(log_in))
        .route("/logout", get(async |session: Session| session.destroy()))
        .route("/clear", get(async |session: Session| session.clear()))
        .route("/cycle", get(async |session: Session| session.cycle_id()))
        .route("/revoke", get(revoke))
        .layer(layer)
}

fn flask() -> Flask {
    Flask::new().with_serialization(Serialization::Json)
}

async fn app(server: &Server, format: impl Into<Sharing>) -> Address {
    serve(routes(layer(server, format))).await
}

fn layer(server: &Server, format: impl Into<Sharing>) -> RedisSessionLayer {
    RedisSessionLayer::new(server.client())
        .with_format(format)
        .with_deadline(crate::visits::PATIENT)
}

/// `name=value`, of the cookie that the response sets.
async fn begin(app: &Address, path: &str) -> String {
    ask(app, path, &[]).await.cookie().expect("a cookie")
}

async fn value(server: &Server, key: &str) -> String {
    let value: Option<String> = server.command(&["GET", key]).await;
    value.unwrap_or_default()
}

fn key(cookie: &str) -> String {
    format!("session:{}", cookie.split_once('=').expect("a pair").1)
}

#[tokio::test]
async fn each_side_reads_what_the_other_wrote() {
    let server = Server::start().await;
    let app = app(&server, Sharing::from(flask()).with_user_at("/_user_id")).await;
    let cookie = begin(&app, "/count").await;
    let (name, id) = cookie.split_once('=').expect("a pair");
    assert_eq!((name, id.len()), ("session", 43));
    let key = key(&cookie);
    let stored = value(&server, &key).await;
    assert!(
        stored.starts_with(r#"{"count":1,"_axum_session":{"rev":""#),
        "{stored}"
    );
    let ttl: u64 = server.command(&["TTL", &key]).await;
    assert!((2_678_390..=2_678_400).contains(&ttl), "31 days: {ttl}");

    // Flask-Login, there.
    let theirs = stored.replacen('{', r#"{"_user_id":"7","_fresh":true,"#, 1);
    server
        .command::<()>(&["SETEX", &key, "1000", &theirs])
        .await;
    let reply = ask(&app, "/", &[&cookie]).await;
    assert_eq!(reply.body, "_fresh _user_id count Some(\"7\")");
    assert_eq!(ask(&app, "/count", &[&cookie]).await.body, "2");
    let stored = value(&server, &key).await;
    assert!(
        stored.starts_with(r#"{"_user_id":"7","_fresh":true,"count":2,"_axum_session":{"#),
        "{stored}"
    );
    // The app may use their keys, but not this crate's.
    ask(&app, "/set/_fresh/no", &[&cookie]).await;
    let stored = value(&server, &key).await;
    assert!(stored.contains(r#""_fresh":"no""#), "{stored}");
    for own in ["_user", "_rev", "_axum_session", "_permanent"] {
        let reply = ask(&app, &format!("/set/{own}/x"), &[&cookie]).await;
        assert_eq!(reply.status, 500, "{own}");
    }

    // Logged out there, and here.
    let anonymous = stored.replace(r#""_user_id":"7","#, "");
    server
        .command::<()>(&["SETEX", &key, "1000", &anonymous])
        .await;
    assert_eq!(ask(&app, "/", &[&cookie]).await.body, "_fresh count None");
    server.command::<()>(&["DEL", &key]).await;
    assert_eq!(ask(&app, "/", &[&cookie]).await.body, " None");
    server
        .command::<()>(&["SETEX", &key, "1000", &theirs])
        .await;
    let reply = ask(&app, "/logout", &[&cookie]).await;
    assert!(reply.removes_cookie());
    assert_eq!(value(&server, &key).await, "");
}

/// Of two versions of this session, the first 26 bytes are equal, and the other side keeps the revision: only the whole value tells them apart.
#[tokio::test]
async fn no_change_of_the_other_app_is_overwritten() {
    let server = Server::start().await;
    let app = app(&server, flask()).await;
    let cookie = begin(&app, "/set/first/a-value-of-more-than-26-bytes").await;
    let key = key(&cookie);
    for round in 1..=20 {
        // The other app writes while requests of this one are under way.
        let theirs = async {
            let stored = value(&server, &key).await;
            let others: usize = stored.matches("\"t-").count();
            let theirs = stored.replacen(
                r#","_axum_session""#,
                &format!(r#","t-{others}":1,"_axum_session""#),
                1,
            );
            // As they would, but only where no request of this app came between: their own race is not what is tested.
            let script = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('SET', KEYS[1], ARGV[2], 'EX', 1000) end return false";
            let set: Option<String> = server
                .command(&["EVAL", script, "1", &key, &stored, &theirs])
                .await;
            usize::from(set.is_some())
        };
        let before = value(&server, &key).await.matches("\"t-").count();
        let ours = join_all((0..5).map(async |_| ask(&app, "/count", &[&cookie]).await));
        let (ours, theirs) = tokio::join!(ours, theirs);
        assert!(ours.iter().all(|reply| reply.status == 200));
        let stored = value(&server, &key).await;
        assert!(
            stored.contains(&format!(r#""count":{}"#, round * 5)),
            "{stored}"
        );
        assert_eq!(stored.matches("\"t-").count(), before + theirs, "{stored}");
    }
}

#[tokio::test]
async fn a_login_leaves_an_anonymous_session_under_the_former_id() {
    let server = Server::start().await;
    let express = Sharing::from(Express::new(["keyboard cat"])).with_user_at("/passport/user");
    let app = app(&server, express).await;
    let former = begin(&app, "/count").await;
    let reply = ask(&app, "/login/42", &[&former]).await;
    let cookie = reply.cookie().expect("a new id");
    assert!(cookie.starts_with("connect.sid=s%3A"), "{cookie}");
    assert_ne!(cookie, former);
    let id = |cookie: &str| cookie["connect.sid=s%3A".len()..][..32].to_owned();
    let stored = value(&server, &format!("sess:{}", id(&cookie))).await;
    assert!(
        stored.starts_with(r#"{"cookie":{"#) && stored.contains(r#""passport":{"user":"42"}"#),
        "{stored}"
    );
    // The other app finds a session without a user; here, a straggler gets no cookie that would log the user out.
    let left = value(&server, &format!("sess:{}", id(&former))).await;
    assert!(
        left.starts_with(r#"{"cookie":{"#) && !left.contains("\"42\"") && left.contains("rotated"),
        "{left}"
    );
    let reply = ask(&app, "/count", &[&former]).await;
    assert_eq!(reply.cookie(), None);
    assert_eq!(
        ask(&app, "/", &[&cookie]).await.body,
        "count passport Some(\"42\")"
    );
}

#[tokio::test]
async fn a_users_sessions_are_listed_and_ended() {
    let server = Server::start().await;
    let app = app(&server, Sharing::from(flask()).with_user_at("/_user_id")).await;
    let here = begin(&app, "/login/7").await;
    // A login there is listed once this app has seen it.
    let there = format!("session={}", "t".repeat(43));
    let theirs = r#"{"_permanent":true,"_user_id":"7"}"#;
    server
        .command::<()>(&["SETEX", &key(&there), "1000", theirs])
        .await;
    assert_eq!(ask(&app, "/", &[&there]).await.body, "_user_id Some(\"7\")");
    assert_eq!(ask(&app, "/revoke", &[&here]).await.body, "2");
    assert_eq!(value(&server, &key(&there)).await, "");
    assert_eq!(ask(&app, "/", &[&there]).await.body, " None");
}

#[tokio::test]
async fn clearing_leaves_nothing_of_either_side() {
    let server = Server::start().await;
    let app = app(
        &server,
        Django::new().with_serialization(Serialization::Json),
    )
    .await;
    let cookie = format!("sessionid={}", "k".repeat(32));
    let key = format!(":1:django.contrib.sessions.cache{}", "k".repeat(32));
    let theirs = r#"{"_auth_user_id":"1","_auth_user_hash":"x"}"#;
    server.command::<()>(&["SETEX", &key, "1000", theirs]).await;
    assert_eq!(
        ask(&app, "/", &[&cookie]).await.body,
        "_auth_user_hash _auth_user_id None"
    );
    ask(&app, "/clear", &[&cookie]).await;
    assert_eq!(value(&server, &key).await, "");
}

#[tokio::test]
async fn a_value_that_is_not_of_the_format_is_an_error_and_stays() {
    let server = Server::start().await;
    let app = app(&server, flask()).await;
    let cookie = format!("session={}", "t".repeat(43));
    for stored in ["[1]", "text", "{\"a\":1,\"a\":2}", ""] {
        server
            .command::<()>(&["SETEX", &key(&cookie), "1000", stored])
            .await;
        let reply = ask(&app, "/", &[&cookie]).await;
        assert_eq!(reply.status, 500, "{stored}");
        assert_eq!(value(&server, &key(&cookie)).await, stored);
    }
}

#[cfg(feature = "local-cache")]
#[tokio::test]
async fn the_local_cache_hears_of_the_other_apps_writes() {
    let server = Server::start().await;
    let cache = axum_redis_sessions::LocalCache::new().max_staleness(SOON * 2);
    let layer = layer(&server, flask()).with_local_cache(cache);
    let app = serve(routes(layer.clone())).await;
    let cookie = begin(&app, "/count").await;
    eventually(SOON, || async {
        ask(&app, "/", &[&cookie]).await;
        layer.cache_stats().expect("a cache").hits > 0
    })
    .await;
    let stored = value(&server, &key(&cookie)).await;
    let theirs = stored.replacen('{', r#"{"theirs":1,"#, 1);
    server
        .command::<()>(&["SETEX", &key(&cookie), "1000", &theirs])
        .await;
    eventually(SOON, || async {
        ask(&app, "/", &[&cookie]).await.body == "count theirs None"
    })
    .await;
    assert_eq!(ask(&app, "/count", &[&cookie]).await.body, "2");
    let stored = value(&server, &key(&cookie)).await;
    assert!(stored.starts_with(r#"{"theirs":1,"count":2,"#), "{stored}");
}

#[test]
fn what_the_other_framework_does_not_have_is_refused() {
    let shared = || RedisSessionLayer::in_memory().with_format(flask());
    drop(shared().validate().expect("valid"));
    for (name, layer) in [
        ("with_signing_keys", shared().with_signing_keys([[1; 32]])),
        ("with_hashed_keys", shared().with_hashed_keys()),
        (
            "with_encryption_keys",
            shared().with_encryption_keys([[1; 32]]),
        ),
        (
            "with_migration_from",
            shared().with_migration_from(Migration::from(Django::new())),
        ),
        (
            "with_id_generator",
            shared().with_id_generator(|| axum_redis_sessions::SessionId::from_bytes([1; 16])),
        ),
        (
            "with_user_at",
            RedisSessionLayer::in_memory().with_format(Sharing::from(flask()).with_user_at("user")),
        ),
    ] {
        let error = layer.validate().expect_err(name).to_string();
        assert!(error.contains(name), "{error}");
    }
}
