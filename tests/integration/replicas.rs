//! What a failover undoes, and how waiting for replicas tells of it.

use std::time::Duration;

use axum_redis_sessions::RedisSessionLayer;

use crate::{
    support::{
        app::{self, Address},
        browser::Browser,
        eventually,
        proxy::{Manner, Proxy},
        server::Server,
    },
    visits::{app, id, serve_client},
};

const TIMEOUT: Duration = Duration::from_millis(200);
/// A server looks at the time that WAIT has only ten times a second, and a busy machine takes its own.
const DEADLINE: Duration = Duration::from_secs(5);

/// A master, and a replica behind a proxy, which is in step.
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
    // And for the master: WAIT tells of what its own connection wrote, and of nothing else.
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

/// The one session is with the replica.
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

/// The master dies, and the replica takes its place: an app that asks it.
async fn fail_over(master: &mut Server, replica: &Server) -> Address {
    master.kill();
    replica.command::<String>(&["REPLICAOF", "NO", "ONE"]).await;
    serve_client(replica.client()).await
}

#[tokio::test]
async fn without_replica_acks_a_failover_can_undo_a_logout() {
    let (mut master, proxy, replica) = master_and_replica().await;
    let app = serve_client(master.client()).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    has_arrived(&replica).await;
    let stolen = browser.fork(&app.url("/"));
    proxy.set(Manner::Stands);
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
    proxy.set(Manner::Stands);
    let page = browser.get(app.url("/destroy")).await;
    assert_eq!(page.status, 503);
    assert!(
        page.body.contains("0 of 1 replicas confirmed"),
        "{}",
        page.body
    );
    assert!(page.set_cookies.is_empty(), "so the browser can ask again");
    assert_eq!(master.session_keys().await.len(), 0, "the change was made");
    // Asking again is no way around it.
    let page = browser.get(app.url("/destroy")).await;
    assert_eq!(page.status, 503, "no replica has it yet");
    // Once the replica is there again, so is the confirmation: a logout can be repeated.
    proxy.set(Manner::Passes);
    eventually(Duration::from_secs(20), async || {
        let page = browser.get(app.url("/destroy")).await;
        page.status == 200
    })
    .await;
    // The cookie stays: a login that came in between would have given the browser a newer one.
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
    proxy.set(Manner::Stands);
    let page = browser.get(app.url("/cycle")).await;
    assert_eq!(page.status, 503);
    assert!(
        page.body.contains("0 of 1 replicas confirmed"),
        "{}",
        page.body
    );
}

#[tokio::test]
async fn an_unreplicated_logout_after_a_rotation_is_an_error() {
    let (mut master, proxy, replica) = master_and_replica().await;
    let app = serve(acknowledged(&master)).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    has_arrived(&replica).await;
    proxy.set(Manner::Stands);
    assert_eq!(browser.get(app.url("/cycle")).await.status, 503);
    // The master has a tombstone, the replica the session, and the browser its cookie.
    assert_eq!(browser.get(app.url("/destroy")).await.status, 503);
    proxy.set(Manner::Passes);
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
    proxy.set(Manner::Stands);
    assert_eq!(browser.get(app.url("/")).await.body, "2");
    let page = browser.get(every.url("/")).await;
    assert_eq!(page.status, 503);
    assert!(
        page.body.contains("0 of 1 replicas confirmed"),
        "{}",
        page.body
    );
    // The change was made all the same.
    assert_eq!(browser.get(app.url("/visits")).await.body, "3");
    assert_eq!(
        browser.get(every.url("/visits")).await.body,
        "3",
        "a load waits for nobody"
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
    proxy.set(Manner::Stands);
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
