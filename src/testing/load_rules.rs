//! What a request's cookies lead to: live sessions, rotated ones, values that cannot be read, and nothing.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::HeaderMap;

use super::{
    commit_rules::run,
    fake_server::FakeServer,
    stepped::{Protocol, SteppedStore},
};
use crate::{
    ErrorKind, LazySession,
    clock::unix_millis,
    commit::{state::Status, write::TOMBSTONE_TTL},
    config::Config,
    context::Context,
    cookie::{self, PresentedIds},
    id::SessionId,
    record::{Decoded, Record, tombstone},
    request::RequestHead,
    store::Store,
};

const HOUR: Duration = Duration::from_secs(3600);

/// What is stored under a cookie's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    Nothing,
    Unreadable,
    Rotated,
    Live,
}

fn context_with(configure: impl FnOnce(&mut Config)) -> (SteppedStore, Arc<Context>) {
    let store = SteppedStore::new(Protocol::OneStepRotation);
    let mut context = Context::new(Store::Stepped(store.clone()));
    configure(&mut context.config);
    (store, Arc::new(context))
}

fn id() -> SessionId {
    SessionId::random().expect("random numbers")
}

fn request(context: &Arc<Context>, ids: &[SessionId]) -> LazySession {
    let mut headers = HeaderMap::new();
    for id in ids {
        let pair = cookie::pair(&context.config.cookie, *id);
        headers.append(http::header::COOKIE, pair);
    }
    let head = RequestHead {
        presented: PresentedIds::from_headers(&headers, &context.config),
        ..RequestHead::default()
    };
    LazySession::new(context.clone(), head, None)
}

/// A new id whose key holds this. `n` tells sessions apart.
fn store(store: &SteppedStore, context: &Context, stored: Stored, n: usize) -> SessionId {
    let id = id();
    let value = match stored {
        Stored::Nothing => return id,
        Stored::Unreadable => Bytes::from_static(b"pickle"),
        Stored::Rotated => tombstone(unix_millis() + 60_000, None).expect("random numbers"),
        Stored::Live => format!(r#"{{"_rev":"9f86d081884c7d65","n":{n}}}"#).into(),
    };
    store.memory().overwrite(&context.key(id), &value, HOUR);
    id
}

/// A live session, else one that was rotated, else what cannot be read, else none. Of two that are alike, the first.
#[test]
fn of_several_cookies_the_best_one_counts() {
    use Stored::{Live, Nothing, Rotated, Unreadable};

    for (row, best) in [
        ([Nothing, Live], 1),
        ([Live, Live], 0),
        ([Live, Nothing], 0),
        ([Rotated, Live], 1),
        ([Unreadable, Live], 1),
        ([Nothing, Rotated], 1),
        ([Rotated, Nothing], 0),
        ([Rotated, Unreadable], 0),
        ([Unreadable, Rotated], 1),
        ([Rotated, Rotated], 0),
        ([Nothing, Unreadable], 1),
        ([Unreadable, Nothing], 0),
        ([Nothing, Nothing], 0),
    ] {
        let (memory, context) = context_with(|_| ());
        let ids = [0, 1].map(|n| store(&memory, &context, row[n], n));
        let loaded = run(request(&context, &ids).load());
        if row[best] == Unreadable {
            let error = loaded.expect_err("it cannot be read");
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{row:?}");
            continue;
        }
        let session = loaded.expect("loaded");
        let state = session.cell().state();
        match (row[best], &state.status) {
            (Live, Status::Persisted(persisted)) => assert_eq!(persisted.id, ids[best], "{row:?}"),
            (Rotated, Status::Rotated { .. }) | (Nothing, Status::New { .. }) => {}
            _ => panic!("{row:?}"),
        }
        assert_eq!(state.shadows, [ids[1 - best]], "{row:?}");
    }
    // With one cookie, there is no other one to end.
    let (memory, context) = context_with(|_| ());
    let only = store(&memory, &context, Live, 0);
    let session = run(request(&context, &[only]).load()).expect("loaded");
    assert!(session.cell().state().shadows.is_empty());
}

#[test]
fn more_than_four_cookies_are_ignored() {
    for (place, is_found) in [(3, true), (4, false)] {
        let (memory, context) = context_with(|_| ());
        let mut ids = [(); 5].map(|()| id());
        ids[place] = store(&memory, &context, Stored::Live, 0);
        let session = run(request(&context, &ids).load()).expect("loaded");
        assert_eq!(session.id().is_some(), is_found, "{place}");
    }
}

#[test]
fn a_value_that_cannot_be_read_is_an_error_unless_it_is_to_be_discarded() {
    for is_discarded in [false, true] {
        let (memory, context) = context_with(|config| config.discard_unreadable = is_discarded);
        let only = store(&memory, &context, Stored::Unreadable, 0);
        match run(request(&context, &[only]).load()) {
            Ok(session) => {
                assert!(is_discarded);
                // A logout deletes the value.
                session.destroy();
                run(session.save()).expect("destroyed");
                assert!(memory.memory().dump().is_empty());
            }
            Err(error) => {
                assert!(!is_discarded);
                assert_eq!(error.kind(), ErrorKind::InvalidData);
            }
        }
    }
}

#[test]
fn the_latest_session_may_have_ended_but_must_be_readable() {
    let (memory, context) = context_with(|_| ());
    let ended = store(&memory, &context, Stored::Live, 0);
    let lazy = request(&context, &[ended]);
    run(lazy.load()).expect("loaded");
    memory.memory().erase(&context.key(ended));
    let session = run(lazy.load_latest()).expect("an end is no error");
    assert!(session.keys().is_empty());

    let damaged = store(&memory, &context, Stored::Live, 0);
    let lazy = request(&context, &[damaged]);
    run(lazy.load()).expect("loaded");
    let value = Bytes::from_static(b"pickle");
    memory
        .memory()
        .overwrite(&context.key(damaged), &value, HOUR);
    let error = run(lazy.load_latest()).expect_err("it cannot be read");
    assert_eq!(error.kind(), ErrorKind::InvalidData);
}

/// A grace of zero is for ever; after another one, a new session may begin.
#[test]
fn a_rotated_session_is_shown_while_its_grace_lasts() {
    let limit = Duration::from_secs(20);
    for (name, grace, rotated_ago, readable_for, is_rotated, is_readable) in [
        ("within the grace", limit, 10, 30, true, true),
        ("no longer readable", limit, 10, -30, true, false),
        ("after the grace", limit, 30, 30, false, false),
        ("without a limit", Duration::ZERO, 30, 30, true, true),
    ] {
        let (memory, context) = context_with(|config| config.rotation_grace = grace);
        let former = id();
        let json = Bytes::from_static(br#"{"_rev":"9f86d081884c7d65","a":1}"#);
        let Ok(Decoded::Session(record)) = Record::decode(&json) else {
            panic!("a session");
        };
        let now = unix_millis();
        let lasts = u64::try_from(TOMBSTONE_TTL.as_millis()).expect("short");
        let until = now + lasts - rotated_ago * 1000;
        let readable = now.saturating_add_signed(readable_for * 1000);
        let value = tombstone(until, Some((readable, &record))).expect("random numbers");
        memory
            .memory()
            .overwrite(&context.key(former), &value, HOUR);
        let session = run(request(&context, &[former]).load()).expect("loaded");
        let status = matches!(session.cell().state().status, Status::Rotated { .. });
        assert_eq!(status, is_rotated, "{name}");
        assert_eq!(!session.keys().is_empty(), is_readable, "{name}");
    }
}

/// The command that reads it sets the TTL of other sessions.
#[tokio::test]
async fn the_ttl_of_a_session_with_its_own_timeout_is_set_again() {
    for (value, is_set) in [
        (r#"{"_rev":"9f86d081884c7d65","a":1}"#, false),
        (r#"{"_rev":"9f86d081884c7d65","_idle":20,"a":1}"#, true),
    ] {
        let server = FakeServer::start(move |words| match words[0].as_str() {
            "GETEX" => format!("${}\r\n{value}", value.len()),
            _ => ":1".to_owned(),
        })
        .await;
        let context = Arc::new(Context::new(Store::Redis(server.store())));
        request(&context, &[id()]).load().await.expect("loaded");
        let tasks = &context.shared.detached_commits;
        tasks.close();
        tasks.wait().await;
        let set = server.take().contains(&"PEXPIRE".to_owned());
        assert_eq!(set, is_set, "{value}");
    }
}

/// Whether the first one leads to a session is not known.
#[tokio::test]
async fn in_an_outage_no_other_cookie_is_tried() {
    let server = FakeServer::start(|_| "-OOM command not allowed".to_owned()).await;
    let context = Arc::new(Context::new(Store::Redis(server.store())));
    let loaded = request(&context, &[id(), id()]).load().await;
    assert_eq!(loaded.expect_err("no answer").kind(), ErrorKind::Rejected);
    assert_eq!(server.take(), ["GETEX"]);
}
