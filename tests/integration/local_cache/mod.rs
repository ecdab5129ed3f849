//! The local cache, on real servers.

mod commands;
mod deployments;
mod interplay;
mod latency;
mod outage;
mod rules;
mod stress;

use std::time::Duration;

use axum::Router;
use axum_redis_sessions::{LocalCache, RedisSessionLayer};

use crate::{
    support::{
        app::{self, Address},
        browser::Browser,
        eventually,
    },
    visits,
};

/// Far more than an invalidation takes.
const SOON: Duration = Duration::from_secs(10);

/// One of several servers of an app.
struct Node {
    layer: RedisSessionLayer,
    app: Address,
}

impl Node {
    async fn new(client: redis::Client) -> Self {
        Self::of(layer(client)).await
    }

    async fn of(layer: RedisSessionLayer) -> Self {
        Self::serving(layer, visits::routes()).await
    }

    async fn serving(layer: RedisSessionLayer, routes: Router) -> Self {
        let app = app::serve(routes.layer(layer.clone())).await;
        let node = Self { layer, app };
        // Opens the connection: what is read before is not cached.
        Browser::new().get(node.url("/")).await;
        node
    }

    fn url(&self, path: &str) -> String {
        self.app.url(path)
    }

    fn stats(&self) -> axum_redis_sessions::CacheStats {
        self.layer.cache_stats().expect("a cache")
    }

    /// Loads the session until that comes from the cache.
    async fn warm(&self, browser: &Browser) {
        eventually(SOON, || async {
            let before = self.stats().hits;
            browser.get(self.url("/visits")).await;
            self.stats().hits > before
        })
        .await;
    }

    /// The browser's cookie is that of the other node: both are 127.0.0.1.
    async fn body(&self, browser: &Browser, path: &str) -> String {
        let page = browser.get(self.url(path)).await;
        assert_eq!(page.status, 200, "{}", page.body);
        page.body
    }
}

/// With a deadline and a staleness that a busy machine keeps.
fn layer(client: redis::Client) -> RedisSessionLayer {
    RedisSessionLayer::new(client)
        .with_deadline(visits::PATIENT)
        .with_local_cache(LocalCache::new().max_staleness(Duration::from_secs(20)))
}
