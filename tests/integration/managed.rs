//! Managed services and proxies, each played by a proxy that treats commands as they do.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use axum_redis_sessions::RedisSessionLayer;

use crate::{
    support::{
        browser::Browser,
        command_proxy::{CommandProxy, Verdict},
        eventually,
        server::Server,
    },
    visits::{assert_reason, assert_unavailable, serve, serve_client, serve_patient},
};

/// How services say that they do not support a command.
const REJECTIONS: [&str; 8] = [
    "-ERR unknown command '{}', with args beginning with: ",
    "-ERR unsupported command",
    "-unsupported command '{}'",
    "-ERR Command is not available: '{}'. See the documentation",
    "-ERR handle request, command '{}' is not allowed",
    "-ERR command '{}' not support for normal user",
    "-ERR unsupport command '{}'",
    "-ERR {} is disabled on this plan",
];

async fn rejecting(server: &Server, commands: &'static [&str], text: &str) -> CommandProxy {
    let text = text.to_owned();
    let rule = move |words: &[String]| match commands.contains(&words[0].as_str()) {
        true => Verdict::Reply(text.replace("{}", &words[0])),
        false => Verdict::Pass,
    };
    CommandProxy::before(server.port(), rule).await
}

/// A browser with a session, so that each of its requests loads one.
async fn visitor_of(server: &Server) -> Browser {
    let app = serve_client(server.client()).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    browser
}

#[tokio::test]
async fn no_command_is_needed_beyond_the_documented_ones() {
    let server = Server::start().await;
    let documented = [
        "GET", "GETEX", "GETRANGE", "SET", "DEL", "PEXPIRE", "EVAL", "EVALSHA",
    ];
    for rejection in REJECTIONS {
        let rule = move |words: &[String]| match documented.contains(&words[0].as_str()) {
            true => Verdict::Pass,
            false => Verdict::Reply(rejection.replace("{}", &words[0])),
        };
        let proxy = CommandProxy::before(server.port(), rule).await;
        let app = serve_client(proxy.client()).await;
        let browser = Browser::new();
        for page in ["/", "/", "/cycle", "/permanent?is=true", "/", "/destroy"] {
            let page = browser.get(app.url(page)).await;
            assert_eq!(page.status, 200, "{rejection}: {}", page.body);
        }
    }
}

#[tokio::test]
async fn getex_may_be_rejected_in_any_words() {
    let server = Server::start().await;
    for rejection in REJECTIONS {
        let proxy = rejecting(&server, &["GETEX"], rejection).await;
        let app = serve_client(proxy.client()).await;
        let browser = Browser::new();
        for visit in 1..=3 {
            let page = browser.get(app.url("/")).await;
            assert_eq!(page.body, visit.to_string(), "{rejection}");
        }
    }
}

#[tokio::test]
async fn scripts_may_be_rejected_in_any_words() {
    let server = Server::start().await;
    for rejection in REJECTIONS {
        let proxy = rejecting(&server, &["EVAL", "EVALSHA"], rejection).await;
        let app = serve_client(proxy.client()).await;
        let browser = Browser::new();
        assert_eq!(browser.get(app.url("/")).await.body, "1");
        let page = browser.get(app.url("/destroy")).await;
        assert_eq!(page.status, 503);
        assert!(
            page.body.contains("with_last_write_wins"),
            "{rejection}: {}",
            page.body
        );
        let app = serve(RedisSessionLayer::new(proxy.client()).with_last_write_wins()).await;
        for page in ["/", "/cycle", "/", "/destroy"] {
            assert_eq!(browser.get(app.url(page)).await.status, 200, "{page}");
        }
    }
}

#[tokio::test]
async fn replica_acks_name_the_missing_wait() {
    let server = Server::start().await;
    for rejection in REJECTIONS {
        let proxy = rejecting(&server, &["WAIT"], rejection).await;
        let layer = RedisSessionLayer::new(proxy.client());
        let app = serve(layer.with_replica_acks(1, crate::visits::DEADLINE / 5)).await;
        let browser = Browser::new();
        assert_eq!(browser.get(app.url("/")).await.body, "1");
        let page = browser.get(app.url("/destroy")).await;
        assert_eq!(page.status, 503);
        assert!(page.body.contains("WAIT"), "{rejection}: {}", page.body);
    }
}

#[cfg(feature = "cluster")]
#[tokio::test]
async fn the_cluster_constructor_needs_cluster_slots() {
    let server = Server::start().await;
    let browser = visitor_of(&server).await;
    for rejection in REJECTIONS {
        let proxy = rejecting(&server, &["CLUSTER"], rejection).await;
        let layer = RedisSessionLayer::cluster([proxy.url()]).expect("an address");
        let app = serve(layer).await;
        assert_reason(&app, &browser, &["RedisSessionLayer::new"]).await;
    }
    let layer = RedisSessionLayer::cluster([server.url()]).expect("an address");
    let app = serve(layer).await;
    assert_reason(&app, &browser, &["RedisSessionLayer::new"]).await;
}

#[tokio::test]
async fn a_proxy_that_distributes_keys_needs_last_write_wins() {
    let servers = [Server::start().await, Server::start().await];
    let rule = |words: &[String]| {
        let key = match words[0].as_str() {
            "EVAL" | "EVALSHA" => &words[3],
            _ if words.len() < 2 => return Verdict::Reply("-ERR unknown command".to_owned()),
            _ => &words[1],
        };
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        Verdict::PassTo(usize::from(hasher.finish().is_multiple_of(2)))
    };
    let ports = servers.iter().map(Server::port).collect();
    let proxy = CommandProxy::before_all(ports, rule).await;
    let app = serve(RedisSessionLayer::new(proxy.client()).with_last_write_wins()).await;
    for _ in 0..10 {
        let browser = Browser::new();
        for visit in 1..=3 {
            assert_eq!(browser.get(app.url("/")).await.body, visit.to_string());
            assert_eq!(browser.get(app.url("/cycle")).await.status, 200);
        }
    }
    for server in servers {
        assert!(!server.session_keys().await.is_empty());
    }
}

#[tokio::test]
async fn a_proxy_that_closes_on_getex_is_unavailable() {
    let server = Server::start().await;
    let rule = |words: &[String]| match words[0].as_str() {
        "GETEX" => Verdict::Close,
        _ => Verdict::Pass,
    };
    let proxy = CommandProxy::before(server.port(), rule).await;
    let app = serve_client(proxy.client()).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    assert_unavailable(&app, &browser).await;
}

#[tokio::test]
async fn protected_mode_is_named() {
    let server = Server::start().await;
    let browser = visitor_of(&server).await;
    let denied = "-DENIED Redis is running in protected mode because protected mode is enabled";
    let rule = move |_: &[String]| Verdict::Reply(denied.to_owned());
    let proxy = CommandProxy::before(server.port(), rule).await;
    let app = serve_client(proxy.client()).await;
    assert_reason(&app, &browser, &["protected mode"]).await;
}

/// What proxies answer when they lose the server, before or after it has executed the command.
#[tokio::test]
async fn a_server_that_its_proxy_loses_is_a_lost_connection() {
    for text in [
        "-upstream failure",
        "-no upstream host",
        "-ERR Connection refused",
        "-ERR Connection timed out",
    ] {
        let server = Server::start().await;
        let commands = AtomicUsize::new(0);
        let is_down = Arc::new(AtomicBool::new(false));
        let down = is_down.clone();
        let rule = move |words: &[String]| {
            if words[0] == "HELLO" {
                Verdict::Pass
            } else if down.load(Relaxed) {
                Verdict::Reply(text.to_owned())
            } else if commands.fetch_add(1, Relaxed) % 3 == 1 {
                Verdict::PassAndReply(text.to_owned())
            } else {
                Verdict::Pass
            }
        };
        let proxy = CommandProxy::before(server.port(), rule).await;
        let app = serve_client(proxy.client()).await;
        let browser = Browser::new();
        for visit in 1..=10 {
            let page = browser.get(app.url("/")).await;
            assert_eq!(page.body, visit.to_string(), "{text}");
        }
        is_down.store(true, Relaxed);
        assert_unavailable(&app, &browser).await;
        assert_reason(&app, &browser, &["proxy", "cannot reach Redis"]).await;
        is_down.store(false, Relaxed);
        assert_eq!(browser.get(app.url("/")).await.body, "11", "{text}");
    }
}

/// The address may lead to another server by now, or the next connection may be authenticated. So it is tried anew, but not for each request.
#[tokio::test]
async fn a_connection_that_the_server_refuses_to_serve_is_replaced_now_and_then() {
    let server = Server::start().await;
    for error in [
        "-READONLY You can't write against a read only replica.",
        "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "-NOAUTH Authentication required.",
    ] {
        let (refuses, opened) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let rule = {
            let (refuses, opened) = (refuses.clone(), opened.clone());
            move |words: &[String]| match words[0].as_str() {
                "HELLO" => {
                    opened.fetch_add(1, Relaxed);
                    Verdict::Pass
                }
                "GETEX" if refuses.load(Relaxed) => Verdict::Reply(error.to_owned()),
                _ => Verdict::Pass,
            }
        };
        let proxy = CommandProxy::before(server.port(), rule).await;
        let app = serve_patient(RedisSessionLayer::new(proxy.client())).await;
        let browser = Browser::new();
        browser.get(app.url("/")).await;
        assert_eq!(opened.load(Relaxed), 1, "{error}");
        refuses.store(true, Relaxed);
        let begun = Instant::now();
        // Until the connection is old enough to be replaced, and once more.
        eventually(Duration::from_secs(20), || async {
            let page = browser.get(app.url("/")).await;
            assert_ne!(page.status, 200, "{error}");
            opened.load(Relaxed) >= 3
        })
        .await;
        let most = 2 + begun.elapsed().as_millis() / 250;
        assert!(opened.load(Relaxed) as u128 <= most, "{error}: {most}");
        refuses.store(false, Relaxed);
        assert_eq!(browser.get(app.url("/")).await.body, "2", "{error}");
    }
}
