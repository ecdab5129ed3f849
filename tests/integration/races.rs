//! Races through HTTP between two nodes that share one Redis.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, Query, State},
    routing::get,
};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionError};
use futures_util::future::join_all;
use serde::Deserialize;
use tokio::sync::Barrier;

use crate::support::{
    app::{self, Address},
    browser::{Browser, Page},
    server::Server,
};

/// A pause between a handler's load and its commit, so that requests overlap.
#[derive(Deserialize)]
struct Pause {
    /// Wait for the other request with this name, so that both have loaded before either commits.
    meet: Option<String>,
    #[serde(default)]
    micros: u64,
}

impl Pause {
    async fn wait(&self, barriers: &Barriers) {
        if let Some(place) = &self.meet {
            let meeting = barriers
                .lock()
                .expect("never poisoned")
                .entry(place.clone())
                .or_default()
                .clone();
            meeting.0.wait().await;
        }
        tokio::time::sleep(Duration::from_micros(self.micros)).await;
    }
}

type Barriers = Arc<Mutex<HashMap<String, Arc<Meeting>>>>;

struct Meeting(Barrier);

impl Default for Meeting {
    fn default() -> Self {
        Self(Barrier::new(2))
    }
}

async fn increment(
    session: Session,
    State(barriers): State<Barriers>,
    Query(pause): Query<Pause>,
) -> Result<String, SessionError> {
    pause.wait(&barriers).await;
    session
        .update("n", |n: Option<u64>| n.unwrap_or(0) + 1)
        .map(|n| n.to_string())
}

async fn set(session: Session, Path(key): Path<String>) -> Result<(), SessionError> {
    session.insert(&key, 1)
}

async fn log_in(
    session: Session,
    State(barriers): State<Barriers>,
    Query(pause): Query<Pause>,
) -> Result<(), SessionError> {
    pause.wait(&barriers).await;
    session.cycle_id();
    session.insert("user", 42)
}

async fn log_out(session: Session, State(barriers): State<Barriers>, Query(pause): Query<Pause>) {
    pause.wait(&barriers).await;
    session.destroy();
}

async fn look(session: Option<Session>) -> Result<String, SessionError> {
    let Some(session) = session else {
        return Ok("none".to_owned());
    };
    Ok(format!(
        "user {:?}, {} keys, n {:?}",
        session.get::<u64>("user")?,
        session.len(),
        session.get::<u64>("n")?
    ))
}

struct Nodes {
    server: Server,
    nodes: [Address; 2],
    layers: [RedisSessionLayer; 2],
}

impl Nodes {
    async fn start() -> Self {
        let server = Server::start().await;
        // These tests are about exactness; a busy machine must not cause an error.
        let layer =
            || RedisSessionLayer::new(server.client()).with_deadline(Duration::from_secs(20));
        let layers = [layer(), layer()];
        let barriers = Barriers::default();
        let app = |layer: &RedisSessionLayer| {
            Router::new()
                .route("/increment", get(increment))
                .route("/set/{key}", get(set))
                .route("/log-in", get(log_in))
                .route("/log-out", get(log_out))
                .route("/look", get(look))
                .layer(layer.clone())
                .with_state(barriers.clone())
        };
        let nodes = [
            app::serve(app(&layers[0])).await,
            app::serve(app(&layers[1])).await,
        ];
        Self {
            server,
            nodes,
            layers,
        }
    }

    /// A URL of node 0 or 1.
    fn url(&self, turn: usize, path: &str) -> String {
        self.nodes[turn % 2].url(path)
    }

    /// Cookies do not depend on the port, so both nodes get the same one.
    fn id(&self, browser: &Browser) -> Option<String> {
        browser.cookie(&self.url(0, "/"), "__Host-session")
    }

    async fn keys(&self) -> Vec<String> {
        self.server.command(&["KEYS", "session:*"]).await
    }
}

fn served(pages: &[Page]) -> usize {
    pages.iter().filter(|page| page.status == 200).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_updates_of_one_key_all_count() {
    let nodes = Nodes::start().await;
    let browser = Browser::new();
    browser.get(nodes.url(0, "/set/begun")).await;
    let requests = (0..200).map(|turn| browser.get(nodes.url(turn, "/increment?micros=2000")));
    assert_eq!(served(&join_all(requests).await), 200);
    let seen = browser.get(nodes.url(0, "/look")).await.body;
    assert_eq!(seen, "user None, 2 keys, n Some(200)");
    let replays: u64 = nodes.layers.iter().map(|layer| layer.stats().retries).sum();
    assert!(replays > 0, "no two requests overlapped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_inserts_of_different_keys_all_persist() {
    let nodes = Nodes::start().await;
    let browser = Browser::new();
    browser.get(nodes.url(0, "/increment")).await;
    let requests =
        (0..200).map(|turn| browser.get(nodes.url(turn, &format!("/set/key-{turn}?micros=2000"))));
    assert_eq!(served(&join_all(requests).await), 200);
    assert_eq!(
        browser.get(nodes.url(0, "/look")).await.body,
        "user None, 201 keys, n Some(1)"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_save_cannot_undo_a_logout() {
    let nodes = Nodes::start().await;
    for round in 0..20 {
        join_all((0..25).map(|number| {
            let nodes = &nodes;
            async move {
                let browser = Browser::new();
                browser.get(nodes.url(number, "/log-in")).await;
                // Both have loaded the session. Which one commits first varies.
                let (write, leave) = if number % 2 == 0 {
                    (0, round * 50)
                } else {
                    (round * 50, 0)
                };
                let meet = format!("meet={round}-{number}");
                let (written, left) = tokio::join!(
                    browser.get(nodes.url(number, &format!("/increment?{meet}&micros={write}"))),
                    browser.get(nodes.url(number + 1, &format!("/log-out?{meet}&micros={leave}"))),
                );
                assert_eq!((written.status, left.status), (200, 200));
                assert!(left.set_cookies[0].starts_with("__Host-session=;"));
                assert!(written.set_cookies.is_empty());
            }
        }))
        .await;
    }
    // Only tombstones of the logins are left.
    for key in nodes.keys().await {
        let stored: String = nodes.server.command(&["GET", &key]).await;
        assert!(
            stored.contains("\"_rotated\""),
            "a logged-out session exists: {stored}"
        );
    }
    let dropped: u64 = nodes
        .layers
        .iter()
        .map(|layer| layer.stats().discarded)
        .sum();
    assert!(
        dropped > 50,
        "too few writes came after the logout: {dropped} of 500"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_races_reads_and_writes_is_never_lost() {
    let nodes = Nodes::start().await;
    for _ in 0..20 {
        join_all((0..25).map(|number| {
            let nodes = &nodes;
            async move {
                let browser = Browser::new();
                browser.get(nodes.url(number, "/increment")).await;
                let old = nodes.id(&browser).expect("a session");
                let (write, login) = (number * 200, (24 - number) * 200);
                let (read, written, login) = tokio::join!(
                    browser.get(nodes.url(number + 1, "/look")),
                    browser.get(nodes.url(number, &format!("/increment?micros={write}"))),
                    browser.get(nodes.url(number + 1, &format!("/log-in?micros={login}"))),
                );
                assert_eq!((read.status, written.status, login.status), (200, 200, 200));
                assert!(read.set_cookies.is_empty() && written.set_cookies.is_empty());
                let new = nodes.id(&browser).expect("still a session");
                assert_ne!(new, old);
                // The write is included if it was saved first, and discarded otherwise, as documented.
                let seen = browser.get(nodes.url(number, "/look")).await.body;
                let expected = [
                    "user Some(42), 2 keys, n Some(1)",
                    "user Some(42), 2 keys, n Some(2)",
                ];
                assert!(expected.contains(&&*seen), "{seen}");
            }
        }))
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_racing_logins_both_succeed() {
    let nodes = Nodes::start().await;
    for round in 0..100 {
        let browser = Browser::new();
        browser.get(nodes.url(round, "/increment")).await;
        let (one, two) = tokio::join!(
            browser.get(nodes.url(0, &format!("/log-in?meet={round}"))),
            browser.get(nodes.url(1, &format!("/log-in?meet={round}"))),
        );
        for page in [one, two] {
            assert_eq!(page.status, 200);
            assert!(
                !page
                    .set_cookies
                    .iter()
                    .any(|line| line.starts_with("__Host-session=;"))
            );
        }
        assert_eq!(
            browser.get(nodes.url(round, "/look")).await.body,
            "user Some(42), 2 keys, n Some(1)"
        );
    }
    // For each browser, its session and at most one that it has no cookie for; the rest are tombstones.
    let mut live = 0;
    for key in nodes.keys().await {
        live += usize::from(
            nodes
                .server
                .command::<String>(&["GET", &key])
                .await
                .contains("\"user\""),
        );
    }
    assert!((100..=200).contains(&live), "{live}");
}
