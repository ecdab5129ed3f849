//! Addresses in the forms that they may have: IPv6, and credentials with any characters. Unix sockets are in `access`.

use std::sync::Arc;

use axum_redis_sessions::RedisSessionLayer;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use crate::{
    support::{browser::Browser, server::Server},
    visits::serve,
};

#[tokio::test]
async fn an_ipv6_address_is_accepted() {
    let server = Server::start().await;
    let listener = TcpListener::bind("[::1]:0").await.expect("IPv6");
    let port = listener.local_addr().expect("an address").port();
    let to = server.port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", to)).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    let layer = RedisSessionLayer::open(format!("redis://[::1]:{port}/"));
    let app = serve(layer.expect("an address")).await;
    let browser = Browser::new();
    for visit in 1..=3 {
        assert_eq!(browser.get(app.url("/")).await.body, visit.to_string());
    }
}

#[tokio::test]
async fn credentials_may_have_any_characters() {
    let server = Server::start().await;
    // Each is encoded as in any URL.
    for (password, encoded) in [
        ("sesame:p@ss/w?r#d%", "sesame%3Ap%40ss%2Fw%3Fr%23d%25"),
        ("sesame+&=;!$'()*,", "sesame+&=;!$'()*,"),
        ("sesame ä€😀", "sesame%20%C3%A4%E2%82%AC%F0%9F%98%80"),
    ] {
        let user = "app@example.com";
        let rule = format!(">{password}");
        let rules = ["on", "resetpass", &rule, "~session:*", "+@all"];
        let command = [&["ACL", "SETUSER", user], &rules[..]].concat();
        server.command::<String>(&command).await;
        let url = |password: &str| {
            format!(
                "redis://app%40example.com:{password}@127.0.0.1:{}/",
                server.port()
            )
        };
        let layer = RedisSessionLayer::open(url(encoded)).expect("an address");
        // A provider's password is not part of a URL.
        let provided: Arc<str> = password.into();
        let provider = RedisSessionLayer::open(url("other")).expect("an address");
        let provider = provider.with_password_provider(move || provided.to_string());
        for layer in [layer, provider] {
            let app = serve(layer).await;
            let browser = Browser::new();
            for visit in 1..=2 {
                assert_eq!(browser.get(app.url("/")).await.body, visit.to_string());
            }
        }
    }
}
