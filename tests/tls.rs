//! TLS connections, and the errors for wrong certificates and ports.

#![cfg(all(feature = "axum", feature = "tls-rustls"))]

mod support;
#[path = "support/visits.rs"]
mod visits;

use std::{sync::Arc, time::Duration};

use axum_redis_sessions::RedisSessionLayer;
use redis::{Client, TlsCertificates};

use crate::{
    support::{
        browser::Browser,
        command_proxy::{CommandProxy, Verdict},
        proxy::{Mode, Proxy},
        sentinels::{NAME, Sentinels},
        server::Server,
        tls::{Authority, TlsProxy, TlsServer},
    },
    visits::{assert_available, assert_unavailable, failures_until_connected, serve, serve_client},
};

const HOST: &str = "localhost";
const LATER: i32 = 2099;

/// A client that trusts only this authority.
fn client(port: u16, authority: &Authority) -> Client {
    client_of("", port, authority)
}

fn client_of(user: &str, port: u16, authority: &Authority) -> Client {
    let certificates = TlsCertificates {
        client_tls: None,
        root_cert: Some(authority.certificate().into()),
    };
    let url = format!("rediss://{user}{HOST}:{port}/");
    Client::build_with_tls(url, certificates).expect("an address")
}

/// A browser with a session in the server behind the TLS.
async fn visitor_of(server: &Server) -> Browser {
    let app = serve_client(server.client()).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    browser
}

/// 503 by the deadline, with a reason that contains these words.
async fn assert_reason(client: Client, browser: &Browser, words: &[&str]) {
    let app = serve_client(client).await;
    assert_unavailable(&app, browser).await;
    crate::visits::assert_reason(&app, browser, words).await;
}

#[tokio::test]
async fn tls_works_without_a_crypto_provider_chosen_by_the_app() {
    let authority = Authority::named("ours");
    let server = TlsServer::start(&authority.sign(HOST, LATER)).await;
    let app = serve_client(client(server.port(), &authority)).await;
    let browser = Browser::new();
    for visit in 1..=5 {
        assert_eq!(browser.get(app.url("/")).await.body, visit.to_string());
    }
    assert_eq!(server.plain.session_keys().await.len(), 1);
}

#[tokio::test]
async fn a_broken_tls_connection_is_replaced() {
    let authority = Authority::named("ours");
    let server = TlsServer::start(&authority.sign(HOST, LATER)).await;
    let proxy = Proxy::before(server.port()).await;
    let app = serve_client(client(proxy.port(), &authority)).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    proxy.sever_open();
    assert_available(&app, &browser).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");
    // In the middle of a TLS record.
    proxy.cut_after(10);
    assert_eq!(browser.get(app.url("/")).await.body, "3");
}

#[tokio::test]
async fn a_handshake_over_long_round_trips_outlasts_the_first_request() {
    let authority = Authority::named("ours");
    let server = TlsServer::start(&authority.sign(HOST, LATER)).await;
    let proxy = Proxy::before(server.port()).await;
    proxy.set(Mode::Delay(Duration::from_millis(200)));
    let app = serve_client(client(proxy.port(), &authority)).await;
    let bad = failures_until_connected(&app).await;
    // One, or a few on a busy machine. Without an attempt that outlasts its request it would never end.
    assert!(bad <= 3, "{bad}");
}

#[tokio::test]
async fn an_untrusted_certificate_authority_is_reported() {
    let server = TlsServer::start(&Authority::named("theirs").sign(HOST, LATER)).await;
    let browser = visitor_of(&server.plain).await;
    let client = client(server.port(), &Authority::named("ours"));
    assert_reason(
        client,
        &browser,
        &["UnknownIssuer", "the CA that the client trusts"],
    )
    .await;
}

#[tokio::test]
async fn an_expired_certificate_is_reported() {
    let authority = Authority::named("ours");
    let server = TlsServer::start(&authority.sign(HOST, 2021)).await;
    let browser = visitor_of(&server.plain).await;
    let client = client(server.port(), &authority);
    assert_reason(client, &browser, &["certificate", "expired"]).await;
}

#[tokio::test]
async fn a_certificate_for_another_host_is_reported() {
    let authority = Authority::named("ours");
    let server = TlsServer::start(&authority.sign("another.example", LATER)).await;
    let browser = visitor_of(&server.plain).await;
    let client = client(server.port(), &authority);
    assert_reason(client, &browser, &["certificate", "host"]).await;
}

#[tokio::test]
async fn a_port_without_tls_is_reported() {
    let server = Server::start().await;
    let browser = visitor_of(&server).await;
    let client = client(server.port(), &Authority::named("ours"));
    assert_reason(client, &browser, &["speaks TLS"]).await;
}

#[tokio::test]
async fn a_client_without_tls_to_a_tls_port_is_reported() {
    let authority = Authority::named("ours");
    let server = TlsServer::start(&authority.sign(HOST, LATER)).await;
    let browser = visitor_of(&server.plain).await;
    let client = Client::open(format!("redis://{HOST}:{}/", server.port()));
    assert_reason(client.expect("an address"), &browser, &["address"]).await;
}

#[tokio::test]
async fn tls_settings_are_kept_with_a_password_provider() {
    let authority = Authority::named("ours");
    let server = TlsServer::start(&authority.sign(HOST, LATER)).await;
    let set = ["ACL", "SETUSER", "app", "on", ">sesame", "~*", "+@all"];
    server.plain.command::<String>(&set).await;
    let client = client_of("app@", server.port(), &authority);
    let layer = RedisSessionLayer::new(client).with_password_provider(|| "sesame".to_owned());
    let app = serve(layer).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
}

#[cfg(feature = "cluster")]
#[tokio::test]
async fn a_cluster_behind_tls_has_the_names_of_its_address_map() {
    let authority = Authority::named("ours");
    let server = Server::start_with(&["--cluster-enabled", "yes"]).await;
    let slots: Vec<String> = (0..16_384).map(|slot| slot.to_string()).collect();
    let words = ["CLUSTER", "ADDSLOTS"].into_iter();
    let words: Vec<&str> = words.chain(slots.iter().map(String::as_str)).collect();
    server.command::<String>(&words).await;
    // The certificate is for this name, and the cluster announces 127.0.0.1.
    let proxy = TlsProxy::before(server.port(), &authority.sign(HOST, LATER)).await;
    let port = proxy.port();
    let seed = client(port, &authority).get_connection_info().clone();
    let layer = RedisSessionLayer::cluster([seed]).expect("an address");
    let app = serve(layer.with_cluster_address_map(move |_, _| (HOST.to_owned(), port))).await;
    let browser = Browser::new();
    support::eventually(Duration::from_secs(10), async || {
        browser.get(app.url("/")).await.status == 200
    })
    .await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");
    assert_eq!(browser.get(app.url("/cycle")).await.status, 200);
    assert_eq!(browser.get(app.url("/")).await.body, "3");
}

#[cfg(feature = "sentinel")]
#[tokio::test]
async fn sentinels_and_the_master_may_speak_tls() {
    let authority = Authority::named("ours");
    let sentinels = Sentinels::start().await;
    // The sentinels announce an address, so the master's certificate is for that.
    let master = sentinels.servers[0].port();
    let proxy = TlsProxy::before(master, &authority.sign("127.0.0.1", LATER)).await;
    let [from, to] = [master, proxy.port()].map(|port| format!("\r\n{port}\r\n"));
    let ports = Arc::new(vec![(from, to)]);
    let rule = move |_: &[String]| Verdict::Rewrite(ports.clone());
    let names_proxy = CommandProxy::before(sentinels.sentinels[0].port(), rule).await;
    let sentinel = TlsProxy::before(names_proxy.port(), &authority.sign(HOST, LATER)).await;

    let [sentinel, master] =
        [sentinel.port(), 1].map(|port| client(port, &authority).get_connection_info().clone());
    let layer = RedisSessionLayer::sentinel(NAME, [sentinel], master).expect("addresses");
    let app = serve(layer).await;
    let browser = Browser::new();
    for visit in 1..=3 {
        assert_eq!(browser.get(app.url("/")).await.body, visit.to_string());
    }
}
