//! Failover with asynchronous replication: what is lost, and what replica acks report.

use std::time::Duration;

use axum_redis_sessions::RedisSessionLayer;

use crate::{
    support::{
        app::{self, Address},
        browser::{Browser, Page},
        eventually,
        proxy::{Mode, Proxy},
        server::Server,
    },
    visits::{app, id, serve_client},
};

const TIMEOUT: Duration = Duration::from_millis(200);
/// A server checks the timeout of WAIT ten times a second, and a busy machine needs time too.
const DEADLINE: Duration = Duration::from_secs(5);

/// A master, and a replica in sync behind a proxy.
async fn master_and_replica() -> (Server, Proxy, Server) {
    let quick = [
        "--repl-diskless-sync-delay",
        "0",
        "--repl-ping-replica-period",
        "1",
    ];
    let master = Server::start_with(&quick).await;
    let proxy = Proxy::before(master.port()).await;
    let port = proxy.port().to_string();
    let replica = Server::start_with(&["--replicaof", "127.0.0.1", &port]).await;
    eventually(Duration::from_secs(20), async || {
        replica.information("master_link_status").await.as_deref() == Some("up")
    })
    .await;
    // The master must know that too. WAIT is about the writes of its own connection.
    let mut connection = master.connection().await;
    let mut write_and_wait = redis::pipe();
    write_and_wait.cmd("SET").arg("written").arg(1).ignore();
    write_and_wait.cmd("WAIT").arg(1).arg(1000);
    for _ in 0..20 {
        let [confirmed]: [u32; 1] = write_and_wait
            .query_async(&mut connection)
            .await
            .expect("an answer");
        if confirmed == 1 {
            return (master, proxy, replica);
        }
    }
    panic!("the replica does not get into step");
}

/// The replica has the one session.
async fn has_arrived(replica: &Server) {
    eventually(Duration::from_secs(20), async || {
        replica.session_keys().await.len() == 1
    })
    .await;
}

async fn serve(layer: RedisSessionLayer) -> Address {
    app::serve(app(layer.with_deadline(DEADLINE))).await
}

fn acknowledged(master: &Server) -> RedisSessionLayer {
    RedisSessionLayer::new(master.client()).with_replica_acks(1, TIMEOUT)
}

/// Kills the master, promotes the replica, and serves an app on it.
async fn fail_over(master: &mut Server, replica: &Server) -> Address {
    master.kill();
    replica.command::<String>(&["REPLICAOF", "NO", "ONE"]).await;
    serve_client(replica.client()).await
}

fn assert_not_replicated(page: &Page) {
    assert_eq!(page.status, 503);
    assert!(
        page.body.contains("0 of 1 replicas confirmed"),
        "{}",
        page.body
    );
}

#[tokio::test]
async fn without_replica_acks_a_failover_can_undo_a_logout() {
    let (mut master, proxy, replica) = master_and_replica().await;
    let app = serve_client(master.client()).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    has_arrived(&replica).await;
    let stolen = browser.fork(&app.url("/"));
    proxy.set(Mode::Stall);
    // This is what `with_replica_acks` is for.
    assert_eq!(browser.get(app.url("/destroy")).await.status, 200);
    let app = fail_over(&mut master, &replica).await;
    assert_eq!(stolen.get(app.url("/visits")).await.body, "1", "it is back");
}

#[tokio::test]
async fn an_unreplicated_logout_is_an_error() {
    let (mut master, proxy, replica) = master_and_replica().await;
    let app = serve(acknowledged(&master)).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    has_arrived(&replica).await;
    proxy.set(Mode::Stall);
    let page = browser.get(app.url("/destroy")).await;
    assert_not_replicated(&page);
    assert!(page.set_cookies.is_empty(), "so the browser can retry");
    assert_eq!(master.session_keys().await.len(), 0, "the change was made");
    // A retry does not report success either.
    let page = browser.get(app.url("/destroy")).await;
    assert_eq!(page.status, 503, "no replica has it yet");
    // Once the replica is back, a repeated logout succeeds.
    proxy.set(Mode::Forward);
    eventually(Duration::from_secs(20), async || {
        let page = browser.get(app.url("/destroy")).await;
        page.status == 200
    })
    .await;
    // The cookie is kept, since a login in between would have set a newer one.
    let app = fail_over(&mut master, &replica).await;
    assert_eq!(browser.get(app.url("/visits")).await.body, "0");
    assert_eq!(replica.session_keys().await.len(), 0);
}

#[tokio::test]
async fn an_unreplicated_rotation_is_an_error() {
    let (master, proxy, _replica) = master_and_replica().await;
    let app = serve(acknowledged(&master)).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    let before = id(&app, &browser);
    assert_eq!(browser.get(app.url("/cycle")).await.status, 200);
    assert_ne!(id(&app, &browser), before);
    proxy.set(Mode::Stall);
    let page = browser.get(app.url("/cycle")).await;
    assert_not_replicated(&page);
}

#[tokio::test]
async fn an_unreplicated_logout_after_a_rotation_is_an_error() {
    let (mut master, proxy, replica) = master_and_replica().await;
    let app = serve(acknowledged(&master).with_rotation_grace(Duration::ZERO)).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    has_arrived(&replica).await;
    proxy.set(Mode::Stall);
    assert_eq!(browser.get(app.url("/cycle")).await.status, 503);
    // The master has a tombstone, the replica the session, and the browser the old cookie.
    assert_eq!(browser.get(app.url("/destroy")).await.status, 503);
    proxy.set(Mode::Forward);
    eventually(Duration::from_secs(20), async || {
        browser.get(app.url("/destroy")).await.status == 200
    })
    .await;
    let app = fail_over(&mut master, &replica).await;
    assert_eq!(browser.get(app.url("/visits")).await.body, "0");
}

#[tokio::test]
async fn a_normal_save_waits_for_replicas_only_if_configured() {
    let (master, proxy, _replica) = master_and_replica().await;
    let app = serve(acknowledged(&master)).await;
    let every = serve(acknowledged(&master).with_replica_acks_for_every_write()).await;
    let browser = Browser::new();
    assert_eq!(browser.get(every.url("/")).await.body, "1");
    proxy.set(Mode::Stall);
    assert_eq!(browser.get(app.url("/")).await.body, "2");
    let page = browser.get(every.url("/")).await;
    assert_not_replicated(&page);
    // The change was made nevertheless.
    assert_eq!(browser.get(app.url("/visits")).await.body, "3");
    assert_eq!(
        browser.get(every.url("/visits")).await.body,
        "3",
        "a load does not wait for replicas"
    );
}

#[tokio::test]
async fn waiting_for_replicas_does_not_block_other_requests() {
    let (master, proxy, _replica) = master_and_replica().await;
    let layer = RedisSessionLayer::new(master.client()).with_replica_acks(1, TIMEOUT);
    let app = serve(layer).await;
    let [leaving, staying] = [Browser::new(), Browser::new()];
    assert_eq!(leaving.get(app.url("/")).await.body, "1");
    assert_eq!(staying.get(app.url("/")).await.body, "1");
    proxy.set(Mode::Stall);
    let logout = {
        let (url, browser) = (app.url("/destroy"), leaving.clone());
        tokio::spawn(async move { browser.get(url).await })
    };
    let mut visits = 1;
    while !logout.is_finished() {
        visits += 1;
        assert_eq!(staying.get(app.url("/")).await.body, visits.to_string());
    }
    assert_eq!(logout.await.expect("an answer").status, 503);
    assert!(visits > 4, "{visits}");
}
