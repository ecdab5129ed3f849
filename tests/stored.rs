//! What others do to the stored sessions: write, evict, flush, and set clocks wrong.

#[path = "support/site.rs"]
mod site;
mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum_redis_sessions::RedisSessionLayer;
use site::{id, serve as serve_layer, serve_client as serve, serve_gated};
use support::{browser::Browser, server::Server};

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

#[tokio::test]
async fn a_session_that_is_flushed_mid_request_is_gone_and_not_recreated() {
    let server = Server::start().await;
    mid_request(&server, async |_| {
        server.command::<String>(&["FLUSHALL"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_session_that_is_evicted_mid_request_is_gone_and_not_recreated() {
    let server = Server::start_with(&["--maxmemory-policy", "allkeys-lru"]).await;
    mid_request(&server, async |_| {
        // Any write makes room first.
        server.set("maxmemory", "1").await;
        let _ = server.try_command::<String>(&["SET", "another", "x"]).await;
        server.set("maxmemory", "0").await;
    })
    .await;
}

#[tokio::test]
async fn a_session_that_expires_mid_request_is_gone_and_not_recreated() {
    let server = Server::start().await;
    mid_request(&server, async |key| {
        server.command::<i64>(&["PEXPIRE", key, "1"]).await;
        support::eventually(Duration::from_secs(5), async || {
            server.command::<i64>(&["EXISTS", key]).await == 0
        })
        .await;
    })
    .await;
}

/// `end` ends the session between a request's load and its save.
async fn mid_request(server: &Server, end: impl AsyncFnOnce(&str)) {
    let (app, gate) = serve_gated(server.client()).await;
    let browser = Browser::new();
    browser.get(app.url("/")).await;
    let key = format!("session:{}", id(&app, &browser).expect("a cookie"));
    let late = {
        let (url, browser) = (app.url("/gated/mark"), browser.clone());
        tokio::spawn(async move { browser.get(url).await })
    };
    gate.arrived(1).await;
    end(&key).await;
    gate.let_pass(1);
    let page = late.await.expect("an answer");
    assert_eq!((page.status, page.body.as_str()), (200, "passed"));
    assert!(page.set_cookies.is_empty(), "{:?}", page.set_cookies);
    assert_eq!(server.session_keys().await, Vec::<String>::new());
    assert_eq!(browser.get(app.url("/look")).await.body, "0");
    assert_eq!(browser.get(app.url("/")).await.body, "1", "a new session");
}

#[tokio::test]
async fn the_absolute_timeout_holds_on_clocks_that_differ_by_an_hour() {
    let hour = 3600;
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client())
        .with_absolute_timeout(Duration::from_secs(2 * hour));
    let app = serve_layer(layer).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("after 1970").as_secs();
    for (begun, lives_for, why) in [
        (now, Some(2 * hour), "begun just now"),
        (
            now - hour,
            Some(hour),
            "an hour ago, or by a clock that is an hour behind",
        ),
        (
            now + hour - 60,
            Some(2 * hour),
            "by a clock that is an hour ahead",
        ),
        (now - 2 * hour, None, "as long ago as the timeout"),
        (
            now - 3 * hour,
            None,
            "long ago, or by such a clock: ends early rather than late",
        ),
        (now + 2 * hour, None, "in a future that no clock explains"),
        (0, None, "in 1970"),
        (u64::MAX, None, "never"),
    ] {
        let browser = Browser::new();
        browser.get(app.url("/")).await;
        let key = format!("session:{}", id(&app, &browser).expect("a cookie"));
        let stored = format!(r#"{{"_rev":"0123456789abcdef","_created":{begun},"visits":1}}"#);
        server
            .command::<String>(&["SET", &key, &stored, "EX", "60"])
            .await;
        let page = browser.get(app.url("/")).await;
        assert_eq!(page.status, 200, "{why}: {}", page.body);
        match lives_for {
            Some(seconds) => {
                assert_eq!(page.body, "2", "{why}");
                let left: u64 = server.command(&["TTL", &key]).await;
                assert!((seconds - 60..=seconds).contains(&left), "{why}: {left}");
            }
            None => {
                assert_eq!(page.body, "1", "{why}");
                assert_ne!(
                    format!("session:{}", id(&app, &browser).expect("a cookie")),
                    key,
                    "{why}"
                );
            }
        }
    }
}
