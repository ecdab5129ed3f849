//! Measures the CPU time, throughput and latency of each app, in turns within one run.
//!
//! ```sh
//! cargo build --release --manifest-path benches/peers/Cargo.toml --target-dir target/peers
//! target/peers/release/compare              # needs redis-server and wrk on the PATH
//! target/peers/release/report               # renders charts and tables
//! ```
//!
//! Environment variables and their defaults: `ROUNDS` (5), `SECONDS_EACH` (2), `CONNECTIONS` (64), `SESSIONS` (1024), `APPS` (all),
//! `ONLY` (a prefix of the scenarios' names), `RUNTIME` (multi-threaded, as with `#[tokio::main]`; `current_thread`: every app on one thread),
//! `REDIS_SERVER` (`redis-server`) and `RESULTS` (`benches/peers/results`). With the defaults it takes about 25 minutes.

use std::{collections::BTreeMap, env, path::PathBuf, sync::Arc};

use tokio::sync::Barrier;

use peers::{
    CURRENT_THREAD, Failure, Shape, apps,
    client::Client,
    load,
    measure::Counters,
    process::{Process, start_app, start_redis},
    redis_info,
    results::{self, Compare, Machine, Row},
    scenario::{SCENARIOS, SIZES, seed, write_cookies},
    setting,
};

/// Requests recorded with MONITOR in each scenario, and one before them that is not.
const WATCHED: usize = 11;
const INCREMENTS: u64 = 200;

struct App {
    name: String,
    process: Process,
    address: String,
    /// By the shape and size of the sessions.
    cookies: BTreeMap<(Shape, usize), Vec<String>>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<(), Failure> {
    let (rounds, seconds) = (setting("ROUNDS", 5), setting("SECONDS_EACH", 2));
    let (connections, sessions) = (setting("CONNECTIONS", 64), setting("SESSIONS", 1024));
    let names = env::var("APPS").unwrap_or_else(|_| {
        let when = |on, app| if on { app } else { "" };
        let cached = when(cfg!(feature = "local-cache"), " this_crate_cached");
        let encrypted = when(cfg!(feature = "encryption"), " this_crate_encrypted");
        let metrics = when(cfg!(feature = "metrics"), " this_crate_metrics");
        format!(
            "baseline_typed baseline baseline_cas this_crate{cached}{encrypted}{metrics} tower_sessions actix_session axum_session"
        )
    });
    let only = env::var("ONLY").unwrap_or_default();
    let (redis, url) = start_redis()?;
    let info = &mut [redis::Client::open(&*url)?.get_connection()?];

    let mut running = Vec::new();
    let mut session_bytes = BTreeMap::new();
    for name in names.split_whitespace() {
        let (process, address) = start_app(name, &url)?;
        let mut cookies = BTreeMap::new();
        let mut bytes = BTreeMap::new();
        for size in SIZES {
            for shape in [Shape::Text, Shape::Fields] {
                let session = (shape, size);
                let before = redis_info::used_memory(&mut info[0])?;
                cookies.insert(session, seed(&address, session, sessions).await?);
                let added = redis_info::used_memory(&mut info[0])? - before;
                write_cookies(&cookie_file(name, session), &cookies[&session])?;
                // Of the sessions of many small fields, the second of the two.
                bytes.insert(size, added / sessions as f64);
            }
        }
        session_bytes.insert(name.to_owned(), bytes);
        running.push(App {
            name: name.to_owned(),
            process,
            address,
            cookies,
        });
    }

    let mut rows = Vec::new();
    let scenarios: Vec<_> = SCENARIOS
        .iter()
        .filter(|scenario| scenario.name.starts_with(&only))
        .collect();
    for together in scenarios.chunk_by(|_, next| next.with_previous) {
        let mut measured = Vec::new();
        for scenario in together {
            for app in &running {
                let cookies = match scenario.session {
                    // New sessions, since a login ends the old one.
                    Some(session) if scenario.rotates => {
                        seed(&app.address, session, WATCHED as u64).await?
                    }
                    Some(session) => app.cookies[&session][..WATCHED].to_vec(),
                    None => vec![String::new(); WATCHED],
                };
                let commands =
                    redis_info::watch(&url, &app.address, scenario.path, &cookies).await?;
                measured.push(Row {
                    scenario: scenario.name.to_owned(),
                    app: app.name.clone(),
                    commands: commands.sent,
                    inner_commands: commands.inner,
                    commands_text: commands.text,
                    samples: Vec::new(),
                });
            }
        }
        for round in 0..rounds as usize {
            // Each round begins with another app.
            for turn in 0..running.len() {
                let number = (round + turn) % running.len();
                let app = &running[number];
                for (place, scenario) in together.iter().enumerate() {
                    let new = match scenario.session {
                        Some(session) if scenario.rotates => {
                            seed(&app.address, session, connections).await?
                        }
                        _ => Vec::new(),
                    };
                    let servers = [&redis];
                    let counters = Counters::read(&app.process, &servers, info)?;
                    let outcome = if scenario.rotates {
                        load::following_cookies(&app.address, scenario.path, &new, seconds).await?
                    } else {
                        let url = format!("http://{}{}", app.address, scenario.path);
                        let file = scenario
                            .session
                            .map(|session| cookie_file(&app.name, session));
                        load::wrk(&url, file.as_deref(), connections, seconds)?
                    };
                    let sample = counters.since(&outcome, info)?;
                    measured[place * running.len() + number]
                        .samples
                        .push(sample);
                }
            }
        }
        for row in &measured {
            let median =
                |of: fn(&results::Sample) -> f64| results::median(row.samples.iter().map(of));
            eprintln!(
                "{:24} {:15} {:6.1} µs  Redis {:5.1} µs  {:7.0}/s  p99 {:6.0} µs  {:.1} commands: {}",
                row.scenario,
                row.app,
                median(|sample| sample.app_cpu),
                median(|sample| sample.redis_cpu),
                median(|sample| sample.per_second),
                median(|sample| sample.p99),
                row.commands,
                row.commands_text,
            );
        }
        rows.append(&mut measured);
    }

    let mut resident = BTreeMap::new();
    let mut kept = BTreeMap::new();
    for app in &running {
        resident.insert(app.name.clone(), app.process.resident()? as f64);
        let (_other, other) = start_app(&app.name, &url)?;
        let one = increments_kept(&[&app.address]).await?;
        let two = increments_kept(&[&app.address, &other]).await?;
        eprintln!("{:15} kept {one} and {two} of {INCREMENTS}", app.name);
        kept.insert(app.name.clone(), [one, two]);
    }
    for app in &running {
        for session in app.cookies.keys() {
            std::fs::remove_file(cookie_file(&app.name, *session))?;
        }
    }
    results::save(
        "compare.json",
        &Compare {
            machine: Machine::this(&mut info[0])?,
            rounds,
            seconds,
            connections,
            sessions,
            runtime: match apps::is_single_threaded() {
                true => CURRENT_THREAD.to_owned(),
                false => "multi_thread".to_owned(),
            },
            apps: running.iter().map(|app| app.name.clone()).collect(),
            rows,
            kept,
            increments: INCREMENTS,
            resident,
            session_bytes,
        },
    )
}

fn cookie_file(app: &str, (shape, size): (Shape, usize)) -> PathBuf {
    let process = std::process::id();
    env::temp_dir().join(format!(
        "axum-redis-sessions-{process}-{app}-{shape}-{size}"
    ))
}

/// Sends the increments in parallel, each over its own connection, and returns how many of them the session has afterwards.
async fn increments_kept(addresses: &[&str]) -> Result<u64, Failure> {
    let cookie = seed(addresses[0], (Shape::Fields, 300), 1).await?.remove(0);
    let begin = Arc::new(Barrier::new(INCREMENTS as usize));
    let clients: Vec<_> = (0..INCREMENTS as usize)
        .map(|number| {
            let address = addresses[number % addresses.len()].to_owned();
            let (cookie, begin) = (cookie.clone(), begin.clone());
            tokio::spawn(async move {
                let mut client = Client::connect(&address).await?;
                begin.wait().await;
                // A rejected increment is lost like any other, so its status does not matter.
                client.get("/write", &cookie).await?;
                Ok::<_, Failure>(())
            })
        })
        .collect();
    for client in clients {
        client.await??;
    }
    let response = Client::connect(addresses[0])
        .await?
        .get("/read", &cookie)
        .await?;
    // A new session begins with 1.
    Ok(response.body.parse::<u64>()?.saturating_sub(1))
}
