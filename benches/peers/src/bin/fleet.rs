//! Measures what a write costs Redis when other nodes read the session as well, with a local cache on each and without.
//!
//! ```sh
//! cargo build --release --manifest-path benches/peers/Cargo.toml --target-dir target/peers --features local-cache
//! target/peers/release/fleet                # needs redis-server on the PATH; about a minute
//! ```
//!
//! Environment variables and their defaults: `ROUNDS` (200), `SIZE` (300, bytes of a session), `NODES` ("0 1 10 50") and `REDIS_SERVER`.
//!
//! One process plays all nodes, each with a connection of its own. In each round one node writes 16 sessions at once, and then the other nodes read
//! them: none, one of them, or all. Redis' CPU time (`/proc/PID/task/*/schedstat`) and the bytes that it received and sent (INFO) are divided by
//! the number of writes, so they include the reads.

use std::env;

use axum::{
    Router,
    body::Body,
    http::{Request, header},
};
use axum_redis_sessions::{LocalCache, RedisSessionLayer};
use peers::{
    Failure, Shape, apps,
    process::{Process, start_redis},
    redis_info, setting,
};
use tower::ServiceExt;

const SESSIONS: usize = 16;
/// Rounds before the counters are read: connecting, scripts, and the first reads.
const WARM_UP: u64 = 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Readers {
    None,
    One,
    All,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<(), Failure> {
    let rounds = setting("ROUNDS", 200);
    let nodes = env::var("NODES").unwrap_or_else(|_| "0 1 10 50".into());
    println!(
        "| other nodes | they read after each write | with the cache: Redis µs | bytes in | bytes out | without: Redis µs | bytes in | bytes out |"
    );
    println!("|--:|---|--:|--:|--:|--:|--:|--:|");
    for nodes in nodes.split_whitespace() {
        let nodes: usize = nodes.parse()?;
        for (readers, name) in [
            (Readers::None, "none"),
            (Readers::One, "one"),
            (Readers::All, "all"),
        ] {
            // With one other node, one is all; without any, there is nobody to read.
            if nodes == 0 && readers != Readers::None || nodes == 1 && readers == Readers::All {
                continue;
            }
            let cached = measure(nodes, readers, rounds, true).await?;
            let plain = measure(nodes, readers, rounds, false).await?;
            let columns = [cached, plain]
                .map(|[cpu, received, sent]| format!("{cpu:.1} | {received:.0} | {sent:.0}"));
            println!("| {nodes} | {name} | {} |", columns.join(" | "));
        }
    }
    Ok(())
}

/// Redis' microseconds, and the bytes that it received and sent, for each write.
async fn measure(
    others: usize,
    readers: Readers,
    rounds: u64,
    is_cached: bool,
) -> Result<[f64; 3], Failure> {
    let (redis, url) = start_redis()?;
    let mut info = redis::Client::open(&*url)?.get_connection()?;
    let mut nodes = Vec::new();
    for _ in 0..=others {
        let mut layer = RedisSessionLayer::open(&*url)?;
        if is_cached {
            layer = layer.with_local_cache(LocalCache::new());
        }
        nodes.push(apps::this_crate::app(layer).with_state::<()>(()));
    }
    let (writer, others) = nodes.split_first().ok_or("no nodes")?;
    let mut cookies = Vec::new();
    for _ in 0..SESSIONS {
        let path = format!("/seed/{}/{}", Shape::Fields, setting("SIZE", 300));
        let response = get(writer, &path, "").await?;
        cookies.push(response.ok_or("the response to /seed sets no session cookie")?);
    }
    let mut before = [0.0; 3];
    for round in 0..WARM_UP + rounds {
        if round == WARM_UP {
            before = now(&redis, &mut info)?;
        }
        all(&cookies
            .iter()
            .map(|cookie| (writer, "/write", &**cookie))
            .collect::<Vec<_>>())
        .await?;
        let reading = match readers {
            Readers::None => &[],
            // Another one each time: it has the session no more.
            Readers::One => &others[round as usize % others.len()..][..1],
            Readers::All => others,
        };
        let reads: Vec<_> = reading
            .iter()
            .flat_map(|node| cookies.iter().map(move |cookie| (node, "/read", &**cookie)))
            .collect();
        all(&reads).await?;
    }
    let after = now(&redis, &mut info)?;
    let writes = (rounds as usize * SESSIONS) as f64;
    Ok([0, 1, 2].map(|value| (after[value] - before[value]) / writes))
}

fn now(redis: &Process, info: &mut redis::Connection) -> Result<[f64; 3], Failure> {
    let mut bytes = |name| Ok::<f64, Failure>(redis_info::info(info, name)?.parse()?);
    let received = bytes("total_net_input_bytes")?;
    let sent = bytes("total_net_output_bytes")?;
    Ok([redis.cpu()?, received, sent])
}

/// Sends requests at once.
async fn all(requests: &[(&Router, &str, &str)]) -> Result<(), Failure> {
    let mut tasks = Vec::new();
    for (node, path, cookie) in requests {
        let (node, path, cookie) = ((*node).clone(), (*path).to_owned(), (*cookie).to_owned());
        tasks.push(tokio::spawn(
            async move { get(&node, &path, &cookie).await },
        ));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// The session cookie, if the response sets one.
async fn get(node: &Router, path: &str, cookie: &str) -> Result<Option<String>, Failure> {
    let mut request = Request::get(path).header(header::HOST, "localhost");
    if !cookie.is_empty() {
        request = request.header(header::COOKIE, cookie);
    }
    let response = node.clone().oneshot(request.body(Body::empty())?).await?;
    if response.status() != 200 {
        return Err(format!("{path}: {}", response.status()).into());
    }
    let Some(cookie) = response.headers().get(header::SET_COOKIE) else {
        return Ok(None);
    };
    let cookie = cookie.to_str()?;
    Ok(Some(cookie.split(';').next().unwrap_or(cookie).to_owned()))
}
