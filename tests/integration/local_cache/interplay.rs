//! The cache together with the other options.

use std::time::Duration;

use axum::{extract::Path, routing::get};
use axum_redis_sessions::{LocalCache, RedisSessionLayer, Session, SessionError};

use super::{Node, SOON, layer};
use crate::{
    proxies::without_hello,
    support::{browser::Browser, eventually, server::Server},
    visits,
};

/// What a permitted user may do without the cache.
const ACL: &[&str] = &[
    "on",
    ">sesame",
    "~session:*",
    "+get",
    "+getex",
    "+getrange",
    "+set",
    "+del",
    "+pexpire",
    "+eval",
    "+evalsha",
    "+pttl",
];

fn url_of(server: &Server, user: &str) -> redis::Client {
    let url = format!("redis://{user}:sesame@127.0.0.1:{}/", server.port());
    redis::Client::open(url).expect("an address")
}

async fn set_user(server: &Server, user: &str, more: &[&str]) {
    let words = [&["ACL", "SETUSER", user], ACL, more].concat();
    server.command::<()>(&words).await;
}

/// Reads, saves, gives new ids and ends, and nothing comes from the cache.
async fn assert_works_without(node: &Node) {
    let browser = Browser::new();
    for visits in 1..4 {
        assert_eq!(node.body(&browser, "/").await, visits.to_string());
        assert_eq!(node.body(&browser, "/visits").await, visits.to_string());
    }
    node.body(&browser, "/cycle").await;
    assert_eq!(node.body(&browser, "/visits").await, "3");
    node.body(&browser, "/destroy").await;
    assert_eq!(node.body(&browser, "/visits").await, "0");
    let stats = node.stats();
    assert_eq!((stats.hits, stats.entries), (0, 0), "{stats:?}");
}

#[tokio::test]
async fn without_resp3_or_the_permission_it_works_as_without_a_cache() {
    let server = Server::start().await;
    let address = without_hello(server.port(), Some("-ERR unknown command 'HELLO'\r\n")).await;
    let client = redis::Client::open(format!("redis://{address}/")).expect("an address");
    assert_works_without(&Node::new(client).await).await;

    set_user(&server, "few", &[]).await;
    assert_works_without(&Node::new(url_of(&server, "few")).await).await;
}

#[tokio::test]
async fn the_documented_permissions_suffice() {
    let server = Server::start().await;
    set_user(&server, "app", &["+client|tracking", "+ping"]).await;
    let node = Node::new(url_of(&server, "app")).await;
    let browser = Browser::new();
    for path in ["/", "/", "/cycle", "/visits"] {
        node.body(&browser, path).await;
    }
    node.warm(&browser).await;
    node.body(&browser, "/destroy").await;
    // An answer is a sign of life, also one that the ACL denies PING.
    set_user(&server, "app", &["-ping"]).await;
    let cache = LocalCache::new().max_staleness(Duration::from_millis(500));
    let layer = RedisSessionLayer::new(url_of(&server, "app"))
        .with_deadline(visits::PATIENT)
        .with_local_cache(cache);
    let node = Node::of(layer).await;
    node.body(&browser, "/").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    node.warm(&browser).await;
}

#[tokio::test]
async fn hashed_keys_are_cached() {
    let server = Server::start().await;
    let hashed = || layer(server.client()).with_hashed_keys();
    let (a, b) = (Node::of(hashed()).await, Node::of(hashed()).await);
    let browser = Browser::new();
    a.body(&browser, "/").await;
    a.warm(&browser).await;
    b.body(&browser, "/").await;
    eventually(SOON, || async { a.body(&browser, "/visits").await == "2" }).await;
}

#[tokio::test]
async fn layers_with_other_prefixes_share_the_cache_and_the_connection() {
    let server = Server::start().await;
    let site = layer(server.client());
    let admin = site
        .clone()
        .with_prefix("admin:")
        .with_cookie_name("__Host-admin");
    let (site, admin) = (Node::of(site).await, Node::of(admin).await);
    let browser = Browser::new();
    site.body(&browser, "/").await;
    admin.body(&browser, "/").await;
    admin.body(&browser, "/").await;
    site.warm(&browser).await;
    admin.warm(&browser).await;
    assert_eq!(site.body(&browser, "/visits").await, "1");
    assert_eq!(admin.body(&browser, "/visits").await, "2");
    assert_eq!(site.stats().hits, admin.stats().hits);
    site.body(&browser, "/destroy").await;
    assert_eq!(admin.body(&browser, "/visits").await, "2");
    let clients: String = server.command(&["CLIENT", "LIST"]).await;
    assert_eq!(clients.matches("flags=t").count(), 1, "{clients}");
}

#[tokio::test]
async fn unreadable_values_and_tombstones_are_not_cached() {
    let server = Server::start().await;
    let plain = Node::new(server.client()).await;
    let discarding = Node::of(layer(server.client()).with_discard_unreadable()).await;
    let browser = Browser::new();
    plain.body(&browser, "/").await;
    let id = browser
        .cookie(&plain.url("/"), "__Host-session")
        .expect("a session");
    let key = format!("session:{id}");
    server.command::<()>(&["SET", &key, "not json"]).await;
    eventually(SOON, || async {
        plain.body(&browser, "/either").await == "InvalidData"
    })
    .await;
    for _ in 0..3 {
        assert_eq!(plain.body(&browser, "/either").await, "InvalidData");
        assert_eq!(discarding.body(&browser, "/visits").await, "0");
    }
    // Repaired.
    server
        .command::<()>(&["SET", &key, "{\"visits\":7}", "EX", "1000"])
        .await;
    for node in [&plain, &discarding] {
        eventually(SOON, || async {
            node.body(&browser, "/visits").await == "7"
        })
        .await;
    }

    let former = browser.fork(&plain.url("/"));
    plain.body(&browser, "/cycle").await;
    for node in [&plain, &discarding] {
        eventually(SOON, || async {
            node.body(&browser, "/visits").await == "7"
        })
        .await;
        // The former id still reads an anonymous session for a while, but not from the cache.
        let hits = node.stats().hits;
        for _ in 0..3 {
            node.body(&former, "/visits").await;
        }
        assert_eq!(node.stats().hits, hits);
    }
}

#[tokio::test]
async fn without_scripts_a_save_is_kept() {
    let server = Server::start().await;
    let node = Node::of(layer(server.client()).with_last_write_wins()).await;
    let other = Node::new(server.client()).await;
    let browser = Browser::new();
    for visits in 1..5 {
        assert_eq!(node.body(&browser, "/").await, visits.to_string());
        let hits = node.stats().hits;
        assert_eq!(node.body(&browser, "/visits").await, visits.to_string());
        assert_eq!(node.stats().hits, hits + 1);
    }
    node.body(&browser, "/cycle").await;
    let hits = node.stats().hits;
    assert_eq!(node.body(&browser, "/visits").await, "4");
    assert_eq!(node.stats().hits, hits + 1);
    other.body(&browser, "/").await;
    eventually(SOON, || async {
        node.body(&browser, "/visits").await == "5"
    })
    .await;
    other.body(&browser, "/destroy").await;
    assert_eq!(node.body(&Browser::new(), "/visits").await, "0");
}

#[tokio::test]
async fn revoking_ends_cached_sessions_on_its_own_node_at_once() {
    let server = Server::start().await;
    let log_in = async |session: Session, Path(user): Path<String>| {
        session.log_in(user)?;
        session.insert("device", 1)
    };
    let revoke = async |session: Session| {
        let sessions = session.user_sessions().expect("a user");
        Ok::<_, SessionError>(sessions.revoke_others().await?.to_string())
    };
    let who = async |session: Session| session.user().unwrap_or_default();
    let routes = || {
        visits::routes()
            .route("/log-in/{user}", get(log_in))
            .route("/revoke-others", get(revoke))
            .route("/who", get(who))
    };
    let a = Node::serving(layer(server.client()), routes()).await;
    let b = Node::serving(layer(server.client()), routes()).await;
    for everywhere in [false, true] {
        let (here, there) = (Browser::new(), Browser::new());
        a.body(&here, "/log-in/zoe").await;
        a.body(&there, "/log-in/zoe").await;
        for node in [&a, &b] {
            node.warm(&here).await;
            node.warm(&there).await;
        }
        if everywhere {
            let sessions = a.layer.users().of("zoe").expect("a user");
            assert_eq!(sessions.revoke_all().await.expect("revoked"), 2);
        } else {
            assert_eq!(a.body(&here, "/revoke-others").await, "1");
            assert_eq!(a.body(&here, "/who").await, "zoe");
        }
        assert_eq!(a.body(&there, "/who").await, "");
        eventually(SOON, || async { b.body(&there, "/who").await.is_empty() }).await;
        a.layer
            .users()
            .of("zoe")
            .expect("a user")
            .revoke_all()
            .await
            .expect("revoked");
    }
}

#[tokio::test]
async fn clones_in_two_runtimes_see_each_others_changes() {
    let server = Server::start().await;
    let layer = layer(server.client());
    let here = Node::of(layer.clone()).await;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            assert!(sender.send(Node::of(layer).await).is_ok());
            let _ = stopped.await;
        });
    });
    let there = receiver.await.expect("a node");
    let browser = Browser::new();
    here.body(&browser, "/").await;
    for visits in 2..20 {
        let (changing, other) = match visits % 2 {
            0 => (&here, &there),
            _ => (&there, &here),
        };
        assert_eq!(changing.body(&browser, "/").await, visits.to_string());
        // One process, one cache: at once.
        assert_eq!(other.body(&browser, "/visits").await, visits.to_string());
    }
    here.warm(&browser).await;
    let fork = browser.fork(&here.url("/"));
    there.body(&browser, "/destroy").await;
    assert_eq!(here.body(&fork, "/visits").await, "0");
    drop(stop);
    thread.join().expect("no panic");
    // The other runtime's connection is gone.
    let browser = Browser::new();
    assert_eq!(here.body(&browser, "/").await, "1");
    here.warm(&browser).await;
}

#[tokio::test]
async fn sessions_in_memory_refuse_the_option() {
    let layer = RedisSessionLayer::in_memory().with_local_cache(LocalCache::new());
    let error = layer.validate().expect_err("an error").to_string();
    assert!(error.contains("with_local_cache"), "{error}");
    let server = Server::start().await;
    for (cache, word) in [
        (LocalCache::new().max_bytes(1), "max_bytes"),
        (
            LocalCache::new().max_staleness(Duration::ZERO),
            "max_staleness",
        ),
    ] {
        let layer = RedisSessionLayer::new(server.client()).with_local_cache(cache);
        let error = layer.validate().expect_err("an error").to_string();
        assert!(error.contains(word), "{error}");
    }
}
