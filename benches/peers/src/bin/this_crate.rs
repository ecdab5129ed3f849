use std::time::Duration;

use axum_redis_sessions::RedisSessionLayer;
use peers::{Failure, apps};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut layer = layer(&apps::redis_url()?)?;
    if std::env::var_os("PATIENT").is_some() {
        // Callgrind is fifty times slower.
        layer = layer.with_deadline(Duration::from_secs(60));
    }
    apps::serve(apps::this_crate::app(layer)).await
}

/// Several URLs, with commas between them, are a cluster.
fn layer(urls: &str) -> Result<RedisSessionLayer, Failure> {
    #[cfg(feature = "cluster")]
    if urls.contains(',') {
        let nodes: Vec<&str> = urls.split(',').filter(|url| !url.is_empty()).collect();
        return Ok(RedisSessionLayer::cluster(nodes)?);
    }
    Ok(RedisSessionLayer::new(redis::Client::open(urls)?))
}
