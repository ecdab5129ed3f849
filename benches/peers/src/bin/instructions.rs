//! How many instructions a request takes in user space, counted by callgrind, which gives the same number however busy the machine is.
//!
//! ```sh
//! cargo build --release --manifest-path benches/peers/Cargo.toml --target-dir target/peers
//! target/peers/release/instructions         # needs redis-server and valgrind on the PATH
//! ```
//!
//! `CONNECTIONS` (64), `REQUESTS` (40, each connection's), `APPS`, `ONLY` (how the names of the rows begin) and `REDIS_SERVER` may be
//! set, and `WHERE=1` to print where the instructions are, by the crate whose source they stand in.
//!
//! An app is run twice, with few and with many requests, and what one more request takes is the difference; so neither beginning nor
//! connecting counts.

use std::{collections::BTreeMap, env};

use peers::{
    Failure, callgrind,
    process::{Process, start_redis},
    setting,
};

const FEW: u64 = 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let (connections, requests) = (setting("CONNECTIONS", 64), setting("REQUESTS", 40));
    let apps = env::var("APPS").unwrap_or_else(|_| "by_hand this_crate".into());
    let apps: Vec<&str> = apps.split(' ').collect();
    let only = env::var("ONLY").unwrap_or_default();
    let (_redis, url): (Process, String) = start_redis()?;
    println!("| request | {} | ratio |", apps.join(" | "));
    println!("|---|{}--:|", "--:|".repeat(apps.len()));
    let mut places = Vec::new();
    for (name, path, size) in [
        ("bare", "/bare", 300),
        ("untouched", "/untouched", 300),
        ("anonymous read", "/read", 0),
        ("read 300 B", "/read", 300),
        ("read 2 kB", "/read", 2_000),
        ("read 20 kB", "/read", 20_000),
        ("write 300 B", "/write", 300),
        ("write 2 kB", "/write", 2_000),
        ("write 20 kB", "/write", 20_000),
        ("login", "/login", 300),
    ] {
        if !name.starts_with(&only) {
            continue;
        }
        let mut counts = Vec::new();
        for app in &apps {
            let run = |requests| callgrind::run(app, &url, path, size, connections, requests);
            let (few, many) = (run(FEW).await?, run(requests).await?);
            let more = (connections * (requests - FEW)) as f64;
            let mut each = BTreeMap::new();
            for (place, count) in &many {
                let before = few.get(place).copied().unwrap_or(0);
                each.insert(place.clone(), (*count as f64 - before as f64) / more);
            }
            counts.push(each.values().sum::<f64>());
            places.push((name, *app, each));
        }
        let numbers: Vec<String> = counts.iter().map(|count| format!("{count:.0}")).collect();
        let ratio = counts[counts.len() - 1] / counts[0];
        println!("| {name} | {} | {ratio:.2} |", numbers.join(" | "));
    }
    if setting("WHERE", 0) == 1 {
        for (name, app, each) in places {
            println!("\n{name}, {app}:");
            let mut each: Vec<_> = each.into_iter().collect();
            each.sort_by(|(_, a), (_, b)| b.total_cmp(a));
            for (place, count) in each.iter().filter(|(_, count)| *count >= 20.0) {
                println!("  {count:8.0}  {place}");
            }
        }
    }
    Ok(())
}
