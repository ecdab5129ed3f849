//! Counts the instructions of a request in user space with callgrind. The counts do not depend on how busy the machine is.
//!
//! ```sh
//! cargo build --release --manifest-path benches/peers/Cargo.toml --target-dir target/peers
//! target/peers/release/instructions         # needs redis-server and valgrind on the PATH
//! ```
//!
//! Environment variables and their defaults: `CONNECTIONS` (1), `REQUESTS` (410, of each connection), `APPS`, `ONLY` (a prefix of the rows'
//! names) and `REDIS_SERVER`. `WHERE=1` also prints the instructions by the crate whose source code they come from.
//!
//! Each app runs twice, with few and with many requests. The result is the difference divided by the additional requests, so startup
//! and connecting are excluded. With one connection, repeated runs differ by less than 0.2 %. With several, requests share wake-ups: the counts are
//! lower, and depend on timing by about 2 %. Apps run on one thread here.

use std::{collections::BTreeMap, env};

use peers::{
    Failure, callgrind,
    process::{Process, start_redis},
    report::tables::label,
    scenario::{SCENARIOS, Scenario},
    setting,
};

const FEW: u64 = 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let (connections, requests) = (setting("CONNECTIONS", 1), setting("REQUESTS", 410));
    let apps = env::var("APPS").unwrap_or_else(|_| "baseline_typed baseline this_crate".into());
    let apps: Vec<&str> = apps.split(' ').collect();
    let only = env::var("ONLY").unwrap_or_default();
    let (_redis, url): (Process, String) = start_redis()?;
    let labels: Vec<&str> = apps.iter().map(|app| label(app)).collect();
    let (base, others) = labels.split_first().ok_or("APPS names no app")?;
    let ratios = others.iter().map(|other| format!("{other} ÷ {base}"));
    let columns: Vec<String> = labels
        .iter()
        .copied()
        .map(String::from)
        .chain(ratios)
        .collect();
    println!("| request | {} |", columns.join(" | "));
    println!("|---|{}", "--:|".repeat(columns.len()));
    let mut places = Vec::new();
    for scenario in SCENARIOS {
        let Scenario {
            name,
            path,
            session,
            ..
        } = scenario;
        if !name.starts_with(&only) {
            continue;
        }
        let mut counts = Vec::new();
        for app in &apps {
            let run = |requests| callgrind::run(app, &url, path, session, connections, requests);
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
        let (base, others) = counts.split_first().ok_or("APPS names no app")?;
        let ratios = others.iter().map(|other| format!("{:.2}", other / base));
        let numbers = counts.iter().map(|count| format!("{count:.0}"));
        let columns: Vec<String> = numbers.chain(ratios).collect();
        println!("| {name} | {} |", columns.join(" | "));
    }
    if setting("WHERE", 0) == 1 {
        for (name, app, each) in places {
            println!("\n{name}, {}:", label(app));
            let mut each: Vec<_> = each.into_iter().collect();
            each.sort_by(|(_, a), (_, b)| b.total_cmp(a));
            for (place, count) in each.iter().filter(|(_, count)| *count >= 20.0) {
                println!("  {count:8.0}  {place}");
            }
        }
    }
    Ok(())
}
