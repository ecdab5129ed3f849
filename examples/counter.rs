//! ```sh
//! cargo run --example counter                                      # sessions in memory
//! REDIS_URL=redis://127.0.0.1/ cargo run --example counter         # sessions in Redis
//! PORT=8080 cargo run --example counter                            # another port than 3000
//! ```
//!
//! Counts the visits of each browser to one page, until its "Reset" button is pressed.

use std::env;

use axum::{
    Router,
    response::{Html, Redirect},
    routing::{get, post},
};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionError};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (sessions, store) = match env::var("REDIS_URL") {
        Ok(url) => (
            RedisSessionLayer::open(url)?,
            "Sessions are stored in Redis, at REDIS_URL.",
        ),
        Err(_) => (
            RedisSessionLayer::in_memory(),
            "Sessions are stored in memory and end with this process. Set REDIS_URL to store them in Redis.",
        ),
    };
    let port = match env::var("PORT") {
        Ok(port) => port.parse()?,
        Err(_) => 3000,
    };

    let app = Router::new()
        .route("/", get(visits))
        .route("/reset", post(reset))
        .layer(sessions);

    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("{store}");
    // Not 127.0.0.1: Chromium, Firefox and curl accept a Secure cookie over plain HTTP only from `localhost`.
    println!(
        "Listening on http://localhost:{}",
        listener.local_addr()?.port()
    );
    axum::serve(listener, app).await?;
    Ok(())
}

async fn visits(session: Session) -> Result<Html<String>, SessionError> {
    let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    Ok(Html(PAGE.replace("{visits}", &visits.to_string())))
}

async fn reset(session: Session) -> Redirect {
    session.destroy();
    Redirect::to("/")
}

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Counter</title>
<style>
  body { font: 1.125rem/1.5 system-ui, sans-serif; margin: 20vh auto; max-width: 24rem; text-align: center; color: #222 }
  strong { display: block; font-size: 5rem; line-height: 1.2 }
  button { font: inherit; padding: .4rem 1.2rem; border: 1px solid #999; border-radius: .4rem; background: #f6f6f6; cursor: pointer }
</style>
<p>Your visits to this page<strong id="visits">{visits}</strong></p>
<form method="post" action="/reset"><button>Reset</button></form>
</html>
"#;
