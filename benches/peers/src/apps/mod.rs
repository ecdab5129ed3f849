//! The same app with each kind of sessions.

pub mod actix_session;
pub mod axum_session;
pub mod baseline;
pub mod baseline_typed;
pub mod this_crate;
pub mod tower_sessions;

use std::env;

use axum::{
    Router,
    http::{HeaderMap, StatusCode, header},
};
use redis::{AsyncConnectionConfig, aio::MultiplexedConnection};
use tokio::runtime::Builder;
use uuid::Uuid;

use crate::{COOKIE, CURRENT_THREAD, Failure, RUNTIME};

/// Runs an app on the multi-threaded runtime of `#[tokio::main]`, or on one thread if [`RUNTIME`] says so.
pub fn run(app: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut runtime = match is_single_threaded() {
        true => Builder::new_current_thread(),
        false => Builder::new_multi_thread(),
    };
    runtime.enable_all().build()?.block_on(app)
}

/// Serves until the process ends. The first line on standard output is the address.
pub async fn serve(app: Router) -> Result<(), Failure> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        drop(stream.set_nodelay(true));
    });
    axum::serve(listener, app).await?;
    Ok(())
}

/// The Redis URL, the first argument of every app.
pub fn redis_url() -> Result<String, Failure> {
    env::args()
        .nth(1)
        .ok_or_else(|| "pass the URL of the Redis server as the first argument".into())
}

pub fn is_single_threaded() -> bool {
    env::var(RUNTIME).is_ok_and(|runtime| runtime == CURRENT_THREAD)
}

/// A response that has nothing to do with sessions.
pub async fn nothing() -> &'static str {
    "0"
}

/// The idle timeout of the baselines: a day, in seconds.
const TTL: u64 = 86_400;

/// One multiplexed connection without a deadline: the cheapest that redis-rs has.
async fn connect(client: redis::Client) -> Result<MultiplexedConnection, redis::RedisError> {
    let info = client.get_connection_info().clone();
    let settings = info.tcp_settings().clone().set_nodelay(true);
    let client = redis::Client::open(info.set_tcp_settings(settings))?;
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// The key of the session that the cookie identifies.
fn session_key(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get(header::COOKIE)?.to_str().ok()?;
    let id = cookies
        .split("; ")
        .find_map(|pair| pair.strip_prefix(COOKIE)?.strip_prefix('='))?;
    Uuid::try_parse(id).ok()?;
    Some(format!("session:{id}"))
}

fn set_cookie(id: Uuid) -> String {
    format!("{COOKIE}={id}; HttpOnly; SameSite=Lax; Secure; Path=/")
}

fn bad_gateway(_: redis::RedisError) -> StatusCode {
    StatusCode::BAD_GATEWAY
}

fn invalid_data(_: serde_json::Error) -> StatusCode {
    StatusCode::INTERNAL_SERVER_ERROR
}
