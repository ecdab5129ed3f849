//! The contract of the stores: the one in memory, and the one in Redis or Valkey with a real server.

mod users;

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::server::Server;
use crate::{
    config::ReplicaAcks,
    error::ErrorKind,
    record::{Decoded, Record, tombstone},
    store::{
        Created, Destroyed, Endpoint, Fault, MemoryStore, Outcome, RedisStore, Rotation, Store,
        Transport,
    },
};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(30);

/// A version of a session, as the crate writes them.
fn version(number: u64) -> Bytes {
    format!("{{\"_rev\":\"{number:016x}\",\"n\":{number}}}").into()
}

fn store_at(server: &Server) -> RedisStore {
    let endpoint = Endpoint::server(server.client().get_connection_info().clone());
    RedisStore::new(Transport::new(endpoint))
}

async fn stores() -> (Vec<(&'static str, Store)>, Server) {
    let server = Server::start().await;
    let redis = store_at(&server);
    let stores = vec![
        ("memory", Store::Memory(MemoryStore::default())),
        ("redis", Store::Redis(redis)),
    ];
    (stores, server)
}

/// A master and its replica.
async fn replicated() -> (ReplicaAcks, Server, Server) {
    let master = Server::start().await;
    let replica = Server::replica_of(&master).await;
    // A master sends writes to a new replica only after its first acknowledgement, which comes once a second.
    let _: String = master.command(&["SET", "synced", "1"]).await;
    let end = Instant::now() + Duration::from_secs(20);
    while replica.command::<i64>(&["EXISTS", "synced"]).await == 0 {
        assert!(Instant::now() < end, "the replica does not follow");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let acks = ReplicaAcks {
        replicas: 1,
        timeout: Duration::from_millis(100),
        every_write: false,
    };
    (acks, master, replica)
}

#[tokio::test]
async fn what_replicas_do_not_confirm_is_an_error_that_says_so_though_it_is_done() {
    let (acks, master, replica) = replicated().await;
    let with_acks = |acks| store_at(&master).with_replica_acks(Some(acks));
    let new_store = || with_acks(acks);
    let store = new_store();
    let unconfirmed = |answer: Result<(), Fault>| match answer {
        Err(Fault::Failed(error)) => error.kind() == ErrorKind::NotReplicated,
        Err(Fault::ConnectionLost(_) | Fault::NotSent(_)) | Ok(()) => false,
    };
    let create = async || store.create("k", &version(1), LONG).await.expect("created");
    create().await;
    // A busy replica has the time that it needs.
    let patient = with_acks(ReplicaAcks {
        timeout: Duration::from_secs(20),
        ..acks
    });
    assert_eq!(
        patient.destroy("k").await.expect("confirmed"),
        Destroyed::Deleted
    );
    assert_eq!(replica.command::<i64>(&["EXISTS", "k"]).await, 0);

    create().await;
    replica.stop();
    let (expected, value, stone) = (version(1), version(2), tombstone(1, None).expect("random"));
    let rotation = Rotation {
        from: "k",
        expected: &expected,
        to: "l",
        value: &value,
        record: None,
        lifetime: LONG,
        tombstone: &stone,
        tombstone_lifetime: LONG,
    };
    assert!(unconfirmed(store.rotate(&rotation).await.map(drop)));
    // As after a connection that broke: done already, and asked about over another one.
    assert!(unconfirmed(new_store().rotate(&rotation).await.map(drop)));
    assert!(unconfirmed(store.destroy("l").await.map(drop)));
    assert!(unconfirmed(new_store().destroy("l").await.map(drop)));
    assert_eq!(master.command::<i64>(&["EXISTS", "k", "l"]).await, 1);

    // The same store notices that the replica is back.
    replica.resume();
    let end = Instant::now() + Duration::from_secs(20);
    while !matches!(store.destroy("l").await, Ok(Destroyed::Deleted)) {
        assert!(Instant::now() < end, "it stays unconfirmed");
    }
}

#[tokio::test]
async fn writes_share_a_wait_so_that_a_replica_that_is_away_delays_none_by_more_than_two() {
    let (acks, master, replica) = replicated().await;
    let store = store_at(&master).with_replica_acks(Some(acks));
    replica.stop();
    let store = &store;
    let ended = (0..50).map(|n| async move { store.destroy(&format!("k{n}")).await.is_err() });
    let ended = futures_util::future::join_all(ended).await;
    assert_eq!(ended, [true; 50]);
    let stats: String = master.command(&["INFO", "commandstats"]).await;
    let calls = stats.split("cmdstat_wait:calls=").nth(1);
    let calls = calls.and_then(|rest| rest.split(',').next()?.parse::<u32>().ok());
    // Usually two. The writes of a busy machine arrive in more than two groups, but not one by one.
    assert!(calls.is_some_and(|calls| calls < 25), "{stats}");
}

async fn ends(store: &Store, key: &str) -> bool {
    // A load would prolong it, so a step that changes nothing asks.
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if store
            .save(key, b"no such version", &version(0), LONG)
            .await
            .expect("answered")
            == Outcome::Gone
        {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    false
}

#[tokio::test]
async fn a_session_is_created_once_and_recognises_itself() {
    let (stores, _server) = stores().await;
    for (name, store) in stores {
        let create = async |number| store.create("k", &version(number), LONG).await.expect(name);
        assert_eq!(store.load("k", LONG).await.expect(name), None);
        assert_eq!(create(1).await, Created::Created);
        assert_eq!(
            create(1).await,
            Created::Created,
            "{name}: our own first try"
        );
        assert_eq!(create(2).await, Created::AlreadyExists, "{name}");
        assert_eq!(store.load("k", LONG).await.expect(name), Some(version(1)));
    }
}

#[tokio::test]
async fn a_save_replaces_only_the_version_it_builds_on() {
    let (stores, _server) = stores().await;
    for (name, store) in stores {
        let (one, two, three) = (version(1), version(2), version(3));
        let save = async |expected: &Bytes, next: &Bytes| {
            store.save("k", expected, next, LONG).await.expect(name)
        };
        assert_eq!(save(&one, &two).await, Outcome::Gone);
        assert_eq!(
            store.load("k", LONG).await.expect(name),
            None,
            "{name}: nothing is revived"
        );
        store.create("k", &one, LONG).await.expect(name);
        assert_eq!(save(&one, &two).await, Outcome::Saved);
        assert_eq!(
            save(&one, &two).await,
            Outcome::Saved,
            "{name}: our own first try"
        );
        assert_eq!(
            save(&one, &three).await,
            Outcome::Conflict(two.clone()),
            "{name}"
        );
        assert_eq!(store.load("k", LONG).await.expect(name), Some(two));
    }
}

#[tokio::test]
async fn a_delete_takes_only_the_version_it_names() {
    let (stores, _server) = stores().await;
    for (name, store) in stores {
        let delete = async |version: &Bytes| store.delete("k", version).await.expect(name);
        store.create("k", &version(2), LONG).await.expect(name);
        assert_eq!(
            delete(&version(1)).await,
            Outcome::Conflict(version(2)),
            "{name}"
        );
        assert_eq!(delete(&version(2)).await, Outcome::Saved);
        assert_eq!(delete(&version(2)).await, Outcome::Gone);
    }
}

#[tokio::test]
async fn destroy_takes_every_version_and_spares_a_tombstone() {
    let (stores, _server) = stores().await;
    for (name, store) in stores {
        let destroy = async || store.destroy("k").await.expect(name);
        assert_eq!(destroy().await, Destroyed::Deleted, "{name}: nothing there");
        // A value that only mentions the mark is no tombstone.
        let decoy = Bytes::from_static(br#"{"_rev":"0000000000000009","a":",\"_rotated\":"}"#);
        for value in [version(7), decoy] {
            store.create("k", &value, LONG).await.expect(name);
            assert_eq!(destroy().await, Destroyed::Deleted);
            assert_eq!(store.load("k", LONG).await.expect(name), None);
        }
        let stone = tombstone(u64::MAX, None).expect("random numbers");
        store.create("k", &stone, LONG).await.expect(name);
        assert_eq!(destroy().await, Destroyed::Tombstone, "{name}");
        assert_eq!(store.load("k", LONG).await.expect(name), Some(stone));
    }
}

#[tokio::test]
async fn a_rotation_moves_the_session_and_leaves_a_tombstone() {
    let (stores, server) = stores().await;
    let two_steps = store_at(&server).with_last_write_wins();
    let two_steps = ("redis, in two steps", Store::Redis(two_steps));
    for (name, store) in stores.into_iter().chain([two_steps]) {
        let exact = name != "redis, in two steps";
        let (one, two) = (version(1), version(2));
        let stone = tombstone(u64::MAX, None).expect("random numbers");
        let rotate = async |from, to, stone: &Bytes| {
            let rotation = Rotation {
                from,
                expected: &one,
                to,
                value: &two,
                record: None,
                lifetime: LONG,
                tombstone: stone,
                tombstone_lifetime: LONG,
            };
            store.rotate(&rotation).await.expect(name)
        };
        let load = async |key| store.load(key, LONG).await.expect(name);
        for key in ["old", "new", "newer"] {
            store.destroy(key).await.expect(name);
        }

        assert_eq!(rotate("old", "new", &stone).await, Outcome::Gone, "{name}");
        assert_eq!(
            (load("old").await, load("new").await),
            (None, None),
            "{name}"
        );
        store.create("old", &one, LONG).await.expect(name);
        for _ in ["the first time", "our own first try"] {
            assert_eq!(rotate("old", "new", &stone).await, Outcome::Saved, "{name}");
            assert_eq!(
                (load("old").await, load("new").await),
                (Some(stone.clone()), Some(two.clone())),
                "{name}"
            );
        }
        if exact {
            let later = tombstone(u64::MAX, None).expect("random numbers");
            assert_eq!(
                rotate("old", "newer", &later).await,
                Outcome::Conflict(stone.clone()),
                "{name}"
            );
            assert_eq!(load("newer").await, None, "{name}");
        }
        assert!(matches!(
            Record::decode(&stone),
            Ok(Decoded::Tombstone { .. })
        ));
    }
}

#[tokio::test]
async fn a_session_ends_when_its_lifetime_does_and_each_step_says_how_long_that_is() {
    let (stores, _server) = stores().await;
    for (name, store) in stores {
        let (one, two) = (version(1), version(2));
        store.create("created", &one, SHORT).await.expect(name);
        store.create("loaded", &one, LONG).await.expect(name);
        store.load("loaded", SHORT).await.expect(name);
        store.create("touched", &one, LONG).await.expect(name);
        store.touch("touched", SHORT).await.expect(name);
        store.create("saved", &one, LONG).await.expect(name);
        store.save("saved", &one, &two, SHORT).await.expect(name);
        for key in ["created", "loaded", "touched", "saved"] {
            assert!(ends(&store, key).await, "{name}: {key} goes on");
        }
        store.touch("created", LONG).await.expect(name);
        assert_eq!(
            store.load("created", LONG).await.expect(name),
            None,
            "{name}: a touch revives nothing"
        );

        for (key, ttl) in [
            ("prolonged by a load", LONG),
            ("prolonged by a touch", LONG),
        ] {
            store.create(key, &one, SHORT * 100).await.expect(name);
            if key.ends_with("load") {
                store.load(key, ttl).await.expect(name);
            } else {
                store.touch(key, ttl).await.expect(name);
            }
        }
        store.create("clock", &one, SHORT * 100).await.expect(name);
        assert!(ends(&store, "clock").await);
        for key in ["prolonged by a load", "prolonged by a touch"] {
            assert!(
                store.load(key, LONG).await.expect(name).is_some(),
                "{name}: {key}"
            );
        }
    }
}

#[tokio::test]
async fn any_bytes_go_in_and_come_out() {
    let (stores, _server) = stores().await;
    for (name, store) in stores {
        let binary = Bytes::from((0..=255).collect::<Vec<u8>>());
        let more = Bytes::from((0..=255).rev().collect::<Vec<u8>>());
        store.create("k", &binary, LONG).await.expect(name);
        assert_eq!(
            store.load("k", LONG).await.expect(name).as_ref(),
            Some(&binary)
        );
        assert_eq!(
            store.save("k", &binary, &more, LONG).await.expect(name),
            Outcome::Saved,
            "{name}"
        );
        assert_eq!(
            store
                .save("k", &binary, &version(1), LONG)
                .await
                .expect(name),
            Outcome::Conflict(more)
        );
    }
}

#[tokio::test]
async fn a_key_that_is_no_string_is_an_error_until_it_is_destroyed() {
    let server = Server::start().await;
    let store = Store::Redis(store_at(&server));
    server.command::<i64>(&["RPUSH", "k", "a"]).await;
    let answers = [
        store.load("k", LONG).await.map(drop),
        store.save("k", b"{", &version(1), LONG).await.map(drop),
        store.delete("k", b"{").await.map(drop),
    ];
    for answer in answers {
        let error = answer.map_err(Fault::into_error).expect_err("a list");
        assert_eq!(error.kind(), crate::ErrorKind::InvalidData, "{error}");
    }
    assert_eq!(server.command::<i64>(&["LLEN", "k"]).await, 1);
    let destroyed = store.destroy("k").await.expect("destroyed");
    assert_eq!(destroyed, Destroyed::Deleted);
    assert_eq!(server.command::<i64>(&["EXISTS", "k"]).await, 0);
}

#[tokio::test]
async fn a_server_that_forgets_its_scripts_between_steps_is_not_noticed() {
    let server = Server::start().await;
    let store = Store::Redis(store_at(&server));
    store.create("k", &version(0), LONG).await.expect("created");
    for number in 0..10 {
        server.command::<String>(&["SCRIPT", "FLUSH"]).await;
        let saved = store
            .save("k", &version(number), &version(number + 1), LONG)
            .await;
        assert_eq!(saved.expect("saved"), Outcome::Saved);
    }
}
