//! Clones of one request's session, one of which saves while the other goes on.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::{
    LazySession, Session, context,
    record::{Decoded, Record},
    request::RequestHead,
    store::{MemoryStore, Store},
    testing::stepped::{Grant, Protocol, SteppedStore},
};

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("nothing holds it up"),
    }
}

/// A stored session, over a store that stops before each step from here on.
fn stored() -> (SteppedStore, Session) {
    let store = SteppedStore::new(Protocol::OneStepRotation);
    let context = Arc::new(context::Context::new(Store::Stepped(store.clone())));
    let session =
        run(LazySession::new(context, RequestHead::default(), None).load()).expect("loaded");
    session.insert("user", 42).expect("a number");
    run(session.save()).expect("saved");
    store.close_gate();
    (store, session)
}

fn live(store: &SteppedStore) -> usize {
    let dump = store.memory().dump();
    let records = dump
        .iter()
        .map(|(_, bytes)| Record::decode(bytes).expect("a record"));
    records
        .filter(|record| matches!(record, Decoded::Session(_)))
        .count()
}

/// Does `meanwhile` while a save is on its way, and lets everything end.
fn save_and_meanwhile(store: &SteppedStore, session: &Session, meanwhile: impl FnOnce(&Session)) {
    save_meanwhile_and_then(store, session, meanwhile, |_| ());
}

/// The same, and `then` once the first write was carried out, before what was done meanwhile is encoded.
fn save_meanwhile_and_then(
    store: &SteppedStore,
    session: &Session,
    meanwhile: impl FnOnce(&Session),
    then: impl FnOnce(&SteppedStore),
) {
    let finish = |save: &mut (dyn Future<Output = Result<(), crate::SessionError>> + Unpin)| {
        for _ in 0..10 {
            store.grant(0, Grant::Pass);
            if Box::pin(&mut *save)
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_ready()
            {
                return;
            }
        }
        panic!("it does not end");
    };
    store.enter(0);
    let mut first = Box::pin(session.save());
    assert!(
        first
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    meanwhile(&session.clone());
    store.grant(0, Grant::Pass);
    let carried_out = first.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    then(store);
    if carried_out.is_pending() {
        finish(&mut first);
    }
    let mut second = Box::pin(session.save());
    finish(&mut second);
}

#[test]
fn a_session_that_is_destroyed_while_its_rotation_is_on_its_way_is_dead_under_both_ids() {
    let (store, session) = stored();
    session.cycle_id();
    save_and_meanwhile(&store, &session, Session::destroy);
    assert_eq!((live(&store), session.id()), (0, None));
}

#[test]
fn a_new_id_that_is_asked_for_while_a_save_is_on_its_way_is_not_forgotten() {
    let (store, session) = stored();
    let id = session.id();
    session.insert("a", 1).expect("a number");
    save_and_meanwhile(&store, &session, Session::cycle_id);
    assert_eq!(live(&store), 1);
    assert_ne!(session.id(), id);
}

#[test]
fn a_grace_that_was_discarded_does_not_return_with_the_next_new_id() {
    let memory = MemoryStore::default();
    let context = Arc::new(context::Context::new(Store::Memory(memory.clone())));
    let lazy = LazySession::new(context, RequestHead::default(), None);
    let session = run(lazy.load()).expect("loaded");
    session.log_in("zoe").expect("a user");
    run(session.save()).expect("saved");
    session.cycle_id_with_grace();
    session.cell().state().discard_unsaved();
    let id = session.id();
    session.insert("a", 1).expect("a number");
    run(session.save()).expect("saved");
    assert_eq!(session.id(), id);
    session.cycle_id();
    run(session.save()).expect("saved");
    let dump = memory.dump();
    let records = dump
        .iter()
        .map(|(_, bytes)| Record::decode(bytes).expect("a record"));
    let tombstones: Vec<_> = records
        .filter(|record| matches!(record, Decoded::Tombstone { .. }))
        .collect();
    assert!(matches!(
        tombstones[..],
        [Decoded::Tombstone { readable: None, .. }]
    ));
}

#[test]
fn a_change_that_is_made_while_a_save_is_on_its_way_is_saved_next() {
    let (store, session) = stored();
    session.insert("a", 1).expect("a number");
    save_and_meanwhile(&store, &session, |session| {
        session.insert("a", 2).expect("a number");
    });
    let (_, bytes) = store.memory().dump().remove(0);
    assert!(bytes.ends_with(br#""user":42,"a":2}"#));
}

#[test]
fn an_update_that_is_made_while_an_insert_is_on_its_way_runs_again_on_what_others_store() {
    let (store, session) = stored();
    session.insert("n", 1).expect("a number");
    let others = |store: &SteppedStore| {
        let (key, bytes) = store.memory().dump().remove(0);
        let theirs = String::from_utf8(bytes.to_vec()).expect("text");
        let theirs = theirs.replace("\"n\":1}", "\"n\":5}");
        let (_, rest) = theirs.split_at(26);
        let theirs = format!("{{\"_rev\":\"ffffffffffffffff\"{rest}");
        store
            .memory()
            .overwrite(&key, &theirs.into(), Duration::from_secs(60));
    };
    save_meanwhile_and_then(
        &store,
        &session,
        |session| {
            session
                .update("n", |n: Option<u64>| n.unwrap_or(0) + 10)
                .expect("a number");
        },
        others,
    );
    assert_eq!(session.get::<u64>("n").expect("a number"), Some(15));
}
