use std::time::Duration;

use axum_redis_sessions::RedisSessionLayer;
use peers::{Failure, apps};

fn main() -> Result<(), Failure> {
    apps::run(async {
        let mut layer = RedisSessionLayer::open(apps::redis_url()?)?
            .with_encryption_keys(["a key of this benchmark, not for use"]);
        if std::env::var_os("UNDER_VALGRIND").is_some() {
            // Callgrind slows the app down about fifty times.
            layer = layer.with_deadline(Duration::from_secs(60));
        }
        apps::serve(apps::this_crate::app(layer)).await
    })
}
