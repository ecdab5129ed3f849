//! The cache on a cluster and behind Sentinel.

use std::time::Duration;

use axum_redis_sessions::{LocalCache, RedisSessionLayer};

use super::{Node, SOON};
use crate::support::{browser::Browser, eventually};

const SLOW: Duration = Duration::from_secs(40);

fn cached(layer: RedisSessionLayer) -> RedisSessionLayer {
    layer.with_local_cache(LocalCache::new())
}

/// Saves on `changing` until `other` has the result, within a moment. A failover may lose a save.
async fn assert_follows(changing: &Node, other: &Node, browser: &Browser) {
    eventually(SLOW, || async {
        let saved = browser.get(changing.url("/")).await;
        if saved.status != 200 {
            return false;
        }
        for _ in 0..50 {
            let read = browser.get(other.url("/visits")).await;
            if (read.status, &read.body) == (200, &saved.body) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    })
    .await;
}

/// What was saved is read from the cache, also if a failover lost the session. The first read is for servers that report a save by a script to
/// its own client: see `commands`.
async fn assert_caches(node: &Node, browser: &Browser) {
    eventually(SLOW, || async {
        browser.get(node.url("/")).await;
        browser.get(node.url("/visits")).await;
        let before = node.stats().hits;
        browser.get(node.url("/visits")).await;
        node.stats().hits > before
    })
    .await;
}

#[cfg(feature = "cluster")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_master_of_a_cluster_reports_its_keys() {
    use crate::support::cluster::Cluster;

    let mut cluster = Cluster::start().await;
    let layer = || cached(RedisSessionLayer::cluster(cluster.urls()).expect("addresses"));
    let (a, b) = (Node::of(layer()).await, Node::of(layer()).await);
    let browsers: Vec<_> = (0..12).map(|_| Browser::new()).collect();
    for browser in &browsers {
        assert_follows(&a, &b, browser).await;
    }
    // Each new connection drops the entries of the others, so all are open by now.
    for browser in &browsers {
        a.warm(browser).await;
        b.warm(browser).await;
        assert_follows(&b, &a, browser).await;
    }
    let before = a.stats();
    for browser in &browsers {
        a.warm(browser).await;
    }
    assert!(
        a.stats().entries >= before.entries.min(12),
        "{:?}",
        a.stats()
    );

    // A slot moves.
    let browser = &browsers[0];
    let id = browser
        .cookie(&a.url("/"), "__Host-session")
        .expect("a session");
    let slot = cluster.slot(&format!("session:{id}")).await;
    let from = cluster.owner(slot).await.expect("an owner");
    let to = (from + 1) % 3;
    assert_caches(&a, browser).await;
    cluster.move_slot(slot, from, to).await;
    assert_follows(&b, &a, browser).await;
    assert_follows(&a, &b, browser).await;
    assert_caches(&a, browser).await;

    // A master dies, and its replica takes over.
    cluster.nodes[to].kill();
    assert_follows(&b, &a, browser).await;
    assert_follows(&a, &b, browser).await;
    assert_caches(&a, browser).await;
    let fork = browser.fork(&a.url("/"));
    eventually(SLOW, || async {
        browser.get(b.url("/destroy")).await.status == 200
    })
    .await;
    eventually(SOON, || async {
        fork.get(a.url("/visits")).await.body == "0"
    })
    .await;
}

#[cfg(feature = "sentinel")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_follows_the_master_that_sentinel_names() {
    use crate::support::sentinels::{NAME, Sentinels};

    let mut sentinels = Sentinels::start().await;
    let addresses = sentinels.addresses();
    let layer = || {
        let master = "redis://master/";
        cached(RedisSessionLayer::sentinel(NAME, addresses.clone(), master).expect("addresses"))
    };
    let (a, b) = (Node::of(layer()).await, Node::of(layer()).await);
    let browser = Browser::new();
    assert_follows(&a, &b, &browser).await;
    eventually(SLOW, async || sentinels.replicas_are_in_step().await).await;
    assert_caches(&a, &browser).await;
    assert_caches(&b, &browser).await;
    let before = sentinels.master().await.expect("a master");
    sentinels.servers[before].kill();
    assert_follows(&b, &a, &browser).await;
    assert_caches(&a, &browser).await;
    assert_follows(&a, &b, &browser).await;

    // A planned one: the former master still answers.
    sentinels.servers[before].relaunch();
    eventually(SLOW, async || sentinels.replicas_are_in_step().await).await;
    assert_caches(&a, &browser).await;
    let planned = ["SENTINEL", "FAILOVER", NAME];
    eventually(SLOW, async || {
        sentinels.sentinels[0]
            .try_command::<String>(&planned)
            .await
            .is_ok()
    })
    .await;
    eventually(SLOW, async || sentinels.master().await == Some(before)).await;
    assert_follows(&b, &a, &browser).await;
    assert_follows(&a, &b, &browser).await;
    assert_caches(&a, &browser).await;
}
