//! Sessions under load, on a master and a replica that are killed, stopped, restarted and failed over at random, with a model
//! beside them that knows what was acknowledged.
//!
//! ```sh
//! cargo run --release --all-features --example soak            # two minutes
//! cargo run --release --all-features --example soak -- 20      # twenty
//! REDIS_SERVER=valkey-server cargo run --release --all-features --example soak
//! ```
//!
//! It starts its servers itself: two of them, and three sentinels. They write each change to disk before they answer (`appendfsync always`),
//! and the layer waits for the replica at every write, so what is acknowledged survives each of the faults. It exits with an error if
//! something acknowledged is lost in the end, something destroyed is alive, an answer takes too long, or the servers are back and the
//! layer is not.

mod model;
mod trouble;

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
    model::{Tally, Visitor, app},
    support::sentinels::{NAME, Sentinels},
    trouble::{Dice, Trouble},
};

const DEADLINE: Duration = Duration::from_millis(500);
/// What a load and a save may take, on a machine that is busy with the servers and all visitors as well.
const LONGEST: Duration = Duration::from_millis(2 * 500 + 1500);
const VISITORS: usize = 24;

#[tokio::main]
async fn main() -> ExitCode {
    let minutes = env::args()
        .nth(1)
        .map_or(Ok(2.0), |minutes| minutes.parse());
    let Ok(minutes) = minutes else {
        eprintln!("how many minutes? A number, or nothing for two");
        return ExitCode::FAILURE;
    };
    let duration = Duration::from_secs_f64(60.0 * minutes);
    tokio::select! {
        code = soak(duration) => code,
        // The servers end with what starts them, not with the process.
        _ = tokio::signal::ctrl_c() => ExitCode::FAILURE,
    }
}

async fn soak(duration: Duration) -> ExitCode {
    let always = ["appendonly yes", "appendfsync always"];
    let mut sentinels = Sentinels::start_with(&always).await;
    let layer = RedisSessionLayer::sentinel(NAME, sentinels.addresses(), "redis://master/")
        .expect("addresses")
        .with_deadline(DEADLINE)
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

    let mut dice = Dice::new();
    let mut faults = BTreeMap::new();
    let mut slowest_return = Duration::ZERO;
    let begun = Instant::now();
    while begun.elapsed() < duration {
        dice.pause(500, 2500).await;
        let trouble = Trouble::any(&mut dice);
        *faults.entry(trouble.name()).or_insert(0) += 1;
        trouble.make(&mut sentinels, &mut dice).await;
        // One at a time: what two servers lose at once is lost, whoever asks them.
        trouble::end_of(&sentinels).await;
        let Some(back) = model::returns(&app).await else {
            eprintln!("the servers are back, and the layer is not");
            return ExitCode::FAILURE;
        };
        slowest_return = slowest_return.max(back);
    }
    is_over.store(true, Relaxed);

    let mut tally = Tally::default();
    for visitor in visitors {
        match visitor.await {
            Ok(visitor) => visitor.settle(&mut tally).await,
            Err(error) => {
                eprintln!("a visitor: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!(
        "minutes:             {:.1}",
        begun.elapsed().as_secs_f64() / 60.0
    );
    println!("faults:              {faults:?}");
    println!("{tally}");
    println!("back after servers:  {slowest_return:?} at most");
    if tally.is_good(LONGEST) && !faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
