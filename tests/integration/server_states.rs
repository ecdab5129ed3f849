//! A server that answers, but not with what was asked for: 503 with the reason, and recovery without a restart. More states are in
//! `outage`.

use std::{fs, time::Duration};

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    support::{browser::Browser, eventually, server::Server},
    visits::{assert_available, assert_reason, assert_unavailable, serve_client},
};

#[tokio::test]
async fn a_server_that_cannot_persist_rejects_writes_but_serves_reads() {
    let server = Server::start().await;
    let app = serve_client(server.client()).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    // A directory is where the file should be.
    fs::create_dir(server.directory().join("dump.rdb")).expect("made");
    server.set("save", "3600 1").await;
    server.command::<String>(&["BGSAVE"]).await;
    eventually(Duration::from_secs(10), async || {
        server
            .information("rdb_last_bgsave_status")
            .await
            .as_deref()
            == Some("err")
    })
    .await;
    let rejected = browser.get(app.url("/")).await;
    assert_eq!(rejected.status, 503);
    assert!(rejected.body.contains("MISCONF"), "{}", rejected.body);
    assert!(rejected.set_cookies.is_empty());
    server.set("save", "").await;
    assert_available(&app, &browser).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");
}

#[tokio::test]
async fn a_server_that_runs_a_long_script_is_unavailable_until_it_ends() {
    let server = Server::start().await;
    server.set("lua-time-limit", "20").await;
    let app = serve_client(server.client()).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    let mut endless = TcpStream::connect(("127.0.0.1", server.port()))
        .await
        .expect("a connection");
    let command = b"EVAL 'while true do end' 0\r\n";
    endless.write_all(command).await.expect("sent");
    assert_reason(&app, &browser, &["BUSY"]).await;
    assert_unavailable(&app, &browser).await;
    server.command::<String>(&["SCRIPT", "KILL"]).await;
    assert_available(&app, &browser).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");
}

#[tokio::test]
async fn a_replica_given_as_the_server_is_named() {
    let master = Server::start().await;
    let port = master.port().to_string();
    let replica = Server::start_with(&["--replicaof", "127.0.0.1", &port]).await;
    let app = serve_client(master.client()).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    eventually(Duration::from_secs(20), async || {
        replica.session_keys().await.len() == 1
    })
    .await;
    let app = serve_client(replica.client()).await;
    assert_unavailable(&app, &browser).await;
    assert_reason(&app, &browser, &["READONLY", "this server is a replica"]).await;
    // A visitor without a session as well.
    let page = Browser::new().get(app.url("/")).await;
    assert_eq!(page.status, 503);
}
