//! Stored data that other programs wrote, evicted or flushed, and clocks that differ.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum_redis_sessions::RedisSessionLayer;

use crate::{
    support::{browser::Browser, server::Server},
    visits::{id, serve as serve_layer, serve_client as serve, serve_gated},
};

/// Values that are no session. Each contains the word "sesame", which no answer may show.
fn no_sessions() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| text.as_bytes().to_vec();
    let deep = |opening: &str, closing: &str| {
        let nested = [opening.repeat(10_000), closing.repeat(10_000)].concat();
        format!("{{\"sesame\":{nested}}}").into_bytes()
    };
    vec![
        ("empty", vec![]),
        ("truncated", text(r#"{"sesame":1"#)),
        (
            "truncated in a text",
            text(r#"{"_rev":"0123456789abcdef","sesame":"a"#),
        ),
        ("random bytes", b"\x8f\x00\xe1sesame\xff\xfe\r\n".to_vec()),
        ("an unknown version", text(r#"v2:{"sesame":1}"#)),
        ("trailing bytes", text(r#"{"sesame":1}x"#)),
        ("a second object", text(r#"{"sesame":1}{"sesame":2}"#)),
        ("a trailing NUL", b"{\"sesame\":1}\0".to_vec()),
        (
            "a byte order mark",
            "\u{feff}{\"sesame\":1}".as_bytes().to_vec(),
        ),
        ("not UTF-8", b"{\"sesame\":\"\xff\"}".to_vec()),
        ("duplicate keys", text(r#"{"sesame":1,"sesame":2}"#)),
        (
            "duplicate keys, one escaped",
            text(r#"{"sesame":1,"\u0073esame":2}"#),
        ),
        ("a list", text(r#"["sesame"]"#)),
        ("a text", text(r#""sesame""#)),
        ("null", text("null")),
        ("nested 10,000 times, and unfinished", deep("[", "")),
        (
            "nested 10,000 times, and no object",
            [vec![b'['; 10_000], vec![b']'; 10_000]].concat(),
        ),
        // Django and Flask-Session; PHP; a signed cookie of Rails; MessagePack of tower-sessions.
        (
            "a pickle",
            b"\x80\x04\x95\x14\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x06sesame\x94K\x01s.".to_vec(),
        ),
        ("PHP's", text(r#"user|s:6:"sesame";"#)),
        (
            "base64 with a signature",
            text("eyJzZXNhbWUiOjF9--c2VzYW1l"),
        ),
        ("MessagePack", b"\x93\xc4\x10\x81\xa6sesame\x01".to_vec()),
    ]
}

#[tokio::test]
async fn an_invalid_stored_value_is_an_error_and_is_kept() {
    let server = Server::start().await;
    let app = serve(server.client()).await;
    let browser = Browser::new();
    browser.get(app.url("/")).await;
    let key = format!("session:{}", id(&app, &browser).expect("a cookie"));
    let mut connection = server.connection().await;
    let set = async |stored: &[u8]| {
        let mut connection = server.connection().await;
        let mut command = redis::cmd("SET");
        command.arg(&key).arg(stored);
        command.exec_async(&mut connection).await.expect("set");
    };
    for (name, stored) in no_sessions() {
        set(&stored).await;
        // A read, a write, a destroy, a rotation.
        for path in ["/visits", "/", "/only-if", "/cycle", "/destroy"] {
            let page = browser.get(app.url(path)).await;
            assert_eq!(
                (page.status, page.set_cookies.len()),
                (500, 0),
                "{name}, {path}"
            );
            assert!(
                page.body.contains("is not a session of this crate"),
                "{name}: {}",
                page.body
            );
            assert!(!page.body.contains("sesame"), "{name}: {}", page.body);
        }
        let left: Vec<u8> = redis::cmd("GET")
            .arg(&key)
            .query_async(&mut connection)
            .await
            .expect("a value");
        assert_eq!(left, stored, "{name}");
        assert_eq!(server.session_keys().await.len(), 1, "{name}");
    }
    for (name, words) in [
        ("a list", ["RPUSH", &key, "sesame"].as_slice()),
        ("a hash", &["HSET", &key, "sesame", "1"]),
        ("a set", &["SADD", &key, "sesame"]),
        ("a sorted set", &["ZADD", &key, "1", "sesame"]),
        ("a stream", &["XADD", &key, "1-1", "sesame", "1"]),
    ] {
        server.command::<i64>(&["DEL", &key]).await;
        server.command::<redis::Value>(words).await;
        let dump = async || server.command::<redis::Value>(&["DUMP", &key]).await;
        let before = dump().await;
        for path in ["/visits", "/", "/destroy"] {
            let page = browser.get(app.url(path)).await;
            assert_eq!(
                (page.status, page.set_cookies.len()),
                (500, 0),
                "{name}, {path}"
            );
            assert!(page.body.contains("WRONGTYPE"), "{name}: {}", page.body);
            assert!(!page.body.contains("sesame"), "{name}: {}", page.body);
        }
        assert_eq!(dump().await, before, "{name}");
    }
}

#[tokio::test]
async fn an_empty_stored_object_is_no_session_and_is_kept() {
    let server = Server::start().await;
    let app = serve(server.client()).await;
    for stored in [
        "{}",
        r#"{"_rev":"0123456789abcdef"}"#,
        r#"{"_created":1,"_permanent":true}"#,
    ] {
        let browser = Browser::new();
        browser.get(app.url("/")).await;
        let key = format!("session:{}", id(&app, &browser).expect("a cookie"));
        server.command::<String>(&["SET", &key, stored]).await;
        let page = browser.get(app.url("/only-if")).await;
        assert_eq!(
            (page.body.as_str(), page.set_cookies.len()),
            ("false", 0),
            "{stored}"
        );
        assert_eq!(browser.get(app.url("/")).await.body, "1", "{stored}");
        assert_ne!(
            format!("session:{}", id(&app, &browser).expect("a cookie")),
            key,
            "{stored}"
        );
        assert_eq!(server.command::<String>(&["GET", &key]).await, stored);
    }
}

#[tokio::test]
async fn a_handwritten_session_gets_an_expiry() {
    let server = Server::start().await;
    let app = serve(server.client()).await;
    let browser = Browser::new();
    browser.get(app.url("/")).await;
    let key = format!("session:{}", id(&app, &browser).expect("a cookie"));
    let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let stored = format!(r#"{{"visits":41,"theirs":[1.50],"nested":{nested}}}"#);
    server.command::<String>(&["SET", &key, &stored]).await;
    assert_eq!(server.command::<i64>(&["TTL", &key]).await, -1);
    // A read is enough.
    assert_eq!(browser.get(app.url("/visits")).await.body, "41");
    assert!(server.command::<i64>(&["TTL", &key]).await > 86_000);
    server.command::<i64>(&["PERSIST", &key]).await;
    assert_eq!(browser.get(app.url("/")).await.body, "42");
    assert!(server.command::<i64>(&["TTL", &key]).await > 86_000);
    let saved = server.command::<String>(&["GET", &key]).await;
    let kept = format!(r#","visits":42,"theirs":[1.50],"nested":{nested}}}"#);
    assert!(saved.ends_with(&kept), "{saved}");
}

#[tokio::test]
async fn a_session_over_the_size_limit_can_be_read_and_shrunk() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client()).with_max_size(1000);
    let app = serve_layer(layer).await;
    let browser = Browser::new();
    browser.get(app.url("/")).await;
    let key = format!("session:{}", id(&app, &browser).expect("a cookie"));
    let small = server.command::<String>(&["GET", &key]).await;
    let monitor = server.monitor().await;
    let page = browser
        .get(app.url(&format!("/keep/large/{}", "x".repeat(1000))))
        .await;
    assert_eq!((page.status, page.set_cookies.len()), (500, 0));
    assert!(!page.body.contains("xxx"), "{}", page.body);
    let sent = monitor.drain().await;
    assert!(sent.iter().all(|command| command[0] == "GETEX"), "{sent:?}");
    assert_eq!(server.command::<String>(&["GET", &key]).await, small);

    let large = format!(r#"{{"visits":1,"padding":"{}"}}"#, "x".repeat(1000));
    server.command::<String>(&["SET", &key, &large]).await;
    assert_eq!(browser.get(app.url("/visits")).await.body, "1");
    // Not larger than before, and larger.
    assert_eq!(browser.get(app.url("/")).await.body, "2");
    let page = browser.get(app.url("/keep/one/more")).await;
    assert_eq!((page.status, page.set_cookies.len()), (500, 0));
    assert!(
        page.body.contains("with_max_size allows 1000"),
        "{}",
        page.body
    );
    assert!(!page.body.contains("xxx"), "{}", page.body);
    assert_eq!(browser.get(app.url("/kept/one")).await.body, "");
    assert_eq!(browser.get(app.url("/clear")).await.status, 200);
    assert_eq!(server.command::<i64>(&["EXISTS", &key]).await, 0);
}

#[tokio::test]
async fn a_session_flushed_mid_request_is_not_recreated() {
    let server = Server::start().await;
    mid_request(&server, async |_| {
        server.command::<String>(&["FLUSHALL"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_session_evicted_mid_request_is_not_recreated() {
    let server = Server::start_with(&["--maxmemory-policy", "allkeys-lru"]).await;
    mid_request(&server, async |_| {
        // The next write evicts.
        server.set("maxmemory", "1").await;
        let _ = server.try_command::<String>(&["SET", "another", "x"]).await;
        server.set("maxmemory", "0").await;
    })
    .await;
}

#[tokio::test]
async fn a_session_that_expires_mid_request_is_not_recreated() {
    let server = Server::start().await;
    mid_request(&server, async |key| {
        server.command::<i64>(&["PEXPIRE", key, "1"]).await;
        crate::support::eventually(Duration::from_secs(5), async || {
            server.command::<i64>(&["EXISTS", key]).await == 0
        })
        .await;
    })
    .await;
}

/// `end` removes the session between a request's load and its save.
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
    assert_eq!(browser.get(app.url("/visits")).await.body, "0");
    assert_eq!(browser.get(app.url("/")).await.body, "1", "a new session");
}

#[tokio::test]
async fn the_absolute_timeout_tolerates_an_hour_of_clock_skew() {
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

#[tokio::test]
async fn an_invalid_stored_timeout_ends_the_session() {
    let server = Server::start().await;
    let app = serve(server.client()).await;
    for (idle, lives) in [
        ("0", false),
        ("-1", false),
        ("1.5", false),
        ("\"soon\"", false),
        ("99999999999999999999999", false),
        ("60000", true),
        ("18446744073709551615", true),
    ] {
        let browser = Browser::new();
        browser.get(app.url("/")).await;
        let key = format!("session:{}", id(&app, &browser).expect("a cookie"));
        let stored = format!(r#"{{"_idle":{idle},"visits":1}}"#);
        server.command::<String>(&["SET", &key, &stored]).await;
        let page = browser.get(app.url("/")).await;
        let expected = if lives { "2" } else { "1" };
        assert_eq!((page.status, page.body.as_str()), (200, expected), "{idle}");
        // Where it ended, the key is left as it is.
        let left: String = server.command(&["GET", &key]).await;
        assert_eq!(left == stored, !lives, "{idle}");
    }
}

/// A program that changes the session beside the app, while a request has it.
#[tokio::test]
async fn a_foreign_writer_that_removes_the_revision_loses_nothing() {
    let server = Server::start().await;
    server.command::<String>(&["SET", "probe", "a"]).await;
    let mut probe = redis::cmd("SET");
    probe.arg("probe").arg("b").arg("IFEQ").arg("a");
    let mut connection = server.client().get_connection().expect("a connection");
    let has_ifeq = probe.exec(&mut connection).is_ok();
    let (app, gate) = serve_gated(server.client()).await;
    for (name, keeps_revision, is_large) in [
        ("removes it", false, false),
        ("removes it from a large session", false, true),
        ("keeps it", true, false),
        ("keeps it in a large session", true, true),
    ] {
        let browser = Browser::new();
        browser.get(app.url("/")).await;
        if is_large {
            let padding = "x".repeat(5_000);
            browser
                .get(app.url(&format!("/keep/padding/{padding}")))
                .await;
        }
        let request = {
            let (browser, url) = (browser.clone(), app.url("/gated/mark"));
            tokio::spawn(async move { browser.get(url).await.status })
        };
        gate.arrived(1).await;
        let id = id(&app, &browser).expect("a cookie");
        let key = format!("session:{id}");
        let stored: String = server.command(&["GET", &key]).await;
        let (revision, rest) = stored.split_at(26);
        let changed = rest.replacen(",\"visits\"", ",\"foreign\":\"kept\",\"visits\"", 1);
        let changed = if keeps_revision {
            format!("{revision}{changed}")
        } else {
            format!("{{{}", &changed[1..])
        };
        server
            .command::<String>(&["SET", &key, &changed, "KEEPTTL"])
            .await;
        gate.let_pass(1);
        assert_eq!(request.await.expect("served"), 200, "{name}");
        let foreign = browser.get(app.url("/kept/foreign")).await.body;
        // Documented: only the comparison of the whole value notices it.
        let is_lost = keeps_revision && (is_large || !has_ifeq);
        assert_eq!(foreign, if is_lost { "" } else { "kept" }, "{name}");
        assert_eq!(browser.get(app.url("/visits")).await.body, "2", "{name}");
    }
}
