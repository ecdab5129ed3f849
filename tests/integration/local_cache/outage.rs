//! Reads from the cache while Redis cannot be reached, and past the cache.

use std::time::{Duration, Instant};

use axum::routing::get;
use axum_redis_sessions::{Latest, LazySession, LocalCache, RedisSessionLayer, Session};

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

const STALENESS: Duration = Duration::from_millis(200);

fn with_stale(client: redis::Client, limit: Option<Duration>) -> RedisSessionLayer {
    let mut cache = LocalCache::new().max_staleness(STALENESS);
    if let Some(limit) = limit {
        cache = cache.stale_if_error(limit);
    }
    RedisSessionLayer::new(client).with_local_cache(cache)
}

#[tokio::test]
async fn an_outage_is_not_noticed_by_readers_for_as_long_as_configured() {
    for is_stalled in [false, true] {
        let mut server = Server::start().await;
        let proxy = Proxy::before(server.port()).await;
        let limit = Duration::from_secs(3);
        let lenient = Node::of(with_stale(proxy.client(), Some(limit))).await;
        let strict = Node::of(with_stale(proxy.client(), None)).await;
        let (browser, writer) = (Browser::new(), Browser::new());
        for browser in [&browser, &writer] {
            lenient.body(browser, "/").await;
            lenient.warm(browser).await;
            strict.warm(browser).await;
        }
        let begun = Instant::now();
        if is_stalled {
            proxy.set(Mode::Stall);
        } else {
            server.kill();
            proxy.sever_open();
        }
        let mut was_served = 0;
        while begun.elapsed() < limit / 2 {
            let page = browser.get(lenient.url("/visits")).await;
            assert!(
                page.status == 200 || begun.elapsed() > limit,
                "{}",
                page.body
            );
            assert!(page.body == "1" || page.status != 200);
            was_served += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(was_served > 0 && lenient.stats().stale_hits > 0);
        if begun.elapsed() < limit {
            assert_eq!(writer.get(lenient.url("/")).await.status, 503);
        }
        assert_eq!(strict.stats().stale_hits, 0);
        assert_eq!(browser.get(strict.url("/visits")).await.status, 503);
        // Not for longer than that.
        eventually(limit + SOON, || async {
            browser.get(lenient.url("/visits")).await.status == 503
        })
        .await;
        assert!(begun.elapsed() >= limit - STALENESS * 2);
        if is_stalled {
            proxy.set(Mode::Forward);
        } else {
            server.restart().await;
        }
        eventually(SOON, || async {
            browser.get(lenient.url("/visits")).await.status == 200
        })
        .await;
    }
}

#[tokio::test]
async fn a_flushed_server_is_no_outage() {
    let mut server = Server::start().await;
    let node = Node::of(with_stale(server.client(), Some(SOON))).await;
    let browser = Browser::new();
    node.body(&browser, "/").await;
    node.warm(&browser).await;
    server.command::<()>(&["FLUSHALL"]).await;
    // Also that it ended is a result, which the cache does not contradict.
    eventually(SOON, || async {
        let page = browser.get(node.url("/visits")).await;
        page.body == "0"
    })
    .await;
    server.kill();
    assert_eq!(browser.get(node.url("/visits")).await.status, 503);
}

/// A replica answers GET, so without asking for more, a node would read there for as long as the connection lasts.
#[tokio::test]
async fn a_demoted_server_is_not_read_from() {
    let server = Server::start().await;
    let nodes = [
        Node::new(server.client()).await,
        Node::new(server.client()).await,
    ];
    let browser = Browser::new();
    nodes[0].body(&browser, "/").await;
    // The master does not exist, so the replica keeps its data.
    server
        .command::<String>(&["REPLICAOF", "127.0.0.1", "1"])
        .await;
    let page = browser.get(nodes[1].url("/visits")).await;
    assert_eq!(page.status, 503, "{}", page.body);
    assert!(page.body.contains("READONLY"), "{}", page.body);
    // A node that met it drops what it has.
    assert_eq!(browser.get(nodes[0].url("/")).await.status, 503);
    assert_eq!(browser.get(nodes[0].url("/visits")).await.status, 503);
    server.command::<String>(&["REPLICAOF", "NO", "ONE"]).await;
    for node in &nodes {
        eventually(SOON, || async {
            browser.get(node.url("/visits")).await.body == "1"
        })
        .await;
    }
}

#[tokio::test]
async fn the_latest_session_is_read_past_the_cache() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port()).await;
    let latest = async |Latest(session): Latest<Session>| {
        session
            .get::<u64>("visits")
            .map(|n| n.unwrap_or(0).to_string())
    };
    let twice = async |cached: Session, Latest(latest): Latest<Session>| {
        let visits =
            |session: &Session| session.get::<u64>("visits").map(Option::unwrap_or_default);
        Ok::<_, axum_redis_sessions::SessionError>(format!(
            "{} {}",
            visits(&cached)?,
            visits(&latest)?
        ))
    };
    let lazily = async |lazy: LazySession| {
        let session = lazy.load_latest().await?;
        session
            .get::<u64>("visits")
            .map(|n| n.unwrap_or(0).to_string())
    };
    let routes = visits::routes()
        .route("/latest", get(latest))
        .route("/twice", get(twice))
        .route("/lazily", get(lazily));
    // Its reports of changes come late, and are late for its commands as well.
    let late = Node::serving(layer(proxy.client()), routes).await;
    let other = Node::new(server.client()).await;
    let browser = Browser::new();
    other.body(&browser, "/").await;
    for (path, expected) in [("/latest", "2"), ("/twice", "3 3"), ("/lazily", "4")] {
        late.warm(&browser).await;
        proxy.set(Mode::Delay(Duration::from_millis(500)));
        other.body(&browser, "/").await;
        assert_eq!(late.body(&browser, path).await, expected);
        proxy.set(Mode::Forward);
    }
    late.warm(&browser).await;
    let fork = browser.fork(&late.url("/"));
    proxy.set(Mode::Delay(Duration::from_millis(500)));
    other.body(&browser, "/destroy").await;
    assert_eq!(late.body(&fork, "/latest").await, "0");
    assert_eq!(
        late.body(&fork, "/visits").await,
        "0",
        "and then the cache knows, too"
    );
    // Without a cache it is the same as `Session`.
    let plain = RedisSessionLayer::new(server.client()).with_deadline(visits::PATIENT);
    let routes = visits::routes().route("/latest", get(latest));
    let app = crate::support::app::serve(routes.layer(plain)).await;
    let browser = Browser::new();
    browser.get(app.url("/")).await;
    assert_eq!(browser.get(app.url("/latest")).await.body, "1");
}
