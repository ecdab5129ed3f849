//! Several cookies of the session's name in one request. Browsers send them when their Domain, Path or partition differs, in an order
//! that the app does not choose.

use std::time::Duration;

use axum::{Router, extract::Path, routing::get};
use axum_redis_sessions::{LazySession, RedisSessionLayer, SameSite, Session};

use crate::{
    client::{ask, begin_at},
    support::{
        app::{Address, serve},
        server::Server,
    },
    visits,
};

const UNKNOWN: &str = "__Host-session=5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e";

fn routes() -> Router {
    let log_in = async |session: Session, Path(user): Path<String>| session.log_in(user);
    let who = async |session: Session| session.user().unwrap_or_default();
    visits::routes()
        .route("/log-in/{user}", get(log_in))
        .route("/who", get(who))
        .route(
            "/lazy-destroy",
            get(async |lazy: LazySession| lazy.destroy()),
        )
}

async fn start(server: &Server) -> Address {
    let layer = RedisSessionLayer::new(server.client()).with_deadline(visits::PATIENT);
    serve(routes().layer(layer)).await
}

fn key(cookie: &str) -> String {
    cookie.replace("__Host-session=", "session:")
}

async fn set(server: &Server, cookie: &str, value: &str) {
    server
        .command::<String>(&["SET", &key(cookie), value])
        .await;
}

/// Cookies that lead to no session.
async fn dead(server: &Server, app: &Address) -> Vec<(&'static str, String)> {
    let expired = begin_at(app, "/").await;
    server.command::<i64>(&["DEL", &key(&expired)]).await;
    let rotated = begin_at(app, "/").await;
    assert!(ask(app, "/cycle", &[&rotated]).await.cookie().is_some());
    let rotated_with_user = begin_at(app, "/log-in/zoe").await;
    ask(app, "/cycle", &[&rotated_with_user]).await;
    let destroyed = begin_at(app, "/").await;
    ask(app, "/destroy", &[&destroyed]).await;
    let pickle = begin_at(app, "/").await;
    set(server, &pickle, "\u{80}\u{4}pickle").await;
    let list = begin_at(app, "/").await;
    server.command::<i64>(&["DEL", &key(&list)]).await;
    server.command::<i64>(&["RPUSH", &key(&list), "a"]).await;
    vec![
        ("unknown", UNKNOWN.to_owned()),
        ("expired", expired),
        ("rotated", rotated),
        ("rotated, with a user", rotated_with_user),
        ("destroyed", destroyed),
        ("a pickle", pickle),
        ("a list", list),
        ("malformed", "__Host-session=x".to_owned()),
        ("empty", "__Host-session=".to_owned()),
    ]
}

#[tokio::test]
async fn a_live_session_wins_whatever_is_presented_beside_it() {
    let server = Server::start().await;
    let app = start(&server).await;
    for (name, dead) in dead(&server, &app).await {
        let live = begin_at(&app, "/").await;
        let mut expected = 1;
        for headers in [
            vec![format!("{dead}; {live}")],
            vec![format!("{live}; {dead}")],
            vec![format!("a=b; {dead};{live}; c=d")],
            vec![dead.clone(), live.clone()],
            vec![live.clone(), dead.clone()],
            vec![format!("{dead}; {UNKNOWN}; {live}")],
            vec![format!("{live}; {live}; {dead}")],
        ] {
            let headers: Vec<_> = headers.iter().map(String::as_str).collect();
            expected += 1;
            let reply = ask(&app, "/", &headers).await;
            let seen = (reply.status, reply.body.as_str());
            assert_eq!(seen, (200, &*expected.to_string()), "{name}: {headers:?}");
            assert!(reply.values("set-cookie").is_empty(), "{name}: {headers:?}");
        }
        // A login, and a second one, with a cookie that wins over the dead one.
        let mut cookie = live;
        for user in ["zoe", "max"] {
            let both = format!("{dead}; {cookie}");
            let login = ask(&app, &format!("/log-in/{user}"), &[&both]).await;
            cookie = login.cookie().expect("a new id");
            let both = format!("{dead}; {cookie}");
            assert_eq!(ask(&app, "/who", &[&both]).await.body, user, "{name}");
        }
        let both = format!("{dead}; {cookie}");
        assert!(
            ask(&app, "/destroy", &[&both]).await.removes_cookie(),
            "{name}"
        );
        assert_eq!(ask(&app, "/who", &[&cookie]).await.body, "", "{name}");
    }
}

#[tokio::test]
async fn a_login_without_a_live_session_sticks() {
    let server = Server::start().await;
    let app = start(&server).await;
    for (name, dead) in dead(&server, &app).await {
        if ["rotated", "rotated, with a user", "a pickle", "a list"].contains(&name) {
            continue;
        }
        let both = format!("{dead}; {UNKNOWN}");
        let login = ask(&app, "/log-in/zoe", &[&both]).await;
        let cookie = login.cookie().expect("a session");
        let both = format!("{dead}; {cookie}");
        assert_eq!(ask(&app, "/who", &[&both]).await.body, "zoe", "{name}");
    }
}

#[tokio::test]
async fn four_are_tried_and_a_fifth_is_ignored() {
    let server = Server::start().await;
    let app = start(&server).await;
    let live = begin_at(&app, "/").await;
    let monitor = server.monitor().await;
    for (before, loads, visits) in [
        (0, 1, "1"),
        (1, 2, "1"),
        (3, 4, "1"),
        (4, 4, "0"),
        (50, 4, "0"),
    ] {
        let dead = (0..before).map(|n| format!("{}{n:02}; ", &UNKNOWN[..UNKNOWN.len() - 2]));
        let cookies = format!("{}{live}; {UNKNOWN}", dead.collect::<String>());
        monitor.drain().await;
        assert_eq!(
            ask(&app, "/visits", &[&cookies]).await.body,
            visits,
            "{before}"
        );
        let sent = monitor.drain().await;
        let names: Vec<_> = sent.iter().map(|command| &*command[0]).collect();
        assert_eq!(names, vec!["GETEX"; loads], "{before}");
    }
}

#[tokio::test]
async fn a_login_behind_a_live_anonymous_session_is_replaced_by_the_next_login() {
    let server = Server::start().await;
    let app = start(&server).await;
    let shadow = begin_at(&app, "/").await;
    let login = begin_at(&app, "/log-in/zoe").await;
    let both = format!("{shadow}; {login}");
    assert_eq!(ask(&app, "/who", &[&both]).await.body, "");
    let cookie = ask(&app, "/log-in/zoe", &[&both]).await.cookie();
    let cookie = cookie.expect("a new id");
    // The browser keeps the shadow. What it leads to is a tombstone, and later nothing.
    let both = format!("{shadow}; {cookie}");
    assert_eq!(ask(&app, "/who", &[&both]).await.body, "zoe");
    server.command::<i64>(&["DEL", &key(&shadow)]).await;
    assert_eq!(ask(&app, "/who", &[&both]).await.body, "zoe");
    assert_eq!(
        ask(&app, "/who", &[&login]).await.body,
        "",
        "ended by the new login"
    );
}

#[tokio::test]
async fn a_logout_ends_every_session_that_was_presented() {
    let server = Server::start().await;
    for layer in [
        RedisSessionLayer::new(server.client()),
        RedisSessionLayer::new(server.client()).with_last_write_wins(),
        RedisSessionLayer::in_memory(),
    ] {
        let app = serve(routes().layer(layer.with_deadline(visits::PATIENT))).await;
        for path in ["/destroy", "/lazy-destroy"] {
            for dead in ["", UNKNOWN, "__Host-session=x"] {
                let sessions = [
                    begin_at(&app, "/log-in/zoe").await,
                    begin_at(&app, "/").await,
                    begin_at(&app, "/log-in/max").await,
                ];
                let all = format!("{dead}; {}", sessions.join("; "));
                let reply = ask(&app, path, &[&all]).await;
                assert_eq!(reply.status, 200, "{}", reply.body);
                assert!(reply.removes_cookie(), "{path}, {dead}");
                for session in &sessions {
                    let left = ask(&app, "/only-if", &[session]).await.body;
                    assert_eq!(left, "false", "{path}, {dead}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_logout_beside_a_rotated_cookie_ends_the_live_session_only() {
    let server = Server::start().await;
    let app = start(&server).await;
    for path in ["/destroy", "/lazy-destroy"] {
        let old = begin_at(&app, "/").await;
        // The session lives on in another tab.
        let elsewhere = ask(&app, "/cycle", &[&old]).await.cookie().expect("an id");
        let live = begin_at(&app, "/").await;
        let both = format!("{old}; {live}");
        assert!(ask(&app, path, &[&both]).await.removes_cookie(), "{path}");
        assert_eq!(
            ask(&app, "/only-if", &[&live]).await.body,
            "false",
            "{path}"
        );
        assert_eq!(
            ask(&app, "/visits", &[&elsewhere]).await.body,
            "1",
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_forged_signature_in_front_does_not_hide_the_session() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client()).with_signing_keys(["k".repeat(32)]);
    let app = serve(routes().layer(layer)).await;
    let live = begin_at(&app, "/").await;
    let forged = format!("{}x", &live[..live.len() - 1]);
    for cookies in [format!("{forged}; {live}"), format!("{UNKNOWN}; {live}")] {
        assert_eq!(
            ask(&app, "/visits", &[&cookies]).await.body,
            "1",
            "{cookies}"
        );
    }
}

#[tokio::test]
async fn a_partitioned_cookie_has_a_default_name_of_its_own() {
    let layer = RedisSessionLayer::in_memory().with_same_site(SameSite::None);
    for (layer, name) in [
        (layer.clone(), "__Host-session="),
        (
            layer.clone().with_partitioned_cookie(),
            "__Host-session-partitioned=",
        ),
        (
            layer
                .clone()
                .with_partitioned_cookie()
                .with_cookie_domain("example.com"),
            "__Secure-session-partitioned=",
        ),
        (
            layer
                .clone()
                .with_partitioned_cookie()
                .with_cookie_path("/app"),
            "__Secure-session-partitioned=",
        ),
        (
            layer.with_partitioned_cookie().with_cookie_name("sid"),
            "sid=",
        ),
    ] {
        let app = serve(routes().layer(layer.with_idle_timeout(Duration::from_secs(60)))).await;
        let cookie = begin_at(&app, "/").await;
        assert!(cookie.starts_with(name), "{name}");
        assert_eq!(ask(&app, "/visits", &[&cookie]).await.body, "1", "{name}");
    }
}

#[tokio::test]
async fn a_request_that_fails_keeps_every_presented_session() {
    let fails = async |session: Session| {
        session.log_in("zoe")?;
        session.get::<u64>("name").map(drop)
    };
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client());
    let app = serve(routes().route("/fails", get(fails)).layer(layer)).await;
    let [first, second] = [begin_at(&app, "/").await, begin_at(&app, "/").await];
    for cookie in [&first, &second] {
        ask(&app, "/keep/name/text", &[cookie]).await;
    }
    let both = format!("{first}; {second}");
    let reply = ask(&app, "/fails", &[&both]).await;
    assert_eq!((reply.status, reply.cookie()), (500, None));
    for cookie in [&first, &second] {
        assert_eq!(ask(&app, "/visits", &[cookie]).await.body, "1");
        assert_eq!(ask(&app, "/who", &[cookie]).await.body, "");
    }
}
