//! Redis Cluster with six nodes: every slot, moving slots, stopped and killed masters.

use std::time::{Duration, Instant};

use axum_redis_sessions::RedisSessionLayer;

use crate::{
    support::{
        app::Address,
        browser::Browser,
        cluster::Cluster,
        eventually,
        load::{Answer, Load, good_of_each, longest, recovery_time},
        proxy::{Mode, Proxy},
        server::Server,
    },
    visits::{DEADLINE, RECOVERY, SLACK, id, serve, serve_patient, visitors, visits_of_each},
};

fn layer(cluster: &Cluster) -> RedisSessionLayer {
    RedisSessionLayer::cluster(cluster.urls()).expect("addresses")
}

/// The node that has each visitor's session.
async fn owners(cluster: &Cluster, app: &Address, visitors: &[Browser]) -> Vec<usize> {
    let mut owners = Vec::new();
    for browser in visitors {
        let key = format!("session:{}", id(app, browser).expect("a cookie"));
        let slot = cluster.slot(&key).await;
        owners.push(cluster.owner(slot).await.expect("an owner"));
    }
    owners
}

#[tokio::test]
async fn sessions_work_in_every_slot() {
    let cluster = Cluster::start().await;
    let app = serve_patient(layer(&cluster).with_rotation_grace(Duration::ZERO)).await;
    let visitors = visitors(&app, 30).await;
    let owners = owners(&cluster, &app, &visitors).await;
    for master in 0..3 {
        assert!(owners.contains(&master), "{owners:?}");
    }
    for browser in &visitors {
        assert_eq!(browser.get(app.url("/")).await.body, "2");
        let old = browser.fork(&app.url("/"));
        assert_eq!(browser.get(app.url("/cycle")).await.status, 200);
        assert_eq!(browser.get(app.url("/")).await.body, "3");
        assert_eq!(old.get(app.url("/visits")).await.body, "0", "a rotated id");
        let late = browser.fork(&app.url("/"));
        assert_eq!(browser.get(app.url("/destroy")).await.status, 200);
        assert_eq!(late.get(app.url("/visits")).await.body, "0", "logged out");
    }
}

#[tokio::test]
async fn a_cluster_is_found_through_any_reachable_node() {
    let mut cluster = Cluster::start().await;
    let [absent, first] = ["redis://127.0.0.1:1/".to_owned(), cluster.nodes[4].url()];
    let layer = RedisSessionLayer::cluster([absent.clone(), first]).expect("addresses");
    let app = serve(layer).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");

    let layer = RedisSessionLayer::cluster([absent]).expect("addresses");
    let lost = serve(layer).await;
    crate::visits::assert_unavailable(&lost, &browser).await;

    for node in &mut cluster.nodes {
        node.kill();
    }
    crate::visits::assert_unavailable(&app, &browser).await;
    for node in &mut cluster.nodes {
        node.restart().await;
    }
    eventually(Duration::from_secs(20), async || {
        browser.get(app.url("/")).await.status == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moving_slots_under_load_causes_no_error() {
    let cluster = Cluster::start().await;
    // All sessions in one slot.
    let app = serve_patient(layer(&cluster).with_prefix("{moving}session:")).await;
    let slot = cluster.slot("{moving}").await;
    let visitors = visitors(&app, 40).await;
    let load = Load::begin(&app.url("/"), &visitors, Duration::from_millis(5));
    let mut from = cluster.owner(slot).await.expect("an owner");
    for _ in 0..6 {
        let to = (from + 1) % 3;
        cluster.move_slot(slot, from, to).await;
        assert_eq!(cluster.owner(slot).await, Some(to));
        from = to;
        // Requests succeed between two moves.
        let answers = load.answers().len();
        eventually(Duration::from_secs(10), async || {
            load.answers().len() > answers + 80
        })
        .await;
    }
    let answers = load.end().await;
    let bad: Vec<&Answer> = answers.iter().filter(|answer| !answer.is_good()).collect();
    println!(
        "{} answers while a slot moved six times, {} bad, the longest {:?}",
        answers.len(),
        bad.len(),
        longest(&answers)
    );
    assert!(bad.is_empty(), "{bad:?}");
    let counted = good_of_each(&answers, visitors.len());
    let visits = visits_of_each(&app, &visitors).await;
    let expected: Vec<u64> = counted.iter().map(|counted| 1 + counted).collect();
    assert_eq!(visits, expected, "each visit counted once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_affects_only_its_own_slots() {
    let mut cluster = Cluster::start().await;
    let app = serve(layer(&cluster)).await;
    let visitors = visitors(&app, 30).await;
    let owners = owners(&cluster, &app, &visitors).await;
    let load = Load::begin(&app.url("/"), &visitors, Duration::from_millis(20));
    eventually(Duration::from_secs(10), async || load.answers().len() > 200).await;

    cluster.nodes[0].kill();
    let killed = Instant::now();
    eventually(Duration::from_secs(30), async || {
        cluster.owner(0).await == Some(3) && cluster.agrees_on_master(3).await
    })
    .await;
    let replaced = Instant::now();
    eventually(Duration::from_secs(20), async || {
        load.good_for() > Duration::from_secs(2)
    })
    .await;
    let answers = load.end().await;

    let healed = recovery_time(&answers, replaced);
    let (hit, spared): (Vec<Answer>, Vec<Answer>) = answers
        .into_iter()
        .partition(|answer| owners[answer.visitor] == 0);
    let bad = |answers: &[Answer]| answers.iter().filter(|answer| !answer.is_good()).count();
    println!(
        "the cluster replaced it after {:?}, errors ended {healed:?} later; its slots: {} answers, {} bad, the longest {:?}; \
         the other slots: {} answers, {} bad, the longest {:?}",
        replaced - killed,
        hit.len(),
        bad(&hit),
        longest(&hit),
        spared.len(),
        bad(&spared),
        longest(&spared),
    );
    assert!(bad(&hit) > 0, "it was under load");
    assert!(healed < RECOVERY, "{healed:?}");
    assert!(longest(&hit) < 2 * DEADLINE + SLACK, "a load, and a save");
    assert_eq!(bad(&spared), 0);
    assert!(longest(&spared) < DEADLINE + SLACK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_confirmed_by_a_replica_survive_a_failover() {
    let mut cluster = Cluster::start().await;
    let confirmed = layer(&cluster)
        .with_replica_acks(1, DEADLINE / 4)
        .with_replica_acks_for_every_write();
    let app = serve(confirmed).await;
    let visitors = visitors(&app, 20).await;
    let load = Load::begin(&app.url("/"), &visitors, Duration::from_millis(5));
    eventually(Duration::from_secs(10), async || load.answers().len() > 200).await;
    cluster.nodes[1].kill();
    eventually(Duration::from_secs(30), async || {
        cluster.agrees_on_master(4).await
    })
    .await;
    let told = good_of_each(&load.end().await, visitors.len());
    let app = serve(layer(&cluster)).await;
    for (told, kept) in told.iter().zip(visits_of_each(&app, &visitors).await) {
        assert!(
            kept > *told,
            "{told} visits besides the first were acknowledged, and the count is {kept}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_master_affects_only_its_own_slots() {
    let cluster = Cluster::start().await;
    let app = serve(layer(&cluster)).await;
    let visitors = visitors(&app, 30).await;
    let owners = owners(&cluster, &app, &visitors).await;
    let load = Load::begin(&app.url("/"), &visitors, Duration::from_millis(20));
    eventually(Duration::from_secs(10), async || load.answers().len() > 100).await;
    cluster.nodes[2].stop();
    eventually(Duration::from_secs(30), async || {
        cluster.agrees_on_master(5).await
    })
    .await;
    let replaced = Instant::now();
    eventually(Duration::from_secs(20), async || {
        load.good_for() > Duration::from_secs(2)
    })
    .await;
    cluster.nodes[2].resume();
    // Until it is demoted, what it acknowledges is lost.
    eventually(Duration::from_secs(20), async || {
        cluster.nodes[2].information("role").await.as_deref() == Some("slave")
    })
    .await;
    let answers = load.end().await;
    let healed = recovery_time(&answers, replaced);
    println!("errors ended {healed:?} after the cluster replaced the master that stopped");
    assert!(healed < RECOVERY, "{healed:?}");
    let (hit, spared): (Vec<Answer>, Vec<Answer>) = answers
        .into_iter()
        .partition(|answer| owners[answer.visitor] == 2);
    assert!(!hit.iter().all(Answer::is_good), "it was under load");
    assert!(longest(&hit) < 2 * DEADLINE + SLACK, "a load, and a save");
    let bad: Vec<&Answer> = spared.iter().filter(|answer| !answer.is_good()).collect();
    assert!(bad.is_empty(), "{bad:?}");
    assert!(longest(&spared) < DEADLINE + SLACK);
}

/// Redis 7 and Valkey announce what this option says.
/// A master that the app reaches and the rest of the cluster does not tells the slots as they were before another one took its place.
#[tokio::test]
async fn a_master_that_is_cut_off_from_the_cluster_is_not_believed() {
    let is_old = Server::start().await.version().await.starts_with("6.");
    if is_old {
        return; // It cannot drop the packets of the other nodes.
    }
    let cluster = Cluster::start_with(&["--enable-debug-command", "local"]).await;
    let app = serve(layer(&cluster)).await;
    let visitors = visitors(&app, 20).await;
    let cut_off = &cluster.nodes[0];
    // The others reach it through a proxy, which then holds what they send. Of what they answer, it is told to hear nothing.
    let bus = Proxy::before(cut_off.port() + 10_000).await;
    let announced = bus.port().to_string();
    cut_off.set("cluster-announce-bus-port", &announced).await;
    let at_proxy = format!(":{}@{announced} ", cut_off.port());
    eventually(Duration::from_secs(20), async || {
        cluster
            .everywhere(1.., |nodes| nodes.contains(&at_proxy))
            .await
    })
    .await;
    bus.set(Mode::Stall);
    let answers = "1";
    let words = ["DEBUG", "DROP-CLUSTER-PACKET-FILTER", answers];
    cut_off.command::<String>(&words).await;
    let replaced = format!(":{}@", cluster.nodes[3].port());
    eventually(Duration::from_secs(30), async || {
        let has_slots = |line: &str| line.contains(&replaced) && line.contains("0-5460");
        cluster
            .everywhere(1.., |nodes| nodes.lines().any(has_slots))
            .await
    })
    .await;
    for browser in &visitors {
        eventually(Duration::from_secs(10), async || {
            browser.get(app.url("/")).await.status == 200
        })
        .await;
    }
    let info: String = cut_off.command(&["CLUSTER", "INFO"]).await;
    assert!(
        info.contains("cluster_state:fail"),
        "it is still cut off: {info}"
    );
}

/// As after a resharding that went wrong.
#[tokio::test]
async fn a_slot_that_no_node_has_is_an_error_until_it_is_repaired() {
    let cluster = Cluster::start().await;
    let app = serve_patient(layer(&cluster).with_prefix("{no node}session:")).await;
    let slot = cluster.slot("{no node}").await;
    let owner = cluster.owner(slot).await.expect("an owner");
    let other = (owner + 1) % 3;
    cluster.set_owner(slot, owner, other).await;
    cluster.set_owner(slot, other, owner).await;
    let answer = Browser::new().get(app.url("/")).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.contains("--cluster fix"), "{}", answer.body);
    cluster.set_owner(slot, owner, owner).await;
    assert_eq!(Browser::new().get(app.url("/")).await.body, "1");
}

#[tokio::test]
async fn a_cluster_is_found_over_long_round_trips() {
    let cluster = Cluster::start().await;
    let proxy = Proxy::before(cluster.nodes[0].port()).await;
    proxy.set(Mode::Delay(Duration::from_millis(300)));
    let layer = RedisSessionLayer::cluster([proxy.url()]).expect("an address");
    let app = serve_patient(layer).await;
    let answer = Browser::new().get(app.url("/")).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "1"));
}

#[tokio::test]
async fn each_kind_of_announced_endpoint_is_followed() {
    if Server::start().await.version().await.starts_with("6.") {
        return;
    }
    for options in [
        &[
            "--cluster-announce-hostname",
            "localhost",
            "--cluster-preferred-endpoint-type",
            "hostname",
        ][..],
        // Nodes without a host name announce `?`.
        &["--cluster-preferred-endpoint-type", "hostname"],
        &["--cluster-preferred-endpoint-type", "unknown-endpoint"],
    ] {
        let cluster = Cluster::start_with(options).await;
        // One node is enough.
        let layer = RedisSessionLayer::cluster([cluster.nodes[0].url()]).expect("an address");
        // No answer may be an error, so the deadline is one that a busy machine keeps.
        let app = serve_patient(layer).await;
        let visitors = visitors(&app, 20).await;
        // The topology of before is out of date, so these are redirected.
        for browser in &visitors[..5] {
            let key = format!("session:{}", id(&app, browser).expect("a cookie"));
            let slot = cluster.slot(&key).await;
            let from = cluster.owner(slot).await.expect("an owner");
            cluster.move_slot(slot, from, (from + 1) % 3).await;
        }
        for browser in &visitors {
            assert_eq!(browser.get(app.url("/")).await.body, "2", "{options:?}");
        }
    }
}
