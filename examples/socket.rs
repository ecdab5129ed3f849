//! ```sh
//! cargo run --example socket                                       # sessions in memory
//! REDIS_URL=redis://127.0.0.1/ cargo run --example socket          # sessions in Redis
//! ```
//!
//! A WebSocket that closes within a second of "sign out everywhere", on whichever server that was pressed. Open http://localhost:3000 in two
//! tabs.

use std::{env, time::Duration};

use axum::{
    Router,
    extract::{
        WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket},
    },
    http::StatusCode,
    response::{Html, IntoResponse, Redirect, Response},
    routing::{any, get, post},
};
use axum_redis_sessions::{ErrorKind, RedisSessionLayer, Session, SessionError};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How soon a socket notices that its session has ended. Each check is one GET.
const CHECK: Duration = Duration::from_millis(500);
/// A user who does something keeps the session alive; one touch in this time is enough.
const TOUCH: Duration = Duration::from_secs(60);
/// RFC 6455, section 7.4.2: codes from 4000 on are the app's.
const SIGNED_OUT: u16 = 4001;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sessions = match env::var("REDIS_URL") {
        Ok(url) => RedisSessionLayer::open(url)?,
        Err(_) => RedisSessionLayer::in_memory(),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("Listening on http://localhost:3000");
    axum::serve(listener, app(sessions)).await?;
    Ok(())
}

pub(crate) fn app(sessions: RedisSessionLayer) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/sign-in", post(sign_in))
        .route("/sign-out-everywhere", post(sign_out_everywhere))
        .route("/socket", any(socket))
        .layer(sessions)
}

async fn page(session: Session) -> Html<&'static str> {
    Html(match session.user() {
        Some(_) => PAGE,
        None => "<form method=post action=/sign-in><button>Sign in</button></form>",
    })
}

async fn sign_in(session: Session) -> Result<Redirect, SessionError> {
    // A real app checks a password here: see examples/login.
    session.log_in("42")?;
    Ok(Redirect::to("/"))
}

async fn sign_out_everywhere(session: Session) -> Result<Redirect, SessionError> {
    if let Some(sessions) = session.user_sessions() {
        sessions.revoke_all().await?;
    }
    Ok(Redirect::to("/"))
}

/// A browser lets pages of other sites open sockets to this one. SameSite=Lax keeps the cookie from them.
async fn socket(upgrade: WebSocketUpgrade, session: Session) -> Response {
    if session.user().is_none() {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    upgrade.on_upgrade(|socket| serve(socket, session))
}

async fn serve(mut socket: WebSocket, session: Session) {
    let mut check = interval(CHECK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut touched = Instant::now();
    loop {
        let alive = tokio::select! {
            message = socket.recv() => {
                match message {
                    Some(Ok(Message::Text(text))) => {
                        if socket.send(Message::Text(text)).await.is_err() {
                            return;
                        }
                    }
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => return,
                }
                if touched.elapsed() < TOUCH {
                    continue;
                }
                touched = Instant::now();
                session.touch().await
            }
            _ = check.tick() => session.reload().await,
        };
        match alive {
            Err(error) if error.kind() == ErrorKind::Ended => break,
            // In an outage of Redis the socket stays open, and the next check decides.
            Ok(()) | Err(_) => {}
        }
    }
    let signed_out = CloseFrame {
        code: SIGNED_OUT,
        reason: "signed out".into(),
    };
    // The client may be gone already.
    let _ = socket.send(Message::Close(Some(signed_out))).await;
}

const PAGE: &str = r#"<p id=state>connecting</p>
<form method=post action=/sign-out-everywhere><button>Sign out everywhere</button></form>
<script>
  const socket = new WebSocket(`ws://${location.host}/socket`);
  socket.onopen = () => { document.getElementById("state").textContent = "connected"; };
  socket.onclose = ({ code }) => {
    if (code === 4001) location.reload();
    else document.getElementById("state").textContent = "disconnected";
  };
</script>"#;
