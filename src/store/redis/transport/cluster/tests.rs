use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use tokio::{runtime::Handle, time::timeout};

use super::*;
use crate::{
    store::redis::transport::command_pool::command,
    testing::fake_server::{FakeServer, Hello},
};

/// How long a busy machine may take.
const LIMIT: Duration = Duration::from_secs(20);

/// A reply to CLUSTER SLOTS. Each master has the slots from this one on.
fn slots(masters: &[(u16, u16)]) -> String {
    let mut reply = format!("*{}", masters.len());
    for (first, port) in masters {
        let last = masters.iter().map(|(other, _)| *other);
        let last = last.filter(|other| other > first).min().unwrap_or(16_384) - 1;
        reply += &format!("\r\n*3\r\n:{first}\r\n:{last}\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}");
    }
    reply
}

/// A node whose rule gets its own port.
async fn node(rule: impl Fn(u16, &[String]) -> String + Send + Sync + 'static) -> FakeServer {
    node_with(Hello::Unknown, rule).await
}

async fn node_with(
    hello: Hello,
    rule: impl Fn(u16, &[String]) -> String + Send + Sync + 'static,
) -> FakeServer {
    let own_port = Arc::new(AtomicU16::new(0));
    let port = own_port.clone();
    let rule = move |words: &[String]| rule(port.load(Relaxed), words);
    let node = FakeServer::start_with(hello, rule).await;
    own_port.store(node.port(), Relaxed);
    node
}

/// A node that has all slots, and of which `rule` says what it answers to other commands.
async fn only_master(rule: impl Fn(u16) -> String + Send + Sync + 'static) -> FakeServer {
    node(move |port, words| match words[0].as_str() {
        "CLUSTER" => slots(&[(0, port)]),
        _ => rule(port),
    })
    .await
}

fn cluster(seed: &FakeServer) -> Arc<Cluster> {
    Arc::new(Cluster::new(vec![seed.info()], ConnectSettings::default()))
}

fn address(port: u16) -> Address {
    Address {
        host: "127.0.0.1".to_owned(),
        port,
    }
}

/// A port that nothing listens on.
async fn unused_port() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let address = listener.expect("bound").local_addr();
    address.expect("an address").port()
}

async fn get(cluster: &Arc<Cluster>) -> Result<Value, String> {
    let mut command = command("GET", &[b"key"]);
    let sent = timeout(LIMIT, cluster.send("key", &mut command, None)).await;
    match sent.expect("it ends") {
        Ok((value, _)) => Ok(value),
        Err(CommandError::NotSent(error)) => Err(error.to_string()),
        Err(_) => Err(String::new()),
    }
}

#[tokio::test]
async fn a_ring_of_redirections_ends() {
    let seed = only_master(|port| format!("-MOVED 12539 127.0.0.1:{port}")).await;
    let error = get(&cluster(&seed)).await.expect_err("a ring");
    assert!(error.contains("redirect to each other"), "{error}");
    let asked = seed.take().into_iter().filter(|word| word == "GET");
    assert_eq!(asked.count(), 6);
}

#[tokio::test]
async fn the_topology_is_fetched_once_at_a_time_and_not_again_at_once() {
    let seed = node(|_, _| String::new()).await;
    let cluster = cluster(&seed);
    let tasks = Handle::current().metrics();
    let before = tasks.num_alive_tasks();
    assert!(cluster.refresh());
    assert!(cluster.refresh(), "a result will come");
    assert_eq!(tasks.num_alive_tasks(), before + 1);
    {
        let mut state = cluster.state();
        state.refreshing = None;
        state.refreshed = Some(Instant::now());
    }
    assert!(!cluster.refresh(), "nothing new can be known");
    assert_eq!(tasks.num_alive_tasks(), before + 1);
}

#[tokio::test]
async fn a_slot_that_no_node_has_and_a_topology_that_no_node_tells_are_different_errors() {
    let other = node(|port, _| slots(&[(16_383, port)])).await;
    let error = get(&cluster(&other)).await.expect_err("no such slot");
    assert!(error.contains("no node of the cluster"), "{error}");
    let loading = node(|_, _| "-LOADING x".to_owned()).await;
    let cluster = cluster(&loading);
    for _ in 0..2 {
        let error = get(&cluster).await.expect_err("it is loading");
        assert!(error.contains("LOADING"), "{error}");
    }
}

#[tokio::test]
async fn responsive_nodes_are_asked_first_and_failed_ones_last() {
    let (silent, other) = (unused_port().await, unused_port().await);
    let seed = node(move |port, _| slots(&[(0, silent), (4096, other), (8192, port)])).await;
    let cluster = cluster(&seed);
    cluster.master(0).await.expect("known");
    let [seed, silent, other] = [seed.port(), silent, other].map(address);
    // A connection that is not open, or an unknown one, is not responsive.
    cluster.node(&silent);
    let assert_candidates = |expected: [&Address; 3]| {
        let candidates = cluster.state().candidates(std::slice::from_ref(&seed));
        assert_eq!(candidates.iter().collect::<Vec<_>>(), expected);
    };
    assert_candidates([&seed, &silent, &other]);
    cluster.state().record_failure(&seed);
    assert_candidates([&silent, &other, &seed]);
    cluster.state().record_failure(&silent);
    assert_candidates([&other, &seed, &silent]);
    cluster.state().record_failure(&seed);
    assert_candidates([&other, &silent, &seed]);
}

/// The node that a slot is moving to does not answer otherwise.
#[tokio::test]
async fn a_node_that_a_slot_is_moving_to_gets_asking_before_the_command() {
    let acks = ReplicaAcks {
        replicas: 1,
        timeout: LIMIT,
        every_write: true,
    };
    for (acks, value, expected) in [
        (None, 0, &["ASKING", "GET"][..]),
        (Some(acks), 1, &["ASKING", "GET", "WAIT"]),
    ] {
        let other = FakeServer::start(|words| match words[0].as_str() {
            "WAIT" => ":1".to_owned(),
            word => format!("+{word}"),
        })
        .await;
        let port = other.port();
        let seed = only_master(move |_| format!("-ASK 12539 127.0.0.1:{port}")).await;
        let mut command = command("GET", &[b"key"]);
        let cluster = cluster(&seed);
        let sent = timeout(LIMIT, cluster.send("key", &mut command, acks)).await;
        let Ok((reply, count)) = sent.expect("it ends") else {
            panic!("a reply");
        };
        assert_eq!(
            (reply, count),
            (Value::SimpleString("GET".to_owned()), value)
        );
        assert_eq!(other.take(), expected);
        let master = cluster.master(12539).await.expect("known");
        assert_eq!(master, address(seed.port()), "it has the slot for now");
    }
}

#[tokio::test]
async fn a_slot_that_moved_is_asked_for_at_its_new_node() {
    let other = only_master(|_| "$-1".to_owned()).await;
    let port = other.port();
    let seed = only_master(move |_| format!("-MOVED 12539 127.0.0.1:{port}")).await;
    let cluster = cluster(&seed);
    assert_eq!(get(&cluster).await, Ok(Value::Nil));
    let master = cluster
        .state()
        .topology
        .as_ref()
        .and_then(|it| it.master(12539).cloned());
    assert_eq!(master, Some(address(port)));
}

#[tokio::test]
async fn a_node_that_failed_a_command_is_asked_last() {
    for (reply, has_failed) in [
        ("$-1", false),
        ("-OOM x", false),
        ("-CLUSTERDOWN x", true),
        ("-MASTERDOWN x", true),
    ] {
        let other = unused_port().await;
        let seed = node(move |port, words| match words[0].as_str() {
            "CLUSTER" => slots(&[(0, other), (8192, port)]),
            _ => reply.to_owned(),
        })
        .await;
        let cluster = cluster(&seed);
        let _ = get(&cluster).await;
        let candidates = cluster.state().candidates(&[]);
        let last = if has_failed { seed.port() } else { other };
        assert_eq!(candidates.last(), Some(&address(last)), "{reply}");
    }
}

#[tokio::test]
async fn one_key_of_each_master_is_found_and_no_more_are_looked_at() {
    let other = unused_port().await;
    let seed = node(move |port, _| slots(&[(0, other), (8192, port)])).await;
    let looked_at = std::cell::Cell::new(0);
    let key_of = |number: &u32| {
        looked_at.set(looked_at.get() + 1);
        number.to_string()
    };
    let found = cluster(&seed).one_per_master(0..10_000, key_of).await;
    let slots: Vec<_> = found
        .expect("known")
        .iter()
        .map(|number| slot_of(number.to_string().as_bytes()))
        .collect();
    assert_eq!(slots.len(), 2, "{slots:?}");
    assert_ne!(slots[0] < 8192, slots[1] < 8192, "{slots:?}");
    assert!(looked_at.get() < 100);
}

#[tokio::test]
async fn an_error_names_a_node_that_the_cluster_announced() {
    let port = unused_port().await;
    let seed = only_master(move |_| format!("-MOVED 12539 127.0.0.1:{port}")).await;
    let error = get(&cluster(&seed)).await.expect_err("unreachable");
    let announced = format!("the cluster announced a node at 127.0.0.1:{port}");
    assert!(error.contains(&announced), "{error}");
    // The app named it itself.
    let master = Arc::new(AtomicU16::new(0));
    let own = master.clone();
    let seed = node(move |_, _| slots(&[(0, own.load(Relaxed))])).await;
    master.store(port, Relaxed);
    let mut gone = seed.info();
    gone = gone.set_addr(redis::ConnectionAddr::Tcp("127.0.0.1".to_owned(), port));
    let cluster = Cluster::new(vec![seed.info(), gone], ConnectSettings::default());
    let error = get(&Arc::new(cluster)).await.expect_err("unreachable");
    assert!(!error.is_empty() && !error.contains("announced"), "{error}");
}

#[tokio::test]
async fn a_late_request_is_told_which_node_is_being_connected_to() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let silent = listener.as_ref().expect("bound").local_addr();
    let silent = silent.expect("an address").port();
    // Opening a connection by RESP2 needs no answer.
    let rule = move |port, _: &[String]| slots(&[(0, port), (8192, silent)]);
    let seed = node_with(Hello::Supported, rule).await;
    let cluster = cluster(&seed);
    cluster.master(0).await.expect("known");
    assert!(cluster.late_error(LIMIT).is_none());
    let early = timeout(Duration::from_millis(20), get(&cluster)).await;
    assert!(early.is_err());
    let error = cluster.late_error(LIMIT).expect("it is connecting");
    let announced = format!("the cluster announced a node at 127.0.0.1:{silent}");
    assert!(error.to_string().contains(&announced), "{error}");

    let info = redis::Client::open(format!("redis://127.0.0.1:{silent}/")).expect("an address");
    let info = info.get_connection_info().clone();
    let cluster = Arc::new(Cluster::new(vec![info], ConnectSettings::default()));
    let early = timeout(Duration::from_millis(20), get(&cluster)).await;
    assert!(early.is_err());
    let error = cluster.late_error(LIMIT).expect("it is connecting");
    assert!(!error.to_string().contains("announced"), "{error}");
}

#[tokio::test]
async fn all_nodes_have_the_same_counters() {
    let seed = only_master(|_| "$-1".to_owned()).await;
    let cluster = cluster(&seed);
    assert_eq!(get(&cluster).await, Ok(Value::Nil));
    assert_eq!(cluster.settings().counters.stats().connections_open, 1);
}

#[cfg(feature = "local-cache")]
mod cached {
    use bytes::Bytes;

    use super::*;
    use crate::{
        LocalCache,
        cache::{Cache, Tracking},
        record::{Decoded, Record},
    };

    const HOUR: Duration = Duration::from_secs(3600);

    fn cached(seed: &FakeServer) -> (Arc<Cluster>, Arc<Cache>) {
        let options = LocalCache::new().max_staleness(HOUR);
        let cache = Arc::new(Cache::new(options));
        let settings = ConnectSettings {
            cache: Some(cache.clone()),
            ..ConnectSettings::default()
        };
        (Arc::new(Cluster::new(vec![seed.info()], settings)), cache)
    }

    fn put(cache: &Cache, tracking: &Arc<Tracking>, key: &str) {
        let json = Bytes::from_static(br#"{"_rev":"0123456789abcdef","a":1}"#);
        let Ok(Decoded::Session(record)) = Record::decode(&json) else {
            panic!("a session");
        };
        let ticket = cache.ticket(key, || Some(tracking.clone()));
        cache.install(key, ticket.expect("tracked"), &record, HOUR);
        assert!(cache.get(key).is_some());
    }

    /// What another node answers was not reported by the one that a ticket was taken for.
    #[tokio::test]
    async fn a_redirection_drops_its_key_and_a_move_all_keys() {
        for (redirect, keeps_others) in [("ASK", true), ("MOVED", false)] {
            let other = only_master(|_| "$-1".to_owned()).await;
            let port = other.port();
            let seed = only_master(move |_| format!("-{redirect} 12539 127.0.0.1:{port}")).await;
            let (cluster, cache) = cached(&seed);
            cluster.master(0).await.expect("known");
            let tracking = cache.tracking();
            tracking.begin(Instant::now());
            for key in ["key", "other"] {
                put(&cache, &tracking, key);
            }
            assert_eq!(get(&cluster).await, Ok(Value::Nil));
            assert!(cache.get("key").is_none(), "{redirect}");
            assert_eq!(cache.get("other").is_some(), keeps_others, "{redirect}");
        }
    }

    #[tokio::test]
    async fn entries_outlive_a_topology_that_is_read_again_but_not_a_change() {
        let second = Arc::new(AtomicU16::new(0));
        let next = second.clone();
        let seed = node(move |port, _| match next.load(Relaxed) {
            0 => slots(&[(0, port)]),
            next => slots(&[(0, port), (8192, next)]),
        })
        .await;
        let (cluster, cache) = cached(&seed);
        let tracking = cache.tracking();
        tracking.begin(Instant::now());
        for (is_new, is_kept) in [(true, false), (false, true), (true, false)] {
            if is_new && cluster.state().topology.is_some() {
                second.store(unused_port().await, Relaxed);
            }
            // Its connection is tracked from here on.
            cluster
                .node(&address(seed.port()))
                .connections()
                .requests
                .send(&mut command("PING", &[]))
                .await
                .expect("a reply");
            put(&cache, &tracking, "key");
            Refresh(cluster.clone()).run().await;
            assert_eq!(cache.get("key").is_some(), is_kept, "{is_new}");
        }
    }

    #[tokio::test]
    async fn the_tracking_of_a_key_is_that_of_its_master() {
        let seed = node_with(Hello::Supported, |port, words| match words[0].as_str() {
            "CLUSTER" => slots(&[(0, port)]),
            _ => "+OK".to_owned(),
        })
        .await;
        let (cluster, _) = cached(&seed);
        assert!(
            cluster.tracking("key").is_none(),
            "the topology is not known"
        );
        get(&cluster).await.expect("a reply");
        assert!(cluster.tracking("key").is_some());
        // The connection shows signs of life from the beginning.
        let pinged = async {
            while !seed.take().contains(&"PING".to_owned()) {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, pinged).await.expect("a sign of life");
    }
}
