//! Users who log in on several devices.

#[cfg(feature = "cluster")]
mod cluster;
mod concurrency;
mod index;
mod limit;
mod list;
mod races;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    extract::{Path, Query},
    http::StatusCode,
    routing::get,
};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionError, UserSessions, Users};
use serde::Deserialize;

use crate::{
    client::{pair, send, set_cookie, text},
    visits::visits,
};

#[derive(Deserialize)]
struct Login {
    user: String,
    /// "Remember me".
    #[serde(default)]
    permanent: bool,
}

async fn log_in(
    session: Session,
    Path(device): Path<String>,
    Query(login): Query<Login>,
) -> Result<(), SessionError> {
    session.cycle_id();
    session.set_user(login.user)?;
    session.set_permanent(login.permanent);
    session.insert("device", device)
}

async fn look(session: Session) -> Result<String, SessionError> {
    let device: Option<String> = session.get("device")?;
    Ok(format!(
        "{} on {}",
        session.user().as_deref().unwrap_or("nobody"),
        device.as_deref().unwrap_or("nothing")
    ))
}

async fn log_out_elsewhere(session: Session) -> Result<String, SessionError> {
    let sessions = session.user_sessions().expect("a user");
    Ok(sessions.revoke_others().await?.to_string())
}

pub fn app(layer: &RedisSessionLayer) -> Router {
    Router::new()
        .route("/log-in/{device}", get(log_in))
        .route("/look", get(look))
        .route("/visit", get(visits))
        .route(
            "/rotate",
            get(|session: Session| async move { session.cycle_id() }),
        )
        .route(
            "/clear",
            get(|session: Session| async move { session.clear() }),
        )
        .route(
            "/remove-user",
            get(|session: Session| async move { session.remove_user() }),
        )
        .route(
            "/log-out",
            get(|session: Session| async move { session.destroy() }),
        )
        .route("/log-out-elsewhere", get(log_out_elsewhere))
        .route(
            "/handle",
            get(|session: Session| async move {
                session
                    .handle()
                    .map(|handle| handle.to_string())
                    .unwrap_or_default()
            }),
        )
        .layer(layer.clone())
}

/// A browser with one cookie, which clones share.
#[derive(Clone)]
pub struct Device {
    app: Router,
    cookie: Arc<Mutex<Option<String>>>,
}

impl Device {
    pub fn new(app: &Router) -> Self {
        Self {
            app: app.clone(),
            cookie: Arc::default(),
        }
    }

    /// A device on which `user` has logged in.
    pub async fn of(app: &Router, user: &str, name: &str) -> Self {
        let device = Self::new(app);
        assert_eq!(device.log_in(user, name).await, StatusCode::OK);
        device
    }

    pub async fn log_in(&self, user: &str, name: &str) -> StatusCode {
        let user = percent_encoded(user);
        self.get(&format!("/log-in/{name}?user={user}")).await.0
    }

    pub async fn look(&self) -> String {
        self.text("/look").await
    }

    pub async fn text(&self, path: &str) -> String {
        let (status, text) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        text
    }

    pub async fn get(&self, path: &str) -> (StatusCode, String) {
        self.get_at(&self.app, path).await
    }

    /// The same on another node.
    pub async fn get_at(&self, app: &Router, path: &str) -> (StatusCode, String) {
        let response = send(app, path, self.cookie().as_deref()).await;
        if let Some(line) = set_cookie(&response) {
            let pair = pair(&line);
            let is_removal = pair.ends_with('=');
            *self.cookie.lock().expect("never poisoned") = (!is_removal).then(|| pair.to_owned());
        }
        (response.status(), text(response).await)
    }

    pub fn cookie(&self) -> Option<String> {
        self.cookie.lock().expect("never poisoned").clone()
    }

    pub fn id(&self) -> String {
        let cookie = self.cookie().expect("a session");
        cookie.split_once('=').expect("a cookie").1.to_owned()
    }
}

/// The sessions of a user.
pub fn of(users: &Users, user: &str) -> UserSessions {
    users.of(user).expect("not empty")
}

/// The devices of `user`'s sessions, in the order of the list.
pub async fn devices(users: &Users, user: &str) -> Vec<String> {
    let listed = of(users, user).list().await.expect("listed");
    let name = |session: &axum_redis_sessions::UserSession| {
        let device = session.get::<String>("device").expect("text");
        device.unwrap_or_else(|| "?".to_owned())
    };
    listed.iter().map(name).collect()
}

/// The same, sorted by name.
pub async fn sorted_devices(users: &Users, user: &str) -> Vec<String> {
    let mut devices = devices(users, user).await;
    devices.sort();
    devices
}

/// Waits for the next millisecond, so that times differ.
pub async fn next_moment() {
    pass(|time| time.as_millis()).await;
}

/// Waits for the next second.
pub async fn next_second() {
    pass(|time| u128::from(time.as_secs())).await;
}

async fn pass(unit: impl Fn(Duration) -> u128) {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH);
    let now = || unit(now().expect("after 1970"));
    let start = now();
    while now() == start {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A user's name for a query string.
fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
