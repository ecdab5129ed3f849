//! Stored values that are no sessions of this crate, and sessions over a size limit that was lowered: their visitors are not locked out.

use axum::{Router, extract::Path, routing::get};
use axum_redis_sessions::{ErrorKind, LazySession, RedisSessionLayer, Session, SessionError};

use crate::{
    client::{ask, begin_at},
    support::{
        app::{Address, serve},
        server::Server,
    },
    visits,
};

/// Each sets `KEY` to a value that is no session.
const UNREADABLE: [(&str, &[&str]); 10] = [
    ("a pickle", &["SET", "KEY", "\u{80}\u{4}\u{95}}\u{94}."]),
    ("MessagePack", &["SET", "KEY", "\u{81}\u{a1}a\u{1}"]),
    ("a JSON list", &["SET", "KEY", "[1]"]),
    ("truncated JSON", &["SET", "KEY", "{\"a\":"]),
    ("PHP's", &["SET", "KEY", "user|s:3:\"zoe\";"]),
    ("a list", &["RPUSH", "KEY", "a"]),
    ("a hash, as of Spring Session", &["HSET", "KEY", "a", "1"]),
    ("a set", &["SADD", "KEY", "a"]),
    ("a sorted set", &["ZADD", "KEY", "1", "a"]),
    ("a stream", &["XADD", "KEY", "1-1", "a", "1"]),
];

fn routes() -> Router {
    let log_in = async |session: Session, Path(user): Path<String>| session.log_in(user);
    let who = async |session: Session| session.user().unwrap_or_default();
    visits::routes()
        .route("/log-in/{user}", get(log_in))
        .route("/who", get(who))
        .route("/log-out", get(async |lazy: LazySession| lazy.destroy()))
        .route("/recover", get(recover))
        .route("/recover-and-fail", get(recover_and_fail))
}

/// The error path of an app.
async fn recover(lazy: LazySession) -> Result<String, SessionError> {
    let session = match lazy.load().await {
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            lazy.destroy();
            lazy.load().await?
        }
        session => session?,
    };
    visits::visits(session).await
}

/// An error page.
async fn recover_and_fail(
    lazy: LazySession,
    session: Result<Session, SessionError>,
) -> Result<(), SessionError> {
    if let Err(error) = session {
        lazy.destroy();
        return Err(error);
    }
    Ok(())
}

async fn start(layer: RedisSessionLayer) -> Address {
    serve(routes().layer(layer.with_deadline(visits::PATIENT))).await
}

fn key(cookie: &str) -> String {
    cookie.replace("__Host-session=", "session:")
}

async fn set(server: &Server, key: &str, words: &[&str]) {
    server.command::<i64>(&["DEL", key]).await;
    let words = words
        .iter()
        .map(|word| if *word == "KEY" { key } else { word });
    server
        .command::<redis::Value>(&words.collect::<Vec<_>>())
        .await;
}

#[tokio::test]
async fn an_app_can_end_what_it_cannot_load() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client());
    for layer in [layer.clone(), layer.with_last_write_wins()] {
        let app = start(layer).await;
        for (name, words) in UNREADABLE {
            for (path, status) in [
                ("/log-out", 200),
                ("/recover-and-fail", 500),
                ("/recover", 200),
            ] {
                let cookie = begin_at(&app, "/").await;
                set(&server, &key(&cookie), words).await;
                assert_eq!(ask(&app, "/visits", &[&cookie]).await.status, 500, "{name}");
                let reply = ask(&app, path, &[&cookie]).await;
                assert_eq!(reply.status, status, "{name}, {path}: {}", reply.body);
                let left = server.command::<i64>(&["EXISTS", &key(&cookie)]).await;
                assert_eq!(left, 0, "{name}, {path}");
                if path == "/recover" {
                    let new = reply.cookie().expect("a new session");
                    assert_eq!(ask(&app, "/", &[&new]).await.body, "2", "{name}");
                } else {
                    assert!(reply.removes_cookie(), "{name}, {path}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_logout_does_not_end_a_tombstone_or_a_session_behind_another_id() {
    let server = Server::start().await;
    let app = start(RedisSessionLayer::new(server.client())).await;
    let old = begin_at(&app, "/").await;
    let new = ask(&app, "/cycle", &[&old]).await.cookie().expect("an id");
    let reply = ask(&app, "/log-out", &[&old]).await;
    assert!(reply.values("set-cookie").is_empty());
    assert_eq!(server.command::<i64>(&["EXISTS", &key(&old)]).await, 1);
    assert_eq!(ask(&app, "/visits", &[&new]).await.body, "1");
}

#[tokio::test]
async fn what_cannot_be_used_is_not_prolonged() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client());
    for layer in [layer.clone(), layer.with_discard_unreadable()] {
        let app = start(layer).await;
        for (name, words) in UNREADABLE {
            let cookie = begin_at(&app, "/").await;
            let key = key(&cookie);
            set(&server, &key, words).await;
            // The load that finds out.
            ask(&app, "/visits", &[&cookie]).await;
            server.command::<i64>(&["EXPIRE", &key, "60"]).await;
            for path in ["/visits", "/only-if", "/look"] {
                ask(&app, path, &[&cookie]).await;
                let ttl: i64 = server.command(&["TTL", &key]).await;
                assert!((1..=60).contains(&ttl), "{name}, {path}: {ttl}");
            }
            // A session again, by another release of the app.
            set(
                &server,
                &key,
                &["SET", "KEY", r#"{"visits":7}"#, "EX", "60"],
            )
            .await;
            assert_eq!(ask(&app, "/visits", &[&cookie]).await.body, "7", "{name}");
            let is_prolonged = async || server.command::<i64>(&["TTL", &key]).await > 86_000;
            crate::support::eventually(std::time::Duration::from_secs(10), is_prolonged).await;
            server.command::<i64>(&["EXPIRE", &key, "60"]).await;
            assert_eq!(ask(&app, "/", &[&cookie]).await.body, "8", "{name}");
            assert!(is_prolonged().await, "{name}");
        }
    }
}

#[tokio::test]
async fn unreadable_sessions_can_be_discarded() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client()).with_discard_unreadable();
    for (layer, eager) in [
        (layer.clone(), false),
        (layer.clone().with_eager_load(), true),
    ] {
        let app = start(layer.clone()).await;
        for (name, words) in UNREADABLE {
            let cookie = begin_at(&app, "/").await;
            let key = key(&cookie);
            set(&server, &key, words).await;
            let counted = layer.stats().unreadable;
            for (path, body) in [
                ("/visits", "0"),
                ("/only-if", "false"),
                ("/look", "[] None"),
            ] {
                let reply = ask(&app, path, &[&cookie]).await;
                assert_eq!((reply.status, &*reply.body), (200, body), "{name}, {eager}");
                assert!(reply.values("set-cookie").is_empty(), "{name}");
            }
            assert_eq!(layer.stats().unreadable, counted + 3, "{name}");
            // A new session, under an id of its own; also beside the old cookie.
            let login = ask(&app, "/log-in/zoe", &[&cookie]).await;
            let new = login.cookie().expect("a new session");
            assert_ne!(new, cookie, "{name}");
            for cookies in [
                new.clone(),
                format!("{cookie}; {new}"),
                format!("{new}; {cookie}"),
            ] {
                assert_eq!(ask(&app, "/who", &[&cookies]).await.body, "zoe", "{name}");
            }
            // The value is not this crate's and is left alone, unless the app ends it.
            assert_eq!(server.command::<i64>(&["EXISTS", &key]).await, 1, "{name}");
            for path in ["/log-out", "/destroy"] {
                set(&server, &key, words).await;
                let reply = ask(&app, path, &[&cookie]).await;
                assert_eq!(reply.status, 200, "{name}, {path}");
                let left = server.command::<i64>(&["EXISTS", &key]).await;
                assert_eq!(left, 0, "{name}, {path}");
            }
        }
    }
    // Without the option they are counted as well.
    let layer = RedisSessionLayer::new(server.client());
    let app = start(layer.clone()).await;
    let cookie = begin_at(&app, "/").await;
    set(&server, &key(&cookie), UNREADABLE[0].1).await;
    assert_eq!(ask(&app, "/visits", &[&cookie]).await.status, 500);
    assert_eq!(layer.stats().unreadable, 1);
}

#[tokio::test]
async fn an_outage_is_not_mistaken_for_an_unreadable_session() {
    let mut server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client()).with_discard_unreadable();
    let app = start(layer.clone()).await;
    let cookie = begin_at(&app, "/").await;
    server.kill();
    let reply = ask(&app, "/visits", &[&cookie]).await;
    assert_eq!((reply.status, reply.cookie()), (503, None));
    assert_eq!(layer.stats().unreadable, 0);
}

#[tokio::test]
async fn a_session_over_a_lowered_limit_can_be_shrunk_in_steps_renewed_and_ended() {
    let server = Server::start().await;
    let former = start(RedisSessionLayer::new(server.client())).await;
    let app = start(RedisSessionLayer::new(server.client()).with_max_size(500)).await;
    let begin = async || {
        let cookie = begin_at(&former, "/permanent?is=true").await;
        for name in ["a", "b"] {
            let path = format!("/keep/{name}/{}", "x".repeat(600));
            assert_eq!(ask(&former, &path, &[&cookie]).await.status, 200);
        }
        cookie
    };
    let cookie = begin().await;
    // Shrunk, though not below the limit yet; the same size; larger.
    for (path, status) in [
        (format!("/keep/a/{}", "y".repeat(599)), 200),
        (format!("/keep/a/{}", "z".repeat(599)), 200),
        (format!("/keep/a/{}", "z".repeat(600)), 500),
        ("/keep/c/1".to_owned(), 500),
        ("/permanent?is=false".to_owned(), 200),
        ("/permanent?is=true".to_owned(), 200),
    ] {
        let reply = ask(&app, &path, &[&cookie]).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.body);
    }
    // Its cookie is due for renewal.
    let stored = server.command::<String>(&["GET", &key(&cookie)]).await;
    let (before, sent) = stored.split_once("\"_permanent\":").expect("permanent");
    let stored = format!("{before}\"_permanent\":1700000000{}", &sent[10..]);
    server
        .command::<String>(&["SET", &key(&cookie), &stored])
        .await;
    let renewed = ask(&app, "/kept/b", &[&cookie]).await;
    assert_eq!(
        (renewed.status, renewed.cookie()),
        (200, Some(cookie.clone()))
    );
    // A login, for which the crate's own data grows.
    let login = ask(&app, "/log-in/zoe", &[&cookie]).await;
    assert_eq!(login.status, 200, "{}", login.body);
    let cookie = login.cookie().expect("a new id");
    assert_eq!(ask(&app, "/kept/a", &[&cookie]).await.body, "z".repeat(599));
    assert!(ask(&app, "/destroy", &[&cookie]).await.removes_cookie());
    assert!(
        ask(&app, "/log-out", &[&begin().await])
            .await
            .removes_cookie()
    );
}
