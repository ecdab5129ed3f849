//! What the integration tests stand on: real servers, a real browser's cookie jar, an app on a real socket.
//!
//! `REDIS_SERVER` names the server's binary, so that the whole suite runs on Valkey as well.

// Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod app;
pub mod browser;
pub mod server;

use std::time::{Duration, Instant};

/// Polls until `holds`; panics when it does not by the deadline.
pub async fn eventually<F: Future<Output = bool>>(
    deadline: Duration,
    mut holds: impl FnMut() -> F,
) {
    let end = Instant::now() + deadline;
    while !holds().await {
        assert!(
            Instant::now() < end,
            "did not come true within {deadline:?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
