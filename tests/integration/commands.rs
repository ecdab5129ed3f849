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
