//! What a server does not answer ends at its deadline, also outside of a request's load and commit.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{net::TcpListener, time::timeout};
use tokio_util::task::TaskTracker;

use super::fake_server::{FakeServer, silent};
use crate::{
    ErrorKind,
    context::Context,
    record::UserId,
    store::{RedisStore, Store, Transport},
    users::UserSessions,
};

const DEADLINE: Duration = Duration::from_millis(20);
const HOUR: Duration = Duration::from_secs(3600);
/// How long a busy machine may take to notice that a deadline is over.
const LIMIT: Duration = Duration::from_secs(20);

/// A store whose server accepts connections and says nothing. Connecting to it takes an hour.
async fn silent_store() -> (TcpListener, Store) {
    let (listener, endpoint) = silent().await;
    let store = RedisStore::new(Transport::new(endpoint)).with_connect_timeout(HOUR);
    (listener, Store::Redis(store))
}

#[tokio::test]
async fn a_touch_in_the_background_ends_at_its_deadline() {
    let (_listener, store) = silent_store().await;
    let tasks = TaskTracker::new();
    let key = "session:1".to_owned();
    store.touch_later(key, HOUR, DEADLINE, &tasks, &Arc::default());
    tasks.close();
    timeout(LIMIT, tasks.wait()).await.expect("it ends");
}

#[tokio::test]
async fn listing_and_revoking_end_at_the_deadline() {
    let (_listener, store) = silent_store().await;
    let mut context = Context::new(store);
    context.config.deadline = DEADLINE;
    let user = UserId::new("zoe").expect("not empty");
    let sessions = UserSessions::new(Arc::new(context), user, None);
    let handle = "A".repeat(22).parse().expect("a handle");
    ends(sessions.list()).await;
    ends(sessions.revoke(&handle)).await;
    ends(sessions.revoke_all()).await;
    ends(sessions.revoke_others()).await;
}

/// It is not said that there is no connection.
#[tokio::test]
async fn a_server_that_is_connected_and_says_nothing_is_not_unconnected() {
    let server = FakeServer::start(|words| match words[0].as_str() {
        "GET" => "$-1".to_owned(),
        _ => String::new(),
    })
    .await;
    let store = server.store();
    store.value("key").await.expect("connected");
    let mut context = Context::new(Store::Redis(store));
    context.config.deadline = DEADLINE;
    let user = UserId::new("zoe").expect("not empty");
    let sessions = UserSessions::new(Arc::new(context), user, None);
    let listed = timeout(LIMIT, sessions.list()).await.expect("it ends");
    let error = listed.expect_err("there is no answer").to_string();
    assert!(!error.contains("no connection"), "{error}");
}

async fn ends<T: std::fmt::Debug>(call: impl Future<Output = Result<T, crate::SessionError>>) {
    let error = timeout(LIMIT, call).await.expect("it ends");
    let error = error.expect_err("there is no answer");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = "no connection to Redis within 20ms, and the attempt goes on";
    assert!(error.to_string().contains(text), "{error}");
}
