//! Sign up, sign in, see where you are signed in, and sign out there.
//!
//! ```sh
//! cargo run --example login                                        # sessions in this process's memory
//! REDIS_URL=redis://127.0.0.1/ cargo run --example login           # sessions in Redis
//! PORT=8080 cargo run --example login                              # another port than 3000
//! ```
//!
//! Accounts are in this process's memory either way: put your database in place of `accounts.rs`. What else an app that faces the
//! world adds: a limit on tries, a list of passwords that are known to be stolen, and a way back in for those who forgot theirs.

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
    let (sessions, where_they_are) = match env::var("REDIS_URL") {
        Ok(url) => (
            RedisSessionLayer::new(redis::Client::open(url)?),
            "Sessions are kept in Redis, at REDIS_URL, and accounts in this process's memory: they end with it.",
        ),
        Err(_) => (
            RedisSessionLayer::in_memory(),
            "Accounts and sessions are kept in this process's memory and end with it. Set REDIS_URL to keep sessions in Redis.",
        ),
    };
    let port = match env::var("PORT") {
        Ok(port) => port.parse()?,
        Err(_) => 3000,
    };

    let app = app(sessions, Accounts::new()?);

    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("{where_they_are}");
    // By name, since Chromium, Firefox and curl keep a Secure cookie from http://localhost, as they do from HTTPS.
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
        // Further out than the sessions, so that what it refuses costs nothing. SameSite=Lax keeps the cookie from other sites'
        // posts, but not from those of the same site's other hosts and ports.
        .layer(CsrfLayer::new().with_rejection_response(|_| pages::from_elsewhere()))
        // No page may be shown again from a cache, by the back button for one, once its reader has signed out.
        .layer(always(header::CACHE_CONTROL, "no-store"))
        // No script, nothing from elsewhere, and no frame in which somebody could be made to press these buttons.
        .layer(always(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ))
}

fn always(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value))
}

/// Where the user is signed in.
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
            is_this: other.is_current(),
        })
        .collect();
    // This one first, and the others as they came: the newest first.
    devices.sort_by_key(|row| !row.is_this);
    let flash = take_flash(&session)?;
    Ok(pages::home(&user, &devices, flash).into_response())
}

#[derive(Deserialize)]
struct Credentials {
    name: String,
    password: String,
    /// What a browser sends for a box that is ticked is of no interest, only that it does.
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
            begin(&session, &user, &device, form.remember.is_some())?;
            flash(&session, format!("Welcome, {}.", user.name))?;
            Ok(Redirect::to("/").into_response())
        }
        Err(refused) => {
            let page = pages::sign_up(&form.name, None, Some(refused));
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
    begin(&session, &user, &device, form.remember.is_some())?;
    flash(&session, format!("Welcome back, {}.", user.name))?;
    Ok(Redirect::to("/").into_response())
}

fn begin(
    session: &Session,
    user: &User,
    device: &Device,
    remember: bool,
) -> Result<(), SessionError> {
    // What is there may be another person's, at a shared computer.
    session.clear();
    // Whoever knew the id so far has no part in what follows.
    session.cycle_id();
    session.set_user(&user.id)?;
    session.set_permanent(remember);
    session.insert(DEVICE, device)
}

async fn sign_out(session: Session) -> Result<Redirect, Failure> {
    session.destroy();
    // Begins another session, which ends once the page has shown it.
    flash(&session, "You are signed out.".to_owned())?;
    Ok(Redirect::to("/sign-in"))
}

#[derive(Deserialize)]
struct There {
    session: SessionHandle,
}

async fn sign_out_there(
    SignedIn {
        session, sessions, ..
    }: SignedIn,
    Form(There { session: there }): Form<There>,
) -> Result<Redirect, Failure> {
    // Only this user's sessions, whatever the form says.
    let devices = sessions.list().await?;
    let outcome = match devices.iter().find(|other| other.handle() == there) {
        Some(other) => {
            sessions.revoke(&there).await?;
            format!("Signed out: {}.", device_of(other).label)
        }
        None => "That device was signed out already.".to_owned(),
    };
    flash(&session, outcome)?;
    Ok(Redirect::to("/"))
}

async fn sign_out_elsewhere(
    SignedIn {
        session, sessions, ..
    }: SignedIn,
) -> Result<Redirect, Failure> {
    let ended = sessions.revoke_others().await?;
    let outcome = match ended {
        0 => "You were signed in nowhere else.".to_owned(),
        1 => "Signed out on 1 other device.".to_owned(),
        ended => format!("Signed out on {ended} other devices."),
    };
    flash(&session, outcome)?;
    Ok(Redirect::to("/"))
}

fn device_of(session: &UserSession) -> Device {
    // An earlier version of this app may have attached something else, or nothing.
    let device = session.get(DEVICE).ok().flatten();
    device.unwrap_or_else(|| Device::new("", String::new()))
}

/// A message for the next page, and for no other.
fn flash(session: &Session, message: String) -> Result<(), SessionError> {
    session.insert(FLASH, message)
}

fn take_flash(session: &Session) -> Result<Option<String>, SessionError> {
    session.take(FLASH)
}

const DEVICE: &str = "device";
const FLASH: &str = "flash";
