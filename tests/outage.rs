//! Redis away, slow, or back: bounded time, 503, no cookie touched, nothing lost.

mod support;

use std::time::{Duration, Instant};

use axum::{Router, routing::get};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionError};
use support::{
    app::{self, Address},
    browser::Browser,
    eventually,
    server::Server,
};

const DEADLINE: Duration = Duration::from_millis(300);
/// What a loaded machine may add. Far below the seconds that a client without a deadline waits.
const SLACK: Duration = Duration::from_millis(1500);

async fn visits(session: Session) -> Result<String, SessionError> {
    session
        .update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)
        .map(|n| n.to_string())
}

async fn serve(client: redis::Client) -> Address {
    let app = Router::new()
        .route("/", get(visits))
        .route("/untouched", get(|| async { "served" }))
        .route(
            "/only-if",
            get(|session: Option<Session>| async move { session.is_some().to_string() }),
        )
        .route(
            "/either",
            get(|session: Result<Session, SessionError>| async move {
                session.map_or_else(
                    |error| format!("{:?}", error.kind()),
                    |_| "loaded".to_owned(),
                )
            }),
        )
        .layer(RedisSessionLayer::new(client).with_deadline(DEADLINE));
    app::serve(app).await
}

/// The session is not available, and the browser notices nothing but that.
async fn assert_away(app: &Address, browser: &Browser) {
    let cookie = browser.cookie(&app.url("/"), "__Host-session");
    for path in ["/", "/only-if"] {
        let asked = Instant::now();
        let response = browser.get(app.url(path)).await;
        let took = asked.elapsed();
        assert_eq!(response.status, 503, "{path}: {}", response.body);
        assert_eq!(response.headers["retry-after"], "1");
        assert!(took < DEADLINE + SLACK, "{path} took {took:?}");
        assert!(response.set_cookies.is_empty(), "{path}");
    }
    assert_eq!(browser.get(app.url("/either")).await.body, "Unavailable");
    assert_eq!(browser.get(app.url("/untouched")).await.body, "served");
    assert_eq!(browser.cookie(&app.url("/"), "__Host-session"), cookie);
}

async fn assert_back(app: &Address, browser: &Browser) {
    eventually(Duration::from_secs(5), || async {
        browser.get(app.url("/only-if")).await.status == 200
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_stopped_is_waited_for_until_the_deadline_and_then_goes_on() {
    let server = Server::start().await;
    let app = serve(server.client()).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    server.stop();
    assert_away(&app, &browser).await;
    server.resume();
    assert_back(&app, &browser).await;
    // The writes that were never acknowledged never reached the server: their loads did not come back either.
    assert_eq!(browser.get(app.url("/")).await.body, "2");
}

#[tokio::test]
async fn a_server_that_is_killed_and_restarted_is_found_again() {
    let mut server = Server::start().await;
    let app = serve(server.client()).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    server.kill();
    assert_away(&app, &browser).await;
    server.restart().await;
    assert_back(&app, &browser).await;
    // This server kept nothing, so the session is gone, and begins anew.
    assert_eq!(browser.get(app.url("/")).await.body, "1");
}

#[tokio::test]
async fn an_app_that_starts_before_its_server_finds_it_when_it_comes() {
    let mut server = Server::start().await;
    let browser = Browser::new();
    {
        let before = serve(server.client()).await;
        assert_eq!(browser.get(before.url("/")).await.body, "1");
    }
    server.kill();
    let app = serve(server.client()).await;
    let visitor = Browser::new();
    assert_eq!(
        visitor.get(app.url("/")).await.status,
        503,
        "a visitor without a cookie cannot begin a session"
    );
    assert_eq!(visitor.get(app.url("/untouched")).await.body, "served");
    server.restart().await;
    eventually(Duration::from_secs(5), || async {
        visitor.get(app.url("/")).await.status == 200
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced_unnoticed() {
    let server = Server::start().await;
    let app = serve(server.client()).await;
    let browser = Browser::new();
    for visit in 1..=20 {
        assert_eq!(browser.get(app.url("/")).await.body, visit.to_string());
        server
            .command::<i64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
            .await;
    }
}

#[tokio::test]
async fn a_server_that_forgets_its_scripts_is_not_noticed() {
    let server = Server::start().await;
    let app = serve(server.client()).await;
    let browser = Browser::new();
    for visit in 1..=20 {
        assert_eq!(browser.get(app.url("/")).await.body, visit.to_string());
        server.command::<String>(&["SCRIPT", "FLUSH"]).await;
    }
}

#[tokio::test]
async fn a_server_without_memory_refuses_writes_and_still_answers_reads() {
    let server = Server::start().await;
    let app = serve(server.client()).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    server
        .command::<String>(&["CONFIG", "SET", "maxmemory", "1"])
        .await;
    let refused = browser.get(app.url("/")).await;
    assert_eq!(refused.status, 503);
    assert!(
        refused.body.contains("OOM") && refused.body.contains("maxmemory"),
        "{}",
        refused.body
    );
    assert!(refused.set_cookies.is_empty());
    assert_eq!(browser.get(app.url("/only-if")).await.body, "true");
    server
        .command::<String>(&["CONFIG", "SET", "maxmemory", "0"])
        .await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");
}

#[tokio::test]
async fn an_acl_that_forbids_a_command_is_named_and_heals() {
    let server = Server::start().await;
    let acl = async |rules: &[&str]| {
        let command = [&["ACL", "SETUSER", "app"], rules].concat();
        server.command::<String>(&command).await;
    };
    acl(&["on", ">swordfish", "~session:*", "+@all"]).await;
    let client = format!("redis://app:swordfish@127.0.0.1:{}/", server.port());
    let app = serve(redis::Client::open(client).expect("an address")).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");

    // What a save needs: the one on Valkey, the others on Redis.
    acl(&["-set", "-eval", "-evalsha"]).await;
    let refused = browser.get(app.url("/")).await;
    assert_eq!(refused.status, 503);
    assert!(
        refused.body.contains("forbids this user the command "),
        "{}",
        refused.body
    );
    acl(&["+set", "+eval", "+evalsha"]).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");

    acl(&["resetkeys", "~other:*"]).await;
    let refused = browser.get(app.url("/")).await;
    assert_eq!(refused.status, 503);
    assert!(
        refused.body.contains("the keys session:*"),
        "{}",
        refused.body
    );
    acl(&["~session:*"]).await;
    assert_eq!(browser.get(app.url("/")).await.body, "3");

    server
        .command::<String>(&["ACL", "SETUSER", "app", "resetpass", ">sailfish"])
        .await;
    server
        .command::<i64>(&["CLIENT", "KILL", "USER", "app"])
        .await;
    let locked_out = browser.get(app.url("/")).await;
    assert_eq!(locked_out.status, 503);
    assert!(
        !locked_out.body.contains("swordfish"),
        "{}",
        locked_out.body
    );
    server
        .command::<String>(&["ACL", "SETUSER", "app", ">swordfish"])
        .await;
    assert_back(&app, &browser).await;
}

#[tokio::test]
async fn what_is_stored_by_others_is_an_error_and_left_alone() {
    let server = Server::start().await;
    let app = serve(server.client()).await;
    let browser = Browser::new();
    browser.get(app.url("/")).await;
    let id = browser
        .cookie(&app.url("/"), "__Host-session")
        .expect("a cookie");
    let key = format!("session:{id}");
    for stored in [
        "",
        "garbage",
        "{\"visits\":1",
        "[1]",
        "{\"visits\":1,\"visits\":2}",
        "{\"visits\":1}x",
        "\\x80\\x04",
    ] {
        server.command::<String>(&["SET", &key, stored]).await;
        let response = browser.get(app.url("/")).await;
        assert_eq!(
            (response.status, response.set_cookies.len()),
            (500, 0),
            "{stored}"
        );
        assert!(
            stored.is_empty() || !response.body.contains(stored),
            "{stored}"
        );
        assert_eq!(server.command::<String>(&["GET", &key]).await, stored);
    }
    server.command::<i64>(&["DEL", &key]).await;
    server.command::<i64>(&["RPUSH", &key, "a"]).await;
    let response = browser.get(app.url("/")).await;
    assert_eq!(response.status, 500);
    assert!(response.body.contains("WRONGTYPE"), "{}", response.body);
    assert_eq!(server.command::<i64>(&["LLEN", &key]).await, 1);
    server.command::<i64>(&["DEL", &key]).await;
    server
        .command::<String>(&["SET", &key, "{\"padding\":\"".to_owned().as_str()])
        .await;
    let large = format!("{{\"padding\":\"{}\"}}", "x".repeat(70_000));
    server.command::<String>(&["SET", &key, &large]).await;
    assert_eq!(browser.get(app.url("/")).await.status, 500);
    // By hand, and without `_rev`: a session like any other.
    server
        .command::<String>(&["SET", &key, r#"{"visits":41,"theirs":[1.50]}"#])
        .await;
    assert_eq!(browser.get(app.url("/")).await.body, "42");
    let stored = server.command::<String>(&["GET", &key]).await;
    assert!(
        stored.ends_with(r#","visits":42,"theirs":[1.50]}"#),
        "{stored}"
    );
    assert!(
        server.command::<i64>(&["TTL", &key]).await > 86_000,
        "and has a lifetime again"
    );
}
