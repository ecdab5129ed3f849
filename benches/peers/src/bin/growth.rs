//! Measures this crate's cost per request as the number of sessions, connections and cluster shards grows, and the memory that
//! sessions use in Redis.
//!
//! ```sh
//! cargo build --release --manifest-path benches/peers/Cargo.toml --target-dir target/peers --features cluster
//! target/peers/release/growth               # needs redis-server and wrk on the PATH, and 1 GB of memory
//! target/peers/release/report               # renders charts and tables
//! ```
//!
//! Environment variables and their defaults: `ROUNDS` (3), `SECONDS_EACH` (2), `MAX_SESSIONS` (1000000), `RUNTIME`, `REDIS_SERVER` and
//! `RESULTS` as for `compare`. With the defaults it takes about two minutes. Without the feature `cluster` it skips the shards.

use std::{env, path::Path};

use peers::{
    Failure, Shape,
    cluster::Cluster,
    load,
    measure::Counters,
    process::{Process, start_app, start_redis},
    redis_info,
    results::{self, Growth, Machine, Point, Sample},
    scenario::{seed, write_cookies},
    setting,
};
use redis::Commands;

/// Cookies used in turn by a run, spread evenly over all sessions.
const COOKIES: usize = 20_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<(), Failure> {
    let max = setting("MAX_SESSIONS", 1_000_000);
    let mut points = Vec::new();
    let machine;
    let mut bytes = Vec::new();
    {
        let (redis, url) = start_redis()?;
        let (app, address) = start_app("this_crate", &url)?;
        let info = &mut [redis::Client::open(&*url)?.get_connection()?];
        machine = Machine::this(&mut info[0])?;
        for size in [100, 300, 1_000, 2_000, 5_000, 20_000, 60_000] {
            bytes.push(session_bytes(&address, size, &mut info[0]).await?);
        }
        redis::cmd("FLUSHALL").query::<()>(&mut info[0])?;

        let model = model(&address, 300, &mut info[0]).await?;
        let mut there = 0;
        for sessions in [1_000, 100_000, 1_000_000] {
            if sessions > max {
                break;
            }
            copy(&model, there..sessions, &mut info[0])?;
            there = sessions;
            let cookies: Vec<String> = (0..COOKIES as u64)
                // 7,919 is coprime to the number of sessions, so the cookies are distinct.
                .map(|number| cookie(number * 7_919 % sessions))
                .collect();
            let servers = [&redis];
            let load = Load::new(&app, &servers, &address, &cookies)?;
            points.append(&mut load.points("sessions", sessions, 64, info)?);
        }
        let cookies = seed(&address, (Shape::Fields, 300), 1024).await?;
        for connections in [1, 64, 512] {
            let servers = [&redis];
            let load = Load::new(&app, &servers, &address, &cookies)?;
            points.append(&mut load.points("connections", connections, connections, info)?);
        }
    }
    if cfg!(feature = "cluster") {
        for shards in [1, 3] {
            let mut cluster = Cluster::start(shards)?;
            // The app treats URLs with a comma as a cluster, even a single one.
            let (app, address) = start_app("this_crate", &(cluster.urls.join(",") + ","))?;
            let cookies = seed(&address, (Shape::Fields, 300), 1024).await?;
            let nodes: Vec<&Process> = cluster.nodes.iter().collect();
            let load = Load::new(&app, &nodes, &address, &cookies)?;
            let info = &mut cluster.connections;
            points.append(&mut load.points("shards", shards as u64, 64, info)?);
        }
    }
    results::save(
        "growth.json",
        &Growth {
            machine,
            rounds: setting("ROUNDS", 3),
            seconds: setting("SECONDS_EACH", 2),
            points,
            bytes,
        },
    )
}

struct Load<'a> {
    app: &'a Process,
    redis: &'a [&'a Process],
    address: &'a str,
    cookies: std::path::PathBuf,
}

impl<'a> Load<'a> {
    fn new(
        app: &'a Process,
        redis: &'a [&'a Process],
        address: &'a str,
        cookies: &[String],
    ) -> Result<Self, Failure> {
        let file = format!("axum-redis-sessions-{}-cookies", std::process::id());
        let path = env::temp_dir().join(file);
        write_cookies(&path, cookies)?;
        Ok(Self {
            app,
            redis,
            address,
            cookies: path,
        })
    }

    /// Measures reads and writes, in turns.
    fn points(
        &self,
        what: &str,
        number: u64,
        connections: u64,
        info: &mut [redis::Connection],
    ) -> Result<Vec<Point>, Failure> {
        let mut points = ["read", "write"].map(|scenario| Point {
            what: what.to_owned(),
            number,
            scenario: scenario.to_owned(),
            samples: Vec::new(),
        });
        for _ in 0..setting("ROUNDS", 3) {
            for point in &mut points {
                let counters = Counters::read(self.app, self.redis, info)?;
                let url = format!("http://{}/{}", self.address, point.scenario);
                let cookies: Option<&Path> = Some(&self.cookies);
                let outcome = load::wrk(&url, cookies, connections, setting("SECONDS_EACH", 2))?;
                point.samples.push(counters.since(&outcome, info)?);
            }
        }
        for point in &points {
            let median = |of: fn(&Sample) -> f64| results::median(point.samples.iter().map(of));
            eprintln!(
                "{number:8} {what:11} {:5}  {:6.1} µs  Redis {:5.1} µs  {:7.0}/s  p99 {:6.0} µs",
                point.scenario,
                median(|sample| sample.app_cpu),
                median(|sample| sample.redis_cpu),
                median(|sample| sample.per_second),
                median(|sample| sample.p99),
            );
        }
        Ok(points.into())
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.cookies));
    }
}

const ID: &str = "5e0c1f0a-93a4-4f8e-a7d8-0c2f";

fn cookie(number: u64) -> String {
    format!("{}={ID}{number:08x}", peers::COOKIE)
}

/// Returns the text that this crate stores for a session of about `size` bytes.
async fn model(
    address: &str,
    size: usize,
    connection: &mut redis::Connection,
) -> Result<Vec<u8>, Failure> {
    let cookie = seed(address, (Shape::Fields, size), 1).await?.remove(0);
    let id = cookie.split('=').nth(1).ok_or("a cookie without an id")?;
    let model = connection.get_del::<_, Option<Vec<u8>>>(format!("session:{id}"))?;
    Ok(model.ok_or("the session is not in Redis")?)
}

/// Stores the text under the numbered ids.
fn copy(
    model: &[u8],
    numbers: std::ops::Range<u64>,
    connection: &mut redis::Connection,
) -> Result<(), Failure> {
    let numbers: Vec<u64> = numbers.collect();
    for chunk in numbers.chunks(1_000) {
        let mut pipe = redis::pipe();
        for number in chunk {
            pipe.set_ex(format!("session:{ID}{number:08x}"), model, 86_400)
                .ignore();
        }
        pipe.query::<()>(connection)?;
    }
    Ok(())
}

/// Returns the length of the stored text, and the memory that Redis uses per session, with its key and its TTL.
async fn session_bytes(
    address: &str,
    size: usize,
    connection: &mut redis::Connection,
) -> Result<(usize, f64), Failure> {
    // A power of two, so the hash tables of Redis are full.
    const SESSIONS: u64 = 4_096;
    redis::cmd("FLUSHALL").query::<()>(connection)?;
    let model = model(address, size, connection).await?;
    let before = redis_info::used_memory(connection)?;
    copy(&model, 0..SESSIONS, connection)?;
    let added = redis_info::used_memory(connection)? - before;
    Ok((model.len(), added / SESSIONS as f64))
}
