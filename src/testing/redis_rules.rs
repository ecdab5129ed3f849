//! Which commands the Redis store sends, and what it makes of the replies.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::fake_server::FakeServer;
use crate::{
    ErrorKind,
    store::{AddOptions, Fault, IndexEntry, Outcome, RedisStore, Rotation, UserIndexKey},
};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn getex_takes_the_place_of_pexpire_only_if_that_is_denied() {
    let denied = "-NOPERM User app has no permissions to run the 'pexpire' command";
    for (reply, expected) in [
        (denied, &["PEXPIRE", "GETEX", "GETEX"][..]),
        ("-OOM command not allowed", &["PEXPIRE", "PEXPIRE"]),
        (":1", &["PEXPIRE", "PEXPIRE"]),
    ] {
        let server = FakeServer::start(move |words| match words[0].as_str() {
            "PEXPIRE" => reply.to_owned(),
            _ => "$-1".to_owned(),
        })
        .await;
        let store = server.store();
        for _ in 0..2 {
            let touched = store.touch("key", HOUR).await;
            assert_eq!(touched.is_err(), reply.starts_with("-OOM"), "{reply}");
        }
        assert_eq!(server.take(), expected, "{reply}");
    }
}

#[tokio::test]
async fn get_takes_the_place_of_getex_only_if_that_is_not_supported() {
    for (reply, expected) in [
        (
            "-ERR unknown command 'GETEX'",
            &["GETEX", "GET", "PEXPIRE", "GET", "PEXPIRE"][..],
        ),
        ("-OOM command not allowed", &["GETEX", "GETEX"]),
        ("$-1", &["GETEX", "GETEX"]),
    ] {
        let server = FakeServer::start(move |words| match words[0].as_str() {
            "GETEX" => reply.to_owned(),
            "GET" => "$-1".to_owned(),
            _ => ":0".to_owned(),
        })
        .await;
        let store = server.store();
        for _ in 0..2 {
            let loaded = store.load("key", HOUR).await;
            assert_eq!(loaded.is_err(), reply.starts_with("-OOM"), "{reply}");
        }
        assert_eq!(server.take(), expected, "{reply}");
    }
}

#[tokio::test]
async fn small_values_are_compared_by_ifeq_and_others_by_a_script() {
    for (reply, size, first, second) in [
        ("+OK", 4096, &["SET"][..], &["SET"][..]),
        ("+OK", 4097, &["EVALSHA"], &["EVALSHA"]),
        // Another version is stored; the script returns it.
        ("$-1", 10, &["SET", "EVALSHA"], &["SET", "EVALSHA"]),
        ("-ERR syntax error", 10, &["SET", "EVALSHA"], &["EVALSHA"]),
        ("-OOM command not allowed", 10, &["SET"], &["SET"]),
    ] {
        let server = FakeServer::start(move |words| match words[0].as_str() {
            "SET" => reply.to_owned(),
            _ => ":1".to_owned(),
        })
        .await;
        let store = server.store();
        let (old, new) = ("x".repeat(size), Bytes::from_static(b"new"));
        for expected in [first, second] {
            let saved = store.save("key", old.as_bytes(), &new, HOUR).await;
            match reply.starts_with("-OOM") {
                true => assert!(matches!(saved, Err(Fault::Failed(_)))),
                false => assert_eq!(saved.expect("no fault"), Outcome::Saved),
            }
            assert_eq!(server.take(), expected, "{reply}, {size}");
        }
    }
}

/// The server may have been upgraded, or replaced by another one.
#[tokio::test]
async fn what_was_not_supported_is_asked_for_again_over_a_new_connection() {
    let server = FakeServer::start(|words| match words[0].as_str() {
        "SET" => "-ERR syntax error".to_owned(),
        _ => ":1".to_owned(),
    })
    .await;
    let store = server.store();
    let value = Bytes::from_static(b"new");
    for expected in [&["SET", "EVALSHA"][..], &["EVALSHA"]] {
        store
            .save("key", b"old", &value, HOUR)
            .await
            .expect("no fault");
        assert_eq!(server.take(), expected);
    }
    server.sever();
    let asked = async {
        while !server.take().contains(&"SET".to_owned()) {
            // The first one may meet the old connection.
            let _ = store.save("key", b"old", &value, HOUR).await;
            tokio::task::yield_now().await;
        }
    };
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, asked)
        .await
        .expect("it is asked for");
}

/// One address in front of a cluster.
#[tokio::test]
async fn a_rotation_across_slots_is_tried_by_a_script_once() {
    let scripts = Arc::new(AtomicUsize::new(0));
    let tried = scripts.clone();
    let server = FakeServer::start(move |words| match words[0].as_str() {
        "EVALSHA" if words[2] == "2" => {
            tried.fetch_add(1, Relaxed);
            "-CROSSSLOT Keys in request don't hash to the same slot".to_owned()
        }
        _ => "+OK".to_owned(),
    })
    .await;
    let store = server.store();
    for _ in 0..2 {
        assert_eq!(rotate(&store).await.expect("no fault"), Outcome::Saved);
    }
    assert_eq!(scripts.load(Relaxed), 1);

    let server = FakeServer::start(|words| match words[0].as_str() {
        "EVALSHA" if words[2] == "2" => "-OOM command not allowed".to_owned(),
        _ => "+OK".to_owned(),
    })
    .await;
    assert!(matches!(
        rotate(&server.store()).await,
        Err(Fault::Failed(_))
    ));
    assert_eq!(server.take(), ["EVALSHA"], "it is not tried in steps");
}

#[tokio::test]
async fn a_reply_that_redis_does_not_send_is_an_error() {
    let server = FakeServer::start(|_| "*0".to_owned()).await;
    let store = server.store();
    let value = Bytes::from_static(b"{}");
    let faults = [
        store.load("key", HOUR).await.err(),
        store.create("key", &value, HOUR).await.err(),
        store.save("key", &[b'x'; 5000], &value, HOUR).await.err(),
        store.delete("key", b"{}").await.err(),
        store.destroy("key").await.err(),
        rotate(&store).await.err(),
        store.value("key").await.err(),
        store.peek("key").await.err(),
        store.check_scripts("key").await.err(),
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let error = fault.map(Fault::into_error);
        let kind = error.map(|error| error.kind());
        assert_eq!(kind, Some(ErrorKind::Rejected), "{number}");
    }
}

/// A server that must not be used may have been replaced at its address; one that only rejects a command has not.
#[tokio::test]
async fn a_connection_is_replaced_for_some_errors_once_it_is_a_quarter_second_old() {
    for (reply, is_replaced) in [
        ("-READONLY x", true),
        ("-MASTERDOWN x", true),
        ("-NOAUTH x", true),
        ("-OOM x", false),
        ("-ERR x", false),
        ("-NOPERM x", false),
    ] {
        let server = FakeServer::start(move |_| reply.to_owned()).await;
        let store = server.store();
        assert!(store.value("key").await.is_err());
        let (begun, accepted) = (Instant::now(), server.accepted());
        // The first of these commands comes before the connection is old enough.
        while begun.elapsed() < Duration::from_millis(350) {
            assert!(store.value("key").await.is_err());
            tokio::task::yield_now().await;
        }
        assert!(store.value("key").await.is_err());
        assert_eq!(server.accepted() > accepted, is_replaced, "{reply}");
        assert!(server.accepted() <= accepted + 2, "{reply}");
    }
}

/// Without scripts. A user's index lives for at least as long as the session that is added.
#[tokio::test]
async fn an_index_that_would_end_before_its_session_is_prolonged() {
    let hour = 3_600_000;
    for (ttl, is_prolonged) in [
        (-1, true),
        (hour - 1, true),
        (hour, false),
        (hour + 1, false),
    ] {
        let server = FakeServer::start(move |words| match words[0].as_str() {
            "PTTL" => format!(":{ttl}"),
            _ => ":1".to_owned(),
        })
        .await;
        let store = server.store().with_last_write_wins();
        let entry = IndexEntry {
            name: "name".to_owned(),
            added_at: 1,
        };
        let index = UserIndexKey::new("session:", "zoe");
        let added = store.add_to_index(&index, &entry, HOUR, AddOptions::default());
        assert!(added.await.expect("no fault"));
        let expected = match is_prolonged {
            true => &["ZADD", "PTTL", "PEXPIRE"][..],
            false => &["ZADD", "PTTL"],
        };
        assert_eq!(server.take(), expected, "{ttl}");
    }
}

#[tokio::test]
async fn a_store_has_one_set_of_counters() {
    let server = FakeServer::start(|_| "$-1".to_owned()).await;
    let store = server.store();
    assert!(Arc::ptr_eq(&store.counters(), &store.counters()));
    #[cfg(feature = "cluster")]
    assert!(crate::store::Transport::cluster(vec![server.info()]).is_cluster());
}

async fn rotate(store: &RedisStore) -> Result<Outcome, Fault> {
    let value = Bytes::from_static(b"{}");
    let rotation = Rotation {
        from: "from",
        expected: b"old",
        to: "to",
        value: &value,
        record: None,
        lifetime: HOUR,
        tombstone: &value,
        tombstone_lifetime: HOUR,
    };
    store.rotate(&rotation).await
}
