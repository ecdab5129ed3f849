//! `RedisSessionLayer::ready`: it finds before a visitor does what would fail later.

use std::time::{Duration, Instant};

use axum_redis_sessions::{ErrorKind, RedisSessionLayer, SessionError, SessionLimit};

use crate::{
    client::on_each_store,
    support::{eventually, server::Server},
    visits::{DEADLINE, PATIENT, SLACK},
};

/// The permissions that src/docs/deployment.md lists.
const COMMANDS: &str = "+get +getex +getrange +set +del +pexpire +eval +evalsha +zadd +zrange +zrem +zcard +zscore +pttl";

async fn acl(server: &Server, rules: &str) {
    let rules: Vec<&str> = rules.split(' ').collect();
    let reset = ["ACL", "SETUSER", "app", "reset", "on", ">sesame"];
    let command = [&reset[..], &rules].concat();
    server.command::<String>(&command).await;
    let _: i64 = server.command(&["CLIENT", "KILL", "USER", "app"]).await;
}

fn layer(server: &Server) -> RedisSessionLayer {
    let url = format!("redis://app:sesame@127.0.0.1:{}/", server.port());
    RedisSessionLayer::open(url).expect("an address")
}

async fn error(layer: &RedisSessionLayer) -> SessionError {
    layer.ready().await.expect_err("not ready")
}

#[tokio::test]
async fn a_store_that_works_is_ready_and_left_as_it_was() {
    on_each_store(async |layer| {
        for layer in [
            layer.clone(),
            layer.clone().with_hashed_keys(),
            layer.with_sessions_per_user(1, SessionLimit::Reject),
        ] {
            layer.ready().await.expect("ready");
            layer.ready().await.expect("ready again");
        }
    })
    .await;
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client());
    layer.ready().await.expect("ready");
    assert_eq!(server.command::<u32>(&["DBSIZE"]).await, 0);
}

#[tokio::test]
async fn each_missing_permission_is_found() {
    let server = Server::start().await;
    acl(&server, &format!("~session:* {COMMANDS}")).await;
    layer(&server)
        .ready()
        .await
        .expect("what the documentation lists is enough");
    for command in COMMANDS.split(' ') {
        let others: Vec<&str> = COMMANDS
            .split(' ')
            .filter(|other| *other != command)
            .collect();
        acl(&server, &format!("~session:* {}", others.join(" "))).await;
        let layer = layer(&server).with_sessions_per_user(3, SessionLimit::Reject);
        let Err(error) = layer.ready().await else {
            panic!("{command} is not missed");
        };
        assert_eq!(error.kind(), ErrorKind::Rejected, "{command}: {error}");
        let text = error.to_string();
        assert!(text.starts_with("not ready, since "), "{command}: {text}");
        assert!(text.contains("ACL does not allow"), "{command}: {text}");
        let name = command[1..].to_uppercase();
        // In a script, older servers do not name the command, and then the error lists all.
        let lists_all = text.contains("one of the commands listed here");
        assert!(
            lists_all || text.contains(&format!("the command {name}")),
            "{command}: {text}"
        );
    }
    acl(&server, &format!("~other:* {COMMANDS}")).await;
    let text = error(&layer(&server)).await.to_string();
    assert!(text.contains("the keys session:*"), "{text}");
    // Without scripts, the commands of the scripts are sent by themselves.
    let without = COMMANDS.replace(" +eval +evalsha +", " +");
    assert_ne!(without, COMMANDS);
    acl(&server, &format!("~session:* {without}")).await;
    layer(&server)
        .with_last_write_wins()
        .ready()
        .await
        .expect("no scripts are needed");
}

#[tokio::test]
async fn the_error_says_what_is_wrong() {
    let server = Server::start().await;
    let ready = RedisSessionLayer::new(server.client());
    ready.ready().await.expect("ready");

    server
        .command::<String>(&["CONFIG", "SET", "maxmemory", "1"])
        .await;
    let full = error(&ready).await;
    assert_eq!(full.kind(), ErrorKind::Rejected, "{full}");
    assert!(full.to_string().contains("OOM"), "{full}");
    server
        .command::<String>(&["CONFIG", "SET", "maxmemory", "0"])
        .await;
    ready.ready().await.expect("ready");

    let replicas = ready
        .clone()
        .with_replica_acks(1, Duration::from_millis(50));
    let alone = error(&replicas).await;
    assert_eq!(alone.kind(), ErrorKind::NotReplicated, "{alone}");

    let port = server.port().to_string();
    let replica = Server::start_with(&["--replicaof", "127.0.0.1", &port]).await;
    let read_only = error(&RedisSessionLayer::new(replica.client())).await;
    assert!(read_only.to_string().contains("READONLY"), "{read_only}");
    drop(replica);

    let wrong = layer(&server);
    assert!(error(&wrong).await.to_string().contains("password"));

    server.stop();
    let asked = Instant::now();
    assert_eq!(error(&ready).await.kind(), ErrorKind::Unavailable);
    assert!(asked.elapsed() < DEADLINE + SLACK);
    server.resume();
    eventually(PATIENT, async || ready.ready().await.is_ok()).await;
}

#[tokio::test]
async fn nothing_is_left_for_long_after_a_failure() {
    let server = Server::start().await;
    acl(
        &server,
        &format!("~session:* {}", COMMANDS.replace(" +getex", "")),
    )
    .await;
    assert!(
        error(&layer(&server))
            .await
            .to_string()
            .contains("loading a session")
    );
    let keys: Vec<String> = server.command(&["KEYS", "*"]).await;
    for key in keys {
        let ttl: i64 = server.command(&["PTTL", &key]).await;
        assert!((1..=10_000).contains(&ttl), "{ttl}");
    }
}

#[cfg(feature = "local-cache")]
#[tokio::test]
async fn what_the_local_cache_needs_is_checked() {
    use axum_redis_sessions::LocalCache;

    use crate::proxies::without_hello;

    let cached = |layer: RedisSessionLayer| layer.with_local_cache(LocalCache::new());
    let server = Server::start().await;
    let allowed = format!("~session:* {COMMANDS} +client|tracking");
    acl(&server, &allowed).await;
    let ready = cached(layer(&server));
    ready.ready().await.expect("ready");
    for (missing, hint) in [
        ("client|tracking", "add +client|tracking"),
        ("pttl", "pttl"),
    ] {
        acl(&server, &allowed.replace(&format!(" +{missing}"), "")).await;
        let error = error(&cached(layer(&server))).await;
        assert_eq!(error.kind(), ErrorKind::Rejected, "{missing}: {error}");
        let text = error.to_string();
        assert!(text.starts_with("not ready, since "), "{missing}: {text}");
        assert!(text.contains(hint), "{missing}: {text}");
        // Sessions work without what only the cache needs.
        if missing == "client|tracking" {
            layer(&server).ready().await.expect("ready without a cache");
        }
    }
    // The permission is granted while the app runs: its next connection has it.
    acl(&server, &allowed).await;
    eventually(PATIENT, async || ready.ready().await.is_ok()).await;

    let rejected = Some("-ERR unknown command 'HELLO'\r\n");
    let address = without_hello(server.port(), rejected).await;
    let layer = RedisSessionLayer::open(format!("redis://{address}/")).expect("an address");
    layer.ready().await.expect("ready without a cache");
    let text = error(&cached(layer)).await.to_string();
    assert!(text.contains("RESP3 (HELLO 3)"), "{text}");
}

#[cfg(feature = "cluster")]
#[tokio::test]
async fn in_a_cluster_each_master_is_asked() {
    use crate::support::cluster::Cluster;

    let mut cluster = Cluster::start().await;
    let layer = RedisSessionLayer::cluster(cluster.urls()).expect("addresses");
    let layer = layer.with_deadline(PATIENT);
    layer.ready().await.expect("ready");
    let creates = async || {
        let mut counts = Vec::new();
        for node in &cluster.nodes {
            let stats: String = node.command(&["INFO", "commandstats"]).await;
            counts.push(stats.contains("cmdstat_getex:") && stats.contains("cmdstat_zrem:"));
        }
        counts
    };
    assert_eq!(creates().await.iter().filter(|asked| **asked).count(), 3);
    // A permission that one of them lacks.
    for denied in 0..3 {
        let node = &cluster.nodes[denied];
        let _: String = node.command(&["ACL", "SETUSER", "default", "-getex"]).await;
        let found = layer.ready().await.expect_err("one master refuses");
        assert!(found.to_string().contains("the command GETEX"), "{found}");
        let _: String = node.command(&["ACL", "SETUSER", "default", "+getex"]).await;
    }
    layer.ready().await.expect("ready");
    // With a hash tag in the prefix, one master has all sessions.
    layer
        .clone()
        .with_prefix("{a}:")
        .ready()
        .await
        .expect("ready");
    cluster.nodes[1].kill();
    let layer = layer.with_deadline(DEADLINE);
    assert!(layer.ready().await.is_err(), "a master is away");
}

#[cfg(feature = "sentinel")]
#[tokio::test]
async fn behind_sentinel_the_master_is_asked() {
    use crate::support::sentinels::{NAME, Sentinels};

    let sentinels = Sentinels::start().await;
    let layer = RedisSessionLayer::sentinel(NAME, sentinels.addresses(), "redis://master/");
    let layer = layer.expect("addresses").with_deadline(PATIENT);
    layer.ready().await.expect("ready");
    let master = sentinels.master().await.expect("a master");
    let stats: String = sentinels.servers[master]
        .command(&["INFO", "commandstats"])
        .await;
    assert!(stats.contains("cmdstat_getex:"));
}
