//! How many allocations a request makes, exactly, and which.
//!
//! ```sh
//! cargo build --release --manifest-path benches/peers/Cargo.toml --target-dir target/peers
//! target/peers/release/allocations          # needs redis-server on the PATH
//! ```
//!
//! `ONLY` (how the names of the rows begin) and `REDIS_SERVER` may be set, and `WHERE=1` to print where each allocation is.
//!
//! The app runs in this process, on one thread with its connection to Redis, and is called as axum's server would call it: the request's
//! and the response's bytes on the wire are nobody's concern here. A reallocation counts as an allocation.

use std::{collections::BTreeMap, env, fs, path::Path};

use axum::{
    Router,
    body::Body,
    http::{Request, header},
    routing::get,
};
use axum_redis_sessions::RedisSessionLayer;
use peers::{Failure, apps, process::start_redis, setting};
use serde_json::Value;
use tower::{ServiceExt, layer::util::Identity};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const REQUESTS: usize = 500;
const WARM_UP: usize = 50;

/// How often a request allocates, by the innermost frames outside std, and in this crate.
type Places = BTreeMap<[String; 2], f64>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let only = env::var("ONLY").unwrap_or_default();
    let (_redis, url) = start_redis()?;
    let client = || redis::Client::open(&*url);
    // A layer that does nothing, above handlers that answer alike: what axum itself takes.
    let number = || async { 1_u64.to_string() };
    let nothing = Router::new()
        .route("/untouched", get(apps::nothing))
        .route("/read", get(number))
        .route("/write", get(number))
        .route("/login", get(apps::nothing))
        .layer(Identity::new());
    let by_hand = apps::by_hand::app(client()?, false).await?;
    let layer = apps::this_crate::app(RedisSessionLayer::new(client()?));

    // As axum's server does, so that routes are made once and not with each request.
    let [nothing, by_hand, layer] = [nothing, by_hand, layer].map(|app| app.with_state::<()>(()));

    println!("| request | axum, a layer that does nothing | by hand | this crate | beyond axum |");
    println!("|---|--:|--:|--:|--:|");
    let mut details = Vec::new();
    for (name, path, size) in [
        ("untouched", "/untouched", 0),
        ("untouched, with a cookie", "/untouched", 300),
        ("anonymous read", "/read", 0),
        ("read 300 B", "/read", 300),
        ("read 2 kB", "/read", 2_000),
        ("read 20 kB", "/read", 20_000),
        ("write 300 B", "/write", 300),
        ("write 2 kB", "/write", 2_000),
        ("write 20 kB", "/write", 20_000),
        ("login 300 B", "/login", 300),
    ] {
        if !name.starts_with(&only) {
            continue;
        }
        let mut counts = Vec::new();
        for app in [&nothing, &by_hand, &layer] {
            let mut cookies = vec![String::new()];
            if size > 0 {
                // A login's old cookie is worth nothing afterwards.
                cookies = Vec::new();
                for _ in 0..WARM_UP + REQUESTS {
                    let sessions = if counts.is_empty() { &layer } else { app };
                    cookies.push(seed(sessions, size).await?);
                }
            }
            let (count, places) = allocations(app, path, &cookies).await?;
            counts.push(count);
            details.push((name, counts.len() - 1, places));
        }
        println!(
            "| {name} | {:.1} | {:.1} | {:.1} | {:.1} |",
            counts[0],
            counts[1],
            counts[2],
            counts[2] - counts[0]
        );
    }
    if setting("WHERE", 0) == 1 {
        for (name, app, places) in details {
            println!("\n{name}, {}:", ["axum", "by hand", "this crate"][app]);
            let mut places: Vec<_> = places.iter().filter(|(_, count)| **count >= 0.05).collect();
            places.sort_by_key(|([_, asked], _)| asked.is_empty());
            for ([made, asked], count) in places {
                println!("{count:6.2}  {made} {asked}");
            }
        }
    }
    Ok(())
}

async fn seed(app: &Router, size: usize) -> Result<String, Failure> {
    let request = Request::get(format!("/seed/{size}")).body(Body::empty())?;
    let response = app.clone().oneshot(request).await?;
    let cookie = response
        .headers()
        .get(header::SET_COOKIE)
        .ok_or("no cookie")?
        .to_str()?;
    Ok(cookie.split(';').next().unwrap_or(cookie).to_owned())
}

/// An allocation in the middle of many: what happens once in a while counts with the share that it has. Each session is used once.
async fn allocations(
    app: &Router,
    path: &str,
    cookies: &[String],
) -> Result<(f64, Places), Failure> {
    let mut requests = cookies
        .iter()
        .cycle()
        .take(WARM_UP + REQUESTS)
        .map(|cookie| request(path, cookie))
        .collect::<Result<Vec<_>, _>>()?;
    for request in requests.drain(..WARM_UP) {
        app.clone().oneshot(request).await?;
    }
    // As in a request from the wire, whose headers share one buffer: to clone one is to count up.
    let _kept: Vec<_> = requests
        .iter()
        .map(|request| request.headers().clone())
        .collect();
    let mut responses = Vec::with_capacity(REQUESTS);
    let output = env::temp_dir().join(format!("axum-redis-sessions-dhat-{}", std::process::id()));
    let profiler = dhat::Profiler::builder()
        .file_name(&output)
        .trim_backtraces(Some(60))
        .build();
    let before = dhat::HeapStats::get().total_blocks;
    for request in requests {
        responses.push(app.clone().oneshot(request).await?);
    }
    let count = dhat::HeapStats::get().total_blocks - before;
    drop(profiler);
    for response in responses {
        if response.status() != 200 {
            return Err(format!("{path}: {}", response.status()).into());
        }
    }
    let profile: Value = serde_json::from_slice(&fs::read(&output)?)?;
    fs::remove_file(&output)?;
    Ok((count as f64 / REQUESTS as f64, places(&profile)?))
}

fn request(path: &str, cookie: &str) -> Result<Request<Body>, Failure> {
    let request = Request::get(path).header(header::HOST, "localhost");
    let request = match cookie {
        "" => request,
        cookie => request.header(header::COOKIE, cookie),
    };
    Ok(request.body(Body::empty())?)
}

fn places(profile: &Value) -> Result<Places, Failure> {
    let names = profile["ftbl"].as_array().ok_or("no frames")?;
    let mut places = Places::new();
    for point in profile["pps"].as_array().ok_or("no points")? {
        let frames = point["fs"].as_array().ok_or("no frames")?;
        let frames: Vec<&str> = frames
            .iter()
            .filter_map(|frame| names[usize::try_from(frame.as_u64()?).ok()?].as_str())
            .filter_map(|name| name.split_once(": ").map(|(_address, name)| name))
            .collect();
        // What is of interest is whose allocation it is, not by which of std's functions it is made.
        let made = frames.iter().find(|frame| !is_std(frame));
        let asked = frames.iter().find(|frame| is_own(frame));
        let made = made.copied().unwrap_or("?").to_owned();
        let asked = match asked {
            Some(asked) if **asked != *made => format!("for {asked}"),
            Some(_) => "itself".to_owned(),
            None => String::new(),
        };
        let blocks = point["tbk"].as_u64().ok_or("no blocks")?;
        *places.entry([made, asked]).or_default() += blocks as f64 / REQUESTS as f64;
    }
    Ok(places)
}

/// Whether the frame is in std, or in what stands for it.
fn is_std(frame: &str) -> bool {
    let frame = frame.rsplit(" (").next().unwrap_or(frame);
    let std = [
        "alloc/src/",
        "core/src/",
        "std/src/",
        "src/raw_vec/",
        "src/vec/",
        "src/raw/",
    ];
    let std = std.iter().chain(&[
        "src/bin/allocations",
        "src/ops/",
        "dhat",
        "src/collections/",
    ]);
    std.into_iter().any(|start| frame.starts_with(start)) || frame.starts_with("bytes-")
}

/// Whether the frame is in this crate, by its file; of a path there are the last three parts.
fn is_own(frame: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let root = root
        .and_then(|root| root.file_name()?.to_str())
        .unwrap_or("?");
    let frame = frame.rsplit(" (").next().unwrap_or(frame);
    ["src/store/", "store/redis/", "src/record/"]
        .iter()
        .any(|start| frame.starts_with(start))
        || frame
            .strip_prefix(root)
            .is_some_and(|rest| rest.starts_with("/src/"))
}
