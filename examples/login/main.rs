//! ```sh
//! cargo run --example login                                        # sessions in memory
//! REDIS_URL=redis://127.0.0.1/ cargo run --example login           # sessions in Redis
//! PORT=8080 cargo run --example login                              # another port than 3000
//! ```
//!
//! Sign up, sign in with a way back, list the user's devices, sign out on one device or on all others, and delete the account, which asks for
//! the password again. A page notices within a second that it was signed out elsewhere.
//!
//! Accounts are always in memory: replace `accounts.rs` with your database. A public application also needs a rate limit for
//! logins, a check against leaked passwords, and a password reset.

mod accounts;
mod device;
mod live;
mod pages;
mod request;

use std::{env, net::SocketAddr};

use axum::{
    Form, Router,
    extract::{DefaultBodyLimit, Query, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use axum_redis_sessions::{
    FlashLevel, FlashMessages, NextPath, RecentLogin, RedisSessionLayer, Session, SessionError,
    SessionHandle, SessionLimit, UserSession,
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
        .route("/delete-account", get(delete_page).post(delete_account))
        .route("/live", get(live::socket))
        .route("/live.js", get(live::script))
        .route("/sign-out", post(sign_out))
        .route("/sign-out-there", post(sign_out_there))
        .route("/sign-out-elsewhere", post(sign_out_elsewhere))
        .with_state(accounts)
        .layer(DefaultBodyLimit::max(16 * 1024))
        .layer(
            sessions
                .with_sessions_per_user(20, SessionLimit::RevokeOldest)
                .with_sign_in_page("/sign-in")
                .with_error_response(pages::unavailable),
        )
        // Outside of the sessions, so that a rejected request costs no Redis command. SameSite=Lax protects against posts from other
        // sites, but not from other hosts and ports of the same site.
        .layer(CsrfLayer::new().with_rejection_response(|_| pages::cross_site()))
        // After signing out, the back button must not show a page from the cache.
        .layer(always(header::CACHE_CONTROL, "no-store"))
        // No inline scripts, no content from other sites, and no framing (clickjacking).
        .layer(always(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ))
}

fn always(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value))
}

/// The list of the user's devices.
async fn home(
    SignedIn { user, sessions, .. }: SignedIn,
    FlashMessages(messages): FlashMessages,
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
    Ok(pages::home(&user, &devices, &messages).into_response())
}

#[derive(Deserialize)]
struct Credentials {
    name: String,
    password: String,
    /// Present if the box is checked, with any value.
    remember: Option<String>,
    /// The page that asked for the login: a path on this host, whatever the browser sends.
    #[serde(default)]
    next: NextPath,
}

#[derive(Deserialize)]
struct WayBack {
    #[serde(default)]
    next: NextPath,
}

async fn sign_up_page(FlashMessages(messages): FlashMessages) -> impl IntoResponse {
    pages::sign_up("", &messages, None)
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
            session.flash(FlashLevel::Success, format!("Welcome, {}.", user.name))?;
            Ok(Redirect::to("/").into_response())
        }
        Err(invalid) => {
            let page = pages::sign_up(&form.name, &[], Some(invalid));
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
    }
}

/// Also for a user who is signed in, but too long ago for a grave action.
async fn sign_in_page(
    State(accounts): State<Accounts>,
    session: Session,
    Query(WayBack { next }): Query<WayBack>,
    FlashMessages(messages): FlashMessages,
) -> impl IntoResponse {
    let user = session.user().and_then(|id| accounts.by_id(&id));
    let page = pages::SignIn {
        name: user.as_ref().map_or("", |user| &user.name),
        next: &next,
        is_confirmation: user.is_some() && next != NextPath::default(),
        is_wrong: false,
    };
    pages::sign_in(&page, &messages)
}

async fn sign_in(
    State(accounts): State<Accounts>,
    session: Session,
    device: Device,
    Form(form): Form<Credentials>,
) -> Result<Response, Failure> {
    let Some(user) = accounts.sign_in(&form.name, form.password).await? else {
        let page = pages::SignIn {
            name: &form.name,
            next: &form.next,
            is_confirmation: false,
            is_wrong: true,
        };
        let page = pages::sign_in(&page, &[]);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    };
    if session.user().as_ref() == Some(&user.id) {
        session.confirm_authentication();
    } else {
        log_in(&session, &user, &device, form.remember.is_some())?;
        session.flash(FlashLevel::Success, format!("Welcome back, {}.", user.name))?;
    }
    Ok(Redirect::to(form.next.as_str()).into_response())
}

/// How long ago a user may have signed in who deletes the account, in seconds.
const RECENT: u64 = 300;

/// Guarded like the deletion itself, so that the password is asked for before the form is shown.
async fn delete_page(_: RecentLogin<RECENT>, SignedIn { user, .. }: SignedIn) -> impl IntoResponse {
    pages::delete_account(&user)
}

async fn delete_account(
    State(accounts): State<Accounts>,
    _: RecentLogin<RECENT>,
    SignedIn {
        user,
        session,
        sessions,
    }: SignedIn,
) -> Result<Redirect, Failure> {
    accounts.delete(&user.id);
    sessions.revoke_all().await?;
    session.flash(FlashLevel::Info, "Your account is deleted.")?;
    Ok(Redirect::to("/sign-up"))
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
    session.flash(FlashLevel::Info, "You are signed out.")?;
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
    session.flash(FlashLevel::Success, message)?;
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
    session.flash(FlashLevel::Success, message)?;
    Ok(Redirect::to("/"))
}

fn device_of(session: &UserSession) -> Device {
    // An earlier version of this application may have stored another type, or nothing.
    let device = session.get(DEVICE).ok().flatten();
    device.unwrap_or_else(|| Device::new("", String::new()))
}

const DEVICE: &str = "device";
