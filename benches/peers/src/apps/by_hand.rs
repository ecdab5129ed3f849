//! With sessions written by hand.
//!
//! By hand means what an experienced person writes who needs it to be fast and nothing else: one multiplexed connection, GET,
//! `serde_json::Map`, SETEX. No deadline, no reconnecting, no protection from parallel requests, no sliding expiry on reads.
//!
//! *Checked* is the same with the least that keeps parallel requests from losing each other's changes, and with sliding expiry: GETEX, a
//! version in front of the stored text, and a script that writes only over the version that was read. What it costs more is the price
//! of the promise on this server, whoever keeps it.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use redis::{AsyncConnectionConfig, Script, aio::MultiplexedConnection};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::nothing;
use crate::{COOKIE, fields};

#[derive(Clone)]
struct Hand {
    connection: MultiplexedConnection,
    /// The hash of the script, where saves are checked.
    script: Option<Arc<str>>,
}

/// Stored text begins with `{"_rev":"`, 16 digits and `"`, since the keys are in order.
const FINGERPRINT: usize = 26;

/// A day, in seconds.
const LIFETIME: u64 = 86_400;

const SAVE: &str = "\
if redis.call('GETRANGE', KEYS[1], '0', '25') ~= ARGV[1] then return 0 end
redis.call('SETEX', KEYS[1], ARGV[3], ARGV[2])
return 1";

pub async fn app(client: redis::Client, is_checked: bool) -> Result<Router, redis::RedisError> {
    let info = client.get_connection_info().clone();
    let settings = info.tcp_settings().clone().set_nodelay(true);
    let client = redis::Client::open(info.set_tcp_settings(settings))?;
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    let script = match is_checked {
        true => Some(Script::new(SAVE).load_async(&mut connection).await?.into()),
        false => None,
    };
    let hand = Hand { connection, script };
    Ok(Router::new()
        .route("/bare", get(nothing))
        .route("/untouched", get(nothing))
        .route("/read", get(read))
        .route("/write", get(write))
        .route("/login", get(login))
        .route("/seed/{size}", get(seed))
        .with_state(hand))
}

async fn read(State(mut hand): State<Hand>, headers: HeaderMap) -> Result<String, StatusCode> {
    let Some(id) = id(&headers) else {
        return Ok("0".to_owned());
    };
    let (map, _) = hand.load(&format!("session:{id}")).await?;
    Ok(number(&map).to_string())
}

async fn write(State(mut hand): State<Hand>, headers: HeaderMap) -> Result<String, StatusCode> {
    let key = format!("session:{}", id(&headers).ok_or(StatusCode::UNAUTHORIZED)?);
    loop {
        let (mut map, version) = hand.load(&key).await?;
        let next = number(&map) + 1;
        map.insert("n".to_owned(), next.into());
        if hand.save(&key, map, &version).await? {
            return Ok(next.to_string());
        }
    }
}

async fn login(
    State(mut hand): State<Hand>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, StatusCode> {
    let key = format!("session:{}", id(&headers).ok_or(StatusCode::UNAUTHORIZED)?);
    let (mut map, _) = hand.load(&key).await?;
    map.insert("user".to_owned(), 42.into());
    let id = Uuid::new_v4();
    let encoded = serde_json::to_vec(&map).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    redis::pipe()
        .cmd("SETEX")
        .arg(format!("session:{id}"))
        .arg(LIFETIME)
        .arg(encoded)
        .ignore()
        .cmd("DEL")
        .arg(&key)
        .ignore()
        .query_async::<()>(&mut hand.connection)
        .await
        .map_err(|_| StatusCode::BAD_GATEWAY)?;
    Ok(([(header::SET_COOKIE, set_cookie(id))], "0"))
}

async fn seed(
    State(mut hand): State<Hand>,
    Path(size): Path<usize>,
) -> Result<impl IntoResponse, StatusCode> {
    let mut map = Map::new();
    map.insert("n".to_owned(), 1.into());
    map.extend(fields(size).map(|(key, value)| (key, value.into())));
    let id = Uuid::new_v4();
    hand.save(&format!("session:{id}"), map, "").await?;
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

impl Hand {
    /// The session, and the version that it is, where saves are checked.
    async fn load(&mut self, key: &str) -> Result<(Map<String, Value>, String), StatusCode> {
        let mut command = match self.script {
            Some(_) => redis::cmd("GETEX"),
            None => redis::cmd("GET"),
        };
        command.arg(key);
        if self.script.is_some() {
            command.arg("EX").arg(LIFETIME);
        }
        let stored: Option<Vec<u8>> = command
            .query_async(&mut self.connection)
            .await
            .map_err(|_| StatusCode::BAD_GATEWAY)?;
        let Some(stored) = stored else {
            return Ok((Map::new(), String::new()));
        };
        let map = serde_json::from_slice(&stored).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        let version = match self.script {
            Some(_) => String::from_utf8_lossy(&stored[..FINGERPRINT]).into_owned(),
            None => String::new(),
        };
        Ok((map, version))
    }

    /// Whether it was saved, over this version where saves are checked.
    async fn save(
        &mut self,
        key: &str,
        mut map: Map<String, Value>,
        version: &str,
    ) -> Result<bool, StatusCode> {
        if self.script.is_some() {
            let version = &Uuid::new_v4().simple().to_string()[..16];
            map.insert("_rev".to_owned(), version.into());
        }
        let encoded = serde_json::to_vec(&map).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        let saved = match &self.script {
            Some(script) => {
                redis::cmd("EVALSHA")
                    .arg(&**script)
                    .arg(1)
                    .arg(key)
                    .arg(version)
                    .arg(encoded)
                    .arg(LIFETIME)
                    .query_async(&mut self.connection)
                    .await
            }
            None => {
                redis::cmd("SETEX")
                    .arg(key)
                    .arg(LIFETIME)
                    .arg(encoded)
                    .query_async(&mut self.connection)
                    .await
            }
        };
        saved.map_err(|_| StatusCode::BAD_GATEWAY)
    }
}

fn number(map: &Map<String, Value>) -> u64 {
    map.get("n").and_then(Value::as_u64).unwrap_or(0)
}
