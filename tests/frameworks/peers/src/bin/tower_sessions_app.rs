//! tower-sessions with its Redis store, as its users write it. Its variants differ in the cookie.

use axum::{
    Json, Router,
    extract::Path,
    http::StatusCode,
    routing::{get, post},
};
use framework_peers::{Arguments, Failure, KEY, KEYS};
use serde_json::{Map, Value};
use tower_sessions::{Expiry, Session, SessionManagerLayer, cookie::Key, cookie::time::Duration};
use tower_sessions_redis_store::{
    RedisStore,
    fred::{clients::Pool, interfaces::ClientLike, types::config::Config},
};

type Result<T> = std::result::Result<T, StatusCode>;

#[tokio::main]
async fn main() -> std::result::Result<(), Failure> {
    let arguments = Arguments::read();
    let pool = Pool::new(Config::from_url(arguments.redis())?, None, None, None, 1)?;
    pool.connect();
    pool.wait_for_connect().await?;
    let expiry = Expiry::OnInactivity(Duration::days(1));
    let layer = SessionManagerLayer::new(RedisStore::new(pool)).with_expiry(expiry);
    let app = Router::new()
        .route("/", get(keys))
        .route("/user", get(user))
        .route("/set/{key}/{*value}", post(set))
        .route("/remove/{key}", post(remove))
        .route("/login/{user}", post(login))
        .route("/logout", post(logout))
        .route("/permanent/{value}", post(async || ()));
    let app = match arguments.variant() {
        "plain" => app.layer(layer),
        "signed" => app.layer(layer.with_signed(Key::from(&KEY))),
        "private" => app.layer(layer.with_private(Key::from(&KEY))),
        other => return Err(format!("{other} is no variant").into()),
    };
    let listener = tokio::net::TcpListener::from_std(arguments.listen()?)?;
    Ok(axum::serve(listener, app).await?)
}

async fn keys(session: Session) -> Result<Json<Map<String, Value>>> {
    let mut keys = Map::new();
    for key in KEYS {
        if let Some(value) = session.get_value(key).await.map_err(failed)? {
            keys.insert(key.to_owned(), value);
        }
    }
    Ok(Json(keys))
}

async fn user(session: Session) -> Result<Json<Option<String>>> {
    session.get("user_id").await.map(Json).map_err(failed)
}

async fn set(session: Session, Path((key, value)): Path<(String, String)>) -> Result<()> {
    let value = serde_json::from_str(&value).map_err(|_| StatusCode::BAD_REQUEST)?;
    session.insert_value(&key, value).await.map_err(failed)?;
    Ok(())
}

async fn remove(session: Session, Path(key): Path<String>) -> Result<()> {
    session.remove_value(&key).await.map_err(failed)?;
    Ok(())
}

async fn login(session: Session, Path(user): Path<String>) -> Result<()> {
    session.cycle_id().await.map_err(failed)?;
    session.insert("user_id", user).await.map_err(failed)
}

async fn logout(session: Session) -> Result<()> {
    session.flush().await.map_err(failed)
}

fn failed(error: tower_sessions::session::Error) -> StatusCode {
    eprintln!("{error}");
    StatusCode::INTERNAL_SERVER_ERROR
}
