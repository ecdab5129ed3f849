//! A page that notices within a second that its session was ended elsewhere.

use std::time::Duration;

use axum::{
    extract::{
        WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket},
    },
    http::header,
    response::{IntoResponse, Response},
};
use axum_redis_sessions::{ErrorKind, LoggedIn, Session};

/// Each check is one GET.
const CHECK: Duration = Duration::from_millis(500);
/// RFC 6455, section 7.4.2: codes from 4000 on are the app's.
const SIGNED_OUT: u16 = 4001;

/// SameSite=Lax keeps the cookie from sockets that other sites open.
pub(crate) async fn socket(_: LoggedIn, session: Session, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|socket| serve(socket, session))
}

async fn serve(mut socket: WebSocket, session: Session) {
    let mut check = tokio::time::interval(CHECK);
    loop {
        tokio::select! {
            message = socket.recv() => match message {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
            _ = check.tick() => match session.reload().await {
                Err(error) if error.kind() == ErrorKind::Ended => break,
                // In an outage the socket stays open, and the next check decides.
                Ok(()) | Err(_) => {}
            },
        }
    }
    let signed_out = CloseFrame {
        code: SIGNED_OUT,
        reason: "signed out".into(),
    };
    // The client may be gone already.
    let _ = socket.send(Message::Close(Some(signed_out))).await;
}

pub(crate) async fn script() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript")], SCRIPT)
}

/// After a new id the server closes the socket as well; the page that is loaded then opens another one.
const SCRIPT: &str = r#"
const scheme = location.protocol === "https:" ? "wss" : "ws";
const socket = new WebSocket(`${scheme}://${location.host}/live`);
socket.onclose = ({ code }) => { if (code === 4001) location.reload(); };
// A form of this page leads elsewhere by itself, and a reload would cancel that.
addEventListener("submit", () => { socket.onclose = null; });
"#;
