//! ```sh
//! tests/run.sh frameworks                                                       # once: installs Flask in target/
//! cargo run --all-features --example strangler                                  # starts a redis-server of its own
//! REDIS_URL=redis://127.0.0.1/ cargo run --all-features --example strangler     # uses this one
//! PYTHON=/path/to/python cargo run --all-features --example strangler           # with another Flask, Flask-Session and redis
//! ```
//!
//! An app that moves from Flask to axum page by page ("strangler fig"). axum answers what has moved, the cart, and passes all other requests on to
//! Flask, `shop.py`. Both work on one session: whoever signs in to Flask is signed in here, and the other way round.
//!
//! `PORT` chooses another port than 3000.

use std::{env, error::Error, path::Path, process::Stdio, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderName, Response, StatusCode, header},
    response::{IntoResponse, Redirect},
    routing::{get, post},
};
use axum_redis_sessions::{
    RedisSessionLayer, Session, SessionError,
    format::{Flask, Sharing},
};
use maud::{DOCTYPE, Markup, html};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (redis_url, _redis) = match env::var("REDIS_URL") {
        Ok(url) => (url, None),
        Err(_) => start_redis().await?,
    };
    let (app, _flask) = app(&redis_url).await?;
    let port = env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!(
        "Listening on http://localhost:{}",
        listener.local_addr()?.port()
    );
    // Flask and Redis end with this process.
    axum::serve(listener, app)
        .with_graceful_shutdown(stopped())
        .await?;
    Ok(())
}

/// Both apps, and the process of Flask, which ends when it is dropped.
pub(crate) async fn app(redis_url: &str) -> Result<(Router, Child), Failure> {
    let sessions = RedisSessionLayer::open(redis_url)?
        .with_format(Sharing::from(Flask::new()).with_user_at("/_user_id"))
        // As Flask-Session's cookie. In production, both apps set Secure.
        .with_secure(false)
        .validate()?;
    sessions.ready().await?;
    let (flask, process) = start_flask(redis_url).await?;
    let moved = Router::new()
        .route("/cart", get(cart))
        .route("/cart/empty", post(empty))
        .route("/cart/sign-out", post(sign_out))
        .layer(sessions);
    let app = moved.fallback(pass_on).with_state(OldApp {
        client: reqwest::Client::builder()
            .no_proxy()
            // The browser is to follow a redirect.
            .redirect(reqwest::redirect::Policy::none())
            .build()?,
        url: flask,
    });
    Ok((app, process))
}

async fn cart(session: Session) -> Result<Markup, SessionError> {
    let items: Vec<String> = session.get("cart")?.unwrap_or_default();
    Ok(html! {
        (DOCTYPE)
        html lang="en" {
            title { "Cart" }
            h1 { "Cart" }
            p { "This page is served by axum." }
            @if let Some(user) = session.user() {
                p { "Signed in as " b { (user) } ". " }
                form method="post" action="/cart/sign-out" { button { "Sign out" } }
            }
            ul { @for item in &items { li { (item) } } }
            form method="post" action="/cart/empty" { button { "Empty" } }
            p { a href="/" { "Shop" } }
        }
    })
}

async fn empty(session: Session) -> Redirect {
    session.remove("cart");
    Redirect::to("/cart")
}

/// Ends the session for both apps.
async fn sign_out(session: Session) -> Redirect {
    session.destroy();
    Redirect::to("/")
}

/// The app that has not moved yet.
#[derive(Clone)]
struct OldApp {
    client: reqwest::Client,
    url: String,
}

/// Of this connection and not of the next one (RFC 9110, section 7.6.1), or set anew by the client.
const NOT_PASSED_ON: [HeaderName; 5] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::HOST,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

async fn pass_on(State(flask): State<OldApp>, request: Request) -> Response<Body> {
    match ask_flask(&flask, request).await {
        Ok(response) => response,
        Err(error) => {
            eprintln!("{error}");
            StatusCode::BAD_GATEWAY.into_response()
        }
    }
}

async fn ask_flask(flask: &OldApp, request: Request) -> Result<Response<Body>, Failure> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut headers = parts.headers;
    for name in &NOT_PASSED_ON {
        headers.remove(name);
    }
    let body = to_bytes(body, 1 << 20).await?;
    let url = format!("{}{path}", flask.url);
    let sent = flask.client.request(parts.method, url);
    let answer = sent.headers(headers).body(body).send().await?;
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if !NOT_PASSED_ON.contains(name) {
            response = response.header(name, value);
        }
    }
    Ok(response.body(answer.bytes().await?.into())?)
}

async fn start_flask(redis_url: &str) -> Result<(String, Child), Failure> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = match env::var_os("PYTHON") {
        Some(python) => python.into(),
        None => root.join("target/frameworks/python/bin/python"),
    };
    let mut flask = Command::new(&python)
        .arg(root.join("examples/strangler/shop.py"))
        .env("REDIS_URL", redis_url)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            let python = python.display();
            format!(
                "{python} does not start ({error}): run `tests/run.sh frameworks`, which installs Flask there, or set PYTHON to a Python with \
                 Flask, Flask-Session and redis"
            )
        })?;
    let mut lines = BufReader::new(flask.stdout.take().ok_or("no output")?).lines();
    let port = lines.next_line().await?;
    let port = port.ok_or("Flask did not start: its message is above")?;
    Ok((format!("http://127.0.0.1:{port}"), flask))
}

/// Without a port of its own choice, since redis-server has none that it could tell.
async fn start_redis() -> Result<(String, Option<Child>), Failure> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port();
    let redis = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            format!("redis-server does not start ({error}): install it, or set REDIS_URL")
        })?;
    let url = format!("redis://127.0.0.1:{port}/");
    let layer = RedisSessionLayer::open(url.as_str())?;
    for _ in 0..100 {
        if layer.ready().await.is_ok() {
            return Ok((url, Some(redis)));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err("redis-server does not answer".into())
}

/// Ctrl-C, or the signal of a service manager.
async fn stopped() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).expect("a signal handler");
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.expect("a signal handler");
}
