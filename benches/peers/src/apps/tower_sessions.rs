//! tower-sessions with its Redis store.

use axum::{Router, extract::Path, http::StatusCode, routing::get};
use tower_sessions::{
    Expiry, Session, SessionManagerLayer,
    cookie::{SameSite, time::Duration},
    session::Error,
};
use tower_sessions_redis_store::{
    RedisStore,
    fred::{
        clients::Pool,
        interfaces::ClientLike,
        types::config::{Config, ConnectionConfig},
    },
};

use super::nothing;
use crate::{COOKIE, Failure, Shape, contents};

pub async fn app(redis: &str) -> Result<Router, Failure> {
    let mut tcp = ConnectionConfig::default();
    tcp.tcp.nodelay = Some(true);
    // One connection, as in the other apps. Its documentation shows six.
    let pool = Pool::new(Config::from_url(redis)?, None, Some(tcp), None, 1)?;
    pool.connect();
    pool.wait_for_connect().await?;
    let layer = SessionManagerLayer::new(RedisStore::new(pool))
        .with_name(COOKIE)
        .with_same_site(SameSite::Lax)
        .with_expiry(Expiry::OnInactivity(Duration::days(1)));
    Ok(Router::new()
        .route("/untouched", get(nothing))
        .route("/read", get(read))
        .route("/write", get(write))
        .route("/login", get(login))
        .route("/seed/{shape}/{size}", get(seed))
        .layer(layer)
        .route("/bare", get(nothing)))
}

async fn read(session: Session) -> Result<String, StatusCode> {
    let number = session.get::<u64>("n").await.map_err(failed)?;
    Ok(number.unwrap_or(0).to_string())
}

async fn write(session: Session) -> Result<String, StatusCode> {
    let number = session.get::<u64>("n").await.map_err(failed)?;
    let next = number.unwrap_or(0) + 1;
    session.insert("n", next).await.map_err(failed)?;
    Ok(next.to_string())
}

async fn login(session: Session) -> Result<&'static str, StatusCode> {
    session.cycle_id().await.map_err(failed)?;
    session.insert("user", 42).await.map_err(failed)?;
    Ok("0")
}

async fn seed(
    session: Session,
    Path((shape, size)): Path<(Shape, usize)>,
) -> Result<&'static str, StatusCode> {
    for (key, value) in contents(shape, size) {
        session.insert(&key, value).await.map_err(failed)?;
    }
    Ok("0")
}

fn failed(_: Error) -> StatusCode {
    StatusCode::INTERNAL_SERVER_ERROR
}
