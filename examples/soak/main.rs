//! ```sh
//! cargo run --release --all-features --example soak                        # two minutes on each kind
//! cargo run --release --all-features --example soak -- 20 cluster          # twenty minutes on a cluster
//! cargo run --release --all-features --example soak -- 2 sentinel 4711     # with the seed that another run printed
//! REDIS_SERVER=valkey-server cargo run --release --all-features --example soak
//! LOCAL_CACHE=1 cargo run --release --all-features --example soak          # with a local cache
//! ```
//!
//! Sessions under load, on servers that are killed, stopped, restarted and failed over at random, over connections that freeze or open slowly. A
//! model of each visitor records what was acknowledged.
//!
//! The kinds are `sentinel`, a master and a replica with three sentinels, and `cluster`, three masters with a replica each; by default one
//! after the other. The servers write each change to disk before they reply (`appendfsync always`), and each save waits for the replica, so every
//! acknowledged write must survive each fault. The example exits with an error if an acknowledged visit is lost, an ended session is still usable,
//! a response takes too long, or the layer does not recover after the servers have. The seed determines the faults and what the visitors do, but
//! not how these meet.

mod deployment;
mod faults;
mod model;

#[path = "../../tests/support/mod.rs"]
mod support;

use std::{
    collections::{BTreeMap, hash_map::RandomState},
    env,
    hash::{BuildHasher, Hasher},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use self::{
    deployment::{Deployment, Kind},
    faults::{Fault, Rng},
    model::{Tally, Visitor, app},
};

const DEADLINE: Duration = Duration::from_millis(500);
/// The limit for a load and a save, on a machine that also runs the servers and all visitors, besides what its slowest timer was late.
const MAX_LATENCY: Duration = Duration::from_millis(2 * 500 + 1500);
const VISITORS: u64 = 24;

#[tokio::main]
async fn main() -> ExitCode {
    let Some((minutes, kinds, seed)) = arguments() else {
        eprintln!(
            "usage: soak [MINUTES [sentinel|cluster [SEED]]]; the default is 2 minutes on each kind"
        );
        return ExitCode::FAILURE;
    };
    for kind in kinds {
        let duration = Duration::from_secs_f64(60.0 * minutes);
        let code = tokio::select! {
            code = soak(kind, duration, seed) => code,
            // Dropping `soak` stops the servers.
            _ = tokio::signal::ctrl_c() => ExitCode::FAILURE,
        };
        if code != ExitCode::SUCCESS {
            return code;
        }
    }
    ExitCode::SUCCESS
}

fn arguments() -> Option<(f64, Vec<Kind>, u64)> {
    let mut arguments = env::args().skip(1);
    let minutes = arguments.next().map_or(Ok(2.0), |minutes| minutes.parse());
    let kinds = match arguments.next() {
        Some(kind) => vec![kind.parse().ok()?],
        None => vec![Kind::Sentinel, Kind::Cluster],
    };
    let random = || Ok(RandomState::new().build_hasher().finish() % 1_000_000);
    let seed = arguments.next().map_or_else(random, |seed| seed.parse());
    Some((minutes.ok()?, kinds, seed.ok()?))
}

async fn soak(kind: Kind, duration: Duration, seed: u64) -> ExitCode {
    println!("kind:                {kind:?}, seed {seed}");
    let mut deployment = Deployment::start(kind).await;
    let layer = deployment
        .layer()
        .with_deadline(DEADLINE)
        // So that a rotated id opens nothing from the first moment, which the soak checks.
        .with_rotation_grace(Duration::ZERO)
        .with_replica_acks(1, DEADLINE / 5)
        .with_replica_acks_for_every_write();
    #[cfg(feature = "local-cache")]
    let layer = match env::var_os("LOCAL_CACHE") {
        Some(_) => layer.with_local_cache(axum_redis_sessions::LocalCache::new()),
        None => layer,
    };
    let app = app(layer.clone());

    let is_over = Arc::new(AtomicBool::new(false));
    let slowest_timer = tokio::spawn(slowest_timer(is_over.clone()));
    let visitors: Vec<_> = (1..=VISITORS)
        .map(|number| {
            let mut visitor = Visitor::new(app.clone(), number, seed + number);
            let is_over = is_over.clone();
            tokio::spawn(async move {
                while !is_over.load(Relaxed) {
                    visitor.act().await;
                }
                visitor
            })
        })
        .collect();

    let mut rng = Rng::new(seed);
    let mut due = Vec::new();
    let mut faults = BTreeMap::new();
    let mut slowest_recovery = Duration::ZERO;
    let started = Instant::now();
    while started.elapsed() < duration {
        rng.pause(500, 2500).await;
        if due.is_empty() {
            due = Fault::shuffled(kind, &mut rng);
        }
        let fault = due.pop().expect("not empty");
        *faults.entry(fault.name()).or_insert(0) += 1;
        fault.inject(&mut deployment, &mut rng).await;
        // One fault at a time: if both servers of a pair fail at once, acknowledged writes can be lost.
        faults::wait_for_recovery(&deployment).await;
        let Some(recovery) = model::recovery_time(&app).await else {
            eprintln!("the servers have recovered from {fault:?}, but the layer has not");
            return ExitCode::FAILURE;
        };
        slowest_recovery = slowest_recovery.max(recovery);
    }
    is_over.store(true, Relaxed);
    let slowest_timer = slowest_timer.await.unwrap_or_default();

    let mut tally = Tally::default();
    for visitor in visitors {
        match visitor.await {
            Ok(visitor) => visitor.verify(&mut tally).await,
            Err(error) => {
                eprintln!("a visitor failed: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!(
        "minutes:             {:.1}",
        started.elapsed().as_secs_f64() / 60.0
    );
    println!("faults:              {faults:?}");
    println!("{tally}");
    #[cfg(feature = "local-cache")]
    if let Some(stats) = layer.cache_stats() {
        println!(
            "local cache:         {} hits, {} misses",
            stats.hits, stats.misses
        );
    }
    println!("slowest recovery:    {slowest_recovery:?}");
    println!("slowest timer:       {slowest_timer:?} late");
    if tally.is_good(MAX_LATENCY + 2 * slowest_timer) && !faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// How long this process did not run when it should have.
async fn slowest_timer(is_over: Arc<AtomicBool>) -> Duration {
    let tick = Duration::from_millis(10);
    let mut slowest = Duration::ZERO;
    while !is_over.load(Relaxed) {
        let begun = Instant::now();
        tokio::time::sleep(tick).await;
        slowest = slowest.max(begun.elapsed().saturating_sub(tick));
    }
    slowest
}
