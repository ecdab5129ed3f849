//! The app of most tests, and what they expect of it while its server is unavailable.

// Each test binary uses a part of it. It is not in `support`, which the crate's own tests include.
#![allow(dead_code, unreachable_pub)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Path, Query},
    routing::get,
};
use axum_redis_sessions::{LazySession, RedisSessionLayer, Session, SessionError};
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::support::{
    app::{Address, serve as serve_app},
    browser::Browser,
    eventually,
};

/// The layer's default, for tests that wait for it.
pub const DEADLINE: Duration = Duration::from_millis(500);
/// What a busy machine may add. Far less than a client without a deadline waits.
pub const SLACK: Duration = Duration::from_millis(3500);
/// The deadline where a test allows no error: a busy machine must not cause one.
pub const PATIENT: Duration = Duration::from_secs(20);
/// How soon errors end after a failover. It takes milliseconds; a busy machine has seconds.
pub const RECOVERY: Duration = Duration::from_secs(5);

/// The app: `/` counts a visit, `/visits` tells the count, and the others do one thing each.
pub fn app(layer: RedisSessionLayer) -> Router {
    routes().layer(cached_if_asked(layer))
}

/// Whether the variable `LOCAL_CACHE` is set: `tests/run.sh` runs the tests of faults again with a local cache.
pub fn is_cached() -> bool {
    cfg!(feature = "local-cache") && std::env::var_os("LOCAL_CACHE").is_some()
}

fn cached_if_asked(layer: RedisSessionLayer) -> RedisSessionLayer {
    #[cfg(feature = "local-cache")]
    if is_cached() {
        return layer.with_local_cache(axum_redis_sessions::LocalCache::new());
    }
    layer
}

pub fn routes() -> Router {
    let untouched = || async { "served" };
    let only_if = async |session: Option<Session>| session.is_some().to_string();
    let remove = async |session: Session| session.remove("visits").to_string();
    Router::new()
        .route("/", get(visits))
        .route("/visits", get(count))
        .route("/look", get(look))
        .route("/untouched", get(untouched))
        .route("/lazy", get(async |_: LazySession| "served"))
        .route("/only-if", get(only_if))
        .route("/either", get(either))
        .route("/keep/{key}/{value}", get(keep))
        .route("/kept/{key}", get(kept))
        .route("/remove", get(remove))
        .route("/clear", get(async |session: Session| session.clear()))
        .route("/cycle", get(async |session: Session| session.cycle_id()))
        .route("/destroy", get(async |session: Session| session.destroy()))
        .route("/farewell", get(farewell))
        .route("/permanent", get(permanent))
}

pub async fn visits(session: Session) -> Result<String, SessionError> {
    let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    Ok(visits.to_string())
}

async fn count(session: Session) -> Result<String, SessionError> {
    Ok(session.get::<u64>("visits")?.unwrap_or(0).to_string())
}

pub async fn look(session: Session) -> Result<String, SessionError> {
    let visits = session.get::<u64>("visits")?;
    Ok(format!("{:?} {visits:?}", session.keys()))
}

async fn either(session: Result<Session, SessionError>) -> String {
    session.map_or_else(
        |error| format!("{:?}", error.kind()),
        |_| "loaded".to_owned(),
    )
}

async fn keep(
    session: Session,
    Path((key, value)): Path<(String, String)>,
) -> Result<(), SessionError> {
    session.insert(&key, value)
}

async fn kept(session: Session, Path(key): Path<String>) -> Result<String, SessionError> {
    Ok(session.get(&key)?.unwrap_or_default())
}

async fn farewell(session: Session) -> Result<(), SessionError> {
    session.destroy();
    session.insert("flash", "goodbye")
}

#[derive(Deserialize)]
struct Permanent {
    is: bool,
}

async fn permanent(
    session: Session,
    Query(permanent): Query<Permanent>,
) -> Result<(), SessionError> {
    session.set_permanent(permanent.is);
    session.insert("name", "Zoë")
}

/// Holds requests between load and save.
#[derive(Clone)]
pub struct Gate {
    arrived: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Gate {
    fn new() -> Self {
        Self {
            arrived: Arc::new(Semaphore::new(0)),
            open: Arc::new(Semaphore::new(0)),
        }
    }

    /// Waits until this many requests are held.
    pub async fn arrived(&self, requests: u32) {
        let arrived = self.arrived.acquire_many(requests).await;
        arrived.expect("never closed").forget();
    }

    pub fn let_pass(&self, requests: usize) {
        self.open.add_permits(requests);
    }

    async fn pass(&self) {
        self.arrived.add_permits(1);
        self.open.acquire().await.expect("never closed").forget();
    }
}

/// The app with `/gated/{key}`, which counts a visit, inserts the key, and then waits at the gate.
pub fn gated_app(layer: RedisSessionLayer) -> (Router, Gate) {
    let gate = Gate::new();
    let at = gate.clone();
    let handler = async move |session: Session, Path(key): Path<String>| {
        session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
        session.insert(&key, true)?;
        at.pass().await;
        Ok::<_, SessionError>("passed")
    };
    let gated = Router::new().route("/gated/{key}", get(handler));
    let layer = cached_if_asked(layer);
    (
        gated.layer(layer.clone()).merge(routes().layer(layer)),
        gate,
    )
}

pub async fn serve_gated(client: redis::Client) -> (Address, Gate) {
    let (app, gate) = gated_app(RedisSessionLayer::new(client).with_deadline(DEADLINE));
    (serve_app(app).await, gate)
}

pub async fn serve(layer: RedisSessionLayer) -> Address {
    serve_app(app(layer.with_deadline(DEADLINE))).await
}

pub async fn serve_patient(layer: RedisSessionLayer) -> Address {
    serve_app(app(layer.with_deadline(PATIENT))).await
}

pub async fn serve_client(client: redis::Client) -> Address {
    serve(RedisSessionLayer::new(client)).await
}

/// The id in the browser's cookie.
pub fn id(app: &Address, browser: &Browser) -> Option<String> {
    browser.cookie(&app.url("/"), "__Host-session")
}

/// The count in each visitor's session, once it can be read: less than what was acknowledged if something was lost.
pub async fn visits_of_each(app: &Address, visitors: &[Browser]) -> Vec<u64> {
    let mut visits = Vec::new();
    for browser in visitors {
        eventually(Duration::from_secs(10), || async {
            browser.get(app.url("/visits")).await.status == 200
        })
        .await;
        let page = browser.get(app.url("/visits")).await;
        visits.push(page.body.parse().expect("a number"));
    }
    visits
}

/// Visitors with a session each and one visit.
pub async fn visitors(app: &Address, count: usize) -> Vec<Browser> {
    let visitors: Vec<Browser> = (0..count).map(|_| Browser::new()).collect();
    for browser in &visitors {
        let page = browser.get(app.url("/")).await;
        assert_eq!((page.status, page.body.as_str()), (200, "1"));
    }
    visitors
}

/// Requests that need the session are 503 by the deadline; others are served, and the cookie is kept.
pub async fn assert_unavailable(app: &Address, browser: &Browser) {
    let cookie = id(app, browser);
    for path in ["/", "/only-if"] {
        let asked = Instant::now();
        let response = browser.get(app.url(path)).await;
        let took = asked.elapsed();
        assert_eq!(response.status, 503, "{path}: {}", response.body);
        assert_eq!(response.headers["retry-after"], "1");
        println!("{path}: 503 after {took:?}");
        assert!(took < DEADLINE + SLACK, "{path} took {took:?}");
        assert!(response.set_cookies.is_empty(), "{path}");
    }
    assert_eq!(browser.get(app.url("/either")).await.body, "Unavailable");
    assert_eq!(browser.get(app.url("/untouched")).await.body, "served");
    assert_eq!(id(app, browser), cookie);
}

/// The error says why. Not necessarily at once: on a busy machine an attempt to connect may end before its reason is known.
pub async fn assert_reason(app: &Address, browser: &Browser, words: &[&str]) {
    eventually(Duration::from_secs(10), || async {
        let told = browser.get(app.url("/visits")).await;
        told.status == 503 && words.iter().all(|word| told.body.contains(word))
    })
    .await;
}

/// How many requests fail, one after the other, before one succeeds. The following ones, which read, must succeed as well.
pub async fn failures_until_connected(app: &Address) -> usize {
    let browser = Browser::new();
    let begun = Instant::now();
    let mut failures = 0;
    while browser.get(app.url("/")).await.status != 200 {
        failures += 1;
        assert!(begun.elapsed() < 2 * DEADLINE + SLACK, "{failures}");
    }
    for _ in 0..10 {
        let page = browser.get(app.url("/visits")).await;
        assert_eq!(page.body, "1");
    }
    failures
}

/// The session is available again.
pub async fn assert_available(app: &Address, browser: &Browser) {
    eventually(Duration::from_secs(10), || async {
        browser.get(app.url("/only-if")).await.status == 200
    })
    .await;
}
