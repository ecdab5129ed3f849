//! Counts your visits in a Redis Cluster of three masters and three replicas, on this machine.
//!
//! ```sh
//! for port in 7001 7002 7003 7004 7005 7006; do
//!   mkdir -p target/cluster/$port
//!   redis-server --port $port --bind 127.0.0.1 --dir target/cluster/$port --daemonize yes \
//!     --cluster-enabled yes --cluster-node-timeout 2000 --cluster-require-full-coverage no
//! done
//! redis-cli --cluster create 127.0.0.1:700{1,2,3,4,5,6} --cluster-replicas 1 --cluster-yes
//! cargo run --example cluster --features cluster
//! ```
//!
//! Visit <http://localhost:3000> in a few browsers, so that there are sessions in several slots. Then kill a master, and reload:
//!
//! ```sh
//! redis-cli -p 7001 shutdown nosave                  # the others elect its replica after two seconds
//! redis-cli -p 7002 cluster nodes                    # who is who now
//! ```
//!
//! The browsers whose sessions are elsewhere notice nothing. The others are told 503 until the replica has taken over, and then their
//! visits go on. Logging out at /log-out is told there that no replica confirmed it, until 7001 is started again, as before, and becomes one. To
//! end it all:
//!
//! ```sh
//! for port in 7001 7002 7003 7004 7005 7006; do redis-cli -p $port shutdown nosave; done; rm -r target/cluster
//! ```

use std::{env, time::Duration};

use axum::{Router, routing::get};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionError};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Whom to ask first. The cluster tells the rest.
    let nodes = env::var("REDIS_NODES").unwrap_or_else(|_| {
        "redis://127.0.0.1:7001/,redis://127.0.0.1:7002/,redis://127.0.0.1:7003/".to_owned()
    });
    let sessions = RedisSessionLayer::cluster(nodes.split(','))?
        // A logout that a replica has is not undone when its master dies.
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
