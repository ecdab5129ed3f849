//! How long an ended session is still read on another node. `LOGOUTS` is their number, 100 by default; `src/docs/performance.md` has the figures
//! of 10,000.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use axum_redis_sessions::{LazySession, LocalCache, RedisSessionLayer};
use http::{Request, Response, header};
use tower::{Layer, ServiceExt, service_fn};

use super::SOON;
use crate::support::server::Server;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Begin,
    Read,
    Save,
    End,
}

/// The value of the cookie that it sets, and what was read.
async fn request(
    layer: &RedisSessionLayer,
    id: Option<&str>,
    action: Action,
) -> (Option<String>, String) {
    let service = layer.layer(service_fn(move |request: Request<()>| async move {
        let lazy = LazySession::from_extensions(request.extensions()).expect("a layer");
        let session = lazy.load().await.expect("a session");
        let read = session.get::<String>("name").expect("a text");
        match action {
            Action::Begin => session.insert("name", "Zoë").expect("a text"),
            Action::Save => drop(session.update("n", |n: Option<u64>| n.unwrap_or(0) + 1)),
            Action::End => session.destroy(),
            Action::Read => {}
        }
        Ok::<_, Infallible>(Response::new(read.unwrap_or_default()))
    }));
    let mut request = Request::new(());
    if let Some(id) = id {
        let cookie = format!("__Host-session={id}")
            .parse()
            .expect("a header value");
        request.headers_mut().insert(header::COOKIE, cookie);
    }
    let Ok(response) = service.oneshot(request).await;
    let line = response.headers().get(header::SET_COOKIE);
    let value = line.and_then(|line| {
        let value = line.to_str().ok()?.split(';').next()?.split_once('=')?.1;
        Some(value.to_owned())
    });
    (value, response.into_body())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_takes_effect_on_the_other_node() {
    let logouts = std::env::var("LOGOUTS").map_or(100, |count| count.parse().expect("a number"));
    let server = Server::start().await;
    let layer = || {
        RedisSessionLayer::new(server.client())
            .with_deadline(crate::visits::PATIENT)
            .with_local_cache(LocalCache::new())
    };
    let (a, b) = (layer(), layer());
    for is_under_load in [false, true] {
        let is_over = Arc::new(AtomicBool::new(false));
        let load = is_under_load.then(|| {
            let (layer, is_over) = (a.clone(), is_over.clone());
            tokio::spawn(async move {
                let (id, _) = request(&layer, None, Action::Begin).await;
                while !is_over.load(Relaxed) {
                    request(&layer, id.as_deref(), Action::Save).await;
                }
            })
        });
        let mut times = Vec::new();
        for _ in 0..logouts {
            times.push(time_to_effect(&a, &b).await);
        }
        is_over.store(true, Relaxed);
        if let Some(load) = load {
            load.await.expect("no panic");
        }
        times.sort();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        println!(
            "{logouts} logouts, under load: {is_under_load}: p50 {:?}, p99 {:?}, worst {:?}",
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

/// From the response of the logout on `a` until `b` does not have the session any more.
async fn time_to_effect(a: &RedisSessionLayer, b: &RedisSessionLayer) -> Duration {
    let (id, _) = request(a, None, Action::Begin).await;
    let id = id.expect("a session");
    // Until it comes from the cache.
    let hits = || b.cache_stats().expect("a cache").hits;
    let before = hits();
    while hits() == before {
        request(b, Some(&id), Action::Read).await;
    }
    request(a, Some(&id), Action::End).await;
    let ended = Instant::now();
    while !request(b, Some(&id), Action::Read).await.1.is_empty() {
        assert!(ended.elapsed() < SOON);
        // The report is handled by another task.
        tokio::task::yield_now().await;
    }
    ended.elapsed()
}
