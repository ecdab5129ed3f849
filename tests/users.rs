//! The sessions of a user: listed, ended, limited; on each store, over two nodes, and against requests that race.

#[path = "support/exchange.rs"]
mod exchange;
mod support;

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use axum::{Json, Router, extract::Path, http::StatusCode, routing::get};
use axum_redis_sessions::{AtLimit, RedisSessionLayer, Session, SessionError, SessionHandle};
use exchange::{begin, on_each_store, pair, send, set_cookie, text};
use futures_util::future::join_all;
use support::server::Server;

async fn log_in(
    session: Session,
    Path((user, device)): Path<(String, String)>,
) -> Result<(), SessionError> {
    session.cycle_id();
    session.set_user(user);
    session.insert("device", device)
}

/// Device and whether it is this one, the newest login first.
async fn devices(session: Session) -> Result<Json<Vec<(String, bool)>>, SessionError> {
    let user = session.user().unwrap_or_default();
    let others = session.sessions().of_user(&user).await?;
    let devices = others
        .iter()
        .map(|other| Ok((other.get("device")?.unwrap_or_default(), other.is(&session))));
    devices.collect::<Result<Vec<_>, SessionError>>().map(Json)
}

async fn end_others(session: Session) -> Result<String, SessionError> {
    let user = session.user().unwrap_or_default();
    let ended = session.sessions().end_others(&user, &session).await?;
    Ok(ended.to_string())
}

fn app(layer: RedisSessionLayer) -> Router {
    Router::new()
        .route("/log-in/{user}/{device}", get(log_in))
        .route("/devices", get(devices))
        .route("/end-others", get(end_others))
        .route(
            "/user",
            get(|session: Session| async move { session.user().unwrap_or_default() }),
        )
        .route("/visit", get(exchange::visits))
        .route(
            "/cycle",
            get(|session: Session| async move { session.cycle_id() }),
        )
        .route(
            "/destroy",
            get(|session: Session| async move { session.destroy() }),
        )
        .route(
            "/clear",
            get(|session: Session| async move { session.clear() }),
        )
        .route(
            "/remove-user",
            get(|session: Session| async move { session.remove_user() }),
        )
        .route(
            "/handle",
            get(|session: Session| async move {
                session
                    .handle()
                    .map(|handle| handle.to_string())
                    .unwrap_or_default()
            }),
        )
        .layer(layer)
}

async fn ask(app: &Router, path: &str, cookie: &str) -> String {
    let response = send(app, path, Some(cookie)).await;
    let status = response.status();
    let body = text(response).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body}");
    body
}

async fn names(layer: &RedisSessionLayer, user: &str) -> Vec<String> {
    let sessions = layer.sessions().of_user(user).await.expect("listed");
    let device = |session: &axum_redis_sessions::UserSession| {
        session.get("device").expect("text").unwrap_or_default()
    };
    sessions.iter().map(device).collect()
}

#[tokio::test]
async fn a_users_sessions_are_listed_from_within_a_request_and_from_outside() {
    on_each_store(|layer| async move {
        let app = app(layer.clone());
        let before = SystemTime::now() - Duration::from_secs(2);
        let phone = begin(&app, "/log-in/42/phone").await;
        let laptop = begin(&app, "/log-in/42/laptop").await;
        let other = begin(&app, "/log-in/43/other").await;
        begin(&app, "/visit").await;
        assert_eq!(
            ask(&app, "/devices", &phone).await,
            r#"[["laptop",false],["phone",true]]"#
        );
        assert_eq!(ask(&app, "/devices", &other).await, r#"[["other",true]]"#);
        assert_eq!(names(&layer, "42").await, ["laptop", "phone"]);
        assert_eq!(names(&layer, "nobody").await, [""; 0]);
        assert_eq!(ask(&app, "/user", &laptop).await, "42");

        let sessions = layer.sessions().of_user("42").await.expect("listed");
        let handles: HashSet<SessionHandle> =
            sessions.iter().map(|session| session.handle()).collect();
        assert_eq!(handles.len(), 2);
        for session in &sessions {
            let now = SystemTime::now();
            for time in [session.created(), session.last_seen()] {
                assert!(before <= time && time <= now + Duration::from_secs(1));
            }
            let left = session.expires_at().duration_since(now).expect("to come");
            assert!(left > Duration::from_secs(86_000), "{left:?}");
            assert!(!session.is_permanent());
            for cookie in [&phone, &laptop] {
                let id = cookie.split('=').nth(1).expect("an id");
                assert!(!format!("{session:?} {}", session.handle()).contains(id));
            }
        }
        assert_eq!(
            ask(&app, "/handle", &laptop).await,
            sessions[0].handle().to_string()
        );
    })
    .await;
}

#[tokio::test]
async fn one_session_is_ended_by_its_handle_and_only_for_its_user() {
    on_each_store(|layer| async move {
        let app = app(layer.clone());
        let phone = begin(&app, "/log-in/42/phone").await;
        let laptop = begin(&app, "/log-in/42/laptop").await;
        let sessions = layer.sessions();
        let handle: SessionHandle = ask(&app, "/handle", &phone)
            .await
            .parse()
            .expect("a handle");
        assert!(
            !sessions.end("43", &handle).await.expect("looked"),
            "not theirs"
        );
        assert_eq!(names(&layer, "42").await, ["laptop", "phone"]);
        assert!(sessions.end("42", &handle).await.expect("ended"));
        assert!(!sessions.end("42", &handle).await.expect("looked"), "once");
        assert_eq!(ask(&app, "/user", &phone).await, "");
        assert_eq!(ask(&app, "/user", &laptop).await, "42");
        assert_eq!(names(&layer, "42").await, ["laptop"]);
    })
    .await;
}

#[tokio::test]
async fn all_others_end_and_this_one_stays_and_then_all() {
    on_each_store(|layer| async move {
        let app = app(layer.clone());
        let mut cookies = Vec::new();
        for device in 0..5 {
            cookies.push(begin(&app, &format!("/log-in/42/{device}")).await);
        }
        let stranger = begin(&app, "/log-in/43/other").await;
        assert_eq!(ask(&app, "/end-others", &cookies[2]).await, "4");
        for (number, cookie) in cookies.iter().enumerate() {
            let user = if number == 2 { "42" } else { "" };
            assert_eq!(ask(&app, "/user", cookie).await, user, "{number}");
        }
        assert_eq!(ask(&app, "/devices", &cookies[2]).await, r#"[["2",true]]"#);
        assert_eq!(layer.sessions().end_all("42").await.expect("ended"), 1);
        assert_eq!(layer.sessions().end_all("42").await.expect("looked"), 0);
        assert_eq!(ask(&app, "/user", &cookies[2]).await, "");
        assert_eq!(ask(&app, "/user", &stranger).await, "43");
    })
    .await;
}

#[tokio::test]
async fn the_set_follows_what_becomes_of_a_session() {
    on_each_store(|layer| async move {
        let app = app(layer.clone());
        let cookie = begin(&app, "/log-in/42/phone").await;
        let line = set_cookie(&send(&app, "/cycle", Some(&cookie)).await).expect("a new id");
        let cookie = pair(&line).to_owned();
        assert_eq!(
            names(&layer, "42").await,
            ["phone"],
            "once, under its new id"
        );
        let handle = ask(&app, "/handle", &cookie)
            .await
            .parse()
            .expect("a handle");
        // Another user on the same device.
        let line =
            set_cookie(&send(&app, "/log-in/43/phone", Some(&cookie)).await).expect("a new id");
        let cookie = pair(&line).to_owned();
        assert_eq!(names(&layer, "42").await, [""; 0]);
        assert_eq!(names(&layer, "43").await, ["phone"]);
        assert!(!layer.sessions().end("42", &handle).await.expect("looked"));
        // What the app keeps is cleared, and it is still theirs.
        ask(&app, "/clear", &cookie).await;
        assert_eq!(ask(&app, "/user", &cookie).await, "43");
        assert_eq!(names(&layer, "43").await, [""]);
        ask(&app, "/visit", &cookie).await;
        ask(&app, "/remove-user", &cookie).await;
        assert_eq!(names(&layer, "43").await, [""; 0]);
        assert_eq!(
            ask(&app, "/visit", &cookie).await,
            "2",
            "nobody's, and there"
        );
        let line =
            set_cookie(&send(&app, "/log-in/44/phone", Some(&cookie)).await).expect("a new id");
        ask(&app, "/destroy", pair(&line)).await;
        assert_eq!(names(&layer, "44").await, [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn sessions_that_end_by_themselves_are_not_listed_and_leave_nothing_behind() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client());
    let app = app(layer.clone());
    let gone = begin(&app, "/log-in/42/gone").await;
    begin(&app, "/log-in/42/here").await;
    let id = gone.split('=').nth(1).expect("an id");
    server
        .command::<i64>(&["DEL", &format!("session:{id}")])
        .await;
    assert_eq!(names(&layer, "42").await, ["here"]);
    // It might be of a session that is being stored this very moment.
    let count = async || server.command::<i64>(&["ZCARD", "session:user:42"]).await;
    assert_eq!(count().await, 2);
    server
        .command::<i64>(&["ZADD", "session:user:42", "1000", id])
        .await;
    assert_eq!(names(&layer, "42").await, ["here"]);
    assert_eq!(count().await, 1);
    let left: i64 = server.command(&["TTL", "session:user:42"]).await;
    assert!(
        (86_400..=2 * 86_400 + 60).contains(&left),
        "outlives them, and ends: {left}"
    );
}

#[tokio::test]
async fn a_read_costs_one_command_and_a_tenth_of_the_lifetime_later_the_set_is_refreshed() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client());
    let app = app(layer.clone());
    let cookie = begin(&app, "/log-in/42/phone").await;
    let monitor = server.monitor().await;
    let verbs = async || {
        let commands = monitor.drain().await;
        commands
            .into_iter()
            .map(|words| words[0].to_uppercase())
            .collect::<Vec<_>>()
    };
    verbs().await;
    ask(&app, "/user", &cookie).await;
    assert_eq!(verbs().await, ["GETEX"]);
    ask(&app, "/visit", &cookie).await;
    assert!(!verbs().await.iter().any(|verb| verb.starts_with('Z')));
    // The set is lost, and the time comes to refresh it.
    server.command::<i64>(&["DEL", "session:user:42"]).await;
    let key = format!("session:{}", cookie.split('=').nth(1).expect("an id"));
    let stored: String = server.command(&["GET", &key]).await;
    let listed = stored
        .split("\"_listed\":")
        .nth(1)
        .expect("a time")
        .split(',')
        .next()
        .expect("a time");
    let back = (listed.parse::<u64>().expect("seconds") - 8640).to_string();
    server
        .command::<String>(&["SET", &key, &stored.replace(listed, &back), "KEEPTTL"])
        .await;
    assert_eq!(names(&layer, "42").await, [""; 0]);
    ask(&app, "/user", &cookie).await;
    assert_eq!(
        names(&layer, "42").await,
        ["phone"],
        "healed by its next use"
    );
}

#[tokio::test]
async fn the_oldest_session_ends_when_a_user_has_too_many() {
    on_each_store(|layer| async move {
        let layer = layer.with_sessions_per_user(2, AtLimit::EndOldest);
        let app = app(layer.clone());
        let first = begin(&app, "/log-in/42/first").await;
        let second = begin(&app, "/log-in/42/second").await;
        // A new id is no new login.
        let line = set_cookie(&send(&app, "/cycle", Some(&first)).await).expect("a new id");
        let first = pair(&line).to_owned();
        assert_eq!(names(&layer, "42").await.len(), 2);
        let third = begin(&app, "/log-in/42/third").await;
        let users = [
            ask(&app, "/user", &first).await,
            ask(&app, "/user", &second).await,
            ask(&app, "/user", &third).await,
        ];
        assert_eq!(
            users.iter().filter(|user| *user == "42").count(),
            2,
            "{users:?}"
        );
        assert_eq!(users[2], "42", "never the one that just logged in");
        begin(&app, "/log-in/43/other").await;
    })
    .await;
}

#[tokio::test]
async fn a_login_too_many_is_refused_where_that_is_asked_for_and_nothing_is_stored() {
    on_each_store(|layer| async move {
        let layer = layer.with_sessions_per_user(2, AtLimit::Refuse);
        let app = app(layer.clone());
        let first = begin(&app, "/log-in/42/first").await;
        begin(&app, "/log-in/42/second").await;
        let visitor = begin(&app, "/visit").await;
        for cookie in [None, Some(visitor.as_str())] {
            let refused = send(&app, "/log-in/42/third", cookie).await;
            assert_eq!(refused.status(), StatusCode::FORBIDDEN);
            assert_eq!(set_cookie(&refused), None);
            assert!(text(refused).await.contains("with_sessions_per_user"));
        }
        assert_eq!(
            ask(&app, "/visit", &visitor).await,
            "2",
            "the visitor is a visitor still"
        );
        assert_eq!(names(&layer, "42").await, ["second", "first"]);
        // Logging in again on a device that is in is no login too many.
        let again = send(&app, "/log-in/42/first-again", Some(&first)).await;
        assert_eq!(again.status(), StatusCode::OK);
        let first = pair(&set_cookie(&again).expect("a new id")).to_owned();
        ask(&app, "/destroy", &first).await;
        begin(&app, "/log-in/42/third").await;
    })
    .await;
}

#[tokio::test]
async fn of_two_logins_that_race_for_the_last_place_one_gets_it() {
    let server = Server::start().await;
    let layer =
        || RedisSessionLayer::new(server.client()).with_sessions_per_user(1, AtLimit::Refuse);
    let nodes = [app(layer()), app(layer())];
    for round in 0..50 {
        let logins = nodes.iter().map(|node| async move {
            let path = format!("/log-in/{round}/device");
            send(node, &path, None).await.status()
        });
        let mut statuses = join_all(logins).await;
        statuses.sort();
        assert_eq!(statuses, [StatusCode::OK, StatusCode::FORBIDDEN], "{round}");
    }
}

#[tokio::test]
async fn an_ended_session_is_dead_at_its_next_request_on_every_node() {
    let server = Server::start().await;
    let layers = [
        RedisSessionLayer::new(server.client()),
        RedisSessionLayer::new(server.client()),
    ];
    let nodes = layers.clone().map(app);
    for round in 0..100 {
        let (here, there) = (round % 2, (round + 1) % 2);
        let cookie = begin(&nodes[here], "/log-in/42/phone").await;
        assert_eq!(ask(&nodes[there], "/user", &cookie).await, "42");
        assert_eq!(
            layers[there].sessions().end_all("42").await.expect("ended"),
            1
        );
        assert_eq!(ask(&nodes[here], "/user", &cookie).await, "", "{round}");
    }
}

#[tokio::test]
async fn a_session_that_gets_a_new_id_while_all_are_ended_does_not_escape() {
    let server = Server::start().await;
    let layers = [
        RedisSessionLayer::new(server.client()),
        RedisSessionLayer::new(server.client()),
    ];
    let nodes = layers.clone().map(app);
    let mut escaped_to = 0;
    for round in 0..500 {
        let path = format!("/log-in/{round}/phone");
        let cookie = begin(&nodes[0], &path).await;
        let rotation = send(&nodes[0], "/cycle", Some(&cookie));
        let user = round.to_string();
        let sessions = layers[1].sessions();
        let end = async {
            // A little later each time, so that they meet at every step.
            for _ in 0..round % 25 {
                tokio::task::yield_now().await;
            }
            sessions.end_all(&user).await.expect("ended")
        };
        let (rotated, _) = tokio::join!(rotation, end);
        let cookies = [
            Some(cookie),
            set_cookie(&rotated).map(|line| pair(&line).to_owned()),
        ];
        for cookie in cookies.into_iter().flatten() {
            let is_alive = ask(&nodes[1], "/user", &cookie).await == user;
            // Rotated before it was ended, or after: then there was nothing to rotate.
            escaped_to += usize::from(is_alive);
        }
    }
    assert_eq!(escaped_to, 0);
}

#[tokio::test]
async fn a_hundred_thousand_sessions_of_one_user_hold_up_nobody() {
    let server = Server::start().await;
    // A build without optimization, on a machine that is busy with other tests.
    let layer = RedisSessionLayer::new(server.client()).with_deadline(Duration::from_secs(20));
    let app = app(layer.clone());
    let here = begin(&app, "/log-in/42/here").await;
    let fill = "for n = 1, 100000 do \
        local id = string.format('%08x-0000-4000-8000-000000000000', n) \
        redis.call('SET', 'session:' .. id, '{\"_rev\":\"0123456789abcdef\",\"_created\":1,\"_user\":\"42\"}', 'EX', 86400) \
        redis.call('ZADD', 'session:user:42', n, id) end";
    server.command::<Option<i64>>(&["EVAL", fill, "0"]).await;
    server.command::<String>(&["CONFIG", "RESETSTAT"]).await;
    assert_eq!(ask(&app, "/end-others", &here).await, "100000");
    let stats: String = server.command(&["INFO", "commandstats"]).await;
    let mean = |verb: &str| -> f64 {
        let line = stats
            .lines()
            .find(|line| line.starts_with(&format!("cmdstat_{verb}:")));
        let mean = line
            .expect("called")
            .split("usec_per_call=")
            .nth(1)
            .expect("a mean");
        mean.split(',')
            .next()
            .expect("a mean")
            .parse()
            .expect("a number")
    };
    // A whole set of this size takes tens of milliseconds at once.
    for verb in ["zrange", "zrem", "get", "evalsha"] {
        assert!(mean(verb) < 5000.0, "{verb} takes {} µs", mean(verb));
    }
    assert_eq!(server.command::<i64>(&["DBSIZE"]).await, 2);
    assert_eq!(ask(&app, "/user", &here).await, "42");
}

#[tokio::test]
async fn any_text_is_a_user_and_no_user_is_another() {
    on_each_store(|layer| async move {
        let users = [
            "",
            "42",
            "4",
            "*",
            "{42}",
            "a b",
            "Zoë",
            "\"",
            "\n",
            "user:42",
            "5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e",
        ];
        let app = Router::new()
            .route(
                "/{number}",
                get(
                    move |session: Session, Path(number): Path<usize>| async move {
                        session.set_user(users[number]);
                    },
                ),
            )
            .layer(layer.clone());
        for number in 0..users.len() {
            begin(&app, &format!("/{number}")).await;
        }
        for user in users {
            let sessions = layer.sessions();
            assert_eq!(
                sessions.of_user(user).await.expect("listed").len(),
                1,
                "{user:?}"
            );
            assert_eq!(sessions.end_all(user).await.expect("ended"), 1, "{user:?}");
        }
    })
    .await;
}
