//! Each rule of the cache that a real server can show.

use std::time::{Duration, Instant};

use axum::routing::get;
use axum_redis_sessions::{LocalCache, RedisSessionLayer, Session};

use super::{Node, SOON, layer};
use crate::{
    support::{
        browser::Browser,
        eventually,
        proxy::{Mode, Proxy},
        server::Server,
    },
    visits,
};

/// A short one, which a busy machine keeps by being slower.
const STALENESS: Duration = Duration::from_millis(400);

fn quick(client: redis::Client) -> RedisSessionLayer {
    RedisSessionLayer::new(client)
        .with_deadline(visits::PATIENT)
        .with_local_cache(LocalCache::new().max_staleness(STALENESS))
}

async fn stored_key(server: &Server) -> String {
    server.session_keys().await.remove(0)
}

/// A browser with the only session of the server.
async fn only_session(server: &Server, node: &Node) -> Browser {
    server.command::<()>(&["FLUSHALL"]).await;
    let browser = Browser::new();
    node.body(&browser, "/").await;
    node.warm(&browser).await;
    browser
}

#[tokio::test]
async fn whatever_changes_a_key_drops_its_entry() {
    let server = Server::start().await;
    let node = Node::new(server.client()).await;
    for change in [
        &["DEL"][..],
        &["UNLINK"],
        &["SET", "{\"_rev\":\"0000000000000000\",\"visits\":7}"],
        &["GETDEL"],
        &["EXPIREAT", "1"],
        &["RENAME", "elsewhere"],
        &["COPY"],
    ] {
        let browser = only_session(&server, &node).await;
        let key = stored_key(&server).await;
        let before = node.body(&browser, "/visits").await;
        let mut words = vec![change[0], &key];
        words.extend(&change[1..]);
        if change == ["COPY"] {
            server
                .command::<String>(&["SET", "other", "{\"visits\":9}"])
                .await;
            words = vec!["COPY", "other", &key, "REPLACE"];
        }
        server.command::<redis::Value>(&words).await;
        eventually(SOON, || async {
            node.body(&browser, "/visits").await != before
        })
        .await;
    }
}

#[tokio::test]
async fn a_flush_drops_all_entries() {
    let server = Server::start().await;
    let node = Node::new(server.client()).await;
    for flush in [&["FLUSHALL"][..], &["FLUSHDB"], &["-n", "1", "FLUSHDB"]] {
        let browser = only_session(&server, &node).await;
        if flush[0] == "-n" {
            // Of another database, which reports the same. The session is still there, and is read again.
            let misses = node.stats().misses;
            let mut connection = server.connection().await;
            let mut other = redis::pipe();
            other.cmd("SELECT").arg(1).cmd("FLUSHDB");
            other.exec_async(&mut connection).await.expect("flushed");
            eventually(SOON, || async {
                assert_eq!(node.body(&browser, "/visits").await, "1");
                node.stats().misses > misses
            })
            .await;
        } else {
            server.command::<()>(flush).await;
            eventually(SOON, || async {
                node.body(&browser, "/visits").await == "0"
            })
            .await;
        }
    }
}

#[tokio::test]
async fn an_expired_session_is_not_served() {
    let server = Server::start().await;
    let idle = Duration::from_millis(1500);
    let node = Node::of(layer(server.client()).with_idle_timeout(idle)).await;
    let browser = only_session(&server, &node).await;
    // The server's report of an expiry comes late, so it must not be needed.
    server.set("active-expire-effort", "1").await;
    let used = Instant::now();
    node.body(&browser, "/visits").await;
    tokio::time::sleep(idle + Duration::from_millis(50)).await;
    let read = node.body(&browser, "/visits").await;
    assert!(read == "0" || used.elapsed() < idle, "{read}");
}

/// The idle timeout slides about once a tenth of it, and the session lives as long as it is used.
#[tokio::test]
async fn the_idle_timeout_slides_by_one_command_in_a_tenth() {
    let server = Server::start().await;
    let idle = Duration::from_secs(3);
    let node = Node::of(layer(server.client()).with_idle_timeout(idle)).await;
    let browser = only_session(&server, &node).await;
    let key = stored_key(&server).await;
    let monitor = server.monitor().await;
    let begun = Instant::now();
    while begun.elapsed() < idle * 2 {
        let asked = Instant::now();
        assert_eq!(node.body(&browser, "/visits").await, "1");
        let ttl: u64 = server.command(&["PTTL", &key]).await;
        // What is left counts from the read, however slow the machine is.
        let left = Duration::from_millis(ttl) + asked.elapsed() + Duration::from_millis(2);
        assert!(left >= idle.mul_f64(0.9), "{left:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let commands = monitor.drain().await;
    let touches = commands
        .iter()
        .filter(|words| words[0] == "GETEX" && words[1] == key && words.len() > 2)
        .count() as u128;
    let tenths = begun.elapsed().as_millis() * 10 / idle.as_millis();
    assert!(touches <= tenths + 1, "{touches} in {tenths} tenths");
    assert!(touches >= 2, "{touches}");
}

#[tokio::test]
async fn own_timeouts_and_permanent_sessions_slide_by_their_own_time() {
    let server = Server::start().await;
    let mine = async |session: Session| {
        session.set_idle_timeout(Duration::from_secs(100));
        session.insert("mine", 1)
    };
    let routes = visits::routes().route("/mine", get(mine));
    let layer = layer(server.client())
        .with_idle_timeout(Duration::from_secs(10))
        .with_permanent_lifetime(Duration::from_secs(1_000));
    let node = Node::serving(layer, routes).await;
    for (path, full) in [("/mine", 100_000), ("/permanent?is=true", 1_000_000)] {
        let browser = only_session(&server, &node).await;
        node.body(&browser, path).await;
        let key = stored_key(&server).await;
        let ttl = async || server.command::<i64>(&["PTTL", &key]).await;
        assert!(ttl().await > full - 5_000);
        node.warm(&browser).await;
        // More than a tenth has passed, by another program.
        let less = (full * 8 / 10).to_string();
        server.command::<()>(&["PEXPIRE", &key, &less]).await;
        eventually(SOON, || async {
            node.body(&browser, "/visits").await;
            ttl().await > full - 5_000
        })
        .await;
        // Less than a tenth.
        let less = full * 95 / 100;
        server
            .command::<()>(&["PEXPIRE", &key, &less.to_string()])
            .await;
        node.warm(&browser).await;
        node.body(&browser, "/visits").await;
        assert!(ttl().await <= less, "{path}");
    }
}

#[tokio::test]
async fn the_absolute_timeout_ends_a_cached_session() {
    let server = Server::start().await;
    let timeout = Duration::from_secs(3);
    let node = Node::of(layer(server.client()).with_absolute_timeout(timeout)).await;
    let browser = only_session(&server, &node).await;
    let key = stored_key(&server).await;
    // Without the TTL, only the time of its creation counts.
    server.command::<()>(&["PERSIST", &key]).await;
    let begun = Instant::now();
    eventually(SOON, || async {
        node.body(&browser, "/visits").await == "0"
    })
    .await;
    assert!(begun.elapsed() < timeout + SOON / 2);
}

#[tokio::test]
async fn nothing_is_served_over_a_connection_that_shows_no_sign_of_life() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port()).await;
    let (frozen, other) = (
        Node::of(quick(proxy.client())).await,
        Node::of(quick(server.client())).await,
    );
    let browser = only_session(&server, &other).await;
    frozen.warm(&browser).await;
    proxy.set(Mode::Stall);
    let fork = browser.fork(&other.url("/"));
    other.body(&browser, "/destroy").await;
    let ended = Instant::now();
    tokio::time::sleep(STALENESS * 2).await;
    let hits = frozen.stats().hits;
    let read = tokio::spawn({
        let (fork, url) = (fork.clone(), frozen.url("/visits"));
        async move { fork.get(url).await }
    });
    tokio::time::sleep(STALENESS).await;
    assert!(!read.is_finished(), "{:?}", ended.elapsed());
    proxy.set(Mode::Forward);
    let page = read.await.expect("no panic");
    assert_eq!((page.status, &*page.body), (200, "0"));
    assert_eq!(frozen.stats().hits, hits);
}

#[tokio::test]
async fn an_idle_node_goes_on_serving_from_its_cache() {
    let server = Server::start().await;
    let node = Node::of(quick(server.client())).await;
    let browser = only_session(&server, &node).await;
    let monitor = server.monitor().await;
    tokio::time::sleep(STALENESS * 4).await;
    let hits = node.stats().hits;
    assert_eq!(node.body(&browser, "/visits").await, "1");
    assert_eq!(node.stats().hits, hits + 1);
    assert_eq!(monitor.drain().await, [] as [Vec<String>; 0]);
}

#[tokio::test]
async fn an_ended_connection_drops_all_entries() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port()).await;
    let (a, b) = (
        Node::new(proxy.client()).await,
        Node::new(server.client()).await,
    );
    for end in 0..3 {
        let browser = only_session(&server, &b).await;
        a.warm(&browser).await;
        let fork = browser.fork(&a.url("/"));
        match end {
            0 => proxy.sever_open(),
            1 => proxy.half_close_open(),
            _ => {
                server
                    .command::<redis::Value>(&["CLIENT", "KILL", "TYPE", "normal"])
                    .await;
            }
        }
        // The reports of this go nowhere.
        b.body(&browser, "/destroy").await;
        eventually(SOON, || async { a.body(&fork, "/visits").await == "0" }).await;
        let stats = a.stats();
        assert!(
            stats.dropped_disconnected > 0 || stats.entries == 0,
            "{stats:?}"
        );
        // And it caches again.
        let browser = only_session(&server, &b).await;
        a.warm(&browser).await;
    }
}

#[tokio::test]
async fn a_connection_that_freezes_for_good_is_replaced_without_a_request() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port()).await;
    let node = Node::of(quick(proxy.client())).await;
    let browser = only_session(&server, &node).await;
    let accepted = proxy.accepted();
    proxy.freeze_open();
    eventually(SOON, || async { proxy.accepted() > accepted }).await;
    node.warm(&browser).await;
}

#[tokio::test]
async fn a_server_that_is_far_away_keeps_its_connection_and_its_entries() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port()).await;
    // The PINGs' interval is shorter than a round trip.
    let cache = LocalCache::new().max_staleness(Duration::from_millis(900));
    let layer = RedisSessionLayer::new(proxy.client())
        .with_deadline(visits::PATIENT)
        .with_local_cache(cache);
    let node = Node::of(layer).await;
    let browser = only_session(&server, &node).await;
    proxy.set(Mode::Delay(Duration::from_millis(260)));
    eventually(SOON, || async {
        let (accepted, hits) = (proxy.accepted(), node.stats().hits);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        node.body(&browser, "/visits").await;
        node.body(&browser, "/visits").await;
        proxy.accepted() == accepted && node.stats().hits == hits + 2
    })
    .await;
}

#[tokio::test]
async fn parallel_requests_cause_one_read() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port()).await;
    let node = Node::new(proxy.client()).await;
    let browser = only_session(&server, &node).await;
    let key = stored_key(&server).await;
    server.command::<()>(&["PEXPIRE", &key, "86000000"]).await;
    // The report has arrived.
    eventually(SOON, || async { node.stats().entries == 0 }).await;
    let monitor = server.monitor().await;
    proxy.set(Mode::Delay(Duration::from_millis(300)));
    let reads = (0..20).map(|_| {
        let (browser, url) = (browser.clone(), node.url("/visits"));
        tokio::spawn(async move { browser.get(url).await.body })
    });
    for read in reads.collect::<Vec<_>>() {
        assert_eq!(read.await.expect("no panic"), "1");
    }
    let commands = monitor.drain().await;
    let gets = commands.iter().filter(|words| words[0] == "GETEX").count();
    assert!(gets < 5, "{gets}");
}
