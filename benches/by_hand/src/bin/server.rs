//! One app, twice: with sessions written by hand, and with this crate's layer.
//!
//! ```sh
//! cargo run --release --bin server -- by-hand redis://127.0.0.1/   # or: layer redis://127.0.0.1/
//! ```
//!
//! By hand means what an experienced person writes who needs it to be fast and nothing else: one multiplexed connection, GET,
//! `serde_json::Map`, SETEX. No deadline, no reconnecting, no protection from parallel requests, no sliding expiry on reads.

use std::env;

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    routing::get,
};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionError};
use redis::{AsyncConnectionConfig, aio::MultiplexedConnection};
use serde_json::{Map, Value};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args().skip(1);
    let (kind, url) = (
        arguments.next().ok_or("by-hand or layer?")?,
        arguments.next().ok_or("the server's URL?")?,
    );
    let client = redis::Client::open(url)?;
    let app = match &*kind {
        "by-hand" => by_hand(client).await?,
        "layer" => layer(client),
        other => return Err(format!("{other}: by-hand or layer?").into()),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    axum::serve(
        axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true))),
        app,
    )
    .await?;
    Ok(())
}

fn layer(client: redis::Client) -> Router {
    async fn read(session: Session) -> Result<String, SessionError> {
        Ok(session.get::<u64>("n")?.unwrap_or(0).to_string())
    }
    async fn write(session: Session) -> Result<String, SessionError> {
        session
            .update("n", |n: Option<u64>| n.unwrap_or(0) + 1)
            .map(|n| n.to_string())
    }
    let layer = RedisSessionLayer::new(client);
    let stats = layer.clone();
    Router::new()
        .route("/untouched", get(|| async { "0" }))
        .route("/read", get(read))
        .route("/write", get(write))
        .layer(layer)
        .route(
            "/stats",
            get(|| async move {
                let stats = stats.commit_stats();
                format!(
                    "{} {} {} {}",
                    stats.commits, stats.replays, stats.conflicts, stats.dropped
                )
            }),
        )
}

async fn by_hand(client: redis::Client) -> Result<Router, redis::RedisError> {
    let info = client.get_connection_info().clone();
    let settings = info.tcp_settings().clone().set_nodelay(true);
    let client = redis::Client::open(info.set_tcp_settings(settings))?;
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await?;

    async fn load(
        connection: &mut MultiplexedConnection,
        headers: &HeaderMap,
    ) -> Result<(String, Map<String, Value>), StatusCode> {
        let cookies = headers
            .get(header::COOKIE)
            .and_then(|cookies| cookies.to_str().ok())
            .ok_or(StatusCode::UNAUTHORIZED)?;
        let id = cookies
            .split("; ")
            .find_map(|pair| pair.strip_prefix("__Host-session="));
        let id = id
            .filter(|id| uuid::Uuid::try_parse(id).is_ok())
            .ok_or(StatusCode::UNAUTHORIZED)?;
        let key = format!("session:{id}");
        let stored: Option<Vec<u8>> = redis::cmd("GET")
            .arg(&key)
            .query_async(connection)
            .await
            .map_err(|_| StatusCode::BAD_GATEWAY)?;
        let map = match stored {
            Some(stored) => {
                serde_json::from_slice(&stored).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?
            }
            None => Map::new(),
        };
        Ok((key, map))
    }
    fn number(map: &Map<String, Value>) -> u64 {
        map.get("n").and_then(Value::as_u64).unwrap_or(0)
    }
    async fn read(
        State(mut connection): State<MultiplexedConnection>,
        headers: HeaderMap,
    ) -> Result<String, StatusCode> {
        let (_, map) = load(&mut connection, &headers).await?;
        Ok(number(&map).to_string())
    }
    async fn write(
        State(mut connection): State<MultiplexedConnection>,
        headers: HeaderMap,
    ) -> Result<String, StatusCode> {
        let (key, mut map) = load(&mut connection, &headers).await?;
        let next = number(&map) + 1;
        map.insert("n".to_owned(), next.into());
        let encoded = serde_json::to_vec(&map).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        let saved = redis::cmd("SETEX")
            .arg(&key)
            .arg(86_400)
            .arg(encoded)
            .query_async::<()>(&mut connection)
            .await;
        saved.map_err(|_| StatusCode::BAD_GATEWAY)?;
        Ok(next.to_string())
    }
    Ok(Router::new()
        .route("/untouched", get(|| async { "0" }))
        .route("/read", get(read))
        .route("/write", get(write))
        .with_state(connection))
}
