//! What a commit does when others were faster, and when it does not know whether its write was executed.

use std::{pin::Pin, task::Poll, time::Duration};

use bytes::Bytes;

use super::{
    commit_rules::{cookie, only_key, poll, run, save_with, stored},
    stepped::{Grant, SteppedStore},
};
use crate::{
    ErrorKind, Session, SessionError,
    commit::state::{CookieAction, Status},
    record::tombstone,
    store::Cursor,
};

const HOUR: Duration = Duration::from_secs(3600);

fn overwrite(store: &SteppedStore, key: &str, n: u32) {
    let theirs = format!("{{\"_rev\":\"{n:016x}\",\"a\":1,\"theirs\":{n}}}");
    store.memory().overwrite(key, &theirs.into(), HOUR);
}

/// A save that stops before each of its operations.
fn begin_save(
    store: &SteppedStore,
    session: &Session,
) -> Pin<Box<impl Future<Output = Result<(), SessionError>>>> {
    store.close_gate();
    store.enter(0);
    Box::pin(session.save())
}

/// Saves; before each of the steps, another request stores a version.
fn save_after_conflicts(
    store: &SteppedStore,
    session: &Session,
    conflicts: u32,
) -> Result<(), SessionError> {
    let key = only_key(store);
    let mut save = begin_save(store, session);
    for n in 0..=conflicts {
        if let Poll::Ready(result) = poll(&mut save) {
            return result;
        }
        if store.is_waiting(0) && n < conflicts {
            overwrite(store, &key, n);
        }
        store.grant(0, Grant::Pass);
    }
    match poll(&mut save) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("more steps"),
    }
}

#[test]
fn a_save_gives_up_after_as_many_conflicts_as_it_has_attempts() {
    let (store, session) = stored();
    session.insert("b", 2).expect("a number");
    save_after_conflicts(&store, &session, 63).expect("the last attempt");
    let (store, session) = stored();
    session.insert("b", 2).expect("a number");
    let error = save_after_conflicts(&store, &session, 1000).expect_err("never first");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let stats = session.cell().context.shared.counters.stats();
    assert_eq!((stats.retries_exhausted, stats.saves_failed), (1, 0));
    session.cell().state().changes.reset();
}

#[test]
fn an_update_in_doubt_is_not_repeated_on_what_others_stored() {
    for (is_update, expected) in [(true, Some(ErrorKind::Conflict)), (false, None)] {
        let (store, session) = stored();
        if is_update {
            let add = |n: Option<u64>| n.unwrap_or(0) + 1;
            session.update("n", add).expect("a number");
        } else {
            session.insert("n", 1).expect("a number");
        }
        let key = only_key(&store);
        let mut save = begin_save(&store, &session);
        assert!(poll(&mut save).is_pending());
        store.grant(0, Grant::DropAfter);
        assert!(poll(&mut save).is_pending(), "it is sent again");
        overwrite(&store, &key, 9);
        let mut steps = 0;
        let result = loop {
            store.grant(0, Grant::Pass);
            steps += 1;
            assert!(steps < 5, "more steps");
            if let Poll::Ready(result) = poll(&mut save) {
                break result;
            }
        };
        assert_eq!(result.err().map(|error| error.kind()), expected);
        session.cell().state().changes.reset();
    }
}

#[test]
fn a_save_that_meets_a_tombstone_is_discarded_and_a_login_is_not() {
    let rotated = tombstone(u64::MAX, None).expect("random numbers");
    let (store, session) = stored();
    store.memory().overwrite(&only_key(&store), &rotated, HOUR);
    session.insert("b", 2).expect("a number");
    let error = run(session.save()).expect_err("another login came first");
    assert_eq!(error.kind(), ErrorKind::Ended);
    assert!(matches!(
        session.cell().state().status,
        Status::Rotated { .. }
    ));
    assert_eq!(cookie(&session), CookieAction::Keep);

    let (store, session) = stored();
    store.memory().overwrite(&only_key(&store), &rotated, HOUR);
    session.insert("b", 2).expect("a number");
    session.cycle_id();
    run(session.save()).expect("a session of its own");
    assert_eq!(cookie(&session), CookieAction::Issue);
}

#[test]
fn a_superseded_id_that_cannot_be_deleted_fails_no_login_but_a_logout() {
    let shadow = stored().1.id().expect("stored");
    let lost = [Grant::DropBefore, Grant::DropBefore];
    let (store, session) = stored();
    session.cell().state().shadows = vec![shadow];
    session.cycle_id();
    let steps = [&[Grant::Pass][..], &lost].concat();
    save_with(&store, &session, &steps).expect("the new id is stored");

    let (store, session) = stored();
    session.destroy();
    let error = save_with(&store, &session, &lost).expect_err("it may live");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(cookie(&session), CookieAction::Keep);
    save_with(&store, &session, &[Grant::Pass]).expect("the logout is repeated");
    assert_eq!(cookie(&session), CookieAction::Remove);
}

/// Each attempt to give it a new id names that id in the index first.
#[test]
fn an_attempt_that_was_not_executed_leaves_no_entry_in_the_index() {
    let (store, session) = stored();
    session.log_in("zoe").expect("a user");
    run(session.save()).expect("saved");
    let theirs = Bytes::from_static(br#"{"_rev":"ffffffffffffffff","_user":"zoe","a":5}"#);
    store.memory().overwrite(&only_key(&store), &theirs, HOUR);
    session.cycle_id();
    run(session.save()).expect("the second attempt");
    let context = &session.cell().context;
    let index = context.user_index_key("zoe");
    assert_eq!(run(context.store.index_len(&index)).expect("a number"), 1);
    assert_eq!(session.get::<u8>("a").expect("a number"), Some(5));
}

/// The new id may have been stored, and its session must be found by a logout of all devices.
#[test]
fn an_attempt_in_doubt_leaves_its_entry_in_the_index() {
    let (store, session) = stored();
    session.log_in("zoe").expect("a user");
    run(session.save()).expect("saved");
    let former = only_key(&store);
    session.cycle_id();
    let mut save = begin_save(&store, &session);
    assert!(poll(&mut save).is_pending());
    store.grant(0, Grant::DropAfter);
    assert!(poll(&mut save).is_pending(), "it is sent again");
    // Another request ended the former id meanwhile.
    store.memory().erase(&former);
    store.grant(0, Grant::Pass);
    assert!(matches!(poll(&mut save), Poll::Ready(Err(_))));
    let context = &session.cell().context;
    let index = context.user_index_key("zoe");
    let listed = run(context.store.index_page(&index, Cursor::default(), 9)).expect("a page");
    let live = only_key(&store);
    assert!(listed.iter().any(|entry| live.ends_with(&entry.name)));
}

/// It was answered each time, so it is not in doubt.
#[test]
fn an_update_is_replayed_after_each_conflict() {
    let (store, session) = stored();
    let add = |n: Option<u64>| n.unwrap_or(0) + 1;
    session.update("theirs", add).expect("a number");
    save_after_conflicts(&store, &session, 3).expect("the fourth attempt");
    assert_eq!(session.get::<u64>("theirs").expect("a number"), Some(3));
}

#[test]
fn commits_of_several_requests_take_turns_once_they_conflict() {
    for conflicts in [false, true] {
        let (store, session) = stored();
        let key = only_key(&store);
        let cell = session.cell().clone();
        let lock = cell.context.commit_lock(session.id().expect("stored"));
        session.insert("b", 2).expect("a number");
        let mut save = begin_save(&store, &session);
        if conflicts {
            assert!(poll(&mut save).is_pending());
            overwrite(&store, &key, 1);
            store.grant(0, Grant::Pass);
        }
        let turn = lock.try_lock();
        assert!(poll(&mut save).is_pending());
        assert!(!store.is_waiting(0), "another request's turn");
        drop(turn.expect("free"));
        assert!(poll(&mut save).is_pending());
        assert!(store.is_waiting(0), "its own turn");
        assert!(lock.try_lock().is_err());
        store.grant(0, Grant::Pass);
        assert!(matches!(poll(&mut save), Poll::Ready(Ok(()))));
    }
}

#[test]
fn a_commit_that_met_a_conflict_keeps_its_turn() {
    let (store, session) = stored();
    let key = only_key(&store);
    let cell = session.cell().clone();
    let lock = cell.context.commit_lock(session.id().expect("stored"));
    session.insert("b", 2).expect("a number");
    let mut save = begin_save(&store, &session);
    assert!(poll(&mut save).is_pending());
    assert!(lock.try_lock().is_ok(), "no conflict yet");
    overwrite(&store, &key, 1);
    store.grant(0, Grant::Pass);
    assert!(poll(&mut save).is_pending(), "the second attempt");
    assert!(lock.try_lock().is_err());
    store.grant(0, Grant::Pass);
    assert!(matches!(poll(&mut save), Poll::Ready(Ok(()))));
}

#[test]
fn a_session_that_is_destroyed_during_a_save_does_not_show_what_others_stored() {
    let (store, session) = stored();
    session.insert("b", 2).expect("a number");
    let key = only_key(&store);
    let mut save = begin_save(&store, &session);
    assert!(poll(&mut save).is_pending());
    overwrite(&store, &key, 1);
    session.destroy();
    store.grant(0, Grant::Pass);
    let saved = poll(&mut save);
    assert!(session.keys().is_empty());
    assert!(matches!(saved, Poll::Ready(Ok(()))));
}

#[test]
fn the_entry_of_a_session_that_is_gone_is_removed() {
    let (store, session) = stored();
    session.log_in("zoe").expect("a user");
    run(session.save()).expect("saved");
    let context = session.cell().context.clone();
    let index = context.user_index_key("zoe");
    // So that the save writes the entry anew.
    session.cell().state().base.metadata.indexed_at = Some(0);
    session.insert("b", 2).expect("a number");
    store.memory().erase(&only_key(&store));
    let error = run(session.save()).expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::Ended);
    assert_eq!(run(context.store.index_len(&index)).expect("a number"), 0);
}
