//! What operators read in the log. The log is the process's, so this has a process of its own.

#![cfg(feature = "axum")]

#[path = "support/client.rs"]
mod client;
mod support;

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    routing::{MethodRouter, get},
};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionError, SessionId, SessionLimit};
use tokio::sync::{Mutex, MutexGuard};
use tower::ServiceExt;

use crate::{
    client::{begin, polled, send},
    support::{eventually, log::Log, server::Server},
};

const PATIENCE: Duration = Duration::from_secs(10);
const COOKIE: &str = "__Host-session=5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e";

/// The lines that are logged from now on. One test at a time.
struct Lines {
    log: Log,
    start: usize,
    _alone: MutexGuard<'static, ()>,
}

impl Lines {
    async fn from_now() -> Self {
        static ALONE: LazyLock<Mutex<()>> = LazyLock::new(Mutex::default);
        let _alone = ALONE.lock().await;
        let log = Log::of_this_process();
        let start = log.text().len();
        Self { log, start, _alone }
    }

    /// Those at the levels warn and error since the last call.
    fn take(&mut self) -> Vec<String> {
        let text = self.log.text();
        let lines = text[self.start..].lines();
        let is_serious = |line: &&str| line.starts_with("WARN") || line.starts_with("ERROR");
        let lines = lines.filter(is_serious).map(str::to_owned).collect();
        self.start = text.len();
        lines
    }
}

fn app(layer: RedisSessionLayer, handler: MethodRouter) -> Router {
    app_at("/", layer, handler)
}

fn app_at(path: &str, layer: RedisSessionLayer, handler: MethodRouter) -> Router {
    Router::new().route(path, handler).layer(layer)
}

fn write() -> MethodRouter {
    get(async |session: Session| session.insert("name", "Zoë"))
}

fn read() -> MethodRouter {
    get(async |session: Session| session.get::<String>("name").map(drop))
}

#[tokio::test]
async fn each_kind_of_failure_is_logged_once_with_its_reason() {
    let mut lines = Lines::from_now().await;
    let server = Server::start().await;
    let layer = || RedisSessionLayer::new(server.client()).with_deadline(PATIENCE);
    let deny = async |rule| {
        server
            .command::<String>(&["ACL", "SETUSER", "default", rule])
            .await
    };
    let key = COOKIE.replace("__Host-session=", "session:");
    let stored = async |value| server.command::<String>(&["SET", &key, value]).await;
    let unreachable = redis::Client::open("redis://127.0.0.1:1/").expect("an address");
    let stranger = format!("redis://stranger:secret@127.0.0.1:{}/", server.port());
    let stranger = redis::Client::open(stranger).expect("an address");
    let zeros = layer().with_id_generator(|| SessionId::from_bytes([0; 16]));
    let acks = layer().with_replica_acks(1, Duration::from_millis(50));
    let wrong_type = get(async |session: Session| session.get::<u64>("name").map(drop));
    let infinite = get(async |session: Session| session.insert("ratio", f64::INFINITY));
    let destroy = get(async |session: Session| session.destroy());
    let explicit = get(async |session: Session| {
        session.insert("name", "x".repeat(200))?;
        session.save().await
    });
    // Whatever the handler makes of it.
    let ignored = get(async |session: Result<Session, SessionError>| drop(session));

    let mut check = async |name: &str, app: Router, level: &str, reasons: &[&str]| {
        for _ in 0..20 {
            send(&app, "/", Some(COOKIE)).await;
        }
        let lines = lines.take();
        let [line] = &lines[..] else {
            panic!("{name}: {lines:#?}");
        };
        assert!(line.starts_with(level), "{name}: {line}");
        for reason in reasons {
            assert!(line.contains(reason), "{name}: {line}");
        }
    };
    let value = r#"{"name":"Zoë"}"#;
    let down = || RedisSessionLayer::new(unreachable.clone());
    check(
        "no server",
        app(down(), read()),
        "WARN",
        &["could not be loaded", "refused", "check"],
    )
    .await;
    check(
        "no server, and the app goes on",
        app(down(), ignored),
        "WARN",
        &["could not be loaded"],
    )
    .await;
    let wrong_user = RedisSessionLayer::new(stranger);
    check(
        "a wrong password",
        app(wrong_user, read()),
        "WARN",
        &["WRONGPASS"],
    )
    .await;
    check(
        "a missing layer",
        Router::new().route("/", read()),
        "ERROR",
        &["a request failed", "outside of the session layer"],
    )
    .await;
    check(
        "an id generator",
        app(zeros, write()),
        "ERROR",
        &["could not be saved", "all zeros"],
    )
    .await;
    stored(value).await;
    check(
        "another type",
        app(layer(), wrong_type),
        "ERROR",
        &["a request failed", "not a u64"],
    )
    .await;
    check(
        "a float",
        app(layer(), infinite),
        "ERROR",
        &["a request failed", "infinite"],
    )
    .await;
    check(
        "too large",
        app(layer().with_max_size(100), explicit),
        "ERROR",
        &["could not be saved", "with_max_size"],
    )
    .await;
    deny("-getex").await;
    check(
        "an ACL",
        app(layer(), read()),
        "ERROR",
        &["NOPERM", "getex"],
    )
    .await;
    deny("+getex").await;
    server.set("maxmemory", "1").await;
    check(
        "no memory",
        app(layer(), write()),
        "ERROR",
        &["could not be saved", "maxmemory"],
    )
    .await;
    server.set("maxmemory", "0").await;
    stored("[1]").await;
    check(
        "not a session",
        app(layer(), read()),
        "ERROR",
        &["could not be loaded", "not a session of this crate"],
    )
    .await;
    let discards = layer().with_discard_unreadable();
    check(
        "discarded",
        app(discards, read()),
        "ERROR",
        &["has an empty session", "not a session of this crate"],
    )
    .await;
    stored(value).await;
    check(
        "no replica",
        app(acks, destroy),
        "WARN",
        &["could not be saved", "replica"],
    )
    .await;
}

#[tokio::test]
async fn a_failed_save_without_its_client_is_logged() {
    let mut lines = Lines::from_now().await;
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client()).with_deadline(PATIENCE);
    let app = app(layer, write());
    // Connects.
    begin(&app, "/").await;
    server
        .command::<String>(&["ACL", "SETUSER", "default", "-set"])
        .await;
    assert!(polled(send(&app, "/", None), 1).await.is_none());
    eventually(PATIENCE, || {
        let lines = lines.take();
        let is_logged = lines.iter().any(|line| line.contains("could not be saved"));
        async move { is_logged }
    })
    .await;
}

#[tokio::test]
async fn an_index_entry_that_is_not_removed_is_logged() {
    let mut lines = Lines::from_now().await;
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client()).with_deadline(PATIENCE);
    let app = Router::new()
        .route(
            "/log-in",
            get(async |session: Session| session.log_in("42")),
        )
        .route("/log-out", get(async |session: Session| session.destroy()))
        .layer(layer);
    let cookie = begin(&app, "/log-in").await;
    server
        .command::<String>(&["ACL", "SETUSER", "default", "-zrem"])
        .await;
    assert_eq!(send(&app, "/log-out", Some(&cookie)).await.status(), 200);
    let lines = lines.take();
    assert!(
        matches!(&lines[..], [line] if line.contains("NOPERM") && line.contains("index")),
        "{lines:?}"
    );
}

#[tokio::test]
async fn what_visitors_do_is_not_logged_as_a_failure() {
    let mut lines = Lines::from_now().await;
    let layer = RedisSessionLayer::in_memory().with_sessions_per_user(1, SessionLimit::Reject);
    let log_in = get(async |session: Session| session.log_in("42"));
    let app = app(layer, log_in);
    begin(&app, "/").await;
    assert_eq!(send(&app, "/", None).await.status(), 403);
    assert_eq!(send(&app, "/", Some(COOKIE)).await.status(), 403);
    assert_eq!(lines.take(), Vec::<String>::new());
}

#[tokio::test]
async fn a_wrong_clock_is_named_but_not_an_old_session() {
    let mut lines = Lines::from_now().await;
    let server = Server::start().await;
    let hour = Duration::from_secs(3600);
    let layer = RedisSessionLayer::new(server.client()).with_absolute_timeout(12 * hour);
    let app = app(layer, read());
    let key = COOKIE.replace("__Host-session=", "session:");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    for (name, created, is_named) in [
        ("half an hour ahead", now + 1800, false),
        ("expired", now - 13 * 3600, false),
        ("created in 1970", 0, false),
        ("two hours ahead", now + 7200, true),
        ("two hours ahead, again", now + 7200, false),
    ] {
        let stored = format!(r#"{{"_created":{created},"name":"Zoë"}}"#);
        server.command::<String>(&["SET", &key, &stored]).await;
        send(&app, "/", Some(COOKIE)).await;
        let lines = lines.take();
        assert_eq!(lines.len(), usize::from(is_named), "{name}: {lines:?}");
        assert!(
            lines
                .iter()
                .all(|line| line.contains("clock") && line.contains("ahead_secs=7")),
            "{name}: {lines:?}"
        );
    }
}

#[tokio::test]
async fn a_secure_cookie_over_plain_http_is_warned_of_once_in_a_process() {
    let mut lines = Lines::from_now().await;
    let layer = RedisSessionLayer::in_memory();
    let secure = app(layer.clone(), write()).merge(app_at("/read", layer.clone(), read()));
    let bare = app(layer.with_secure(false), write());
    let ask = async |app: &Router, path: &str, headers: &[(&str, &str)]| {
        let mut request = axum::http::Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(axum::body::Body::empty());
        let request = request.expect("a request");
        let response = app.clone().oneshot(request).await.expect("infallible");
        response.headers().contains_key("set-cookie")
    };
    let host = ("host", "192.168.1.5:3000");
    let proxied = ("x-forwarded-proto", "https");
    for (name, app, path, headers, sets_cookie) in [
        (
            "localhost",
            &secure,
            "/",
            &[("host", "localhost")][..],
            true,
        ),
        ("behind a proxy", &secure, "/", &[host, proxied], true),
        ("no cookie is sent", &secure, "/read", &[host], false),
        ("not Secure", &bare, "/", &[host], true),
    ] {
        assert_eq!(ask(app, path, headers).await, sets_cookie, "{name}");
        assert_eq!(lines.take(), [""; 0], "{name}");
    }
    assert!(ask(&secure, "/", &[host]).await);
    let warned = lines.take();
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].starts_with("WARN"), "{warned:?}");
    assert!(warned[0].contains("with_secure(false)"), "{warned:?}");
    assert!(!warned[0].contains("192.168"), "{warned:?}");
    assert!(ask(&secure, "/", &[host]).await);
    assert_eq!(lines.take(), [""; 0], "once");
}

#[cfg(feature = "local-cache")]
#[tokio::test]
async fn a_cache_that_the_server_does_not_keep_true_is_warned_of_once() {
    let server = Server::start().await;
    let rules =
        "on >sesame ~session:* +get +getex +getrange +set +del +pexpire +eval +evalsha +hello";
    let words: Vec<&str> = ["ACL", "SETUSER", "few"]
        .into_iter()
        .chain(rules.split(' '))
        .collect();
    server.command::<()>(&words).await;
    let mut lines = Lines::from_now().await;
    let url = format!("redis://few:sesame@127.0.0.1:{}/", server.port());
    let layer = RedisSessionLayer::open(url)
        .expect("an address")
        .with_deadline(PATIENCE)
        .with_local_cache(axum_redis_sessions::LocalCache::new());
    let app = app(layer, write());
    begin(&app, "/").await;
    let warned = lines.take();
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].starts_with("WARN"), "{warned:?}");
    assert!(warned[0].contains("+client|tracking"), "{warned:?}");
    // A new connection.
    server
        .command::<redis::Value>(&["CLIENT", "KILL", "USER", "few"])
        .await;
    begin(&app, "/").await;
    assert_eq!(lines.take(), [""; 0], "once");
}
