use std::time::Duration;

use axum_redis_sessions::{LocalCache, RedisSessionLayer};
use peers::{Failure, apps};

fn main() -> Result<(), Failure> {
    apps::run(async {
        let url = apps::redis_url()?;
        let mut cache = LocalCache::new();
        let mut layer = RedisSessionLayer::open(url)?;
        if std::env::var_os("UNDER_VALGRIND").is_some() {
            // Callgrind slows the app down about fifty times.
            layer = layer.with_deadline(Duration::from_secs(60));
            cache = cache.max_staleness(Duration::from_secs(50));
        }
        apps::serve(apps::this_crate::app(layer.with_local_cache(cache))).await
    })
}
