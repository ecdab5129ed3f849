//! Counts your visits in the master that Redis Sentinel names: two servers and three sentinels, on this machine.
//!
//! ```sh
//! mkdir -p target/sentinel && cd target/sentinel
//! redis-server --port 7101 --bind 127.0.0.1 --dbfilename 7101.rdb --daemonize yes
//! redis-server --port 7102 --bind 127.0.0.1 --dbfilename 7102.rdb --daemonize yes --replicaof 127.0.0.1 7101
//! for port in 7111 7112 7113; do
//!   printf 'port %s\nbind 127.0.0.1\nsentinel monitor sessions 127.0.0.1 7101 2\nsentinel down-after-milliseconds sessions 1000\n' \
//!     $port > $port.conf
//!   redis-server $port.conf --sentinel --daemonize yes
//! done
//! cd ../..
//! cargo run --example sentinel --features sentinel
//! ```
//!
//! Visit <http://localhost:3000>. Then kill the master, and reload:
//!
//! ```sh
//! redis-cli -p 7101 shutdown nosave                               # the sentinels agree on the other after a second
//! redis-cli -p 7111 sentinel get-master-addr-by-name sessions     # on whom
//! ```
//!
//! You are told 503 until the sentinels have agreed, and then your visits go on. Logging out at /log-out is told that no replica confirmed it,
//! until there is one again: start 7101 as before, and the sentinels make it the replica. To end it all:
//!
//! ```sh
//! for port in 7111 7112 7113 7101 7102; do redis-cli -p $port shutdown nosave; done; rm -r target/sentinel
//! ```

use std::{env, time::Duration};

use axum::{Router, routing::get};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionError};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = env::var("REDIS_MASTER").unwrap_or_else(|_| "sessions".to_owned());
    let sentinels = [
        "redis://127.0.0.1:7111/",
        "redis://127.0.0.1:7112/",
        "redis://127.0.0.1:7113/",
    ];
    // Credentials, database and TLS for the master go into the last address; Sentinel tells the host and port.
    let sessions = RedisSessionLayer::sentinel(name, sentinels, "redis://master/0")?
        // A logout that the replica has is not undone by a failover.
        .with_replica_acks(1, Duration::from_millis(100));

    let app = Router::new()
        .route("/", get(visits))
        .route("/log-out", get(log_out))
        .layer(sessions.clone());
    let port = match env::var("PORT") {
        Ok(port) => port.parse()?,
        Err(_) => 3000,
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://localhost:{port}");
    axum::serve(listener, app)
        .with_graceful_shutdown(async {
            let _ = tokio::signal::ctrl_c().await;
        })
        .await?;
    // What browsers did not wait for.
    sessions.drain().await;
    Ok(())
}

async fn visits(session: Session) -> Result<String, SessionError> {
    let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    Ok(format!("visit {visits}\n"))
}

async fn log_out(session: Session) -> &'static str {
    session.destroy();
    "goodbye\n"
}
