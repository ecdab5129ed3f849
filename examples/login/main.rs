//! ```sh
//! cargo run --example login                                        # sessions in memory
//! REDIS_URL=redis://127.0.0.1/ cargo run --example login           # sessions in Redis
//! PORT=8080 cargo run --example login                              # another port than 3000
//! ```
//!
//! Sign up, sign in, list the user's devices, and sign out on one device or on all others.
//!
//! Accounts are always in memory: replace `accounts.rs` with your database. A public application also needs a rate limit for
//! logins, a check against leaked passwords, and a password reset.

mod accounts;
mod device;
mod pages;
mod request;

use std::{env, net::SocketAddr};

use axum::{
    Form, Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use axum_redis_sessions::{
    RedisSessionLayer, Session, SessionError, SessionHandle, SessionLimit, UserSession,
};
use serde::Deserialize;
use tower_http::{csrf::CsrfLayer, set_header::SetResponseHeaderLayer};

use crate::{
    accounts::{Accounts, User},
    device::Device,
    request::{Failure, SignedIn},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (sessions, store) = match env::var("REDIS_URL") {
        Ok(url) => (
            RedisSessionLayer::open(url)?,
            "Sessions are stored in Redis, at REDIS_URL. Accounts are stored in memory and end with this process.",
        ),
        Err(_) => (
            RedisSessionLayer::in_memory(),
            "Sessions and accounts are stored in memory and end with this process. Set REDIS_URL to store sessions in Redis.",
        ),
    };
    let port = match env::var("PORT") {
        Ok(port) => port.parse()?,
        Err(_) => 3000,
    };

    let app = app(sessions, Accounts::new()?);

    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("{store}");
    // Not 127.0.0.1: Chromium, Firefox and curl accept a Secure cookie over plain HTTP only from `localhost`.
    println!(
        "Listening on http://localhost:{}",
        listener.local_addr()?.port()
    );
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, app).await?;
    Ok(())
}

fn app(sessions: RedisSessionLayer, accounts: Accounts) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/sign-up", get(sign_up_page).post(sign_up))
        .route("/sign-in", get(sign_in_page).post(sign_in))
        .route("/sign-out", post(sign_out))
        .route("/sign-out-there", post(sign_out_there))
        .route("/sign-out-elsewhere", post(sign_out_elsewhere))
        .with_state(accounts)
        .layer(DefaultBodyLimit::max(16 * 1024))
        .layer(
            sessions
                .with_sessions_per_user(20, SessionLimit::RevokeOldest)
                .with_error_response(pages::unavailable),
        )
        // Outside of the sessions, so that a rejected request costs no Redis command. SameSite=Lax protects against posts from other
        // sites, but not from other hosts and ports of the same site.
        .layer(CsrfLayer::new().with_rejection_response(|_| pages::cross_site()))
        // After signing out, the back button must not show a page from the cache.
        .layer(always(header::CACHE_CONTROL, "no-store"))
        // No scripts, no content from other sites, and no framing (clickjacking).
        .layer(always(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ))
}

fn always(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value))
}

/// The list of the user's devices.
async fn home(
    SignedIn {
        user,
        session,
        sessions,
    }: SignedIn,
) -> Result<Response, Failure> {
    let devices = sessions.list().await?;
    let mut devices: Vec<_> = devices
        .iter()
        .map(|other| pages::Row {
            device: device_of(other),
            handle: other.handle().to_string(),
            created: other.created(),
            last_seen: other.last_seen(),
            is_current: other.is_current(),
        })
        .collect();
    // The current device first, then the others, newest first.
    devices.sort_by_key(|row| !row.is_current);
    let flash = take_flash(&session)?;
    Ok(pages::home(&user, &devices, flash).into_response())
}

#[derive(Deserialize)]
struct Credentials {
    name: String,
    password: String,
    /// Present if the box is checked, with any value.
    remember: Option<String>,
}

async fn sign_up_page(session: Session) -> Result<Response, Failure> {
    Ok(pages::sign_up("", take_flash(&session)?, None).into_response())
}

async fn sign_up(
    State(accounts): State<Accounts>,
    session: Session,
    device: Device,
    Form(form): Form<Credentials>,
) -> Result<Response, Failure> {
    match accounts.sign_up(&form.name, form.password).await? {
        Ok(user) => {
            log_in(&session, &user, &device, form.remember.is_some())?;
            flash(&session, format!("Welcome, {}.", user.name))?;
            Ok(Redirect::to("/").into_response())
        }
        Err(invalid) => {
            let page = pages::sign_up(&form.name, None, Some(invalid));
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
    }
}

async fn sign_in_page(session: Session) -> Result<Response, Failure> {
    Ok(pages::sign_in("", take_flash(&session)?, false).into_response())
}

async fn sign_in(
    State(accounts): State<Accounts>,
    session: Session,
    device: Device,
    Form(form): Form<Credentials>,
) -> Result<Response, Failure> {
    let Some(user) = accounts.sign_in(&form.name, form.password).await? else {
        let page = pages::sign_in(&form.name, None, true);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    };
    log_in(&session, &user, &device, form.remember.is_some())?;
    flash(&session, format!("Welcome back, {}.", user.name))?;
    Ok(Redirect::to("/").into_response())
}

fn log_in(
    session: &Session,
    user: &User,
    device: &Device,
    remember: bool,
) -> Result<(), SessionError> {
    // The session may hold another person's data, on a shared computer.
    session.clear();
    session.log_in(&user.id)?;
    session.set_permanent(remember);
    session.insert(DEVICE, device)
}

async fn sign_out(session: Session) -> Result<Redirect, Failure> {
    session.destroy();
    // Starts a new session, which ends when the next page has taken the message.
    flash(&session, "You are signed out.".to_owned())?;
    Ok(Redirect::to("/sign-in"))
}

#[derive(Deserialize)]
struct OtherDevice {
    session: SessionHandle,
}

async fn sign_out_there(
    SignedIn {
        session, sessions, ..
    }: SignedIn,
    Form(OtherDevice { session: handle }): Form<OtherDevice>,
) -> Result<Redirect, Failure> {
    // `sessions` is bound to this user, so a handle of another user's session is not found.
    let devices = sessions.list().await?;
    let message = match devices.iter().find(|other| other.handle() == handle) {
        Some(other) => {
            sessions.revoke(&handle).await?;
            format!("Signed out: {}.", device_of(other).label)
        }
        None => "That device was signed out already.".to_owned(),
    };
    flash(&session, message)?;
    Ok(Redirect::to("/"))
}

async fn sign_out_elsewhere(
    SignedIn {
        session, sessions, ..
    }: SignedIn,
) -> Result<Redirect, Failure> {
    let message = match sessions.revoke_others().await? {
        0 => "You were signed in nowhere else.".to_owned(),
        1 => "Signed out on 1 other device.".to_owned(),
        revoked => format!("Signed out on {revoked} other devices."),
    };
    flash(&session, message)?;
    Ok(Redirect::to("/"))
}

fn device_of(session: &UserSession) -> Device {
    // An earlier version of this application may have stored another type, or nothing.
    let device = session.get(DEVICE).ok().flatten();
    device.unwrap_or_else(|| Device::new("", String::new()))
}

/// Stores a message for the next page only.
fn flash(session: &Session, message: String) -> Result<(), SessionError> {
    session.insert(FLASH, message)
}

fn take_flash(session: &Session) -> Result<Option<String>, SessionError> {
    session.take(FLASH)
}

const DEVICE: &str = "device";
const FLASH: &str = "flash";
