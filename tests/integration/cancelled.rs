//! Requests that are cancelled at any point: nothing half-saved, no reply to the wrong request.

use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{StatusCode, header},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionError};
use futures_util::{StreamExt, stream};
use tower::ServiceExt;

use crate::{
    client::{begin, pair, polled, send, set_cookie, text},
    support::{
        app::{self, Address},
        browser::Browser,
        eventually,
        proxy::{Mode, Proxy},
        server::Server,
    },
    visits::{self, DEADLINE, PATIENT, SLACK, app, gated_app, id},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancellation_never_mixes_up_replies() {
    const SESSIONS: usize = 50;
    let server = Server::start().await;
    let app = app(RedisSessionLayer::new(server.client()).with_deadline(PATIENT));
    let mut cookies = Vec::new();
    for name in 0..SESSIONS {
        cookies.push(begin(&app, &format!("/keep/name/own-{name}")).await);
    }
    let counters = || (0..SESSIONS).map(|_| AtomicU64::new(0)).collect();
    let (asked, counted): (Vec<AtomicU64>, Vec<AtomicU64>) = (counters(), counters());
    let cancelled = AtomicU64::new(0);
    stream::iter(0..20_000)
        .for_each_concurrent(100, async |request| {
            let name = request % SESSIONS;
            // Half of them write.
            let path = if request % 2 == 0 { "/kept/name" } else { "/" };
            let exchange = send(&app, path, Some(&cookies[name]));
            if path == "/" {
                asked[name].fetch_add(1, SeqCst);
            }
            let response = if request % 3 == 0 {
                // During the load, or during the save.
                let times = if path == "/" && request % 9 == 0 {
                    2
                } else {
                    1
                };
                match polled(exchange, times).await {
                    Some(response) => response,
                    None => {
                        cancelled.fetch_add(1, SeqCst);
                        return;
                    }
                }
            } else {
                exchange.await
            };
            assert_eq!(response.status(), StatusCode::OK);
            let body = text(response).await;
            if path == "/" {
                counted[name].fetch_add(1, SeqCst);
                body.parse::<u64>().expect("a number");
            } else {
                assert_eq!(body, format!("own-{name}"));
            }
        })
        .await;
    let cancelled = cancelled.into_inner();
    println!("{cancelled} requests were cancelled on their way");
    assert!(cancelled > 5_000, "{cancelled}");
    for name in 0..SESSIONS {
        let cookie = Some(cookies[name].as_str());
        let body = text(send(&app, "/kept/name", cookie).await).await;
        assert_eq!(body, format!("own-{name}"));
        let body = text(send(&app, "/visits", cookie).await).await;
        let visits: u64 = body.parse().expect("a number");
        let possible = counted[name].load(SeqCst)..=asked[name].load(SeqCst);
        assert!(possible.contains(&visits), "{visits}, not {possible:?}");
    }
    assert_eq!(server.session_keys().await.len(), SESSIONS);
}

#[tokio::test]
async fn a_request_dropped_in_its_handler_saves_nothing() {
    let server = Server::start().await;
    let (app, gate) = gated_app(RedisSessionLayer::new(server.client()));
    let cookie = begin(&app, "/").await;
    let request = {
        let (app, cookie) = (app.clone(), cookie.clone());
        tokio::spawn(async move { send(&app, "/gated/mark", Some(&cookie)).await.status() })
    };
    gate.arrived(1).await;
    request.abort();
    assert!(request.await.expect_err("dropped").is_cancelled());
    let visits = text(send(&app, "/visits", Some(&cookie)).await).await;
    assert_eq!(visits, "1");
}

#[tokio::test]
async fn a_save_in_flight_survives_a_client_disconnect() {
    let detached = DetachedSave::save(Duration::from_secs(20)).await;
    assert!(!detached.is_saved().await, "it has not been saved yet");
    detached.proxy.set(Mode::Forward);
    eventually(PATIENT, async || detached.is_saved().await).await;
}

#[tokio::test]
async fn drain_waits_for_detached_saves() {
    let detached = DetachedSave::save(Duration::from_secs(20)).await;
    let mut drain = pin!(detached.layer.drain());
    let early = tokio::time::timeout(Duration::from_millis(100), drain.as_mut()).await;
    assert!(early.is_err(), "it waits");
    detached.proxy.set(Mode::Forward);
    drain.await;
    assert!(detached.is_saved().await);
    // The second call returns at once.
    detached.layer.drain().await;
}

#[tokio::test]
async fn drain_waits_no_longer_than_the_deadline() {
    let detached = DetachedSave::save(DEADLINE).await;
    let asked = Instant::now();
    detached.layer.drain().await;
    assert!(asked.elapsed() < DEADLINE + SLACK);
    assert!(!detached.is_saved().await);
}

/// A save whose client disconnects while a stalled network holds its command. Another request saved meanwhile, so a retry is needed after
/// that command.
struct DetachedSave {
    server: Server,
    proxy: Proxy,
    layer: RedisSessionLayer,
    key: String,
    _app: Address,
}

impl DetachedSave {
    async fn save(deadline: Duration) -> Self {
        let server = Server::start().await;
        let proxy = Proxy::before(server.port()).await;
        let layer = RedisSessionLayer::new(proxy.client()).with_deadline(deadline);
        let (app, gate) = gated_app(layer.clone());
        // Set when the server drops a request.
        let dropped = Arc::new(AtomicBool::new(false));
        let app = app.layer(middleware::from_fn({
            let dropped = dropped.clone();
            move |request: Request, next: Next| {
                let guard = OnDrop(dropped.clone());
                async move {
                    let response = next.run(request).await;
                    std::mem::forget(guard);
                    response
                }
            }
        }));
        let app = app::serve(app).await;
        let browser = Browser::new();
        assert_eq!(browser.get(app.url("/")).await.body, "1");
        assert_eq!(browser.get(app.url("/")).await.body, "2");
        let client = {
            let (url, browser) = (app.url("/gated/mark"), browser.clone());
            tokio::spawn(async move { browser.get(url).await.status })
        };
        gate.arrived(1).await;
        let direct = visits::serve_client(server.client()).await;
        assert_eq!(browser.get(direct.url("/")).await.body, "3");
        proxy.set(Mode::Stall);
        let before = proxy.asked();
        gate.let_pass(1);
        eventually(PATIENT, async || proxy.asked() > before).await;
        client.abort();
        eventually(PATIENT, async || dropped.load(SeqCst)).await;
        let key = format!("session:{}", id(&app, &browser).expect("a cookie"));
        Self {
            server,
            proxy,
            layer,
            key,
            _app: app,
        }
    }

    async fn is_saved(&self) -> bool {
        let stored: String = self.server.command(&["GET", &self.key]).await;
        let (counts, marks) = (
            stored.contains("\"visits\":4"),
            stored.contains("\"mark\":true"),
        );
        assert_eq!(counts, marks, "both changes or none: {stored}");
        counts
    }
}

struct OnDrop(Arc<AtomicBool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[tokio::test]
async fn a_panicking_handler_saves_nothing_and_sends_no_cookie() {
    let server = Server::start().await;
    let panics = async |session: Session| -> Result<(), SessionError> {
        session.insert("visits", 100)?;
        panic!("as this test wants it");
    };
    let layer = RedisSessionLayer::new(server.client());
    let app = visits::routes().route("/panic", get(panics)).layer(layer);
    // Without and with a session.
    assert!(panicked(&app, "/panic", None).await);
    assert_eq!(server.session_keys().await.len(), 0);
    let cookie = begin(&app, "/").await;
    assert!(panicked(&app, "/panic", Some(&cookie)).await);
    assert_eq!(text(send(&app, "/", Some(&cookie)).await).await, "2");

    // Over a socket, the connection closes without a response.
    let app = app::serve(app).await;
    let mut request = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client")
        .get(app.url("/panic"));
    request = request.header(header::COOKIE, &cookie);
    assert!(request.send().await.is_err());
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
}

async fn panicked(app: &Router, path: &'static str, cookie: Option<&str>) -> bool {
    let (app, cookie) = (app.clone(), cookie.map(str::to_owned));
    let request = tokio::spawn(async move { send(&app, path, cookie.as_deref()).await.status() });
    request.await.is_err_and(|error| error.is_panic())
}

#[tokio::test]
async fn a_failing_body_never_leaves_a_half_saved_session() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client());
    // The request body fails, so the handler never runs.
    let reads = async |session: Session, _: Bytes| session.insert("read", true);
    // The response body fails after the headers.
    let writes = async |session: Session| {
        session.insert("one", 1)?;
        session.insert("two", 2)?;
        Ok::<_, SessionError>(Response::new(failing()))
    };
    let app = visits::routes()
        .route("/reads", post(reads))
        .route("/writes", get(writes))
        .layer(layer);
    let cookie = begin(&app, "/").await;

    let request = Request::post("/reads").header(header::COOKIE, &cookie);
    let request = request.body(failing()).expect("a request");
    let response = app.clone().oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(response.headers().get(header::SET_COOKIE), None);

    let response = send(&app, "/writes", Some(&cookie)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await;
    assert!(body.is_err());
    let [key] = &server.session_keys().await[..] else {
        panic!("one session");
    };
    let stored: String = server.command(&["GET", key]).await;
    assert!(
        stored.ends_with(r#","visits":1,"one":1,"two":2}"#),
        "{stored}"
    );

    // On a first request the cookie is in the headers.
    let response = send(&app, "/writes", None).await;
    let cookie = pair(&set_cookie(&response).expect("a session")).to_owned();
    drop(response);
    assert_eq!(text(send(&app, "/", Some(&cookie)).await).await, "1");
}

fn failing() -> Body {
    let pieces = [
        Ok("a piece"),
        Err(io::Error::other("as this test wants it")),
    ];
    Body::from_stream(stream::iter(pieces))
}
