//! Two nodes with caches, one of them behind a proxy that delays, freezes and cuts, under mixed requests.
//!
//! 1. No acknowledged update is lost.
//! 2. A node serves nothing older than it has served before.
//! 3. What was acknowledged longer than `max_staleness` before a request began is seen by it. This is exact, however slow the machine is: the age of
//!    the last sign of life is looked at when a session is served.
//! 4. An ended session is gone at once on the node that ended it, and on the other one after `max_staleness`.
//!
//! `CACHE_STRESS` is the number of requests, 3,000 by default.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use axum_redis_sessions::{LocalCache, RedisSessionLayer};

use super::Node;
use crate::support::{
    browser::{Browser, Page},
    proxy::{Mode, Proxy},
    server::Server,
};

const STALENESS: Duration = Duration::from_millis(300);
const SESSIONS: usize = 6;
const VISITORS: usize = 4;
const REQUESTS_OF_A_SESSION: usize = 40;

/// What is known of one session.
#[derive(Default)]
struct Known {
    /// When each count was acknowledged.
    acknowledged: Vec<(Instant, u64)>,
    /// The highest count that each node has answered with.
    served: [u64; 2],
    acks: u64,
    unknown: u64,
}

impl Known {
    /// The least that a request to `node` that begins now may see.
    fn least(&self, node: usize) -> u64 {
        let old = |(at, _): &&(Instant, u64)| at.elapsed() > STALENESS;
        let acknowledged = self.acknowledged.iter().filter(old);
        let acknowledged = acknowledged.map(|(_, count)| *count).max();
        acknowledged.unwrap_or(0).max(self.served[node])
    }
}

fn layer(client: redis::Client) -> RedisSessionLayer {
    RedisSessionLayer::new(client)
        .with_idle_timeout(Duration::from_secs(30))
        .with_local_cache(LocalCache::new().max_staleness(STALENESS))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_agree_through_delays_freezes_and_cuts() {
    let total =
        std::env::var("CACHE_STRESS").map_or(3_000, |total| total.parse().expect("a number"));
    let server = Server::start().await;
    let proxy = Arc::new(Proxy::before(server.port()).await);
    let nodes = Arc::new([
        Node::of(layer(server.client())).await,
        Node::of(layer(proxy.client())).await,
    ]);
    let faults = tokio::spawn(faults(proxy.clone()));
    let left = Arc::new(AtomicUsize::new(total));
    let sessions = (0..SESSIONS).map(|number| {
        let (nodes, left) = (nodes.clone(), left.clone());
        tokio::spawn(async move {
            let mut seed = number as u64 + 1;
            let mut lived = 0;
            while left.load(SeqCst) > 0 {
                live_and_end(&nodes, &left, &mut seed).await;
                lived += 1;
            }
            lived
        })
    });
    let mut lived = 0;
    for session in sessions.collect::<Vec<_>>() {
        lived += session.await.expect("no violation");
    }
    faults.abort();
    let stats = nodes.each_ref().map(Node::stats);
    println!("{total} requests, {lived} sessions\n{stats:#?}");
    assert!(stats.iter().all(|stats| stats.hits > 0), "{stats:?}");
}

async fn faults(proxy: Arc<Proxy>) {
    let mut seed = 99;
    loop {
        match random(&mut seed) % 10 {
            0 => proxy.sever_open(),
            1 => {
                proxy.set(Mode::Stall);
                tokio::time::sleep(Duration::from_millis(random(&mut seed) % 900)).await;
            }
            2 => proxy.freeze_open(),
            _ => {}
        }
        let delay = Duration::from_millis(random(&mut seed) % 50);
        proxy.set(match random(&mut seed) % 2 {
            0 => Mode::Forward,
            _ => Mode::Delay(delay),
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// One session, from its first request to its end.
async fn live_and_end(nodes: &Arc<[Node; 2]>, left: &Arc<AtomicUsize>, seed: &mut u64) {
    let browser = Browser::new();
    while browser.get(nodes[0].url("/")).await.status != 200 {}
    let known = Arc::new(Mutex::new(Known {
        acknowledged: vec![(Instant::now(), 1)],
        acks: 1,
        ..Known::default()
    }));
    let visitors = (0..VISITORS).map(|_| {
        let (nodes, left, known) = (nodes.clone(), left.clone(), known.clone());
        // The id stays, so a fork is another tab.
        let browser = browser.fork(&nodes[0].url("/"));
        let mut seed = random(seed);
        tokio::spawn(async move {
            for _ in 0..REQUESTS_OF_A_SESSION / VISITORS {
                left.fetch_update(SeqCst, SeqCst, |left| Some(left.saturating_sub(1)))
                    .expect("a number");
                visit(&nodes, &browser, &known, &mut seed).await;
            }
        })
    });
    for visitor in visitors.collect::<Vec<_>>() {
        visitor.await.expect("no violation");
    }
    let (acks, unknown) = {
        let known = known.lock().expect("no panic");
        (known.acks, known.unknown)
    };
    let stored = loop {
        let page = browser.get(nodes[0].url("/visits")).await;
        if page.status == 200
            && known
                .lock()
                .expect("no panic")
                .acknowledged
                .last()
                .is_none_or(|(at, _)| at.elapsed() > STALENESS)
        {
            break count(&page);
        }
        tokio::time::sleep(STALENESS / 4).await;
    };
    assert!(
        (acks..=acks + unknown).contains(&stored),
        "{acks} acknowledged, {unknown} unknown, {stored} stored"
    );
    end(nodes, &browser, seed).await;
}

async fn visit(nodes: &[Node; 2], browser: &Browser, known: &Mutex<Known>, seed: &mut u64) {
    let node = (random(seed) % 2) as usize;
    let updates = random(seed).is_multiple_of(5);
    let path = if updates { "/" } else { "/visits" };
    let least = known.lock().expect("no panic").least(node);
    let page = browser.get(nodes[node].url(path)).await;
    let mut known = known.lock().expect("no panic");
    if page.status != 200 {
        known.unknown += u64::from(updates);
        return;
    }
    let count = count(&page);
    assert!(
        count >= least + u64::from(updates),
        "node {node}: {path} is {count}, and was {least}"
    );
    known.served[node] = known.served[node].max(count);
    if updates {
        known.acks += 1;
        known.acknowledged.push((Instant::now(), count));
    }
}

/// A logout or a new id, and what both nodes say of the former id.
async fn end(nodes: &[Node; 2], browser: &Browser, seed: &mut u64) {
    let former = browser.fork(&nodes[0].url("/"));
    let path = if random(seed).is_multiple_of(3) {
        "/cycle"
    } else {
        "/destroy"
    };
    let node = (random(seed) % 2) as usize;
    let page = browser.get(nodes[node].url(path)).await;
    if page.status != 200 {
        return;
    }
    let ended = Instant::now();
    // With a new id, the former one may read an anonymous session for a while, but not change it.
    let is_over = async |node: &Node, path: &str| match path {
        "/destroy" => {
            let page = former.get(node.url("/visits")).await;
            page.status != 200 || page.body == "0"
        }
        _ => {
            let page = former.get(node.url("/")).await;
            page.status != 200 || page.set_cookies.is_empty()
        }
    };
    assert!(is_over(&nodes[node], path).await, "{path} on its own node");
    tokio::time::sleep((ended + STALENESS).saturating_duration_since(Instant::now())).await;
    assert!(
        is_over(&nodes[1 - node], path).await,
        "{path} on the other node"
    );
}

fn count(page: &Page) -> u64 {
    page.body.parse().expect("a number")
}

/// xorshift64*: the same sequence each time.
fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
}
