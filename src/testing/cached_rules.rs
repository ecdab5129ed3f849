//! When a session is loaded from the local cache: over a server that answers what a test says.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use http::HeaderMap;

use super::fake_server::{FakeServer, Hello};
use crate::{
    ErrorKind, LazySession, LocalCache, Session, SessionError,
    cache::Cache,
    context::Context,
    cookie::{self, PresentedIds},
    id::SessionId,
    request::RequestHead,
    store::Store,
};

const HOUR: Duration = Duration::from_secs(3600);
/// The idle timeout.
const FULL: Duration = Duration::from_secs(100);

/// A server with one session, and an app with a cache before it.
struct Fixture {
    server: FakeServer,
    context: Arc<Context>,
    id: SessionId,
    skew_secs: Arc<AtomicU64>,
    /// The session's own idle timeout, set between the read that finds the TTL too short and the one behind the new TTL. 0: none.
    own_idle_secs: Arc<AtomicU64>,
}

/// `reply` answers instead of the server if it returns something.
async fn fixture(
    ttl: Duration,
    reply: impl Fn() -> Option<&'static str> + Send + Sync + 'static,
) -> Fixture {
    let own_idle_secs = Arc::new(AtomicU64::new(0));
    let own_idle = own_idle_secs.clone();
    let server = FakeServer::start_with(Hello::Supported, move |words| {
        let value = match (words[0].as_str(), own_idle.load(Relaxed)) {
            ("GETEX", _) | (_, 0) => r#"{"_rev":"9f86d081884c7d65","a":1}"#.to_owned(),
            (_, idle) => format!(r#"{{"_rev":"9f86d081884c7d66","_idle":{idle},"a":1}}"#),
        };
        let own = match words[0].as_str() {
            "GET" | "GETEX" => format!("${}\r\n{value}", value.len()),
            "PTTL" => format!(":{}", ttl.as_millis()),
            "PEXPIRE" => ":1".to_owned(),
            _ => "+OK".to_owned(),
        };
        match words[0].as_str() {
            "CLIENT" | "PING" => own,
            _ => reply().map_or(own, str::to_owned),
        }
    })
    .await;
    let options = LocalCache::new()
        .max_staleness(HOUR)
        .stale_if_error(HOUR * 2);
    let skew_secs = options.test.skew_secs.clone();
    let store = server.store().with_cache(Cache::new(options));
    let mut context = Context::new(Store::Redis(store));
    context.config.idle_timeout = FULL;
    Fixture {
        server,
        context: Arc::new(context),
        id: SessionId::random().expect("random numbers"),
        skew_secs,
        own_idle_secs,
    }
}

impl Fixture {
    /// A request with one or more cookies.
    fn request(&self, ids: &[SessionId]) -> LazySession {
        let config = &self.context.config;
        let mut headers = HeaderMap::new();
        for id in ids {
            headers.append(http::header::COOKIE, cookie::pair(&config.cookie, *id));
        }
        let head = RequestHead {
            presented: PresentedIds::from_headers(&headers, config),
            ..RequestHead::default()
        };
        LazySession::new(self.context.clone(), head, None)
    }

    async fn load(&self) -> Result<Session, SessionError> {
        self.request(&[self.id]).load().await
    }

    /// The commands of a load that succeeds, without signs of life.
    async fn commands(&self) -> Vec<String> {
        self.server.take();
        let session = self.load().await.expect("loaded");
        assert_eq!(session.get::<u8>("a").expect("a number"), Some(1));
        let mut commands = self.server.take();
        commands.retain(|word| word != "PING");
        commands
    }
}

#[tokio::test]
async fn an_entry_is_used_until_a_tenth_of_its_ttl_has_passed() {
    let fixture = fixture(Duration::from_secs(95), || None).await;
    // The first load opens the connection.
    fixture.load().await.expect("loaded");
    fixture.load().await.expect("loaded");
    assert!(fixture.commands().await.is_empty());
    // These need the server.
    let other = SessionId::random().expect("random numbers");
    for (ids, mode) in [
        (vec![fixture.id, other], "several"),
        (vec![fixture.id], "latest"),
    ] {
        let lazy = fixture.request(&ids);
        fixture.server.take();
        let loaded = match mode {
            "latest" => lazy.load_latest().await,
            _ => lazy.load().await,
        };
        assert!(
            loaded.is_ok() && !fixture.server.take().is_empty(),
            "{mode}"
        );
    }
    let session = fixture.load().await.expect("loaded");
    let left = session
        .expires_at()
        .expect("stored")
        .duration_since(SystemTime::now());
    let left = left.expect("it has not ended");
    assert!(
        left > Duration::from_secs(50) && left <= Duration::from_secs(95),
        "{left:?}"
    );
    fixture.skew_secs.store(10, Relaxed);
    assert_eq!(fixture.commands().await, ["PTTL", "GETEX"]);
}

#[tokio::test]
async fn a_session_whose_ttl_was_set_is_cached_unless_its_timeout_changed() {
    let fixture = fixture(Duration::from_secs(50), || None).await;
    fixture.load().await.expect("loaded");
    assert_eq!(fixture.commands().await, ["PTTL", "GETEX", "GETEX", "GET"]);
    assert!(fixture.commands().await.is_empty(), "it is cached");
    fixture.context.store.cache().expect("a cache").flush();
    fixture.own_idle_secs.store(20, Relaxed);
    assert!(!fixture.commands().await.is_empty());
    assert!(!fixture.commands().await.is_empty(), "its TTL is wrong");
}

#[tokio::test]
async fn in_an_outage_only_a_single_cookies_cached_session_is_served() {
    let is_out = Arc::new(AtomicU64::new(0));
    let out = is_out.clone();
    let fixture = fixture(Duration::from_secs(95), move || match out.load(Relaxed) {
        0 => None,
        1 => Some("-OOM command not allowed"),
        _ => Some(""),
    })
    .await;
    fixture.load().await.expect("loaded");
    fixture.load().await.expect("loaded");
    // The TTL is to be set, so a load asks the server.
    fixture.skew_secs.store(10, Relaxed);
    is_out.store(1, Relaxed);
    let error = fixture.load().await.expect_err("an answer is no outage");
    assert_eq!(error.kind(), ErrorKind::Rejected);
    is_out.store(2, Relaxed);
    let session = fixture.load().await.expect("from the cache");
    assert_eq!(session.get::<u8>("a").expect("a number"), Some(1));
    assert_eq!(
        fixture
            .context
            .store
            .cache()
            .expect("a cache")
            .stats()
            .stale_hits,
        1
    );
    let latest = fixture.request(&[fixture.id]).load_latest().await;
    assert_eq!(
        latest.expect_err("not the latest").kind(),
        ErrorKind::Unavailable
    );
    let other = SessionId::random().expect("random numbers");
    let several = fixture.request(&[fixture.id, other]).load().await;
    assert_eq!(
        several.expect_err("which one?").kind(),
        ErrorKind::Unavailable
    );
}
