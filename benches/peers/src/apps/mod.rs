//! The same app, with each kind of sessions.

pub mod actix_session;
pub mod axum_session;
pub mod by_hand;
pub mod this_crate;
pub mod tower_sessions;

use std::env;

use axum::Router;

use crate::Failure;

/// The URL of the Redis that an app was started with.
pub fn redis_url() -> Result<String, Failure> {
    env::args().nth(1).ok_or_else(|| "the server's URL?".into())
}

/// Serves until the process is ended, and says on which address.
pub async fn serve(app: Router) -> Result<(), Failure> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        drop(stream.set_nodelay(true));
    });
    axum::serve(listener, app).await?;
    Ok(())
}

pub async fn nothing() -> &'static str {
    "0"
}
