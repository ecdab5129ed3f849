//! Redis Sentinel with two servers and three sentinels: planned failovers and killed masters.

use std::time::{Duration, Instant};

use axum_redis_sessions::RedisSessionLayer;

use crate::{
    support::{
        browser::Browser,
        eventually,
        load::{Load, good_of_each, longest, recovery_time},
        sentinels::{NAME, Sentinels},
        server::Server,
    },
    visits::{
        DEADLINE, RECOVERY, SLACK, assert_available, assert_reason, assert_unavailable, serve,
        visitors, visits_of_each,
    },
};

fn layer(sentinels: &Sentinels) -> RedisSessionLayer {
    let addresses = sentinels.addresses();
    RedisSessionLayer::sentinel(NAME, addresses, "redis://master/").expect("addresses")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_stops_writes_to_the_old_master() {
    let sentinels = Sentinels::start().await;
    let app = serve(layer(&sentinels)).await;
    let visitors = visitors(&app, 10).await;
    let begun = Instant::now();
    let load = Load::begin(&app.url("/"), &visitors, Duration::from_millis(10));
    eventually(Duration::from_secs(10), async || load.answers().len() > 100).await;
    let before = sentinels.master().await.expect("a master");
    let planned = ["SENTINEL", "FAILOVER", NAME];
    sentinels.sentinels[0].command::<String>(&planned).await;
    eventually(Duration::from_secs(30), async || {
        sentinels.master().await == Some(1 - before)
    })
    .await;
    let replaced = Instant::now();
    eventually(Duration::from_secs(20), async || {
        load.good_for() > Duration::from_secs(3)
    })
    .await;
    // Our connections send it no more commands.
    let old = &sentinels.servers[before];
    eventually(Duration::from_secs(20), async || {
        old.information("role").await.as_deref() == Some("slave")
    })
    .await;
    let clients: String = old.command(&["CLIENT", "LIST", "TYPE", "normal"]).await;
    let writes = ["cmd=getex", "cmd=set", "cmd=evalsha"];
    let ours = clients
        .lines()
        .filter(|line| writes.iter().any(|write| line.contains(write)));
    let answers = load.end().await;
    let bad = answers.iter().filter(|answer| !answer.is_good());
    let healed = recovery_time(&answers, replaced);
    println!(
        "planned: {} answers, {} bad, errors ended {healed:?} after the sentinels agreed, the longest {:?}",
        answers.len(),
        bad.count(),
        longest(&answers)
    );
    assert!(healed < RECOVERY, "{healed:?}");
    assert!(
        longest(&answers) < 2 * DEADLINE + SLACK,
        "a load, and a save"
    );
    assert_eq!(ours.count(), 0, "{clients}");
    let told = good_of_each(&answers, visitors.len());
    let kept = visits_of_each(&app, &visitors).await;
    let lost = told.iter().zip(&kept);
    let lost: u64 = lost
        .map(|(told, kept)| (1 + told).saturating_sub(*kept))
        .sum();
    // Without replica acks some writes are lost: Sentinel itself takes a second to notice the new master.
    let rate = answers.len() as f64 / begun.elapsed().as_secs_f64();
    let lost = Duration::from_secs_f64(lost as f64 / rate);
    println!("planned: what the demoted master acknowledged within {lost:?} was lost");
    assert!(lost < RECOVERY, "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_loses_no_confirmed_write() {
    let sentinels = Sentinels::start().await;
    let confirmed = layer(&sentinels)
        .with_replica_acks(1, DEADLINE / 4)
        .with_replica_acks_for_every_write();
    let app = serve(confirmed).await;
    let visitors = visitors(&app, 10).await;
    let load = Load::begin(&app.url("/"), &visitors, Duration::from_millis(5));
    eventually(Duration::from_secs(10), async || load.answers().len() > 100).await;
    let before = sentinels.master().await.expect("a master");
    let planned = ["SENTINEL", "FAILOVER", NAME];
    sentinels.sentinels[0].command::<String>(&planned).await;
    // Writes need a replica again, which the old master becomes.
    eventually(Duration::from_secs(40), async || {
        sentinels.master().await == Some(1 - before) && sentinels.replicas_are_in_step().await
    })
    .await;
    eventually(Duration::from_secs(20), async || {
        load.good_for() > Duration::from_secs(1)
    })
    .await;
    let answers = load.end().await;
    let bad = answers.iter().filter(|answer| !answer.is_good()).count();
    println!("planned, confirmed: {} answers, {bad} bad", answers.len());
    let told = good_of_each(&answers, visitors.len());
    for (told, kept) in told.iter().zip(visits_of_each(&app, &visitors).await) {
        assert!(
            kept > *told,
            "{told} visits besides the first were acknowledged, and the count is {kept}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_loses_no_confirmed_write() {
    let mut sentinels = Sentinels::start().await;
    let master = sentinels.master().await.expect("a master");
    let confirmed = layer(&sentinels)
        .with_replica_acks(1, DEADLINE / 4)
        .with_replica_acks_for_every_write();
    let confirmed = serve(confirmed).await;
    let app = serve(layer(&sentinels)).await;
    let visitors = visitors(&confirmed, 10).await;
    let load = Load::begin(&confirmed.url("/"), &visitors, Duration::from_millis(5));
    eventually(Duration::from_secs(10), async || load.answers().len() > 100).await;
    sentinels.servers[master].kill();
    let killed = Instant::now();
    let told = good_of_each(&load.end().await, visitors.len());

    let load = Load::begin(&app.url("/visits"), &visitors, Duration::from_millis(10));
    eventually(Duration::from_secs(30), async || {
        sentinels.master().await == Some(1 - master)
    })
    .await;
    let replaced = Instant::now();
    eventually(Duration::from_secs(20), async || {
        load.good_for() > Duration::from_secs(2)
    })
    .await;
    let answers = load.end().await;
    let bad = answers.iter().filter(|answer| !answer.is_good());
    let healed = recovery_time(&answers, replaced);
    println!(
        "killed: replaced after {:?}, errors ended {healed:?} later, {} answers, {} bad, the longest {:?}",
        replaced - killed,
        answers.len(),
        bad.count(),
        longest(&answers)
    );
    assert!(healed < RECOVERY, "{healed:?}");
    assert!(longest(&answers) < DEADLINE + SLACK);
    for (told, kept) in told.iter().zip(visits_of_each(&app, &visitors).await) {
        assert!(
            kept > *told,
            "{told} visits besides the first were acknowledged, and the count is {kept}"
        );
    }
}

#[tokio::test]
async fn a_live_connection_outlasts_the_sentinels() {
    let mut sentinels = Sentinels::start().await;
    let app = serve(layer(&sentinels)).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    for sentinel in &mut sentinels.sentinels {
        sentinel.kill();
    }
    assert_eq!(browser.get(app.url("/")).await.body, "2");
    let late = serve(layer(&sentinels)).await;
    assert_unavailable(&late, &browser).await;
    assert_reason(&late, &browser, &["sentinel"]).await;
    sentinels.sentinels[1].restart().await;
    assert_available(&late, &browser).await;
    assert_eq!(browser.get(late.url("/")).await.body, "3");
}

#[tokio::test]
async fn an_unknown_master_name_is_reported() {
    let sentinels = Sentinels::start().await;
    let known = serve(layer(&sentinels)).await;
    let browser = Browser::new();
    assert_eq!(browser.get(known.url("/")).await.body, "1");
    let addresses = sentinels.addresses();
    let layer = RedisSessionLayer::sentinel("another", addresses, "redis://master/");
    let app = serve(layer.expect("addresses")).await;
    assert_unavailable(&app, &browser).await;
    assert_reason(&app, &browser, &["check the name"]).await;
}

#[tokio::test]
async fn sentinels_and_servers_have_passwords_of_their_own() {
    let servers = ["requirepass first-sesame", "masterauth first-sesame"];
    let auth = format!("sentinel auth-pass {NAME} first-sesame");
    let sentinels = ["requirepass second-sesame"];
    let sentinels = Sentinels::start_at("127.0.0.1", &servers, &sentinels, &[&auth]).await;
    let urls: Vec<String> = sentinels.sentinels.iter().map(Server::url).collect();
    let layer = |sentinels: &[String], master: &str| {
        let layer = RedisSessionLayer::sentinel(NAME, sentinels.to_vec(), master);
        layer.expect("addresses")
    };
    let app = serve(layer(&urls, "redis://:first-sesame@master/")).await;
    let browser = Browser::new();
    for visit in 1..=3 {
        assert_eq!(browser.get(app.url("/")).await.body, visit.to_string());
    }
    let wrong: Vec<String> = urls
        .iter()
        .map(|url| url.replace("second", "third"))
        .collect();
    let app = serve(layer(&wrong, "redis://:first-sesame@master/")).await;
    assert_reason(&app, &browser, &["credentials of the sentinels"]).await;
    let app = serve(layer(&urls, "redis://:third-sesame@master/")).await;
    assert_reason(&app, &browser, &["check the user and password"]).await;
}

#[tokio::test]
async fn a_host_name_that_sentinels_announce_is_resolved() {
    let names = [
        "sentinel resolve-hostnames yes",
        "sentinel announce-hostnames yes",
    ];
    let sentinels = Sentinels::start_at("localhost", &[], &names, &[]).await;
    let asked = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
    let (host, _): (String, u16) = sentinels.sentinels[0].command(&asked).await;
    assert_eq!(host, "localhost");
    let app = serve(layer(&sentinels)).await;
    let browser = Browser::new();
    for visit in 1..=3 {
        assert_eq!(browser.get(app.url("/")).await.body, visit.to_string());
    }
}
