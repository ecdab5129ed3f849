//! Sentinels that hang, are down, or name an old master.

use std::time::{Duration, Instant};

use axum_redis_sessions::RedisSessionLayer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    support::{
        browser::Browser,
        eventually,
        sentinels::{NAME, Sentinels},
    },
    visits::{RECOVERY, assert_reason, serve},
};

fn layer(sentinels: impl IntoIterator<Item = String>) -> RedisSessionLayer {
    RedisSessionLayer::sentinel(NAME, sentinels, "redis://master/").expect("addresses")
}

/// A port that accepts, and sends `reply` to each command, or nothing.
async fn listener(reply: Option<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("redis://{}/", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let reply = reply.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = client.read(&mut buffer).await {
                    let Some(reply) = &reply else { continue };
                    let sent = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    let answer = match sent.contains("GET-MASTER") {
                        true => reply.as_str(),
                        false => "-ERR unknown command\r\n",
                    };
                    if client.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn a_first_sentinel_that_hangs_delays_nothing() {
    let sentinels = Sentinels::start().await;
    let urls = sentinels.sentinels.iter().map(|sentinel| sentinel.url());
    let hole = listener(None).await;
    let app = serve(layer([hole].into_iter().chain(urls.skip(1)))).await;
    let browser = Browser::new();
    let begun = Instant::now();
    for _ in 0..10 {
        assert_eq!(browser.get(app.url("/")).await.status, 200);
    }
    println!(
        "behind a sentinel that hangs: {:?} for ten",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_sentinel_that_names_a_replica_is_passed_over() {
    let sentinels = Sentinels::start().await;
    let master = sentinels.master().await.expect("a master");
    let replica = sentinels.servers[1 - master].port().to_string();
    let reply = format!(
        "*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{replica}\r\n",
        replica.len()
    );
    let stale = listener(Some(reply)).await;
    let urls = sentinels.sentinels.iter().map(|sentinel| sentinel.url());
    let app = serve(layer([stale].into_iter().chain(urls.skip(1)))).await;
    let browser = Browser::new();
    let end = Instant::now() + Duration::from_secs(2);
    let mut visits = 0;
    while Instant::now() < end {
        visits += 1;
        assert_eq!(browser.get(app.url("/")).await.body, visits.to_string());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_followed_while_the_first_sentinel_hangs() {
    let mut sentinels = Sentinels::start().await;
    let urls: Vec<String> = sentinels
        .sentinels
        .iter()
        .map(|sentinel| sentinel.url())
        .collect();
    let app = serve(layer(urls)).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.status, 200);
    let master = sentinels.master().await.expect("a master");
    sentinels.sentinels[0].stop();
    sentinels.servers[master].kill();
    let new = sentinels.servers[1 - master].port();
    eventually(Duration::from_secs(30), async || {
        let command = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
        let named = sentinels.sentinels[1]
            .try_command::<(String, u16)>(&command)
            .await;
        named.is_ok_and(|(_, port)| port == new)
    })
    .await;
    let replaced = Instant::now();
    eventually(Duration::from_secs(20), async || {
        browser.get(app.url("/")).await.status == 200
    })
    .await;
    println!(
        "a failover with a sentinel that hangs: good after {:?}",
        replaced.elapsed()
    );
    assert!(replaced.elapsed() < RECOVERY, "{:?}", replaced.elapsed());
    sentinels.sentinels[0].resume();
}

#[tokio::test]
async fn an_idle_app_opens_no_connections() {
    let sentinels = Sentinels::start().await;
    let urls: Vec<String> = sentinels
        .sentinels
        .iter()
        .map(|sentinel| sentinel.url())
        .collect();
    let confirmed = layer(urls).with_replica_acks(1, Duration::from_millis(100));
    let app = serve(confirmed).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.status, 200);
    browser.get(app.url("/destroy")).await;
    let master = sentinels.master().await.expect("a master");
    let connections = async || {
        let master = &sentinels.servers[master];
        let received = master.information("total_connections_received").await;
        received
            .expect("a number")
            .parse::<u64>()
            .expect("a number")
    };
    let before = connections().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    // One is this question's, and the sentinels keep theirs.
    let after = connections().await;
    assert!(after <= before + 2, "{before}, {after}");
}

#[tokio::test]
async fn a_server_given_as_a_sentinel_is_passed_over_and_named() {
    let sentinels = Sentinels::start().await;
    let server = sentinels.servers[0].url();
    let urls = sentinels.sentinels.iter().map(|sentinel| sentinel.url());
    let app = serve(layer([server.clone()].into_iter().chain(urls.skip(1)))).await;
    let browser = Browser::new();
    for visit in 1..=3 {
        assert_eq!(browser.get(app.url("/")).await.body, visit.to_string());
    }
    let app = serve(layer([server])).await;
    assert_reason(&app, &browser, &["not a sentinel"]).await;
}
