//! axum_session with its Redis pool, as its users write it.

use axum::{
    Json, Router,
    extract::Path,
    routing::{get, post},
};
use axum_session::{SessionConfig, SessionLayer, SessionStore};
use axum_session_redispool::SessionRedisPool;
use framework_peers::{Arguments, Failure, KEYS};
use redis_pool::SingleRedisPool;
use serde_json::{Map, Value};

type Session = axum_session::Session<SessionRedisPool>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::read();
    let pool = SingleRedisPool::from(redis::Client::open(arguments.redis())?);
    // By default a process keeps sessions in its memory, and hears of no logout elsewhere.
    let config = SessionConfig::default().with_memory_lifetime(time::Duration::ZERO);
    let store = SessionStore::new(Some(SessionRedisPool::from(pool)), config).await?;
    let app = Router::new()
        .route("/", get(keys))
        .route("/user", get(user))
        .route("/set/{key}/{*value}", post(set))
        .route("/remove/{key}", post(remove))
        .route("/login/{user}", post(login))
        .route("/logout", post(async |session: Session| session.destroy()))
        .route("/permanent/{value}", post(permanent))
        .layer(SessionLayer::new(store));
    let listener = tokio::net::TcpListener::from_std(arguments.listen()?)?;
    Ok(axum::serve(listener, app).await?)
}

async fn keys(session: Session) -> Json<Map<String, Value>> {
    let value = |key: &str| {
        session
            .get::<Value>(key)
            .map(|value| (key.to_owned(), value))
    };
    Json(KEYS.into_iter().filter_map(value).collect())
}

async fn user(session: Session) -> Json<Option<String>> {
    Json(session.get("user_id"))
}

async fn set(session: Session, Path((key, value)): Path<(String, String)>) {
    let value: Value = serde_json::from_str(&value).expect("JSON");
    session.set(&key, value);
}

async fn remove(session: Session, Path(key): Path<String>) {
    session.remove(&key);
}

async fn login(session: Session, Path(user): Path<String>) {
    session.renew();
    session.set("user_id", user);
}

async fn permanent(session: Session, Path(value): Path<bool>) {
    session.set_longterm(value);
}
