//! Contention test: 64 writers increment one session for five seconds, over two instances of the app that share one Redis.
//!
//! ```sh
//! cargo build --release --manifest-path benches/peers/Cargo.toml --target-dir target/peers
//! target/peers/release/storm              # needs redis-server on the PATH
//! ```
//!
//! Environment variables and their defaults: `WRITERS` (64), `SECONDS_EACH` (5), `RUNTIME` and `REDIS_SERVER` as for `compare`.

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

    let first = Client::connect(&nodes[0].1)
        .await?
        .get("/write", "")
        .await?;
    let cookie = first
        .cookie()
        .ok_or("the response sets no session cookie")?
        .to_owned();
    let end = Instant::now() + Duration::from_secs(seconds);
    let writers: Vec<_> = (0..writers)
        .map(|writer| {
            let (address, cookie) = (nodes[(writer % 2) as usize].1.clone(), cookie.clone());
            tokio::spawn(async move {
                let mut client = Client::connect(&address).await?;
                let mut responses: Vec<(u16, Duration)> = Vec::new();
                while Instant::now() < end {
                    let sent = Instant::now();
                    let response = client.get("/write", &cookie).await?;
                    responses.push((response.status, sent.elapsed()));
                }
                Ok::<_, Failure>(responses)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    let mut by_status: BTreeMap<u16, u64> = BTreeMap::new();
    for writer in writers {
        for (status, time) in writer.await?? {
            *by_status.entry(status).or_default() += 1;
            latencies.push(time);
        }
    }
    latencies.sort();
    let counted = Client::connect(&nodes[0].1)
        .await?
        .get("/read", &cookie)
        .await?;
    println!("responses by status:    {by_status:?}");
    println!(
        "acknowledged / counted: {} / {}",
        by_status.get(&200).copied().unwrap_or(0) + 1,
        counted.body
    );
    println!(
        "median / longest:       {:?} / {:?}",
        latencies[latencies.len() / 2],
        latencies[latencies.len() - 1]
    );
    let mut totals = [0_u64; 4];
    for (_, address) in &nodes {
        let stats = Client::connect(address).await?.get("/stats", "").await?;
        for (total, number) in totals.iter_mut().zip(stats.body.split(' ')) {
            *total += number.parse::<u64>()?;
        }
    }
    let [commits, retries, retries_exhausted, discarded] = totals;
    println!(
        "commits:                {commits}, {retries_exhausted} out of retries, {discarded} discarded"
    );
    println!(
        "retries per commit:     {:.2}",
        retries as f64 / commits as f64
    );
    Ok(())
}
