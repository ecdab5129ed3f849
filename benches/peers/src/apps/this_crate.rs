//! This crate's session layer.

use axum::{Router, extract::Path, routing::get};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionError};

use super::nothing;
use crate::{Shape, contents};

pub fn app(layer: RedisSessionLayer) -> Router {
    let stats = layer.clone();
    Router::new()
        .route("/untouched", get(nothing))
        .route("/read", get(read))
        .route("/write", get(write))
        .route("/login", get(login))
        .route("/seed/{shape}/{size}", get(seed))
        .layer(layer)
        .route("/bare", get(nothing))
        .route(
            "/stats",
            get(|| async move {
                let stats = stats.stats();
                format!(
                    "{} {} {} {}",
                    stats.commits, stats.retries, stats.retries_exhausted, stats.discarded
                )
            }),
        )
}

async fn read(session: Session) -> Result<String, SessionError> {
    Ok(session.get::<u64>("n")?.unwrap_or(0).to_string())
}

async fn write(session: Session) -> Result<String, SessionError> {
    session
        .update("n", |n: Option<u64>| n.unwrap_or(0) + 1)
        .map(|n| n.to_string())
}

async fn login(session: Session) -> Result<&'static str, SessionError> {
    session.cycle_id();
    session.insert("user", 42)?;
    Ok("0")
}

async fn seed(
    session: Session,
    Path((shape, size)): Path<(Shape, usize)>,
) -> Result<&'static str, SessionError> {
    for (key, value) in contents(shape, size) {
        session.insert(&key, value)?;
    }
    Ok("0")
}
