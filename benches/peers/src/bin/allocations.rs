//! Counts the allocations of a request.
//!
//! ```sh
//! cargo build --release --manifest-path benches/peers/Cargo.toml --target-dir target/peers
//! target/peers/release/allocations          # needs redis-server on the PATH
//! ```
//!
//! With `--features local-cache` there is one more column: this crate with a local cache that has the session.
//!
//! Environment variables: `ONLY` (a prefix of the rows' names) and `REDIS_SERVER`. `WHERE=1` also prints each allocation's call site.
//!
//! The apps run in this process, on one thread, and are called as axum's server calls them, without parsing and writing HTTP. A
//! reallocation counts as an allocation.

use std::{collections::BTreeMap, env, fs, path::Path};

use axum::{
    Router,
    body::Body,
    http::{Request, header},
    routing::get,
};
use axum_redis_sessions::RedisSessionLayer;
use peers::{
    Failure, Shape, apps,
    process::start_redis,
    report::tables::label,
    scenario::{SCENARIOS, Scenario},
    setting,
};
use serde_json::Value;
use tower::{ServiceExt, layer::util::Identity};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const REQUESTS: usize = 500;
const WARM_UP: usize = 50;

/// Allocations per request, by the innermost frame outside std and the innermost frame in this crate.
type Places = BTreeMap<[String; 2], f64>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let only = env::var("ONLY").unwrap_or_default();
    let (_redis, url) = start_redis()?;
    let client = || redis::Client::open(&*url);
    // The allocations of axum itself: handlers with the same responses below a layer that does nothing.
    let number = || async { 1_u64.to_string() };
    let axum_only = Router::new()
        .route("/untouched", get(apps::nothing))
        .route("/read", get(number))
        .route("/write", get(number))
        .route("/login", get(apps::nothing))
        .layer(Identity::new());
    let typed = apps::baseline_typed::app(client()?).await?;
    let baseline = apps::baseline::app(client()?, false).await?;
    let layer = apps::this_crate::app(RedisSessionLayer::new(client()?));

    let mut apps = vec![
        ("axum with a no-op layer", axum_only),
        (label("baseline_typed"), typed),
        (label("baseline"), baseline),
        (label("this_crate"), layer),
    ];
    #[cfg(feature = "local-cache")]
    {
        let cache = axum_redis_sessions::LocalCache::new();
        let layer = RedisSessionLayer::new(client()?).with_local_cache(cache);
        apps.push((label("this_crate_cached"), apps::this_crate::app(layer)));
    }
    // As axum's server does; otherwise each request would build the routes.
    let apps: Vec<(&str, Router)> = apps
        .into_iter()
        .map(|(name, app)| (name, app.with_state::<()>(())))
        .collect();
    let (_, layer) = &apps[3];

    let names: Vec<&str> = apps.iter().map(|(name, _)| *name).collect();
    println!("| request | {} | this crate − axum |", names.join(" | "));
    println!("|---|{}", "--:|".repeat(names.len() + 1));
    let mut details = Vec::new();
    for scenario in SCENARIOS {
        let Scenario {
            name,
            path,
            session,
            ..
        } = scenario;
        // The in-process routers differ outside the layer only in how their routes are boxed.
        if path == "/bare" || !name.starts_with(&only) {
            continue;
        }
        let mut counts = Vec::new();
        for (_, app) in &apps {
            let mut cookies = vec![String::new()];
            if let Some(session) = session {
                // One session per request, since a login ends the old session.
                cookies = Vec::new();
                for _ in 0..WARM_UP + REQUESTS {
                    let seeder = if counts.is_empty() { layer } else { app };
                    cookies.push(seed(seeder, session).await?);
                }
            }
            let (count, places) = allocations(app, path, &cookies).await?;
            counts.push(count);
            details.push((name, counts.len() - 1, places));
        }
        let columns: Vec<String> = counts.iter().map(|count| format!("{count:.1}")).collect();
        let difference = counts[3] - counts[0];
        println!("| {name} | {} | {difference:.1} |", columns.join(" | "));
    }
    if setting("WHERE", 0) == 1 {
        for (name, app, places) in details {
            println!("\n{name}, {}:", apps[app].0);
            let mut places: Vec<_> = places.iter().filter(|(_, count)| **count >= 0.05).collect();
            places.sort_by_key(|([_, caller], _)| caller.is_empty());
            for ([allocator, caller], count) in places {
                println!("{count:6.2}  {allocator} {caller}");
            }
        }
    }
    Ok(())
}

async fn seed(app: &Router, (shape, size): (Shape, usize)) -> Result<String, Failure> {
    let request = Request::get(format!("/seed/{shape}/{size}")).body(Body::empty())?;
    let response = app.clone().oneshot(request).await?;
    let cookie = response
        .headers()
        .get(header::SET_COOKIE)
        .ok_or("the response to /seed sets no session cookie")?
        .to_str()?;
    Ok(cookie.split(';').next().unwrap_or(cookie).to_owned())
}

/// Returns the average over many requests, so an allocation that only some requests make counts in proportion.
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
    // The headers of a request from the wire share one buffer, so cloning a value only increments a counter. A second owner gives
    // these headers the same form.
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
    let names = profile["ftbl"].as_array().ok_or("dhat: no frames")?;
    let mut places = Places::new();
    for point in profile["pps"].as_array().ok_or("dhat: no program points")? {
        let frames = point["fs"].as_array().ok_or("dhat: no frames")?;
        let frames: Vec<&str> = frames
            .iter()
            .filter_map(|frame| names[usize::try_from(frame.as_u64()?).ok()?].as_str())
            .filter_map(|name| name.split_once(": ").map(|(_address, name)| name))
            .collect();
        // The caller of std matters, not the function of std.
        let allocator = frames.iter().find(|frame| !is_std(frame));
        let caller = frames.iter().find(|frame| is_own(frame));
        let allocator = allocator.copied().unwrap_or("?").to_owned();
        let caller = match caller {
            Some(caller) if **caller != *allocator => format!("for {caller}"),
            Some(_) => "itself".to_owned(),
            None => String::new(),
        };
        let blocks = point["tbk"].as_u64().ok_or("dhat: no number of blocks")?;
        *places.entry([allocator, caller]).or_default() += blocks as f64 / REQUESTS as f64;
    }
    Ok(places)
}

/// Whether the frame is in std, in `bytes`, or in the benchmark itself.
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

/// Whether the frame is in this crate, judged by the last three components of its path, which are all that there is.
fn is_own(frame: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let root = root
        .and_then(|root| root.file_name()?.to_str())
        .unwrap_or("?");
    let frame = frame.rsplit(" (").next().unwrap_or(frame);
    [
        "src/store/",
        "store/redis/",
        "redis/transport/",
        "src/record/",
        "src/session/",
        "src/commit/",
    ]
    .iter()
    .any(|start| frame.starts_with(start))
        || frame
            .strip_prefix(root)
            .is_some_and(|rest| rest.starts_with("/src/"))
}
