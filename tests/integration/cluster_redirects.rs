//! What the nodes of a cluster answer instead of a result. Each node is played by a proxy in front of one server, so that it can answer what a real
//! cluster answers for a moment only.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum_redis_sessions::RedisSessionLayer;

use crate::{
    support::{
        browser::Browser,
        command_proxy::{CommandProxy, Verdict},
        eventually,
        server::Server,
    },
    visits::serve_patient,
};

/// The commands that need the node that has the key.
const KEYED: [&str; 5] = ["GETEX", "GET", "SET", "EVAL", "EVALSHA"];

/// A reply to CLUSTER SLOTS: this node has all slots.
fn all_slots_at(port: u16) -> Verdict {
    Verdict::Reply(format!(
        "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}"
    ))
}

fn is_keyed(words: &[String]) -> bool {
    KEYED.contains(&words[0].as_str())
}

/// A node that does not know which node has which slots, and of which `rule` says what it answers.
async fn node(
    server: &Server,
    rule: impl Fn(&[String]) -> Option<Verdict> + Send + Sync + 'static,
) -> CommandProxy {
    seed(server, |_| None, rule).await
}

/// A node that says, if `owner` gives its port from this node's own, which node has all slots.
async fn seed(
    server: &Server,
    owner: impl Fn(u16) -> Option<u16> + Send + Sync + 'static,
    rule: impl Fn(&[String]) -> Option<Verdict> + Send + Sync + 'static,
) -> CommandProxy {
    let own_port = Arc::new(AtomicU16::new(0));
    let port = own_port.clone();
    let rule = move |words: &[String]| match words[0].as_str() {
        "CLUSTER" => match owner(port.load(Relaxed)) {
            Some(owner) => all_slots_at(owner),
            None => Verdict::Reply("-LOADING the node has just started".to_owned()),
        },
        _ => rule(words).unwrap_or(Verdict::Pass),
    };
    let seed = CommandProxy::before(server.port(), rule).await;
    own_port.store(seed.port(), Relaxed);
    seed
}

fn layer(seed: &CommandProxy) -> RedisSessionLayer {
    RedisSessionLayer::cluster([seed.url()]).expect("an address")
}

/// Also while no node tells the whole topology.
#[tokio::test]
async fn a_slot_that_moved_is_asked_for_at_its_new_node_from_then_on() {
    let server = Server::start().await;
    let new = node(&server, |_| None).await;
    let (asked, moved) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let is_first = move |own| (asked.fetch_add(1, Relaxed) == 0).then_some(own);
    let moves = moved.clone();
    let to = new.port();
    let old = seed(&server, is_first, move |words| {
        is_keyed(words).then(|| {
            moves.fetch_add(1, Relaxed);
            Verdict::Reply(format!("-MOVED 1 127.0.0.1:{to}"))
        })
    })
    .await;
    let app = serve_patient(layer(&old)).await;
    let browser = Browser::new();
    for visit in 1..=10 {
        assert_eq!(browser.get(app.url("/")).await.body, visit.to_string());
    }
    assert_eq!(moved.load(Relaxed), 1);
}

/// A cluster that is down has perhaps been replaced by nodes with other addresses.
#[tokio::test]
async fn the_topology_is_fetched_again_when_the_cluster_is_down() {
    let server = Server::start().await;
    for error in [
        "-CLUSTERDOWN The cluster is down",
        "-CLUSTERDOWN Hash slot not served",
        "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    ] {
        let new = node(&server, |_| None).await;
        let is_down = Arc::new(AtomicBool::new(false));
        let (down, next) = (is_down.clone(), new.port());
        let owner = move |own| Some(if down.load(Relaxed) { next } else { own });
        let down = is_down.clone();
        let rule = move |words: &[String]| {
            let fails = down.load(Relaxed) && is_keyed(words);
            fails.then(|| Verdict::Reply(error.to_owned()))
        };
        let old = seed(&server, owner, rule).await;
        let app = serve_patient(layer(&old)).await;
        let browser = Browser::new();
        assert_eq!(browser.get(app.url("/")).await.body, "1");
        is_down.store(true, Relaxed);
        eventually(Duration::from_secs(20), || async {
            browser.get(app.url("/")).await.status == 200
        })
        .await;
    }
}

/// The node that a slot is moving to answers MOVED unless ASKING comes right before the command.
#[tokio::test]
async fn asking_precedes_a_command_whether_or_not_replicas_are_awaited() {
    let server = Server::start().await;
    for acks in [false, true] {
        let from = Arc::new(AtomicU16::new(0));
        let (is_asking, asked) = (AtomicBool::new(false), Arc::new(AtomicUsize::new(0)));
        let back = from.clone();
        let asks = asked.clone();
        let to = node(&server, move |words| match words[0].as_str() {
            "ASKING" => {
                is_asking.store(true, Relaxed);
                asks.fetch_add(1, Relaxed);
                Some(Verdict::Reply("+OK".to_owned()))
            }
            "WAIT" => Some(Verdict::Reply(":1".to_owned())),
            _ if is_keyed(words) && !is_asking.swap(false, Relaxed) => {
                let port = back.load(Relaxed);
                Some(Verdict::Reply(format!("-MOVED 1 127.0.0.1:{port}")))
            }
            _ => None,
        })
        .await;
        let next = to.port();
        let ask = move |words: &[String]| {
            is_keyed(words).then(|| Verdict::Reply(format!("-ASK 1 127.0.0.1:{next}")))
        };
        let old = seed(&server, Some, ask).await;
        from.store(old.port(), Relaxed);
        let layer = match acks {
            false => layer(&old),
            true => layer(&old)
                .with_replica_acks(1, Duration::from_secs(1))
                .with_replica_acks_for_every_write(),
        };
        let app = serve_patient(layer).await;
        let browser = Browser::new();
        for path in ["/", "/", "/cycle", "/", "/destroy"] {
            let page = browser.get(app.url(path)).await;
            assert_eq!(page.status, 200, "{acks}, {path}: {}", page.body);
        }
        assert!(asked.load(Relaxed) >= 8, "{acks}");
    }
}
