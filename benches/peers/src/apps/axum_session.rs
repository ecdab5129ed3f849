//! axum_session with its Redis pool.
//!
//! It keeps sessions in the memory of the process and copies them to Redis. With several processes, a logout in one would not reach the
//! others, so the memory lifetime is zero here.

use axum::{Router, extract::Path, routing::get};
use axum_session::{Session, SessionConfig, SessionLayer, SessionStore};
use axum_session_redispool::SessionRedisPool;
use redis_pool::SingleRedisPool;
use time::Duration;

use super::nothing;
use crate::{COOKIE, Failure, Shape, contents};

pub async fn app(redis: &str) -> Result<Router, Failure> {
    let pool = SingleRedisPool::from(redis::Client::open(redis)?);
    let config = SessionConfig::default()
        .with_lifetime(Duration::days(1))
        .with_max_age(None)
        // The prefix is part of the name: with its own prefix option, it sets a prefixed cookie but reads one without the prefix.
        .with_session_name(COOKIE)
        .with_secure(true)
        .with_memory_lifetime(Duration::ZERO)
        .with_bloom_filter(false);
    let store = SessionStore::new(Some(SessionRedisPool::from(pool)), config).await?;
    Ok(Router::new()
        .route("/untouched", get(nothing))
        .route("/read", get(read))
        .route("/write", get(write))
        .route("/login", get(login))
        .route("/seed/{shape}/{size}", get(seed))
        .layer(SessionLayer::new(store))
        .route("/bare", get(nothing)))
}

async fn read(session: Session<SessionRedisPool>) -> String {
    session.get::<u64>("n").unwrap_or(0).to_string()
}

async fn write(session: Session<SessionRedisPool>) -> String {
    let next = session.get::<u64>("n").unwrap_or(0) + 1;
    session.set("n", next);
    next.to_string()
}

async fn login(session: Session<SessionRedisPool>) -> &'static str {
    session.renew();
    session.set("user", 42);
    "0"
}

async fn seed(
    session: Session<SessionRedisPool>,
    Path((shape, size)): Path<(Shape, usize)>,
) -> &'static str {
    for (key, value) in contents(shape, size) {
        session.set(&key, value);
    }
    "0"
}
