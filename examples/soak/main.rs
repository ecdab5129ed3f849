//! ```sh
//! cargo run --release --all-features --example soak            # two minutes
//! cargo run --release --all-features --example soak -- 20      # twenty minutes
//! REDIS_SERVER=valkey-server cargo run --release --all-features --example soak
//! ```
//!
//! Sessions under load, on a master and a replica that are killed, stopped, restarted and failed over at random. A model of each visitor
//! records what was acknowledged.
//!
//! The example starts two servers and three sentinels. The servers write each change to disk before they reply (`appendfsync always`), and each
//! save waits for the replica, so every acknowledged write must survive each fault. The example exits with an error if an acknowledged visit is
//! lost, an ended session is still usable, a response takes too long, or the layer does not recover after the servers have.

mod faults;
mod model;

#[path = "../../tests/support/mod.rs"]
mod support;

use std::{
    collections::BTreeMap,
    env,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use axum_redis_sessions::RedisSessionLayer;

use self::{
    faults::{Fault, Rng},
    model::{Tally, Visitor, app},
    support::sentinels::{NAME, Sentinels},
};

const DEADLINE: Duration = Duration::from_millis(500);
/// The limit for a load and a save, on a machine that also runs the servers and all visitors.
const MAX_LATENCY: Duration = Duration::from_millis(2 * 500 + 1500);
const VISITORS: usize = 24;

#[tokio::main]
async fn main() -> ExitCode {
    let minutes = env::args()
        .nth(1)
        .map_or(Ok(2.0), |minutes| minutes.parse());
    let Ok(minutes) = minutes else {
        eprintln!("the argument must be a number of minutes; the default is 2");
        return ExitCode::FAILURE;
    };
    let duration = Duration::from_secs_f64(60.0 * minutes);
    tokio::select! {
        code = soak(duration) => code,
        // Dropping `soak` stops the servers.
        _ = tokio::signal::ctrl_c() => ExitCode::FAILURE,
    }
}

async fn soak(duration: Duration) -> ExitCode {
    let always = ["appendonly yes", "appendfsync always"];
    let mut sentinels = Sentinels::start_with(&always).await;
    let layer = RedisSessionLayer::sentinel(NAME, sentinels.addresses(), "redis://master/")
        .expect("valid addresses")
        .with_deadline(DEADLINE)
        // So that a rotated id opens nothing from the first moment, which the soak checks.
        .with_rotation_grace(Duration::ZERO)
        .with_replica_acks(1, DEADLINE / 5)
        .with_replica_acks_for_every_write();
    let app = app(layer);

    let is_over = Arc::new(AtomicBool::new(false));
    let visitors: Vec<_> = (0..VISITORS)
        .map(|number| {
            let (mut visitor, is_over) = (Visitor::new(app.clone(), number), is_over.clone());
            tokio::spawn(async move {
                while !is_over.load(Relaxed) {
                    visitor.act().await;
                }
                visitor
            })
        })
        .collect();

    let mut rng = Rng::new();
    let mut faults = BTreeMap::new();
    let mut slowest_recovery = Duration::ZERO;
    let started = Instant::now();
    while started.elapsed() < duration {
        rng.pause(500, 2500).await;
        let fault = Fault::random(&mut rng);
        *faults.entry(fault.name()).or_insert(0) += 1;
        fault.inject(&mut sentinels, &mut rng).await;
        // One fault at a time: if both servers fail at once, acknowledged writes can be lost.
        faults::wait_for_recovery(&sentinels).await;
        let Some(recovery) = model::recovery_time(&app).await else {
            eprintln!("the servers have recovered, but the layer has not");
            return ExitCode::FAILURE;
        };
        slowest_recovery = slowest_recovery.max(recovery);
    }
    is_over.store(true, Relaxed);

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
    println!("slowest recovery:    {slowest_recovery:?}");
    if tally.is_good(MAX_LATENCY) && !faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
