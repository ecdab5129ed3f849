use std::time::Duration;

use axum_redis_sessions::RedisSessionLayer;
use peers::{Failure, apps};

fn main() -> Result<(), Failure> {
    apps::run(async {
        let mut layer = layer(&apps::redis_url()?)?;
        if std::env::var_os("UNDER_VALGRIND").is_some() {
            // Callgrind slows the app down about fifty times.
            layer = layer.with_deadline(Duration::from_secs(60));
        }
        apps::serve(apps::this_crate::app(layer)).await
    })
}

/// Several URLs, separated by commas, are the nodes of a cluster.
fn layer(urls: &str) -> Result<RedisSessionLayer, Failure> {
    #[cfg(feature = "cluster")]
    if urls.contains(',') {
        let nodes: Vec<&str> = urls.split(',').filter(|url| !url.is_empty()).collect();
        return Ok(RedisSessionLayer::cluster(nodes)?);
    }
    Ok(RedisSessionLayer::new(redis::Client::open(urls)?))
}
