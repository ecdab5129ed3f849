//! The app of this crate, with the routes of the apps in `apps/`.

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    extract::Path,
    response::IntoResponse,
    routing::{get, post},
};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionError};
use serde_json::value::RawValue;

pub fn routes(layer: RedisSessionLayer) -> Router {
    Router::new()
        .route("/", get(keys))
        .route("/user", get(user))
        .route("/set/{key}/{*value}", post(set))
        .route("/count/{key}", post(count))
        .route("/remove/{key}", post(remove))
        .route("/login/{user}", post(login))
        .route("/logout", post(logout))
        .route("/cycle", post(async |session: Session| session.cycle_id()))
        .route("/permanent", get(is_permanent))
        .route("/permanent/{value}", post(permanent))
        .layer(layer)
}

/// Without what the frameworks keep for themselves.
async fn keys(session: Session) -> Result<impl IntoResponse, SessionError> {
    let mut keys = BTreeMap::new();
    for key in session.keys() {
        if key != "passport" && key != "user_id" && !key.starts_with('_') {
            let value: Option<Box<RawValue>> = session.get(&key)?;
            keys.insert(key, value);
        }
    }
    Ok(Json(keys))
}

async fn user(session: Session) -> Json<Option<String>> {
    Json(session.user())
}

async fn set(
    session: Session,
    Path((key, value)): Path<(String, String)>,
) -> Result<(), SessionError> {
    let value: Box<RawValue> = serde_json::from_str(&value).expect("JSON");
    session.insert(&key, value)
}

/// One more than before, whatever happens at the same time.
async fn count(session: Session, Path(key): Path<String>) -> Result<String, SessionError> {
    let count = session.update(&key, |n: Option<u64>| n.unwrap_or(0) + 1)?;
    Ok(count.to_string())
}

async fn remove(session: Session, Path(key): Path<String>) {
    session.remove(&key);
}

async fn login(session: Session, Path(user): Path<String>) -> Result<(), SessionError> {
    session.log_in(user)
}

async fn logout(session: Session) {
    session.destroy();
}

async fn is_permanent(session: Session) -> Json<bool> {
    Json(session.is_permanent())
}

async fn permanent(session: Session, Path(value): Path<bool>) {
    session.set_permanent(value);
}
