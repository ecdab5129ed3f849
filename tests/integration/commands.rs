//! The Redis commands of each kind of request, as MONITOR reports them.

use axum::{http::header, routing::get};
use axum_redis_sessions::{RedisSessionLayer, Session};

use crate::{
    support::{app, browser::Browser, server::Server},
    visits,
};

const REQUESTS: usize = 100;

#[tokio::test]
async fn each_kind_of_request_costs_the_documented_commands() {
    let server = Server::start().await;
    let same = async |session: Session| session.insert("constant", 1);
    let app = visits::routes()
        .route("/same", get(same))
        .layer(RedisSessionLayer::new(server.client()));
    let app = app::serve(app).await;
    let browser = Browser::new();

    // Open the connection and load the scripts.
    for path in ["/", "/", "/same", "/cycle", "/destroy"] {
        browser.get(app.url(path)).await;
    }
    let monitor = server.monitor().await;

    let anonymous = Browser::new();
    for path in ["/untouched", "/visits", "/only-if", "/cycle", "/destroy"] {
        for _ in 0..REQUESTS {
            assert_eq!(anonymous.get(app.url(path)).await.status, 200);
        }
    }
    assert_eq!(
        count(&monitor.drain().await),
        [],
        "no commands without a cookie"
    );

    for _ in 0..REQUESTS {
        let new = Browser::new();
        assert_eq!(new.get(app.url("/")).await.body, "1");
    }
    assert_eq!(
        count(&monitor.drain().await),
        [("SET", REQUESTS)],
        "a new session"
    );

    browser.get(app.url("/")).await;
    browser.get(app.url("/same")).await;
    monitor.drain().await;
    // Valkey has SET … IFEQ, Redis 7.0 needs a script.
    let write = match server.is_valkey().await {
        true => vec![("GETEX", REQUESTS), ("SET", REQUESTS)],
        false => vec![("EVALSHA", REQUESTS), ("GETEX", REQUESTS)],
    };
    monitor.drain().await;
    for (path, expected) in [
        ("/untouched", vec![]),
        ("/visits", vec![("GETEX", REQUESTS)]),
        ("/only-if", vec![("GETEX", REQUESTS)]),
        ("/same", vec![("GETEX", REQUESTS)]),
        ("/", write),
        ("/cycle", vec![("EVALSHA", REQUESTS), ("GETEX", REQUESTS)]),
    ] {
        for _ in 0..REQUESTS {
            assert_eq!(browser.get(app.url(path)).await.status, 200);
        }
        assert_eq!(count(&monitor.drain().await), expected, "{path}");
    }

    browser.get(app.url("/destroy")).await;
    assert_eq!(
        count(&monitor.drain().await),
        [("EVALSHA", 1), ("GETEX", 1)],
        "one besides the load"
    );
    // The new sessions, and a tombstone for each rotation.
    let keys = server.command::<Vec<String>>(&["KEYS", "session:*"]).await;
    assert_eq!(keys.len(), REQUESTS + (REQUESTS + 1));
}

#[tokio::test]
async fn an_invalid_cookie_costs_no_command() {
    let server = Server::start().await;
    let app = app::serve(visits::app(RedisSessionLayer::new(server.client()))).await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let monitor = server.monitor().await;
    for cookie in [
        "__Host-session=",
        "__Host-session=*",
        "__Host-session=a%0d%0aDEL%20x",
        "__Host-session=../../x",
        "other=1",
    ] {
        let response = client
            .get(app.url("/visits"))
            .header(header::COOKIE, cookie)
            .send()
            .await
            .expect("an answer");
        assert!(
            !response.headers().contains_key(header::SET_COOKIE),
            "{cookie}"
        );
        assert_eq!(response.text().await.expect("a body"), "0", "{cookie}");
    }
    assert_eq!(count(&monitor.drain().await), []);
}

/// Two apps on one host, which share the cookie since it does not depend on the port.
#[tokio::test]
async fn an_id_of_another_app_costs_one_read_and_nothing_else() {
    let server = Server::start().await;
    let serve = async |prefix: &str, name: Option<&str>, key: Option<&str>| {
        let mut layer = RedisSessionLayer::new(server.client()).with_prefix(prefix);
        if let Some(name) = name {
            layer = layer.with_cookie_name(name);
        }
        if let Some(key) = key {
            layer = layer.with_signing_keys([key]);
        }
        let app = app::serve(visits::app(layer)).await;
        // Connects.
        Browser::new().get(app.url("/")).await;
        app
    };
    let shop = serve("shop:", None, None).await;
    let admin = serve("admin:", None, None).await;
    let signed = serve("signed:", None, Some("a key of at least 32 random bytes")).await;
    let named = serve("named:", Some("__Host-named"), None).await;

    let browser = Browser::new();
    browser.get(shop.url("/")).await;
    let dump = async || {
        let keys: Vec<String> = server.command(&["KEYS", "shop:*"]).await;
        let mut values = Vec::new();
        for key in keys {
            values.push(server.command::<String>(&["GET", &key]).await);
        }
        values.sort();
        values
    };
    let before = dump().await;
    let monitor = server.monitor().await;
    for (app, reads) in [(&admin, 1), (&signed, 0), (&named, 0)] {
        for path in [
            "/untouched",
            "/look",
            "/visits",
            "/only-if",
            "/clear",
            "/cycle",
            "/destroy",
        ] {
            monitor.drain().await;
            let page = browser.get(app.url(path)).await;
            assert_eq!((page.status, page.set_cookies.len()), (200, 0), "{path}");
            let commands = monitor.drain().await;
            let reads = if path == "/untouched" { 0 } else { reads };
            let expected = [("GETEX", reads)];
            assert_eq!(
                count(&commands),
                expected[usize::from(reads == 0)..],
                "{path}"
            );
        }
    }
    assert_eq!(dump().await, before);
    assert_eq!(browser.get(shop.url("/")).await.body, "2");
    // With names of their own, both keep their sessions. Otherwise the later login wins.
    assert_eq!(browser.get(named.url("/")).await.body, "1");
    assert_eq!(browser.get(shop.url("/")).await.body, "3");
    assert_eq!(browser.get(named.url("/")).await.body, "2");
    assert_eq!(browser.get(admin.url("/")).await.body, "1");
    assert_eq!(browser.get(shop.url("/")).await.body, "1");
}

/// The number of commands by name.
fn count(commands: &[Vec<String>]) -> Vec<(&str, usize)> {
    let mut counted: Vec<(&str, usize)> = Vec::new();
    for command in commands {
        match counted
            .iter_mut()
            .find(|(name, _)| name.eq_ignore_ascii_case(&command[0]))
        {
            Some((_, count)) => *count += 1,
            None => counted.push((&command[0], 1)),
        }
    }
    counted.sort_unstable();
    counted
}
