//! The user index when requests of one user interleave.

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::Path, http::StatusCode, routing::get};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionLimit};
use futures_util::future::join_all;
use tokio::sync::Barrier;

use crate::{
    client::{begin, pair, send, set_cookie, text},
    support::server::Server,
    visits::visits,
};

const HOUR: Duration = Duration::from_secs(3600);

/// The TTL, in milliseconds, of the one key that matches `pattern`.
async fn left(server: &Server, pattern: &str) -> i64 {
    let keys: Vec<String> = server.command(&["KEYS", pattern]).await;
    let [key] = &keys[..] else {
        panic!("{pattern}: {keys:?}");
    };
    server.command(&["PTTL", key]).await
}

async fn count(layer: &RedisSessionLayer, user: &str) -> usize {
    layer
        .users()
        .of(user)
        .expect("a user")
        .list()
        .await
        .expect("listed")
        .len()
}

#[tokio::test]
async fn the_index_outlives_a_session_extended_after_login() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client())
        .with_prefix("s:")
        .with_idle_timeout(HOUR)
        .with_permanent_lifetime(30 * 24 * HOUR);
    let changes: [fn(&Session); 2] = [
        |session| session.set_permanent(true),
        |session| session.set_idle_timeout(7 * 24 * HOUR),
    ];
    for prolong in changes {
        server.command::<String>(&["FLUSHALL"]).await;
        let app = Router::new()
            .route(
                "/log-in",
                get(|session: Session| async move { session.set_user("ann") }),
            )
            .route(
                "/prolong",
                get(move |session: Session| async move { prolong(&session) }),
            )
            .layer(layer.clone());
        let cookie = begin(&app, "/log-in").await;
        assert_eq!(
            send(&app, "/prolong", Some(&cookie)).await.status(),
            StatusCode::OK
        );
        let session = left(&server, "s:[^u]*").await;
        assert!(session > 6 * 24 * 3600 * 1000, "{session}");
        let set = left(&server, "s:user:ann").await;
        // A read just before the index entry needs a refresh extends the session by a tenth and not the index.
        assert!(set > session + session / 10, "{set} {session}");
    }
}

/// Another tab saves between the login's load and its save.
#[tokio::test]
async fn a_retried_login_does_not_count_against_itself() {
    let server = Server::start().await;
    let layer =
        RedisSessionLayer::new(server.client()).with_sessions_per_user(1, SessionLimit::Reject);
    let barrier = Arc::new(Barrier::new(2));
    let at_barrier = barrier.clone();
    let log_in = move |session: Session| async move {
        session.cycle_id();
        session.set_user("ann").expect("a user");
        at_barrier.wait().await;
        at_barrier.wait().await;
    };
    let app = Router::new()
        .route("/visit", get(visits))
        .route("/log-in", get(log_in))
        .layer(layer.clone());
    let cookie = begin(&app, "/visit").await;
    let other_tab = async {
        barrier.wait().await;
        assert_eq!(text(send(&app, "/visit", Some(&cookie)).await).await, "2");
        barrier.wait().await;
    };
    let (answer, ()) = tokio::join!(send(&app, "/log-in", Some(&cookie)), other_tab);
    let status = answer.status();
    assert_eq!(status, StatusCode::OK, "{}", text(answer).await);
    assert_eq!(layer.stats().retries, 1, "one conflict");
    assert_eq!(count(&layer, "ann").await, 1);
    // The index entry of the first try is gone.
    assert_eq!(
        server.command::<u64>(&["ZCARD", "session:user:ann"]).await,
        1
    );
}

/// A clone destroys the session while its login is being saved.
#[tokio::test]
async fn a_failed_login_revokes_no_other_session() {
    let server = Server::start().await;
    let layer =
        RedisSessionLayer::new(server.client()).with_sessions_per_user(1, SessionLimit::Reject);
    let log_in_and_out = |session: Session| async move {
        session.set_user("ann").expect("a user");
        let saving = session.clone();
        let save = tokio::spawn(async move { saving.save().await });
        tokio::task::yield_now().await;
        session.destroy();
        save.await.expect("no panic")
    };
    let app = Router::new()
        .route(
            "/log-in",
            get(|session: Session| async move { session.set_user("ann") }),
        )
        .route("/log-in-and-out", get(log_in_and_out))
        .layer(layer.clone());
    assert_eq!(
        send(&app, "/log-in-and-out", None).await.status(),
        StatusCode::OK
    );
    assert_eq!(count(&layer, "ann").await, 0);
    let answer = send(&app, "/log-in", None).await;
    assert_eq!(answer.status(), StatusCode::OK, "{}", text(answer).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_logins_racing_for_one_place_remains() {
    let server = Server::start().await;
    let node = || {
        let layer = RedisSessionLayer::new(server.client())
            .with_deadline(Duration::from_secs(20))
            .with_sessions_per_user(1, SessionLimit::RevokeOldest);
        Router::new()
            .route(
                "/log-in/{user}",
                get(|session: Session, Path(user): Path<String>| async move { session.set_user(user) }),
            )
            .route("/user", get(|session: Session| async move { session.user().unwrap_or_default() }))
            .layer(layer)
    };
    let nodes = [node(), node()];
    for round in 0..300 {
        let logins = nodes.iter().map(|node| {
            let node = node.clone();
            tokio::spawn(async move {
                let answer = send(&node, &format!("/log-in/{round}"), None).await;
                assert_eq!(answer.status(), StatusCode::OK);
                pair(&set_cookie(&answer).expect("a session")).to_owned()
            })
        });
        let mut alive = 0;
        for login in join_all(logins).await {
            let cookie = login.expect("no panic");
            let user = text(send(&nodes[0], "/user", Some(&cookie)).await).await;
            alive += usize::from(user == round.to_string());
        }
        assert_eq!(alive, 1, "round {round}");
    }
}
