//! With sessions written by hand.
//!
//! By hand means what an experienced person writes who needs it to be fast and nothing else: one multiplexed connection, GET,
//! `serde_json::Map`, SETEX. No deadline, no reconnecting, no protection from parallel requests, no sliding expiry on reads.

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use redis::{AsyncConnectionConfig, aio::MultiplexedConnection};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::nothing;
use crate::{COOKIE, fields};

pub async fn app(client: redis::Client) -> Result<Router, redis::RedisError> {
    let info = client.get_connection_info().clone();
    let settings = info.tcp_settings().clone().set_nodelay(true);
    let client = redis::Client::open(info.set_tcp_settings(settings))?;
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    Ok(Router::new()
        .route("/bare", get(nothing))
        .route("/untouched", get(nothing))
        .route("/read", get(read))
        .route("/write", get(write))
        .route("/login", get(login))
        .route("/seed/{size}", get(seed))
        .with_state(connection))
}

async fn read(
    State(mut connection): State<MultiplexedConnection>,
    headers: HeaderMap,
) -> Result<String, StatusCode> {
    let Some(id) = id(&headers) else {
        return Ok("0".to_owned());
    };
    let map = load(&mut connection, &format!("session:{id}")).await?;
    Ok(number(&map).to_string())
}

async fn write(
    State(mut connection): State<MultiplexedConnection>,
    headers: HeaderMap,
) -> Result<String, StatusCode> {
    let key = format!("session:{}", id(&headers).ok_or(StatusCode::UNAUTHORIZED)?);
    let mut map = load(&mut connection, &key).await?;
    let next = number(&map) + 1;
    map.insert("n".to_owned(), next.into());
    save(&mut connection, &key, &map).await?;
    Ok(next.to_string())
}

async fn login(
    State(mut connection): State<MultiplexedConnection>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, StatusCode> {
    let key = format!("session:{}", id(&headers).ok_or(StatusCode::UNAUTHORIZED)?);
    let mut map = load(&mut connection, &key).await?;
    map.insert("user".to_owned(), 42.into());
    let id = Uuid::new_v4();
    let encoded = serde_json::to_vec(&map).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    redis::pipe()
        .cmd("SETEX")
        .arg(format!("session:{id}"))
        .arg(86_400)
        .arg(encoded)
        .ignore()
        .cmd("DEL")
        .arg(&key)
        .ignore()
        .query_async::<()>(&mut connection)
        .await
        .map_err(|_| StatusCode::BAD_GATEWAY)?;
    Ok(([(header::SET_COOKIE, set_cookie(id))], "0"))
}

async fn seed(
    State(mut connection): State<MultiplexedConnection>,
    Path(size): Path<usize>,
) -> Result<impl IntoResponse, StatusCode> {
    let mut map = Map::new();
    map.insert("n".to_owned(), 1.into());
    map.extend(fields(size).map(|(key, value)| (key, value.into())));
    let id = Uuid::new_v4();
    save(&mut connection, &format!("session:{id}"), &map).await?;
    Ok(([(header::SET_COOKIE, set_cookie(id))], "0"))
}

fn id(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get(header::COOKIE)?.to_str().ok()?;
    let id = cookies
        .split("; ")
        .find_map(|pair| pair.strip_prefix(COOKIE)?.strip_prefix('='))?;
    Uuid::try_parse(id).is_ok().then_some(id)
}

fn set_cookie(id: Uuid) -> String {
    format!("{COOKIE}={id}; HttpOnly; SameSite=Lax; Secure; Path=/")
}

async fn load(
    connection: &mut MultiplexedConnection,
    key: &str,
) -> Result<Map<String, Value>, StatusCode> {
    let stored: Option<Vec<u8>> = redis::cmd("GET")
        .arg(key)
        .query_async(connection)
        .await
        .map_err(|_| StatusCode::BAD_GATEWAY)?;
    match stored {
        Some(stored) => {
            serde_json::from_slice(&stored).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
        }
        None => Ok(Map::new()),
    }
}

async fn save(
    connection: &mut MultiplexedConnection,
    key: &str,
    map: &Map<String, Value>,
) -> Result<(), StatusCode> {
    let encoded = serde_json::to_vec(map).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    redis::cmd("SETEX")
        .arg(key)
        .arg(86_400)
        .arg(encoded)
        .query_async::<()>(connection)
        .await
        .map_err(|_| StatusCode::BAD_GATEWAY)
}

fn number(map: &Map<String, Value>) -> u64 {
    map.get("n").and_then(Value::as_u64).unwrap_or(0)
}
