//! How many sessions a user may have.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use axum_redis_sessions::{ErrorKind, RedisSessionLayer, Session, SessionError, SessionLimit};
use futures_util::future::join_all;
use tokio::sync::Barrier;
use tower::ServiceExt;

use super::{Device, app, devices, next_moment, next_second, sorted_devices};
use crate::{client::on_each_store, support::server::Server};

#[tokio::test]
async fn beyond_the_limit_the_oldest_session_is_revoked() {
    on_each_store(async |layer| {
        let layer = layer.with_sessions_per_user(2, SessionLimit::RevokeOldest);
        let app = app(&layer);
        let mut all = Vec::new();
        for device in ["first", "second", "third"] {
            next_moment().await;
            all.push(Device::of(&app, "zoe", device).await);
        }
        Device::of(&app, "max", "desktop").await;
        let seen = join_all(all.iter().map(Device::look)).await;
        assert_eq!(seen, ["nobody on nothing", "zoe on second", "zoe on third"]);
        assert_eq!(devices(&layer.users(), "zoe").await, ["third", "second"]);
    })
    .await;
}

#[tokio::test]
async fn use_and_rotation_do_not_change_the_age_of_a_session() {
    on_each_store(async |layer| {
        let layer = layer.with_sessions_per_user(2, SessionLimit::RevokeOldest);
        let app = app(&layer);
        let first = Device::of(&app, "zoe", "first").await;
        // `created` has whole seconds.
        next_second().await;
        let second = Device::of(&app, "zoe", "second").await;
        next_moment().await;
        first.text("/rotate").await;
        first.text("/visit").await;
        next_moment().await;
        Device::of(&app, "zoe", "third").await;
        assert_eq!(first.look().await, "nobody on nothing");
        assert_eq!(second.look().await, "zoe on second");
    })
    .await;
}

#[tokio::test]
async fn a_login_beyond_the_limit_is_rejected_without_a_trace() {
    on_each_store(async |layer| {
        let layer = layer.with_sessions_per_user(2, SessionLimit::Reject);
        let app = app(&layer);
        let phone = Device::of(&app, "zoe", "phone").await;
        let laptop = Device::of(&app, "zoe", "laptop").await;

        let third = Device::new(&app);
        let (status, message) = third.get("/log-in/tablet?user=zoe").await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{message}");
        assert_eq!(third.cookie(), None);
        assert!(!message.contains("zoe"), "{message}");
        assert_eq!(phone.look().await, "zoe on phone");
        assert_eq!(laptop.look().await, "zoe on laptop");
        let sessions = layer.users();
        assert_eq!(sorted_devices(&sessions, "zoe").await, ["laptop", "phone"]);

        // A rejected login leaves the anonymous session unchanged.
        let visitor = Device::new(&app);
        visitor.text("/visit").await;
        let id = visitor.id();
        assert_eq!(visitor.log_in("zoe", "kiosk").await, StatusCode::FORBIDDEN);
        assert_eq!(
            (visitor.id(), visitor.look().await),
            (id, "nobody on nothing".to_owned())
        );
        assert_eq!(visitor.text("/visit").await, "2");

        // Other users are not affected, and a logout makes room.
        Device::of(&app, "max", "desktop").await;
        phone.text("/log-out").await;
        assert_eq!(third.log_in("zoe", "tablet").await, StatusCode::OK);
        assert_eq!(sorted_devices(&sessions, "zoe").await, ["laptop", "tablet"]);
    })
    .await;
}

#[tokio::test]
async fn at_the_limit_a_logged_in_device_can_log_in_again() {
    on_each_store(async |layer| {
        let layer = layer.with_sessions_per_user(1, SessionLimit::Reject);
        let app = app(&layer);
        let phone = Device::of(&app, "zoe", "phone").await;
        let id = phone.id();
        // A second login, and a rotation.
        assert_eq!(phone.log_in("zoe", "phone").await, StatusCode::OK);
        assert_ne!(phone.id(), id);
        phone.text("/rotate").await;
        assert_eq!(phone.look().await, "zoe on phone");
        assert_eq!(devices(&layer.users(), "zoe").await, ["phone"]);
    })
    .await;
}

#[tokio::test]
async fn expired_sessions_do_not_count_against_the_limit() {
    let server = Server::start().await;
    let layer =
        RedisSessionLayer::new(server.client()).with_sessions_per_user(1, SessionLimit::Reject);
    let app = app(&layer);
    let phone = Device::of(&app, "zoe", "phone").await;
    assert_eq!(
        Device::new(&app).log_in("zoe", "laptop").await,
        StatusCode::FORBIDDEN
    );
    expire(&server, &phone).await;
    let laptop = Device::of(&app, "zoe", "laptop").await;
    assert_eq!(laptop.look().await, "zoe on laptop");
}

/// Makes the session expired and its index entry a day old.
async fn expire(server: &Server, device: &Device) {
    let name = device.id();
    server
        .command::<u64>(&["DEL", &format!("session:{name}")])
        .await;
    let index = "session:user:zoe";
    let entered: f64 = server.command(&["ZSCORE", index, &name]).await;
    let day_before = format!("{}", entered - 86_400e6);
    server
        .command::<u64>(&["ZADD", index, "CH", &day_before, &name])
        .await;
}

#[tokio::test]
async fn an_explicit_save_reports_the_session_limit() {
    async fn log_in(session: Session) -> Result<(), SessionError> {
        session.set_user("zoe")?;
        session.save().await
    }
    on_each_store(async |layer| {
        let layer = layer.with_sessions_per_user(1, SessionLimit::Reject);
        let told = Arc::new(AtomicUsize::new(0));
        let seen = told.clone();
        let app: Router = Router::new()
            .route(
                "/",
                get(async move |session: Session| {
                    let answer = log_in(session).await;
                    if let Err(error) = &answer {
                        assert_eq!(error.kind(), ErrorKind::TooManySessions);
                        seen.fetch_add(1, SeqCst);
                    }
                    answer.into_response()
                }),
            )
            .layer(layer);
        for (status, has_cookie) in [(StatusCode::OK, true), (StatusCode::FORBIDDEN, false)] {
            let request = Request::new(Body::empty());
            let response = app.clone().oneshot(request).await.expect("infallible");
            assert_eq!(response.status(), status);
            assert_eq!(
                response.headers().contains_key(header::SET_COOKIE),
                has_cookie
            );
        }
        assert_eq!(told.load(SeqCst), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_one_of_the_racing_logins_gets_the_last_place() {
    let server = Server::start().await;
    let nodes = [(); 2].map(|()| {
        RedisSessionLayer::new(server.client())
            .with_deadline(std::time::Duration::from_secs(20))
            .with_sessions_per_user(3, SessionLimit::Reject)
    });
    let apps = nodes.each_ref().map(app);
    for round in 0..100 {
        let user = format!("user-{round}");
        Device::of(&apps[0], &user, "one").await;
        Device::of(&apps[1], &user, "two").await;
        let start = Arc::new(Barrier::new(4));
        let logins = (0..4).map(|number| {
            let (device, user, start) =
                (Device::new(&apps[number % 2]), user.clone(), start.clone());
            tokio::spawn(async move {
                start.wait().await;
                device.log_in(&user, "racer").await
            })
        });
        let answers = join_all(logins).await;
        let answers: Vec<StatusCode> = answers
            .into_iter()
            .map(|answer| answer.expect("no panic"))
            .collect();
        let passed = answers.iter().filter(|&&status| status == StatusCode::OK);
        assert_eq!(passed.count(), 1, "{answers:?}");
        let refused = answers
            .iter()
            .filter(|&&status| status == StatusCode::FORBIDDEN);
        assert_eq!(refused.count(), 3, "{answers:?}");
        let devices = sorted_devices(&nodes[0].users(), &user).await;
        assert_eq!(devices, ["one", "racer", "two"]);
    }
}

/// Each retry rebases on what the others stored and has another new id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_with_conflicts_counts_once() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client())
        .with_deadline(std::time::Duration::from_secs(20))
        .with_sessions_per_user(1, SessionLimit::Reject);
    let app = app(&layer);
    for round in 0..200 {
        let visitor = Device::new(&app);
        visitor.text("/visit").await;
        let start = Arc::new(Barrier::new(4));
        let visits: Vec<_> = (0..3)
            .map(|_| {
                let (visitor, start) = (visitor.clone(), start.clone());
                tokio::spawn(async move {
                    start.wait().await;
                    visitor.get("/visit").await
                })
            })
            .collect();
        start.wait().await;
        let user = format!("user-{round}");
        assert_eq!(
            visitor.log_in(&user, "phone").await,
            StatusCode::OK,
            "round {round}"
        );
        for visit in join_all(visits).await {
            assert_eq!(visit.expect("no panic").0, StatusCode::OK);
        }
        assert_eq!(devices(&layer.users(), &user).await, ["phone"]);
    }
    let replays = layer.stats().retries;
    assert!(replays > 50, "too few requests overlapped: {replays}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_logins_never_exceed_the_limit() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client())
        .with_deadline(std::time::Duration::from_secs(20))
        .with_sessions_per_user(3, SessionLimit::RevokeOldest);
    let app = app(&layer);
    for round in 0..20 {
        let user = format!("user-{round}");
        let logins = (0..10).map(|_| {
            let (device, user) = (Device::new(&app), user.clone());
            tokio::spawn(async move {
                let status = device.log_in(&user, "racer").await;
                (status, device)
            })
        });
        let mut alive = 0;
        for login in join_all(logins).await {
            let (status, device) = login.expect("no panic");
            assert_eq!(status, StatusCode::OK);
            alive += usize::from(device.look().await != "nobody on nothing");
        }
        // Each login keeps the newest three, so at least one and at most three remain.
        assert!((1..=3).contains(&alive), "{alive}");
        assert_eq!(devices(&layer.users(), &user).await.len(), alive);
    }
}
