//! Which commands the Redis store sends for the local cache, and what it makes of the replies.

use std::time::Duration;

use bytes::Bytes;

use super::fake_server::FakeServer;
use crate::{
    config::ReplicaAcks,
    store::{Created, Fault, Outcome, Rotation},
};

const HOUR: Duration = Duration::from_secs(3600);
const VALUE: Bytes = Bytes::from_static(br#"{"_rev":"9f86d081884c7d65","a":1}"#);
/// How GETRANGE replies if a key holds that value.
const OWN: &str = "$26\r\n{\"_rev\":\"9f86d081884c7d65\"";
const OTHER: &str = "$26\r\n{\"_rev\":\"0123456789abcdef\"";

#[tokio::test]
async fn a_value_is_read_behind_the_command_that_makes_the_server_track_it() {
    for (getex, first, second) in [
        ("$2\r\n{}", &["PTTL", "GETEX"][..], &["PTTL", "GETEX"][..]),
        (
            "-ERR unknown command 'GETEX'",
            &["PTTL", "GETEX", "PTTL", "GET"],
            &["PTTL", "GET"],
        ),
        ("-READONLY x", &["PTTL", "GETEX"], &["PTTL", "GETEX"]),
    ] {
        for (ttl, expected) in [("5000", Some(Duration::from_secs(5))), ("-1", None)] {
            let server = FakeServer::start(move |words| match words[0].as_str() {
                "PTTL" => format!(":{ttl}"),
                "GETEX" => getex.to_owned(),
                _ => "$2\r\n{}".to_owned(),
            })
            .await;
            let store = server.store();
            for commands in [first, second] {
                let found = store.fetch("key").await;
                match getex.starts_with("-READONLY") {
                    true => assert!(matches!(found, Err(Fault::Failed(_)))),
                    false => {
                        let found = found.expect("no fault");
                        assert_eq!(found, Some((Bytes::from_static(b"{}"), expected)));
                    }
                }
                assert_eq!(server.take(), commands, "{getex}");
            }
        }
    }
}

#[tokio::test]
async fn a_value_is_read_again_behind_what_sets_its_ttl() {
    for (getex, first, second) in [
        ("$2\r\n{}", &["GETEX", "GET"][..], &["GETEX", "GET"][..]),
        (
            "-ERR unknown command 'GETEX'",
            &["GETEX", "GET", "PEXPIRE", "GET"],
            &["PEXPIRE", "GET"],
        ),
        ("-READONLY x", &["GETEX", "GET"], &["GETEX", "GET"]),
    ] {
        let server = FakeServer::start(move |words| match words[0].as_str() {
            "GETEX" => getex.to_owned(),
            "PEXPIRE" => ":1".to_owned(),
            _ => "$2\r\n{}".to_owned(),
        })
        .await;
        let store = server.store();
        for commands in [first, second] {
            let found = store.touch_and_fetch("key", HOUR).await;
            match getex.starts_with("-READONLY") {
                true => assert!(matches!(found, Err(Fault::Failed(_)))),
                false => assert!(found.expect("no fault").is_some()),
            }
            assert_eq!(server.take(), commands, "{getex}");
        }
    }
}

/// What is written is cached only if the server reports its next change.
#[tokio::test]
async fn what_was_written_is_cached_only_if_the_key_holds_it() {
    for (script, created, saved) in [
        (":1", (Created::Created, true), (Outcome::Saved, true)),
        (
            ":0",
            (Created::AlreadyExists, false),
            (Outcome::Gone, false),
        ),
    ] {
        let server = FakeServer::start(move |_| script.to_owned()).await;
        let store = server.store();
        let reply = store.create_tracked("key", &VALUE, HOUR).await;
        assert_eq!(reply.expect("no fault"), created);
        let reply = store.save_tracked("key", b"old", &VALUE, HOUR).await;
        assert_eq!(reply.expect("no fault"), saved);
        assert_eq!(server.take(), ["EVALSHA", "EVALSHA"]);
    }
    for (set, head, created, saved) in [
        ("+OK", OWN, (Created::Created, true), (Outcome::Saved, true)),
        (
            "+OK",
            OTHER,
            (Created::Created, false),
            (Outcome::Saved, false),
        ),
        ("$-1", OWN, (Created::Created, true), (Outcome::Gone, false)),
        (
            "$-1",
            OTHER,
            (Created::AlreadyExists, false),
            (Outcome::Gone, false),
        ),
    ] {
        let server = FakeServer::start(move |words| match words[0].as_str() {
            "SET" => set.to_owned(),
            _ => head.to_owned(),
        })
        .await;
        let store = server.store().with_last_write_wins();
        let reply = store.create_tracked("key", &VALUE, HOUR).await;
        assert_eq!(reply.expect("no fault"), created, "{set} {head}");
        let reply = store.save_tracked("key", b"old", &VALUE, HOUR).await;
        assert_eq!(reply.expect("no fault"), saved, "{set} {head}");
        assert_eq!(server.take(), ["SET", "GETRANGE", "SET", "GETRANGE"]);
    }
}

/// Replicas are awaited over another connection, whose writes the cache does not hear of.
#[tokio::test]
async fn what_replicas_are_awaited_for_is_not_cached() {
    let server = FakeServer::start(|words| match words[0].as_str() {
        "SET" => "+OK".to_owned(),
        _ => ":1".to_owned(),
    })
    .await;
    let acks = ReplicaAcks {
        replicas: 1,
        timeout: HOUR,
        every_write: true,
    };
    let store = server.store().with_replica_acks(Some(acks));
    let created = store.create_tracked("key", &VALUE, HOUR).await;
    assert_eq!(created.expect("no fault"), (Created::Created, false));
    let saved = store.save_tracked("key", b"old", &VALUE, HOUR).await;
    assert_eq!(saved.expect("no fault"), (Outcome::Saved, false));
    let rotated = store.rotate_tracked(&rotation(&VALUE)).await;
    assert_eq!(rotated.expect("no fault"), (Outcome::Saved, false));
}

#[tokio::test]
async fn a_rotation_is_cached_unless_an_earlier_try_made_it() {
    for (script, expected) in [
        (":1", Some((Outcome::Saved, true))),
        (":2", Some((Outcome::Saved, false))),
        (":0", Some((Outcome::Gone, false))),
        ("-OOM command not allowed", None),
    ] {
        let server = FakeServer::start(move |_| script.to_owned()).await;
        let rotated = server.store().rotate_tracked(&rotation(&VALUE)).await;
        assert_eq!(rotated.ok(), expected, "{script}");
        assert_eq!(server.take(), ["EVALSHA"]);
    }
    // One address in front of a cluster.
    let server = FakeServer::start(|words| match words[0].as_str() {
        "EVALSHA" if words[2] == "2" => "-CROSSSLOT x".to_owned(),
        "SET" => "+OK".to_owned(),
        _ => ":1".to_owned(),
    })
    .await;
    let store = server.store();
    for commands in [&["EVALSHA", "EVALSHA", "SET"][..], &["EVALSHA", "SET"]] {
        let rotated = store.rotate_tracked(&rotation(&VALUE)).await;
        assert_eq!(rotated.expect("no fault"), (Outcome::Saved, true));
        assert_eq!(server.take(), commands);
    }
}

fn rotation(value: &Bytes) -> Rotation<'_> {
    Rotation {
        from: "from",
        expected: b"old",
        to: "to",
        value,
        record: None,
        lifetime: HOUR,
        tombstone: value,
        tombstone_lifetime: HOUR,
    }
}
