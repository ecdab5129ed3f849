//! The sets of users' sessions.

use std::time::{Duration, Instant};

use super::{LONG, SHORT, store_at, stores, version};
use crate::store::{AddOptions, Cursor, IndexEntry, Store, UserIndexKey};

#[tokio::test]
async fn a_set_names_who_was_entered_in_that_order_and_in_parts() {
    let (stores, server) = stores().await;
    let without_scripts = Store::Redis(store_at(&server).with_last_write_wins());
    for (name, store) in stores
        .into_iter()
        .chain([("redis, no scripts", without_scripts)])
    {
        let set = UserIndexKey::new("", "set");
        let names = async |seen, count| {
            let cursor = Cursor { added_at: 0, seen };
            let listed = store.index_page(&set, cursor, count).await.expect(name);
            let names = listed.into_iter().map(|listed| listed.name);
            names.collect::<Vec<_>>().join(" ")
        };
        let enter = async |session: &str, entered, entry| {
            let listed = IndexEntry {
                name: session.to_owned(),
                added_at: entered,
            };
            store
                .add_to_index(&set, &listed, LONG, entry)
                .await
                .expect(name)
        };
        let leave = async |gone: &[&str]| {
            let gone: Vec<String> = gone.iter().map(ToString::to_string).collect();
            store.remove_from_index(&set, &gone).await.expect(name);
        };
        assert_eq!(names(0, 9).await, "", "{name}");
        // Now in microseconds, which must not be rounded.
        let now = 1_795_528_884_000_000;
        for (session, entered) in [("b", now + 1), ("c", now + 2), ("a", now)] {
            assert!(
                enter(session, entered, AddOptions::default()).await,
                "{name}"
            );
        }
        assert_eq!(names(0, 9).await, "a b c", "{name}");
        assert_eq!(names(1, 1).await, "b", "{name}");
        assert_eq!(names(2, 9).await, "c", "{name}");
        let cursor = Cursor {
            added_at: now + 1,
            seen: 0,
        };
        let listed = store.index_page(&set, cursor, 1).await.expect(name);
        assert_eq!(listed[0].added_at, now + 1, "{name}");
        assert_eq!(store.index_len(&set).await.expect(name), 3, "{name}");

        let at_most = |max, replaces| AddOptions {
            replaces,
            max: Some(max),
        };
        assert!(!enter("d", now + 3, at_most(3, None)).await, "{name}: full");
        assert!(!enter("d", now + 3, at_most(3, Some("x"))).await, "{name}");
        assert_eq!(names(0, 9).await, "a b c", "{name}: nothing was entered");
        assert!(enter("a", now + 4, at_most(3, None)).await, "{name}: again");
        assert_eq!(names(0, 9).await, "b c a", "{name}");
        assert!(
            enter("d", now + 5, at_most(3, Some("b"))).await,
            "{name}: b with a new id"
        );
        leave(&["b", "a", "nobody"]).await;
        assert_eq!(names(0, 9).await, "c d", "{name}");
        assert!(enter("e", now + 6, at_most(3, None)).await, "{name}");
        leave(&["c", "d", "e"]).await;
        leave(&["c"]).await;
        assert_eq!(names(0, 9).await, "", "{name}");
    }
}

#[tokio::test]
async fn a_look_at_a_session_prolongs_nothing() {
    let (stores, _server) = stores().await;
    for (name, store) in stores {
        let one = version(1);
        store.create("k", &one, LONG).await.expect(name);
        let (bytes, left) = store.peek("k").await.expect(name).expect(name);
        assert_eq!(bytes, one);
        assert!(left <= LONG && left > LONG / 2, "{name}: {left:?}");
        assert_eq!(store.value("k").await.expect(name), Some(one.clone()));

        store.create("short", &one, SHORT).await.expect(name);
        let end = Instant::now() + Duration::from_secs(10);
        while store.peek("short").await.expect(name).is_some() {
            assert!(Instant::now() < end, "{name}: it goes on");
            store.value("short").await.expect(name);
        }
        assert_eq!(store.value("short").await.expect(name), None, "{name}");
    }
}

#[tokio::test]
async fn who_looks_through_a_set_misses_none_though_others_leave_and_move() {
    let (stores, _server) = stores().await;
    for (name, store) in stores {
        let set = UserIndexKey::new("", "moving");
        let enter = async |session: &str, entered| {
            let listed = IndexEntry {
                name: session.to_owned(),
                added_at: entered,
            };
            let entered = store.add_to_index(&set, &listed, LONG, AddOptions::default());
            assert!(entered.await.expect(name), "{name}");
        };
        let next = async |cursor, count| {
            let page = store.index_page(&set, cursor, count).await.expect(name);
            let names: Vec<_> = page.iter().map(|listed| listed.name.clone()).collect();
            (names.join(" "), page)
        };
        // Some at the very same time.
        for (session, entered) in [("a", 1), ("b", 2), ("c", 2), ("d", 2), ("e", 2), ("f", 3)] {
            enter(session, entered).await;
        }
        let (names, page) = next(Cursor::default(), 3).await;
        assert_eq!(names, "a b c", "{name}");
        let cursor = Cursor::default().after(&page, &[]);
        // One that was seen moves to the end.
        enter("a", 4).await;
        let (names, page) = next(cursor, 2).await;
        assert_eq!(names, "d e", "{name}");
        // What was just seen leaves, as that does which has ended.
        let gone = ["d".to_owned(), "e".to_owned()];
        store.remove_from_index(&set, &gone).await.expect(name);
        let cursor = cursor.after(&page, &gone);
        let (names, page) = next(cursor, 9).await;
        assert_eq!(names, "f a", "{name}");
        let (names, _) = next(cursor.after(&page, &[]), 9).await;
        assert_eq!(names, "", "{name}");
    }
}
