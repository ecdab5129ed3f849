//! A hand-written server with a typed session: the yardstick.
//!
//! As [`baseline`](super::baseline), but the session is a struct that serde parses and encodes directly. An application with a fixed
//! set of session data would be written this way.

use std::collections::BTreeMap;

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{TTL, bad_gateway, connect, invalid_data, nothing, session_key, set_cookie};
use crate::{Shape, contents};

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Session {
    n: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    roles: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    text: String,
    /// The sessions of many small fields, whose keys a struct cannot name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    fields: BTreeMap<String, String>,
}

#[derive(Clone)]
struct Store {
    connection: MultiplexedConnection,
}

pub async fn app(client: redis::Client) -> Result<Router, redis::RedisError> {
    let connection = connect(client).await?;
    Ok(Router::new()
        .route("/bare", get(nothing))
        .route("/untouched", get(nothing))
        .route("/read", get(read))
        .route("/write", get(write))
        .route("/login", get(login))
        .route("/seed/{shape}/{size}", get(seed))
        .with_state(Store { connection }))
}

async fn read(State(mut store): State<Store>, headers: HeaderMap) -> Result<String, StatusCode> {
    let Some(key) = session_key(&headers) else {
        return Ok("0".to_owned());
    };
    Ok(store.load(&key).await?.n.to_string())
}

async fn write(State(mut store): State<Store>, headers: HeaderMap) -> Result<String, StatusCode> {
    let key = session_key(&headers).ok_or(StatusCode::UNAUTHORIZED)?;
    let mut session = store.load(&key).await?;
    session.n += 1;
    store.save(&key, &session).await?;
    Ok(session.n.to_string())
}

async fn login(
    State(mut store): State<Store>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, StatusCode> {
    let key = session_key(&headers).ok_or(StatusCode::UNAUTHORIZED)?;
    let mut session = store.load(&key).await?;
    session.user = Some(42);
    let id = Uuid::new_v4();
    redis::pipe()
        .cmd("SETEX")
        .arg(format!("session:{id}"))
        .arg(TTL)
        .arg(serde_json::to_vec(&session).map_err(invalid_data)?)
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
    let mut known = Map::new();
    let mut fields = Map::new();
    for (key, value) in contents(shape, size) {
        match key.starts_with("field-") {
            true => fields.insert(key, value),
            false => known.insert(key, value),
        };
    }
    known.insert("fields".to_owned(), fields.into());
    let session: Session = serde_json::from_value(Value::Object(known)).map_err(invalid_data)?;
    let id = Uuid::new_v4();
    store.save(&format!("session:{id}"), &session).await?;
    Ok(([(header::SET_COOKIE, set_cookie(id))], "0"))
}

impl Store {
    async fn load(&mut self, key: &str) -> Result<Session, StatusCode> {
        let stored: Option<Vec<u8>> = redis::cmd("GET")
            .arg(key)
            .query_async(&mut self.connection)
            .await
            .map_err(bad_gateway)?;
        stored.map_or_else(
            || Ok(Session::default()),
            |stored| serde_json::from_slice(&stored).map_err(invalid_data),
        )
    }

    async fn save(&mut self, key: &str, session: &Session) -> Result<(), StatusCode> {
        redis::cmd("SETEX")
            .arg(key)
            .arg(TTL)
            .arg(serde_json::to_vec(session).map_err(invalid_data)?)
            .query_async(&mut self.connection)
            .await
            .map_err(bad_gateway)
    }
}
