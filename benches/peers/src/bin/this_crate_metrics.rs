use std::time::Duration;

use axum_redis_sessions::RedisSessionLayer;
use peers::{Failure, apps};

fn main() -> Result<(), Failure> {
    apps::run(async {
        metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder()?;
        let mut layer = RedisSessionLayer::open(apps::redis_url()?)?;
        if std::env::var_os("UNDER_VALGRIND").is_some() {
            // Callgrind slows the app down about fifty times.
            layer = layer.with_deadline(Duration::from_secs(60));
        }
        apps::serve(apps::this_crate::app(layer)).await
    })
}
