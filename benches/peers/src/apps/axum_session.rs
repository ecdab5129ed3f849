//! With axum_session and its Redis pool.
//!
//! Its sessions live in the memory of the process, and Redis has copies. A server of which there are several cannot rely on that, so
//! here it forgets a session as soon as no request has it, as far as it can be told to.

use axum::{Router, extract::Path, routing::get};
use axum_session::{Session, SessionConfig, SessionLayer, SessionStore};
use axum_session_redispool::SessionRedisPool;
use redis_pool::SingleRedisPool;
use time::Duration;

use super::nothing;
use crate::{COOKIE, Failure, fields};

pub async fn app(redis: &str) -> Result<Router, Failure> {
    let pool = SingleRedisPool::from(redis::Client::open(redis)?);
    let config = SessionConfig::default()
        .with_lifetime(Duration::days(1))
        .with_max_age(None)
        // Its own option for the prefix gives a cookie with it, and looks for one without.
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
        .route("/seed/{size}", get(seed))
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

async fn seed(session: Session<SessionRedisPool>, Path(size): Path<usize>) -> &'static str {
    session.set("n", 1);
    for (key, value) in fields(size) {
        session.set(&key, value);
    }
    "0"
}
