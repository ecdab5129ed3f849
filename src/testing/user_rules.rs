//! The rules of a user's index, over a store in memory: paging, dead entries, revoking, limits.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use super::{
    commit_rules::run,
    fake_server::FakeServer,
    stepped::{Protocol, SteppedStore},
};
use crate::{
    ErrorKind, LazySession, Session, SessionError,
    clock::unix_micros,
    config::{Config, SessionLimit},
    context::Context,
    record::UserId,
    request::RequestHead,
    store::{AddOptions, IndexEntry, Store},
    users::{SessionHandle, UserSessions},
};

const HOUR: Duration = Duration::from_secs(3600);
/// More than two pages of an index.
const MANY: u64 = 150;

fn context_with(configure: impl FnOnce(&mut Config)) -> (SteppedStore, Arc<Context>) {
    let store = SteppedStore::new(Protocol::OneStepRotation);
    let mut context = Context::new(Store::Stepped(store.clone()));
    configure(&mut context.config);
    (store, Arc::new(context))
}

fn log_in(context: &Arc<Context>, user: &str, n: u64) -> Result<Session, SessionError> {
    let lazy = LazySession::new(context.clone(), RequestHead::default(), None);
    let session = run(lazy.load())?;
    session.log_in(user)?;
    session.insert("n", n)?;
    let saved = run(session.save());
    if saved.is_err() {
        session.cell().state().changes.reset();
    }
    saved.map(|()| session)
}

fn sessions_of(context: &Arc<Context>, user: &str) -> UserSessions {
    let user = UserId::new(user).expect("not empty");
    UserSessions::new(context.clone(), user, None)
}

fn numbers(sessions: &UserSessions) -> Vec<u64> {
    let listed = run(sessions.list()).expect("listed");
    let number = |n: Result<Option<u64>, _>| n.expect("a number").expect("there");
    listed.iter().map(|it| number(it.get("n"))).collect()
}

fn index_len(context: &Arc<Context>, user: &str) -> usize {
    run(context.store.index_len(&context.user_index_key(user))).expect("a number")
}

fn add(context: &Arc<Context>, user: &str, name: String, age: Duration) {
    let age = u64::try_from(age.as_micros()).expect("short");
    let entry = IndexEntry {
        name,
        added_at: unix_micros() - age,
    };
    let options = AddOptions::default();
    let index = context.user_index_key(user);
    let added = run(context.store.add_to_index(&index, &entry, HOUR, options));
    assert!(added.expect("added"));
}

#[test]
fn all_pages_are_listed_the_newest_first() {
    let (_, context) = context_with(|_| ());
    let sessions: Vec<_> = (0..MANY)
        .map(|n| log_in(&context, "zoe", n).expect("stored"))
        .collect();
    log_in(&context, "adam", 1000).expect("stored");
    let expected: Vec<_> = (0..MANY).rev().collect();
    assert_eq!(numbers(&sessions_of(&context, "zoe")), expected);
    let own = sessions[70].user_sessions().expect("a user");
    let listed = run(own.list()).expect("listed");
    let current: Vec<_> = listed.iter().filter(|it| it.is_current()).collect();
    assert_eq!(current.len(), 1);
    assert_eq!(current[0].get::<u64>("n").expect("a number"), Some(70));
    assert_eq!(Some(current[0].handle()), sessions[70].handle());
    assert!(!current[0].is_permanent());
    let age = |at: SystemTime| at.elapsed().unwrap_or_default();
    assert!(age(current[0].created()) < Duration::from_secs(60));
    assert!(age(current[0].last_seen()) < Duration::from_secs(60));
    let shown = format!("{own:?} {:?}", current[0]);
    assert!(shown.starts_with("UserSessions { .. } UserSession { handle:"));
    assert!(!shown.contains("zoe"), "{shown}");
    let users = crate::RedisSessionLayer::in_memory().users();
    assert_eq!(format!("{users:?}"), "Users { .. }");
}

#[test]
fn a_session_is_revoked_by_its_handle_on_whichever_page() {
    let (store, context) = context_with(|_| ());
    let sessions: Vec<_> = (0..MANY)
        .map(|n| log_in(&context, "zoe", n).expect("stored"))
        .collect();
    let adam = log_in(&context, "adam", 1000).expect("stored");
    let zoe = sessions_of(&context, "zoe");
    let revoke = |handle| run(zoe.revoke(&handle)).expect("answered");
    assert!(!revoke(adam.handle().expect("stored")), "another user's");
    for n in [0, 70, 149] {
        let handle = sessions[n].handle().expect("stored");
        let before = store.memory().dump().len();
        assert!(revoke(handle), "{n}");
        assert_eq!(store.memory().dump().len(), before - 1);
        assert!(!revoke(handle), "{n} is revoked");
    }
    assert_eq!(index_len(&context, "zoe"), 147);
    assert_eq!(numbers(&sessions_of(&context, "adam")), [1000]);
    let text = adam.handle().expect("stored").to_string();
    assert_eq!(text.parse().ok(), adam.handle());
    let error = "adam".parse::<SessionHandle>().expect_err("no handle");
    assert!(error.to_string().contains("22 characters"));
}

#[test]
fn all_or_all_others_are_revoked_and_counted() {
    let (_, context) = context_with(|_| ());
    let sessions: Vec<_> = (0..MANY)
        .map(|n| log_in(&context, "zoe", n).expect("stored"))
        .collect();
    log_in(&context, "adam", 1000).expect("stored");
    let own = sessions[70].user_sessions().expect("a user");
    assert_eq!(run(own.revoke_others()).expect("revoked"), 149);
    assert_eq!(numbers(&own), [70]);
    assert!(sessions[70].id().is_some());
    assert_eq!(run(own.revoke_others()).expect("none"), 0);
    assert_eq!(run(own.revoke_all()).expect("revoked"), 1);
    assert_eq!(sessions[70].id(), None, "ended in this request, too");
    assert_eq!(index_len(&context, "zoe"), 0);
    run(sessions[70].save()).expect("nothing is left to delete");
    assert_eq!(run(own.revoke_all()).expect("none"), 0);
    assert_eq!(numbers(&sessions_of(&context, "adam")), [1000]);

    let many: Vec<_> = (0..MANY)
        .map(|n| log_in(&context, "zoe", n).expect("stored"))
        .collect();
    let zoe = sessions_of(&context, "zoe");
    assert_eq!(run(zoe.revoke_all()).expect("revoked"), many.len());
    assert_eq!(index_len(&context, "zoe"), 0);
}

#[test]
fn entries_without_a_session_leave_the_index_after_a_minute() {
    let by_list = |sessions: &UserSessions| assert_eq!(numbers(sessions), [1]);
    let by_revoking = |sessions: &UserSessions| {
        assert_eq!(run(sessions.revoke_all()).expect("revoked"), 1);
    };
    for (use_index, session_stays) in [(&by_list as &dyn Fn(&UserSessions), 1), (&by_revoking, 0)] {
        let (_, context) = context_with(|_| ());
        let session = log_in(&context, "zoe", 1).expect("stored");
        add(&context, "zoe", "0".repeat(32), Duration::ZERO);
        add(&context, "zoe", "1".repeat(32), Duration::from_secs(61));
        add(&context, "zoe", "2".repeat(32), Duration::from_secs(30));
        use_index(&sessions_of(&context, "zoe"));
        // A session may be stored shortly after its entry.
        assert_eq!(index_len(&context, "zoe"), session_stays + 2);
        assert_eq!(session.keys(), ["n"]);
    }
}

#[test]
fn an_entry_that_names_another_users_session_does_not_show_or_end_it() {
    let (_, context) = context_with(|_| ());
    let adam = log_in(&context, "adam", 7).expect("stored");
    let name = context.key_suffix(adam.id().expect("stored"));
    add(&context, "zoe", name, Duration::ZERO);
    let zoe = sessions_of(&context, "zoe");
    assert!(numbers(&zoe).is_empty());
    assert_eq!(run(zoe.revoke_all()).expect("none"), 0);
    assert!(!run(zoe.revoke(&adam.handle().expect("stored"))).expect("none"));
    run(adam.reload()).expect("still there");
    assert_eq!(numbers(&sessions_of(&context, "adam")), [7]);
}

#[test]
fn a_tombstone_is_neither_listed_nor_counted() {
    let (_, context) = context_with(|_| ());
    let session = log_in(&context, "zoe", 1).expect("stored");
    let former = context.key_suffix(session.id().expect("stored"));
    session.cycle_id();
    run(session.save()).expect("saved");
    assert_eq!(index_len(&context, "zoe"), 1, "the former entry is gone");
    add(&context, "zoe", former, Duration::ZERO);
    let zoe = sessions_of(&context, "zoe");
    assert_eq!(numbers(&zoe), [1]);
    assert_eq!(run(zoe.revoke_all()).expect("revoked"), 1);
    assert_eq!(index_len(&context, "zoe"), 0);
}

#[test]
fn beyond_the_limit_the_oldest_sessions_end() {
    for max in [1, 2, 70] {
        let (_, context) = context_with(|config| {
            config.sessions_per_user = Some((max, SessionLimit::RevokeOldest));
        });
        let count = max as u64 + 2;
        for n in 0..count {
            log_in(&context, "zoe", n).expect("stored");
        }
        let expected: Vec<_> = (2..count).rev().collect();
        assert_eq!(numbers(&sessions_of(&context, "zoe")), expected);
    }
}

#[test]
fn a_limit_that_rejects_counts_logins_and_living_sessions_only() {
    let (store, context) = context_with(|config| {
        config.sessions_per_user = Some((2, SessionLimit::Reject));
    });
    let first = log_in(&context, "zoe", 0).expect("stored");
    let second = log_in(&context, "zoe", 1).expect("stored");
    let error = log_in(&context, "zoe", 2).expect_err("one too many");
    assert_eq!(error.kind(), ErrorKind::TooManySessions);
    assert_eq!(numbers(&sessions_of(&context, "zoe")), [1, 0]);
    log_in(&context, "adam", 3).expect("another user");
    // Neither a save, nor a new id, nor a login of the same session counts.
    second.insert("n", 4).expect("a number");
    run(second.save()).expect("saved");
    second.cycle_id();
    run(second.save()).expect("saved");
    second.log_in("zoe").expect("a user");
    run(second.save()).expect("saved");
    assert_eq!(numbers(&sessions_of(&context, "zoe")), [4, 0]);
    // What ended makes room once its entry is old enough not to be that of a session about to be stored.
    let name = context.key_suffix(first.id().expect("stored"));
    store.memory().erase(&context.session_key(&name));
    assert!(log_in(&context, "zoe", 5).is_err());
    let index = context.user_index_key("zoe");
    let names = [name.clone()];
    run(context.store.remove_from_index(&index, &names)).expect("removed");
    add(&context, "zoe", name, Duration::from_secs(61));
    log_in(&context, "zoe", 6).expect("there is room");
    assert_eq!(numbers(&sessions_of(&context, "zoe")), [6, 4]);
}

/// The index may have lost an entry; its session is not turned out for that.
#[test]
fn an_entry_that_is_restored_does_not_count_as_a_login() {
    let (_, context) = context_with(|config| {
        config.sessions_per_user = Some((1, SessionLimit::Reject));
    });
    let first = log_in(&context, "zoe", 0).expect("stored");
    let name = context.key_suffix(first.id().expect("stored"));
    let index = context.user_index_key("zoe");
    run(context.store.remove_from_index(&index, &[name])).expect("removed");
    log_in(&context, "zoe", 1).expect("the index is empty");
    first.cell().state().base.metadata.indexed_at = Some(0);
    first.insert("n", 2).expect("a number");
    run(first.save()).expect("no login");
    assert_eq!(index_len(&context, "zoe"), 2);
}

#[test]
fn a_permanent_session_is_listed_as_one() {
    let (_, context) = context_with(|_| ());
    let session = log_in(&context, "zoe", 0).expect("stored");
    session.set_permanent(true);
    run(session.save()).expect("saved");
    let listed = run(sessions_of(&context, "zoe").list()).expect("listed");
    assert!(listed[0].is_permanent());
}

/// The sessions of "zoe" in Redis. Each read of her index finds the next of these pages, of names and the time when each was added.
async fn sessions_in_pages(pages: Vec<Vec<(&'static str, u64)>>) -> (FakeServer, UserSessions) {
    let pages = Mutex::new(pages.into_iter());
    let server = FakeServer::start(move |words| match words[0].as_str() {
        "ZRANGE" => {
            let page = pages.lock().expect("no panic").next().unwrap_or_default();
            let mut reply = format!("*{}", 2 * page.len());
            for (name, added_at) in page {
                let added_at = added_at.to_string();
                reply += &format!("\r\n${}\r\n{name}", name.len());
                reply += &format!("\r\n${}\r\n{added_at}", added_at.len());
            }
            reply
        }
        "GET" | "GETEX" => {
            let now = unix_micros() / 1_000_000;
            let value = format!(r#"{{"_rev":"9f86d081884c7d65","_created":{now},"_user":"zoe"}}"#);
            format!("${}\r\n{value}", value.len())
        }
        "PTTL" => ":1000".to_owned(),
        "SET" => "+OK".to_owned(),
        _ => ":1".to_owned(),
    })
    .await;
    let context = Arc::new(Context::new(Store::Redis(server.store())));
    let sessions = sessions_of(&context, "zoe");
    (server, sessions)
}

/// Its entry is written again meanwhile, and so moves to the end of the index.
#[tokio::test]
async fn a_session_that_is_found_on_two_pages_is_listed_once() {
    let pages = vec![vec![("a", 1), ("b", 2)], vec![("c", 3), ("a", 4)]];
    let (_server, sessions) = sessions_in_pages(pages).await;
    assert_eq!(sessions.list().await.expect("listed").len(), 3);
}

/// A session that is given a new id while the index is read is found under that one.
#[tokio::test]
async fn revoking_goes_on_until_the_index_has_no_session() {
    let pages = vec![
        vec![("a", 1), ("b", 2)],
        Vec::new(),
        vec![("c", 3)],
        Vec::new(),
    ];
    let (server, sessions) = sessions_in_pages(pages).await;
    assert_eq!(sessions.revoke_all().await.expect("revoked"), 3);
    let reads = server.take().into_iter().filter(|word| word == "ZRANGE");
    assert_eq!(reads.count(), 5);
}

/// Loads extend a session without writing its entry, until that is written again after a tenth of its lifetime.
#[tokio::test]
async fn an_index_outlives_its_sessions() {
    let (server, sessions) = sessions_in_pages(Vec::new()).await;
    let mut context = Context::new(Store::Redis(server.store()));
    context.config.idle_timeout = Duration::from_secs(1000);
    drop(sessions);
    let lazy = LazySession::new(Arc::new(context), RequestHead::default(), None);
    let session = lazy.load().await.expect("loaded");
    session.log_in("zoe").expect("a user");
    session.save().await.expect("saved");
    let lifetime = || {
        let commands = server.take_all();
        let adds = commands.iter().filter(|words| words[0] == "EVALSHA");
        let found = adds.filter(|words| words.contains(&"2060000".to_owned()));
        found.count()
    };
    assert_eq!(lifetime(), 1);
    session.cell().state().base.metadata.indexed_at = Some(0);
    session.touch().await.expect("it lives");
    assert_eq!(lifetime(), 1);
}
