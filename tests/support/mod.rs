//! Support for the integration tests: real servers, a browser's cookie jar, an app on a real socket.
//!
//! `REDIS_SERVER` names the server's binary, so that the whole suite runs on Valkey as well: `REDIS_SERVER=valkey-server cargo
//! test`. `tests/run.sh` runs it once on each.

// Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod app;
pub mod browser;
pub mod cluster;
pub mod command_proxy;
pub mod load;
pub mod log;
pub mod monitor;
pub mod proxy;
pub mod secrets;
pub mod sentinels;
pub mod server;
pub mod tls;

use std::{
    panic::Location,
    time::{Duration, Instant},
};

/// How long anything may take on a busy machine before it is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until `holds` is true; panics if it is not by the deadline.
// Not an `async fn`, whose panic could not name the caller.
#[track_caller]
pub fn eventually<F: Future<Output = bool>>(
    deadline: Duration,
    mut holds: impl FnMut() -> F,
) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let end = Instant::now() + deadline;
        while !holds().await {
            assert!(
                Instant::now() < end,
                "{caller}: did not come true within {deadline:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
