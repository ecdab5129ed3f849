//! The rules of a commit, each on one session: over a store in memory, or one that stops before each of its steps.

use std::{
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::stepped::{Grant, Protocol, SteppedStore};
use crate::{
    ErrorKind, LazySession, Session, SessionError,
    commit::state::{CookieAction, Status},
    config::Config,
    context,
    record::{Decoded, Record, tombstone},
    request::RequestHead,
    store::Store,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A session with `a` = 1, over a store that lets every step pass until its gate is closed.
pub(super) fn stored_with(configure: impl FnOnce(&mut Config)) -> (SteppedStore, Session) {
    let store = SteppedStore::new(Protocol::OneStepRotation);
    let mut context = context::Context::new(Store::Stepped(store.clone()));
    configure(&mut context.config);
    let lazy = LazySession::new(Arc::new(context), RequestHead::default(), None);
    let session = run(lazy.load()).expect("loaded");
    session.insert("a", 1).expect("a number");
    run(session.save()).expect("saved");
    session.cell().state().cookie = CookieAction::Keep;
    (store, session)
}

pub(super) fn stored() -> (SteppedStore, Session) {
    stored_with(|_| ())
}

pub(super) fn poll<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    match poll(&mut pin!(future)) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("nothing stops it"),
    }
}

/// Saves; the store's steps end as `grants` say, and there are no others.
pub(super) fn save_with(
    store: &SteppedStore,
    session: &Session,
    grants: &[Grant],
) -> Result<(), SessionError> {
    store.close_gate();
    store.enter(0);
    let mut save = pin!(session.save());
    for grant in grants {
        assert!(poll(&mut save).is_pending(), "fewer steps");
        store.grant(0, *grant);
    }
    match poll(&mut save) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("more steps"),
    }
}

pub(super) fn cookie(session: &Session) -> CookieAction {
    session.cell().state().cookie
}

fn live(store: &SteppedStore) -> Vec<(String, Record)> {
    let dump = store.memory().dump().into_iter();
    dump.filter_map(|(key, bytes)| match Record::decode(&bytes) {
        Ok(Decoded::Session(record)) => Some((key, record)),
        _ => None,
    })
    .collect()
}

pub(super) fn only_key(store: &SteppedStore) -> String {
    live(store).pop().expect("a session").0
}

#[test]
fn a_delete_in_doubt_that_finds_nothing_is_done() {
    let (store, session) = stored();
    assert!(session.remove("a"));
    let saved = save_with(&store, &session, &[Grant::DropAfter, Grant::Pass]);
    assert!(saved.is_ok());
    assert_eq!(cookie(&session), CookieAction::Remove);

    let (store, session) = stored();
    store.memory().erase(&only_key(&store));
    assert!(session.remove("a"));
    let error = save_with(&store, &session, &[Grant::Pass]).expect_err("somebody else's deletion");
    assert_eq!(error.kind(), ErrorKind::Ended);
    assert_eq!(cookie(&session), CookieAction::Keep);
}

#[test]
fn commits_of_one_session_run_one_after_the_other() {
    let (store, session) = stored();
    store.close_gate();
    session.insert("b", 2).expect("a number");
    store.enter(0);
    let mut first = pin!(session.save());
    assert!(poll(&mut first).is_pending());
    session.insert("c", 3).expect("a number");
    store.enter(1);
    let mut second = pin!(session.save());
    assert!(poll(&mut second).is_pending());
    assert!(!store.is_waiting(1), "it waits for the first");
    store.enter(0);
    store.grant(0, Grant::Pass);
    assert!(poll(&mut first).is_pending(), "what was added meanwhile");
    store.grant(0, Grant::Pass);
    assert!(matches!(poll(&mut first), Poll::Ready(Ok(()))));
    store.enter(1);
    assert!(matches!(poll(&mut second), Poll::Ready(Ok(()))));
    assert_eq!(
        live(&store)[0].1.keys().collect::<Vec<_>>(),
        ["a", "b", "c"]
    );
}

#[test]
fn a_change_that_a_clone_makes_during_a_replay_is_kept() {
    let (store, session) = stored();
    let runs = Arc::new(Mutex::new(0));
    let clone = Mutex::new(Some(session.clone()));
    let seen = runs.clone();
    let added = session.update("n", move |n: Option<u64>| {
        *seen.lock().expect("no panic") += 1;
        // The first run is the app's own call, the second the first replay.
        if *seen.lock().expect("no panic") == 2
            && let Some(clone) = clone.lock().expect("no panic").take()
        {
            clone.insert("b", 2).expect("a number");
        }
        n.unwrap_or(0) + 1
    });
    assert_eq!(added.expect("a number"), 1);
    let theirs = Bytes::from_static(br#"{"_rev":"ffffffffffffffff","a":1,"n":5}"#);
    let key = only_key(&store);
    store.memory().overwrite(&key, &theirs, HOUR);
    run(session.save()).expect("saved");
    let (_, record) = live(&store).remove(0);
    assert_eq!(record.value("n").as_deref(), Some(&b"6"[..]));
    assert_eq!(record.value("b").as_deref(), Some(&b"2"[..]));
}

#[test]
fn a_write_in_doubt_is_recognized_by_its_revision() {
    let (store, session) = stored();
    let increment = |n: Option<u64>| n.unwrap_or(0) + 1;
    session.update("n", increment).expect("a number");
    let lost = save_with(&store, &session, &[Grant::DropAfter, Grant::DropBefore]);
    assert_eq!(lost.expect_err("no reply").kind(), ErrorKind::Unavailable);
    session.insert("b", 2).expect("a number");
    save_with(&store, &session, &[Grant::Pass, Grant::Pass]).expect("the first write is its own");
    let (_, record) = live(&store).remove(0);
    assert_eq!(record.value("n").as_deref(), Some(&b"1"[..]));
    assert_eq!(record.value("b").as_deref(), Some(&b"2"[..]));
}

#[test]
fn a_rotation_in_doubt_is_recognized_by_its_tombstone() {
    let (store, session) = stored();
    session.cycle_id();
    let lost = save_with(&store, &session, &[Grant::DropAfter, Grant::DropBefore]);
    assert_eq!(lost.expect_err("no reply").kind(), ErrorKind::Unavailable);
    let rotated_to = only_key(&store);
    session.insert("b", 2).expect("a number");
    save_with(&store, &session, &[Grant::Pass, Grant::Pass]).expect("the rotation is its own");
    let live = live(&store);
    assert_eq!(live.len(), 1);
    assert_eq!(live[0].0, rotated_to);
    assert_eq!(live[0].1.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(cookie(&session), CookieAction::Issue);
}

#[test]
fn a_session_that_is_found_empty_is_gone() {
    let empty = Bytes::from_static(br#"{"_rev":"ffffffffffffffff"}"#);
    let (store, session) = stored();
    store.memory().overwrite(&only_key(&store), &empty, HOUR);
    session.insert("b", 2).expect("a number");
    let error = run(session.save()).expect_err("nothing to build on");
    assert_eq!(error.kind(), ErrorKind::Ended);
    assert!(matches!(session.cell().state().status, Status::Gone));

    let (store, session) = stored();
    store.memory().overwrite(&only_key(&store), &empty, HOUR);
    let error = run(session.reload()).expect_err("nothing is left");
    assert_eq!(error.kind(), ErrorKind::Ended);
    assert!(live(&store).is_empty());
}

#[test]
fn destroy_takes_back_a_cookie_that_was_to_be_sent() {
    let (store, session) = stored();
    session.cell().state().cookie = CookieAction::Issue;
    session.destroy();
    assert_eq!(cookie(&session), CookieAction::Keep);
    // Another request's login came first: its cookie must stay.
    let until = u64::MAX;
    let rotated = tombstone(until, None).expect("random numbers");
    store.memory().overwrite(&only_key(&store), &rotated, HOUR);
    run(session.save()).expect("destroyed");
    assert_eq!(cookie(&session), CookieAction::Keep);
}

#[test]
fn losing_a_session_takes_back_a_cookie_that_was_to_be_sent() {
    let (store, session) = stored();
    session.cell().state().cookie = CookieAction::Issue;
    store.memory().erase(&only_key(&store));
    session.insert("b", 2).expect("a number");
    assert!(run(session.save()).is_err());
    assert_eq!(cookie(&session), CookieAction::Keep);
}

#[test]
fn a_logout_of_a_session_that_was_not_found_removes_no_cookie() {
    let (_, session) = stored();
    let id = session.id();
    session.cell().state().status = Status::New { presented: id };
    session.destroy();
    run(session.save()).expect("destroyed");
    assert_eq!(cookie(&session), CookieAction::Keep);

    let (_, session) = stored();
    session.destroy();
    run(session.save()).expect("destroyed");
    assert_eq!(cookie(&session), CookieAction::Remove);
}

#[test]
fn a_login_starts_the_absolute_timeout_anew_and_a_new_id_does_not() {
    let long_ago = 1_000_000_000;
    let (_, session) = stored();
    let created = |session: &Session| session.cell().state().base.metadata.created;
    session.cell().state().base.metadata.created = Some(long_ago);
    session.cycle_id();
    run(session.save()).expect("saved");
    assert_eq!(created(&session), Some(long_ago));
    session.log_in("zoe").expect("a user");
    run(session.save()).expect("saved");
    assert!(created(&session) > Some(long_ago));
}

#[test]
fn no_cookie_is_renewed_once_the_headers_are_sent() {
    for (headers_sent, expected) in [(true, CookieAction::Keep), (false, CookieAction::Issue)] {
        let (_, session) = stored();
        {
            let mut state = session.cell().state();
            state.headers_sent = headers_sent;
            match &mut state.status {
                Status::Persisted(persisted) => persisted.re_sign_cookie = true,
                _ => panic!("it is stored"),
            }
        }
        session.insert("b", 2).expect("a number");
        run(session.save()).expect("saved");
        assert_eq!(cookie(&session), expected, "signed by a former key");

        let (_, session) = stored();
        session.cell().state().base.metadata.permanent = Some(0);
        session.cell().state().headers_sent = headers_sent;
        session.insert("b", 2).expect("a number");
        run(session.save()).expect("saved");
        assert_eq!(cookie(&session), expected, "sent long ago");
    }
}

#[test]
fn a_save_moves_the_expiry() {
    let (_, session) = stored();
    session.cell().state().ttl_set_at = SystemTime::now() - HOUR;
    let before = session.expires_at().expect("stored");
    session.insert("b", 2).expect("a number");
    run(session.save()).expect("saved");
    let after = session.expires_at().expect("stored");
    assert!(after >= before + HOUR, "{before:?}, {after:?}");
}

#[test]
fn a_session_may_be_exactly_as_large_as_the_limit() {
    let size = stored().0.memory().dump()[0].1.len();
    let (_, session) = stored_with(|config| config.max_size = size);
    session.insert("a", 2).expect("a number");
    run(session.save()).expect("exactly the limit");
    session.insert("a", 10).expect("a number");
    let error = run(session.save()).expect_err("one byte more");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[test]
fn clear_leaves_reserved_keys_of_other_writers() {
    let (store, session) = stored();
    let theirs = br#"{"_rev":"ffffffffffffffff","_user_id":"7","a":1}"#;
    let theirs = Bytes::from_static(theirs);
    store.memory().overwrite(&only_key(&store), &theirs, HOUR);
    session.clear();
    session.insert("b", 2).expect("a number");
    run(session.save()).expect("saved");
    let (_, record) = live(&store).remove(0);
    assert_eq!(record.value("_user_id").as_deref(), Some(&br#""7""#[..]));
    assert_eq!(record.keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn an_insert_and_an_update_of_one_key_replace_what_others_stored() {
    let (store, session) = stored();
    session.insert("n", 1).expect("a number");
    let added = session.update("n", |n: Option<u64>| n.unwrap_or(0) + 10);
    assert_eq!(added.expect("a number"), 11);
    let theirs = Bytes::from_static(br#"{"_rev":"ffffffffffffffff","n":5}"#);
    store.memory().overwrite(&only_key(&store), &theirs, HOUR);
    run(session.save()).expect("saved");
    let (_, record) = live(&store).remove(0);
    assert_eq!(record.value("n").as_deref(), Some(&b"11"[..]));
}
