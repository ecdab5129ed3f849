//! What each call of a session's API changes, over a store in memory.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::{
    commit_rules::{run, stored, stored_with},
    lazy_in_memory,
};
use crate::{
    ErrorKind, LazySession, Session,
    commit::state::{IdChange, Status},
    context::Context,
    request::RequestHead,
    store::{MemoryStore, Store},
};

fn reloaded(session: &Session) -> &Session {
    run(session.save()).expect("saved");
    run(session.reload()).expect("still there");
    session
}

#[test]
fn keys_and_values_are_those_that_the_request_sees() {
    let (_, session) = stored();
    session.insert("b", "text").expect("a text");
    session.insert("c", [1, 2]).expect("an array");
    for _ in 0..2 {
        assert_eq!(session.keys(), ["a", "b", "c"]);
        assert_eq!((session.len(), session.is_empty()), (3, false));
        assert_eq!(session.get::<u8>("a").expect("a number"), Some(1));
        assert_eq!(session.get::<u8>("none").expect("absent"), None);
        assert!(session.contains_key("b"));
        assert!(!session.contains_key("none"));
        reloaded(&session);
    }
    assert_eq!(session.take::<u8>("a").expect("a number"), Some(1));
    assert_eq!(session.take::<u8>("a").expect("absent"), None);
    let error = session.take::<u8>("b").expect_err("a text");
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(session.contains_key("b"), "what is no number is kept");
    assert!(!session.contains_key("a"));
    assert!(session.remove("b"));
    assert!(!session.remove("b"));
    assert_eq!(reloaded(&session).keys(), ["c"]);
    session.clear();
    assert_eq!(session.get::<Value>("c").expect("absent"), None);
    assert!(!session.contains_key("c"));
    assert_eq!((session.len(), session.is_empty()), (0, true));
    assert!(!session.remove("c"));
    session.insert("c", 3).expect("a number");
    assert_eq!(session.get::<u8>("c").expect("a number"), Some(3));
    assert_eq!(reloaded(&session).keys(), ["c"]);
    let error = session.insert("_rev", 1).expect_err("a reserved key");
    assert_eq!(error.kind(), ErrorKind::ReservedKey);
    assert_eq!(format!("{session:?}"), "Session { .. }");
}

#[test]
fn a_permanent_session_has_its_time_and_another_lifetime() {
    let (_, session) = stored();
    assert!(!session.is_permanent());
    session.set_permanent(false);
    assert!(session.cell().state().changes.is_empty());
    session.set_permanent(true);
    assert!(session.is_permanent());
    assert!(reloaded(&session).is_permanent());
    session.set_permanent(true);
    assert!(session.cell().state().changes.is_empty(), "as before");
    session.set_permanent(false);
    assert!(!reloaded(&session).is_permanent());
}

#[test]
fn timeouts_of_one_session_override_those_of_the_layer() {
    let (_, session) = stored();
    session.set_idle_timeout(Duration::from_secs(100));
    session.set_absolute_timeout(Duration::from_secs(1000));
    let metadata = {
        let state = reloaded(&session).cell().state();
        state.base.metadata
    };
    assert_eq!(metadata.idle_timeout, Some(100_000));
    assert_eq!(metadata.absolute_timeout, Some(1_000_000));
    let left = session.expires_at().expect("stored");
    let left = left.duration_since(SystemTime::now()).expect("to come");
    assert!(left <= Duration::from_secs(100) && left > Duration::from_secs(40));
}

#[test]
fn a_login_ends_the_grace_of_a_new_id() {
    let (_, session) = stored();
    let id_change = || session.cell().state().id_change;
    session.cycle_id_with_grace();
    assert_eq!(id_change(), IdChange::NewWithGrace);
    session.log_in("zoe").expect("a user");
    assert_eq!(id_change(), IdChange::New);
    session.cycle_id_with_grace();
    assert_eq!(id_change(), IdChange::New);
}

#[test]
fn the_user_is_the_one_that_logged_in() {
    let (_, session) = stored();
    assert_eq!(session.user(), None);
    assert!(session.user_sessions().is_none());
    assert_eq!(session.authenticated_at(), None);
    session.confirm_authentication();
    session.remove_user();
    assert!(session.cell().state().changes.is_empty(), "nobody");
    let before = session.id();
    session.set_user("zoe").expect("a user");
    assert_eq!(session.user().as_deref(), Some("zoe"));
    reloaded(&session);
    assert_eq!(session.user().as_deref(), Some("zoe"));
    assert!(session.user_sessions().is_some());
    assert_ne!(session.id(), before, "a login has a new id");

    let (before, handle) = (session.id(), session.handle());
    session.set_user("zoe").expect("a user");
    reloaded(&session);
    assert_eq!(session.id(), before, "the same user keeps it");
    assert_eq!(session.handle(), handle);
    let long_ago = Some(1_000_000_000);
    session.cell().state().base.metadata.created = long_ago;
    let at = session.authenticated_at().expect("a user");
    assert!(at.elapsed().expect("past") > Duration::from_secs(3600));
    session.confirm_authentication();
    let at = session.authenticated_at().expect("a user");
    assert!(at.elapsed().unwrap_or_default() < Duration::from_secs(60));
    run(session.save()).expect("saved");
    assert_ne!(session.id(), before, "a confirmation has a new id");

    let before = session.id();
    session.remove_user();
    assert_eq!(session.user(), None);
    assert_eq!(session.authenticated_at(), None);
    run(session.save()).expect("saved");
    assert_ne!(session.id(), before);
    assert_eq!(session.keys(), ["a"]);
}

#[test]
fn a_user_that_logs_in_twice_is_not_the_next_one() {
    let (_, session) = stored();
    session.log_in("zoe").expect("a user");
    run(session.save()).expect("saved");
    let before = session.id();
    session.set_user("adam").expect("a user");
    run(session.save()).expect("saved");
    assert_ne!(session.id(), before);
    let error = session.log_in("").expect_err("nobody");
    assert_eq!(error.kind(), ErrorKind::InvalidUser);
    assert_eq!(session.user().as_deref(), Some("adam"));
}

#[test]
fn a_panic_marks_the_session_and_a_return_does_not() {
    let (_, session) = stored();
    drop(session.clone());
    assert!(!session.cell().has_panicked());
    let clone = session.clone();
    let panicked = std::thread::spawn(move || {
        let _session = clone;
        panic!("as a handler may");
    });
    assert!(panicked.join().is_err());
    assert!(session.cell().has_panicked());
}

#[test]
fn a_session_over_a_lowered_limit_can_be_shrunk_and_not_enlarged() {
    let (store, session) = stored_with(|config| config.max_size = 70);
    let large = format!(
        r#"{{"_rev":"ffffffffffffffff","a":"{}","b":1}}"#,
        "x".repeat(100)
    );
    let key = store.memory().dump().remove(0).0;
    let hour = Duration::from_secs(3600);
    store.memory().overwrite(&key, &large.into(), hour);
    run(session.reload()).expect("still there");
    session.insert("b", 20).expect("a number");
    let error = run(session.save()).expect_err("one byte more");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    run(session.reload()).expect("still there");
    session.insert("b", 2).expect("a number");
    run(session.save()).expect("as large as before");
    assert!(session.remove("b"));
    run(session.save()).expect("less than before");
    assert!(matches!(
        session.cell().state().status,
        Status::Persisted(_)
    ));
}

#[test]
fn what_the_crate_adds_counts_towards_the_limit_too() {
    let size = stored().0.memory().dump()[0].1.len();
    let (_, session) = stored_with(|config| config.max_size = size);
    session.set_idle_timeout(Duration::from_secs(100));
    let error = run(session.save()).expect_err("the app's keys are as before");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[test]
fn a_session_that_was_not_loaded_shows_only_whether_it_was_accessed() {
    let lazy = lazy_in_memory();
    assert_eq!(
        format!("{lazy:?}"),
        "LazySession { was_accessed: false, .. }"
    );
    run(lazy.load()).expect("loaded");
    assert_eq!(
        format!("{lazy:?}"),
        "LazySession { was_accessed: true, .. }"
    );
}

#[test]
fn a_destroyed_session_has_ended_and_one_that_has_not_begun_has_not() {
    let context = Context::new(Store::Memory(MemoryStore::default()));
    let lazy = LazySession::new(context.into(), RequestHead::default(), None);
    let session = run(lazy.load()).expect("loaded");
    run(session.touch()).expect("it has not begun");
    session.destroy();
    let error = run(session.touch()).expect_err("destroyed");
    assert_eq!(error.kind(), ErrorKind::Ended);
}

#[test]
fn a_value_that_cannot_be_read_any_more_is_an_error_unless_it_is_to_be_discarded() {
    for (is_discarded, expected) in [(false, ErrorKind::InvalidData), (true, ErrorKind::Ended)] {
        let (store, session) = stored_with(|config| config.discard_unreadable = is_discarded);
        let key = store.memory().dump().remove(0).0;
        let hour = Duration::from_secs(3600);
        store.memory().overwrite(&key, &"pickle".into(), hour);
        let error = run(session.reload()).expect_err("no session");
        assert_eq!(error.kind(), expected);
        let counters = &session.cell().context.shared.counters;
        assert_eq!(counters.stats().unreadable, 1);
    }
}

#[test]
fn a_panic_with_a_loaded_session_marks_it() {
    let context = std::sync::Arc::new(Context::new(Store::Memory(MemoryStore::default())));
    let lazy = LazySession::new(context.clone(), RequestHead::default(), None);
    assert!(std::ptr::eq(lazy.failures(), &*context.shared.failures));
    let session = run(lazy.load()).expect("loaded");
    let clone = lazy.clone();
    let panicked = std::thread::spawn(move || {
        let _lazy = clone;
        panic!("as a middleware may");
    });
    assert!(panicked.join().is_err());
    assert!(session.cell().has_panicked());
}
