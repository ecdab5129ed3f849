use std::time::Duration;

use axum_redis_sessions::RedisSessionLayer;
use peers::{Failure, apps};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let client = redis::Client::open(apps::redis_url()?)?;
    let mut layer = RedisSessionLayer::new(client);
    if std::env::var_os("PATIENT").is_some() {
        // Callgrind is fifty times slower.
        layer = layer.with_deadline(Duration::from_secs(60));
    }
    apps::serve(apps::this_crate::app(layer)).await
}
