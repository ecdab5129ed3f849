//! A hand-written server whose sessions are JSON objects, and the same with compare-and-set.
//!
//! `baseline` is the least that works: one multiplexed connection, GET, `serde_json::Map`, SETEX. It has no deadline, no
//! reconnection, no sliding expiry on reads, and parallel requests overwrite each other's changes.
//!
//! `baseline_cas` adds sliding expiry (GETEX) and optimistic concurrency control: the stored text begins with a revision, and a Lua
//! script writes only if the revision is the one that was read. The difference from `baseline` is what not losing updates costs on this server,
//! with any client.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use redis::{Script, aio::MultiplexedConnection};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{TTL, bad_gateway, connect, invalid_data, nothing, session_key, set_cookie};
use crate::{Shape, contents};

#[derive(Clone)]
struct Store {
    connection: MultiplexedConnection,
    /// The SHA-1 of the compare-and-set script, with compare-and-set.
    script: Option<Arc<str>>,
}

/// Length of `{"_rev":"`, 16 digits and `"`. `_rev` is first, since a `Map` sorts its keys.
const REVISION_LEN: usize = 26;

const SAVE: &str = "\
if redis.call('GETRANGE', KEYS[1], '0', '25') ~= ARGV[1] then return 0 end
redis.call('SETEX', KEYS[1], ARGV[3], ARGV[2])
return 1";

pub async fn app(client: redis::Client, has_cas: bool) -> Result<Router, redis::RedisError> {
    let mut connection = connect(client).await?;
    let script = match has_cas {
        true => Some(Script::new(SAVE).load_async(&mut connection).await?.into()),
        false => None,
    };
    Ok(Router::new()
        .route("/bare", get(nothing))
        .route("/untouched", get(nothing))
        .route("/read", get(read))
        .route("/write", get(write))
        .route("/login", get(login))
        .route("/seed/{shape}/{size}", get(seed))
        .with_state(Store { connection, script }))
}

async fn read(State(mut store): State<Store>, headers: HeaderMap) -> Result<String, StatusCode> {
    let Some(key) = session_key(&headers) else {
        return Ok("0".to_owned());
    };
    let (map, _) = store.load(&key).await?;
    Ok(number(&map).to_string())
}

async fn write(State(mut store): State<Store>, headers: HeaderMap) -> Result<String, StatusCode> {
    let key = session_key(&headers).ok_or(StatusCode::UNAUTHORIZED)?;
    loop {
        let (mut map, revision) = store.load(&key).await?;
        let next = number(&map) + 1;
        map.insert("n".to_owned(), next.into());
        if store.save(&key, map, &revision).await? {
            return Ok(next.to_string());
        }
    }
}

async fn login(
    State(mut store): State<Store>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, StatusCode> {
    let key = session_key(&headers).ok_or(StatusCode::UNAUTHORIZED)?;
    let (mut map, _) = store.load(&key).await?;
    map.insert("user".to_owned(), 42.into());
    let id = Uuid::new_v4();
    let encoded = serde_json::to_vec(&map).map_err(invalid_data)?;
    redis::pipe()
        .cmd("SETEX")
        .arg(format!("session:{id}"))
        .arg(TTL)
        .arg(encoded)
        .ignore()
        .cmd("DEL")
        .arg(&key)
        .ignore()
        .query_async::<()>(&mut store.connection)
        .await
        .map_err(bad_gateway)?;
    Ok(([(header::SET_COOKIE, set_cookie(id))], "0"))
}

async fn seed(
    State(mut store): State<Store>,
    Path((shape, size)): Path<(Shape, usize)>,
) -> Result<impl IntoResponse, StatusCode> {
    let map = Map::from_iter(contents(shape, size));
    let id = Uuid::new_v4();
    store.save(&format!("session:{id}"), map, "").await?;
    Ok(([(header::SET_COOKIE, set_cookie(id))], "0"))
}

impl Store {
    /// The session, and its revision with compare-and-set.
    async fn load(&mut self, key: &str) -> Result<(Map<String, Value>, String), StatusCode> {
        let mut command = match self.script {
            Some(_) => redis::cmd("GETEX"),
            None => redis::cmd("GET"),
        };
        command.arg(key);
        if self.script.is_some() {
            command.arg("EX").arg(TTL);
        }
        let stored: Option<Vec<u8>> = command
            .query_async(&mut self.connection)
            .await
            .map_err(bad_gateway)?;
        let Some(stored) = stored else {
            return Ok((Map::new(), String::new()));
        };
        let map = serde_json::from_slice(&stored).map_err(invalid_data)?;
        let revision = match self.script {
            Some(_) => String::from_utf8_lossy(&stored[..REVISION_LEN]).into_owned(),
            None => String::new(),
        };
        Ok((map, revision))
    }

    /// Returns whether it was saved. With compare-and-set it is not if the stored revision is another one.
    async fn save(
        &mut self,
        key: &str,
        mut map: Map<String, Value>,
        revision: &str,
    ) -> Result<bool, StatusCode> {
        if self.script.is_some() {
            let revision = &Uuid::new_v4().simple().to_string()[..16];
            map.insert("_rev".to_owned(), revision.into());
        }
        let encoded = serde_json::to_vec(&map).map_err(invalid_data)?;
        let saved = match &self.script {
            Some(script) => {
                redis::cmd("EVALSHA")
                    .arg(&**script)
                    .arg(1)
                    .arg(key)
                    .arg(revision)
                    .arg(encoded)
                    .arg(TTL)
                    .query_async(&mut self.connection)
                    .await
            }
            None => {
                redis::cmd("SETEX")
                    .arg(key)
                    .arg(TTL)
                    .arg(encoded)
                    .query_async(&mut self.connection)
                    .await
            }
        };
        saved.map_err(bad_gateway)
    }
}

fn number(map: &Map<String, Value>) -> u64 {
    map.get("n").and_then(Value::as_u64).unwrap_or(0)
}
