//! 64 writers on one session for five seconds, over two instances of the app that share one Redis: what became of each write.
//!
//! ```sh
//! cargo build --release --manifest-path benches/peers/Cargo.toml --target-dir target/peers
//! target/peers/release/storm              # needs redis-server on the PATH
//! ```
//!
//! `WRITERS` (64), `SECONDS_EACH` (5) and `REDIS_SERVER` (`redis-server`) may be set.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use peers::{
    Failure,
    client::Client,
    process::{start_app, start_redis},
    setting,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let (writers, seconds) = (setting("WRITERS", 64), setting("SECONDS_EACH", 5));
    let (_redis, url) = start_redis()?;
    let nodes = [
        start_app("this_crate", &url)?,
        start_app("this_crate", &url)?,
    ];

    let began = Client::connect(&nodes[0].1)
        .await?
        .get("/write", "")
        .await?;
    let cookie = began.cookie().ok_or("no cookie")?.to_owned();
    let end = Instant::now() + Duration::from_secs(seconds);
    let writers: Vec<_> = (0..writers)
        .map(|writer| {
            let (address, cookie) = (nodes[(writer % 2) as usize].1.clone(), cookie.clone());
            tokio::spawn(async move {
                let mut client = Client::connect(&address).await?;
                let mut answers: Vec<(u16, Duration)> = Vec::new();
                while Instant::now() < end {
                    let asked = Instant::now();
                    let answer = client.get("/write", &cookie).await?;
                    answers.push((answer.status, asked.elapsed()));
                }
                Ok::<_, Failure>(answers)
            })
        })
        .collect();
    let mut took = Vec::new();
    let mut by_status: BTreeMap<u16, u64> = BTreeMap::new();
    for writer in writers {
        for (status, time) in writer.await?? {
            *by_status.entry(status).or_default() += 1;
            took.push(time);
        }
    }
    took.sort();
    let counted = Client::connect(&nodes[0].1)
        .await?
        .get("/read", &cookie)
        .await?;
    println!("answers by status:      {by_status:?}");
    println!(
        "acknowledged / counted: {} / {}",
        by_status.get(&200).copied().unwrap_or(0) + 1,
        counted.body
    );
    println!(
        "median / longest:       {:?} / {:?}",
        took[took.len() / 2],
        took[took.len() - 1]
    );
    let mut totals = [0_u64; 4];
    for (_, address) in &nodes {
        let stats = Client::connect(address).await?.get("/stats", "").await?;
        for (total, number) in totals.iter_mut().zip(stats.body.split(' ')) {
            *total += number.parse::<u64>()?;
        }
    }
    let [commits, replays, conflicts, dropped] = totals;
    println!("commits:                {commits}, {conflicts} gave up, {dropped} dropped");
    println!(
        "replays per commit:     {:.2}",
        replays as f64 / commits as f64
    );
    Ok(())
}
