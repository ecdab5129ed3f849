//! Connections that stay silent: replaced after the first silence, whatever the clients do.

use std::time::{Duration, Instant};

use axum_redis_sessions::RedisSessionLayer;
use tokio::time::timeout;

use crate::{
    client::{begin, send},
    support::{
        browser::Browser,
        eventually,
        proxy::{Mode, Proxy},
        server::Server,
    },
    visits::{DEADLINE, PATIENT, SLACK, app, serve_client},
};

#[tokio::test]
async fn a_frozen_connection_costs_one_request_at_a_time_one_503() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port()).await;
    let app = serve_client(proxy.client()).await;
    let visitors = [Browser::new(), Browser::new(), Browser::new()];
    for browser in &visitors {
        assert_eq!(browser.get(app.url("/")).await.status, 200);
    }
    proxy.freeze_open();
    let mut bad = 0;
    for browser in visitors.iter().cycle().take(6) {
        bad += usize::from(browser.get(app.url("/")).await.status != 200);
        // The next one comes a moment later, as on a quiet site, and on a busy machine not before the second connection is open.
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    assert_eq!(bad, 1);
}

#[tokio::test]
async fn a_frozen_connection_is_replaced_though_clients_give_up_early() {
    for gives_up in [20, 100, 300].map(Duration::from_millis) {
        let server = Server::start().await;
        let proxy = Proxy::before(server.port()).await;
        let app = app(RedisSessionLayer::new(proxy.client()).with_deadline(DEADLINE));
        let cookie = begin(&app, "/").await;
        proxy.freeze_open();
        let begun = Instant::now();
        let ask = async || {
            let sent = timeout(gives_up, send(&app, "/", Some(&cookie))).await;
            sent.is_ok_and(|response| response.status() == 200)
        };
        eventually(Duration::from_secs(10), ask).await;
        println!(
            "gives up after {gives_up:?}: good after {:?}",
            begun.elapsed()
        );
        assert!(begun.elapsed() < DEADLINE + Duration::from_millis(200) + SLACK);
    }
}

/// What is slow here is the server alone. Where the machine paused too, replies came later than that, and the test begins again.
#[tokio::test]
async fn a_slow_server_keeps_its_connection() {
    eventually(Duration::from_secs(20), async || {
        let server = Server::start().await;
        let proxy = Proxy::before(server.port()).await;
        let app = app(RedisSessionLayer::new(proxy.client()).with_deadline(DEADLINE));
        let cookie = begin(&app, "/").await;
        proxy.set(Mode::Delay(Duration::from_millis(60)));
        for _ in 0..20 {
            let given_up = timeout(Duration::from_millis(20), send(&app, "/", Some(&cookie)));
            if given_up.await.is_ok() {
                return false;
            }
        }
        send(&app, "/", Some(&cookie)).await.status() == 200 && proxy.accepted() <= 2
    })
    .await;
}

#[tokio::test]
async fn requests_wait_for_the_connection_that_replaces_a_frozen_one() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port()).await;
    let app = serve_client(proxy.client()).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.status, 200);
    proxy.freeze_open();
    // The second connection takes a while to open.
    proxy.delay_connecting(Duration::from_millis(200));
    assert_eq!(browser.get(app.url("/")).await.status, 503);
    for visit in 2..=5 {
        assert_eq!(browser.get(app.url("/")).await.body, visit.to_string());
    }
}

#[tokio::test]
async fn requests_wait_for_a_connection_that_answers_again() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port()).await;
    let layer = RedisSessionLayer::new(proxy.client()).with_deadline(DEADLINE);
    let app = app(layer.clone());
    let patient = self::app(layer.with_deadline(PATIENT));
    let cookie = begin(&app, "/").await;
    // The server stands still, so no second connection opens either.
    server.stop();
    assert_eq!(send(&app, "/", Some(&cookie)).await.status(), 503);
    let waits = send(&patient, "/", Some(&cookie));
    let resumes = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.resume();
    };
    let (waited, ()) = tokio::join!(waits, resumes);
    assert_eq!(waited.status(), 200);
    assert!(proxy.accepted() > 1);
}
