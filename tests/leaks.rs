//! Cancelled requests leak no tasks and no memory. A process of its own, since its memory is measured.

#![cfg(feature = "axum")]

#[path = "support/client.rs"]
mod client;
mod support;
#[path = "support/visits.rs"]
mod visits;

use axum_redis_sessions::RedisSessionLayer;

use crate::{
    client::{begin, polled, send, text},
    support::{eventually, server::Server},
    visits::{PATIENT, app},
};

#[tokio::test]
async fn cancelled_requests_leak_no_task_and_no_memory() {
    let server = Server::start().await;
    let app = app(RedisSessionLayer::new(server.client()).with_deadline(PATIENT));
    let cookie = begin(&app, "/keep/name/own").await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let cancel = async |requests: u32| {
        let mut cancelled = 0;
        for request in 0..requests {
            let path = if request % 4 == 0 { "/" } else { "/kept/name" };
            // Cancel while a load waits for its reply, or during the save.
            let times = 1 + request % 4 / 3;
            let exchange = send(&app, path, Some(&cookie));
            cancelled += u32::from(polled(exchange, times).await.is_none());
            if request % 100 == 0 {
                // A request that waits for its reply still works.
                assert_eq!(
                    text(send(&app, "/kept/name", Some(&cookie)).await).await,
                    "own"
                );
            }
        }
        cancelled
    };
    cancel(20_000).await;
    eventually(PATIENT, async || tasks() <= 2).await;
    let before = (tasks(), resident());
    let cancelled = cancel(100_000).await;
    eventually(PATIENT, async || tasks() <= before.0).await;
    let grown = resident().saturating_sub(before.1);
    println!(
        "{cancelled} cancelled, {} tasks alive, {grown} bytes more",
        tasks()
    );
    assert!(cancelled > 60_000, "{cancelled}");
    assert!(grown < 4 << 20, "{grown} bytes more than {}", before.1);
}

/// Resident bytes of this process; 0 where there is no /proc.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    resident.unwrap_or(0) * 4096
}
