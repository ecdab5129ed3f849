//! What becomes of the sessions of another app: taken over once, retired, or ended.

use std::{pin::pin, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use super::{
    commit_rules::{poll, run},
    fake_server::FakeServer,
    stepped::{Grant, Protocol, SteppedStore},
};
use crate::{
    ErrorKind, LazySession,
    clock::unix_millis,
    commit::state::Status,
    context::Context,
    cookie::{self, PresentedIds},
    format::{Flask, Migration, OldCookie, is_pointer, pointer},
    id::SessionId,
    record::tombstone,
    request::RequestHead,
    store::Store,
};

const HOUR: Duration = Duration::from_secs(3600);
const COOKIE: &str = "session=BTVKkDcA2ZjsLMC0BGr7vXgE6FomuHvWCJIG0JA2DEE";
const KEY: &str = "session:BTVKkDcA2ZjsLMC0BGr7vXgE6FomuHvWCJIG0JA2DEE";
const VALUE: Bytes = Bytes::from_static(br#"{"name":"Zoe","user_id":42}"#);

fn context(store: Store) -> Arc<Context> {
    let mut context = Context::new(store);
    let flask = Migration::from(Flask::new()).with_user_at("/user_id");
    context.config.migrations.push(Arc::new(flask));
    Arc::new(context)
}

fn memory() -> (SteppedStore, Arc<Context>) {
    let store = SteppedStore::new(Protocol::OneStepRotation);
    let context = context(Store::Stepped(store.clone()));
    store.memory().overwrite(KEY, &VALUE, HOUR);
    (store, context)
}

/// With the old cookie, and one of this crate.
fn request(context: &Arc<Context>, is_old: bool, own: Option<SessionId>) -> LazySession {
    let mut headers = HeaderMap::new();
    if is_old {
        headers.append(header::COOKIE, HeaderValue::from_static(COOKIE));
    }
    if let Some(id) = own {
        headers.append(header::COOKIE, cookie::pair(&context.config.cookie, id));
    }
    let head = RequestHead {
        presented: PresentedIds::from_headers(&headers, &context.config),
        ..RequestHead::default()
    };
    LazySession::new(context.clone(), head, None)
}

fn id() -> SessionId {
    SessionId::random().expect("random numbers")
}

fn stored(store: &SteppedStore, key: &str) -> Option<Bytes> {
    run(store.memory().value(key)).expect("no fault")
}

#[test]
fn an_old_session_is_taken_over_as_if_it_began_now() {
    let (store, context) = memory();
    let session = run(request(&context, true, None).load()).expect("loaded");
    assert_eq!(
        session.get::<String>("name").expect("text").as_deref(),
        Some("Zoe")
    );
    assert_eq!(session.user().as_deref(), Some("42"));
    let metadata = session.cell().state().base.metadata;
    assert!(metadata.created.is_some() && metadata.indexed_at == metadata.created);
    assert!(is_pointer(&stored(&store, KEY).expect("a pointer")));
}

/// Its cookie could not be replaced any more.
#[test]
fn an_old_session_is_not_taken_over_behind_the_headers_or_a_rotated_id() {
    let (store, context) = memory();
    let lazy = request(&context, true, None);
    lazy.mark_headers_sent();
    let session = run(lazy.load()).expect("loaded");
    assert!(session.keys().is_empty());
    assert_eq!(stored(&store, KEY), Some(VALUE));

    let own = id();
    let rotated = tombstone(unix_millis() + 60_000, None).expect("random numbers");
    store.memory().overwrite(&context.key(own), &rotated, HOUR);
    let session = run(request(&context, true, Some(own)).load()).expect("loaded");
    assert!(matches!(
        session.cell().state().status,
        Status::Rotated { .. }
    ));
    assert_eq!(stored(&store, KEY), Some(VALUE));
}

#[tokio::test]
async fn an_old_session_that_cannot_be_asked_for_is_an_error() {
    let server = FakeServer::start(|_| "-OOM command not allowed".to_owned()).await;
    let context = context(Store::Redis(server.store()));
    let error = request(&context, true, None).load().await;
    assert_eq!(error.expect_err("no answer").kind(), ErrorKind::Rejected);
}

#[test]
fn only_a_pointer_is_retired() {
    for is_moved in [true, false] {
        let (store, context) = memory();
        let own = id();
        let value = format!(r#"{{"_rev":"9f86d081884c7d65","_moved_from":"{KEY}","a":1}}"#);
        store
            .memory()
            .overwrite(&context.key(own), &value.into(), HOUR);
        if is_moved {
            let pointer = pointer(&old_cookie(&context), own, u64::MAX).expect("random numbers");
            store.memory().overwrite(KEY, &pointer, HOUR);
        }
        let session = run(request(&context, false, Some(own)).load()).expect("loaded");
        assert_eq!(session.get::<u8>("a").expect("a number"), Some(1));
        // The old app began another session under the same id.
        assert_eq!(stored(&store, KEY).is_some(), !is_moved);
    }
}

fn old_cookie(context: &Context) -> OldCookie {
    let cookies = [COOKIE.as_bytes()].into_iter();
    let old = context.config.migrations[0].presented(cookies).next();
    old.expect("an old cookie")
}

#[test]
fn a_logout_removes_the_old_cookies_that_were_presented() {
    for is_old in [true, false] {
        let (store, context) = memory();
        let lazy = request(&context, is_old, None);
        lazy.destroy();
        lazy.destroy();
        let session = lazy.loaded().expect("destroyed");
        let removed = session.cell().state().old.migrations.len();
        assert_eq!(removed, usize::from(is_old));
        run(session.save()).expect("destroyed");
        assert_eq!(stored(&store, KEY).is_some(), !is_old);
    }
}

/// Another request takes the session over between the read and the deletion.
#[test]
fn a_logout_ends_an_old_session_that_is_being_moved() {
    let (store, context) = memory();
    let lazy = request(&context, true, None);
    lazy.destroy();
    let session = lazy.loaded().expect("destroyed");
    store.close_gate();
    store.enter(0);
    let mut save = pin!(session.save());
    assert!(poll(&mut save).is_pending());
    let new = id();
    let live = Bytes::from_static(br#"{"_rev":"9f86d081884c7d65","a":1}"#);
    store.memory().overwrite(&context.key(new), &live, HOUR);
    let pointer = pointer(&old_cookie(&context), new, u64::MAX).expect("random numbers");
    store.memory().overwrite(KEY, &pointer, HOUR);
    for _ in 0..5 {
        store.grant(0, Grant::Pass);
        if let Poll::Ready(saved) = poll(&mut save) {
            saved.expect("destroyed");
            assert!(store.memory().dump().is_empty());
            return;
        }
    }
    panic!("more steps");
}
