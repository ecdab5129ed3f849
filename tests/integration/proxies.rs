//! Servers that lack a command, a database or a right, and proxies that do not support HELLO.

use std::time::Duration;

use axum_redis_sessions::RedisSessionLayer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::{
    support::{browser::Browser, eventually, server::Server},
    visits::{assert_reason, serve, serve_client},
};

/// Forwards to `port`, but answers HELLO itself, or closes the connection. Returns the part of a URL after the credentials.
pub(crate) async fn without_hello(port: u16, reply: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
                let mut buffer = vec![0; 4096];
                let length = client.read(&mut buffer).await?;
                let sent = &buffer[..length];
                if sent.windows(5).any(|word| word == b"HELLO") {
                    if let Some(reply) = reply {
                        client.write_all(reply.as_bytes()).await?;
                        // Further commands of the same write get the same answer.
                        let _ = client.read(&mut buffer).await?;
                    }
                    return Ok(());
                }
                server.write_all(sent).await?;
                copy_bidirectional(&mut client, &mut server).await.map(drop)
            });
        }
    });
    address.to_string()
}

/// Makes a cluster of this server alone.
async fn take_all_slots(server: &Server) {
    let slots: Vec<String> = (0..16_384).map(|slot| slot.to_string()).collect();
    let mut words = vec!["CLUSTER", "ADDSLOTS"];
    words.extend(slots.iter().map(String::as_str));
    server.command::<String>(&words).await;
    eventually(Duration::from_secs(10), async || {
        let info: String = server.command(&["CLUSTER", "INFO"]).await;
        info.contains("cluster_state:ok")
    })
    .await;
}

#[tokio::test]
async fn resp2_is_used_where_hello_is_not_supported() {
    let open = Server::start().await;
    let locked = Server::start_with(&["--requirepass", "sesame"]).await;
    for (name, reply) in [
        ("closes", None),
        (
            "unsupported command",
            Some("-unsupported command 'HELLO'\r\n"),
        ),
        ("an error", Some("-ERR unsupported command\r\n")),
        ("unknown", Some("-ERR unknown command 'HELLO'\r\n")),
        (
            "not before AUTH",
            Some("-NOAUTH Authentication required.\r\n"),
        ),
    ] {
        for (server, credentials) in [(&open, ""), (&locked, ":sesame@")] {
            if name == "not before AUTH" && credentials.is_empty() {
                continue;
            }
            let address = without_hello(server.port(), reply).await;
            for protocol in ["", "?protocol=resp2"] {
                let url = format!("redis://{credentials}{address}/{protocol}");
                let app = serve(RedisSessionLayer::open(url).expect("an address")).await;
                let browser = Browser::new();
                for visit in 1..=3 {
                    let page = browser.get(app.url("/")).await;
                    assert_eq!(page.body, visit.to_string(), "{name} {protocol}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_server_without_getex_is_served_by_get_and_pexpire() {
    let server = Server::start_configured(&["save \"\"", "rename-command GETEX \"\""]).await;
    let app = serve_client(server.client()).await;
    let browser = Browser::new();
    for visit in 1..=5 {
        assert_eq!(browser.get(app.url("/")).await.body, visit.to_string());
    }
    let key = &server.session_keys().await[0];
    server.command::<i64>(&["PEXPIRE", key, "1000000"]).await;
    browser.get(app.url("/look")).await;
    let ttl: i64 = server.command(&["PTTL", key]).await;
    assert!(ttl > 80_000_000, "{ttl}");
}

#[tokio::test]
async fn a_server_without_scripts_is_told() {
    let lines = [
        "save \"\"",
        "rename-command EVALSHA \"\"",
        "rename-command EVAL \"\"",
    ];
    let server = Server::start_configured(&lines).await;
    let app = serve_client(server.client()).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    let page = browser.get(app.url("/destroy")).await;
    assert_eq!(page.status, 503);
    assert!(page.body.contains("EVALSHA"), "{}", page.body);
    assert!(page.body.contains("with_last_write_wins"), "{}", page.body);
    let layer = RedisSessionLayer::new(server.client()).with_last_write_wins();
    let app = serve(layer).await;
    for page in ["/", "/cycle", "/", "/destroy"] {
        assert_eq!(browser.get(app.url(page)).await.status, 200, "{page}");
    }
}

#[tokio::test]
async fn one_address_in_front_of_a_cluster_rotates_in_two_steps() {
    let server = Server::start_with(&["--cluster-enabled", "yes"]).await;
    take_all_slots(&server).await;
    let app = serve_client(server.client()).await;
    let browser = Browser::new();
    for visit in 1..=5 {
        assert_eq!(browser.get(app.url("/")).await.body, visit.to_string());
        assert_eq!(browser.get(app.url("/cycle")).await.status, 200);
    }
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_named() {
    let server = Server::start().await;
    let url = format!("redis://127.0.0.1:{}/99", server.port());
    let app = serve(RedisSessionLayer::open(url).expect("an address")).await;
    let browser = Browser::new();
    browser
        .get(serve_client(server.client()).await.url("/"))
        .await;
    assert_reason(&app, &browser, &["database"]).await;
}

#[tokio::test]
async fn a_permanent_session_keeps_its_ttl_without_pexpire() {
    let server = Server::start().await;
    let rules = [
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">sesame",
        "~session:*",
        "+@all",
        "-pexpire",
    ];
    server.command::<String>(&rules).await;
    let url = format!("redis://app:sesame@127.0.0.1:{}/", server.port());
    let layer = RedisSessionLayer::open(url).expect("an address");
    let app = serve(layer.clone()).await;
    let browser = Browser::new();
    browser.get(app.url("/permanent?is=true")).await;
    for _ in 0..2 {
        assert_eq!(browser.get(app.url("/look")).await.status, 200);
        layer.drain().await;
        let key = &server.session_keys().await[0];
        let ttl: i64 = server.command(&["TTL", key]).await;
        assert!(ttl > 30 * 24 * 60 * 60, "{ttl}");
    }
}

#[tokio::test]
async fn connecting_needs_no_right_beyond_the_documented_ones() {
    let server = Server::start().await;
    let rules = [
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">sesame",
        "~session:*",
        "+getex",
        "+get",
        "+getrange",
        "+set",
        "+del",
        "+pexpire",
        "+eval",
        "+evalsha",
    ];
    server.command::<String>(&rules).await;
    let url = format!("redis://app:sesame@127.0.0.1:{}/", server.port());
    let app = serve(RedisSessionLayer::open(url).expect("an address")).await;
    let browser = Browser::new();
    for page in ["/", "/", "/cycle", "/destroy"] {
        assert_eq!(browser.get(app.url(page)).await.status, 200, "{page}");
    }
    let violations: Vec<redis::Value> = server.command(&["ACL", "LOG"]).await;
    assert!(violations.is_empty(), "{violations:?}");
}

#[cfg(feature = "cluster")]
#[tokio::test]
async fn announced_addresses_are_translated_and_named_in_errors() {
    let options = [
        "--cluster-enabled",
        "yes",
        "--cluster-announce-ip",
        "127.0.0.9",
    ];
    let server = Server::start_with(&options).await;
    take_all_slots(&server).await;
    let layer = || RedisSessionLayer::cluster([server.url()]).expect("an address");
    let mapped = layer().with_cluster_address_map(|_, port| ("127.0.0.1".to_owned(), port));
    let app = serve(mapped).await;
    let browser = Browser::new();
    for visit in 1..=3 {
        assert_eq!(browser.get(app.url("/")).await.body, visit.to_string());
    }
    let app = serve(layer()).await;
    let words = ["127.0.0.9", "with_cluster_address_map"];
    assert_reason(&app, &browser, &words).await;
}
