//! What a request costs with this crate, as a ratio to the same app written by hand, measured in turns in one run.
//!
//! ```sh
//! cargo build --release --manifest-path benches/by_hand/Cargo.toml --target-dir target/by-hand
//! target/by-hand/release/compare            # needs redis-server and wrk on the PATH
//! ```
//!
//! `ROUNDS` (7), `SECONDS_EACH` (3), `CONNECTIONS` (64), `REDIS_SERVER` (`redis-server`) and `ONLY` (how the names of the rows begin)
//! may be set.

use std::{
    env, fs,
    process::{Command, Stdio},
};

use by_hand::{Failure, Process, setting, start_app, start_redis};

const ID: &str = "5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e";

/// One app under load: what it and Redis spent on each request.
struct Measured {
    app_micros: f64,
    redis_micros: f64,
    commands: f64,
    per_second: f64,
    instructions: Option<f64>,
    p99: String,
}

fn main() -> Result<(), Failure> {
    let (rounds, seconds, connections) = (
        setting("ROUNDS", 7),
        setting("SECONDS_EACH", 3),
        setting("CONNECTIONS", 64),
    );
    let (redis, url) = start_redis()?;
    let mut connection = redis::Client::open(&*url)?.get_connection()?;
    let apps = [start_app("by-hand", &url)?, start_app("layer", &url)?];

    println!(
        "| request | app CPU | instructions | requests/s | Redis CPU | commands | app µs by hand / layer | p99 by hand / layer |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    let only = env::var("ONLY").unwrap_or_default();
    for (name, path, size) in [
        ("untouched", "untouched", 300),
        ("read 300 B", "read", 300),
        ("read 2 kB", "read", 2_000),
        ("read 20 kB", "read", 20_000),
        ("write 300 B", "write", 300),
        ("write 2 kB", "write", 2_000),
        ("write 20 kB", "write", 20_000),
    ] {
        if !name.starts_with(&only) {
            continue;
        }
        let mut pairs = Vec::new();
        for round in 0..rounds {
            let mut pair = [None, None];
            // Who comes first alternates.
            for turn in 0..2 {
                let app = usize::from((round + turn) % 2 == 1);
                let (process, address) = &apps[app];
                seed(&mut connection, size)?;
                pair[app] = Some(measure(
                    process,
                    &redis,
                    &mut connection,
                    &format!("http://{address}/{path}"),
                    seconds,
                    connections,
                )?);
            }
            if let [Some(by_hand), Some(layer)] = pair {
                pairs.push((by_hand, layer));
            }
        }
        let ratio = |of: fn(&Measured) -> f64| {
            let mut ratios: Vec<f64> = pairs
                .iter()
                .map(|(by_hand, layer)| of(layer) / of(by_hand))
                .collect();
            ratios.sort_by(f64::total_cmp);
            format!(
                "{:.2} ({:.2}–{:.2})",
                ratios[ratios.len() / 2],
                ratios[0],
                ratios[ratios.len() - 1]
            )
        };
        let (by_hand, layer) = &pairs[pairs.len() / 2];
        let instructions = if layer.instructions.is_some() {
            ratio(|m| m.instructions.unwrap_or(f64::NAN))
        } else {
            "–".into()
        };
        println!(
            "| {name} | {} | {instructions} | {} | {} | {:.1} / {:.1} | {:.1} / {:.1} | {} / {} |",
            ratio(|m| m.app_micros),
            ratio(|m| m.per_second),
            if layer.redis_micros > 0.5 {
                ratio(|m| m.redis_micros)
            } else {
                "–".into()
            },
            by_hand.commands,
            layer.commands,
            by_hand.app_micros,
            layer.app_micros,
            by_hand.p99,
            layer.p99,
        );
    }
    Ok(())
}

/// Many sessions, so that 64 connections hardly ever meet on one.
fn seed(connection: &mut redis::Connection, size: usize) -> Result<(), redis::RedisError> {
    let mut map = format!(
        "{{\"_rev\":\"0123456789abcdef\",\"_created\":{},\"n\":1",
        1_760_000_000
    );
    for field in 0.. {
        if map.len() + 40 > size {
            break;
        }
        map += &format!(
            ",\"field-{field:04}\":\"{}\"",
            "x".repeat(if size > 1000 { 90 } else { 20 })
        );
    }
    map.push('}');
    let mut pipe = redis::pipe();
    for number in 0..SESSIONS {
        pipe.cmd("SETEX")
            .arg(format!("session:{}", id(number)))
            .arg(86_400)
            .arg(&map)
            .ignore();
    }
    pipe.query(connection)
}

const SESSIONS: u32 = 4096;

fn id(number: u32) -> String {
    format!("{}{number:04x}", &ID[..32])
}

fn measure(
    app: &Process,
    redis: &Process,
    connection: &mut redis::Connection,
    url: &str,
    seconds: u64,
    connections: u64,
) -> Result<Measured, Failure> {
    let script = env::temp_dir().join("axum-redis-sessions-wrk.lua");
    fs::write(
        &script,
        format!(
            "local n = 0\nrequest = function()\n  n = (n + 1) % {SESSIONS}\n  \
             wrk.headers['Cookie'] = string.format('__Host-session={}%04x', n)\n  return wrk.format()\nend\n",
            &ID[..32]
        ),
    )?;
    let calls = |connection: &mut redis::Connection| -> Result<f64, redis::RedisError> {
        let info: String = redis::cmd("INFO").arg("commandstats").query(connection)?;
        // Each script sends one SET of its own.
        let count = |name: &str| {
            let line = info
                .lines()
                .find(|line| line.starts_with(&format!("cmdstat_{name}:calls=")));
            line.and_then(|line| line.split(['=', ',']).nth(1)?.parse::<f64>().ok())
                .unwrap_or(0.0)
        };
        let (scripts, sets) = (count("evalsha"), count("set"));
        Ok(count("get") + count("getex") + count("setex") + scripts + (sets - scripts).max(0.0))
    };
    let perf = Command::new("perf")
        .args([
            "stat",
            "-x,",
            "-e",
            "instructions:u",
            "-p",
            &app.id().to_string(),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .ok();
    let before = (cpu(app)?, cpu(redis)?, calls(connection)?);
    let load = Command::new("wrk")
        .args([
            "-t1",
            &format!("-c{connections}"),
            &format!("-d{seconds}s"),
            "--latency",
            "-s",
        ])
        .arg(&script)
        .arg(url)
        .output()
        .map_err(|error| format!("wrk does not start ({error}); on Debian: apt-get install wrk"))?;
    let after = (cpu(app)?, cpu(redis)?, calls(connection)?);
    let instructions = perf.and_then(|perf| {
        Command::new("kill")
            .args(["-INT", &perf.id().to_string()])
            .status()
            .ok()?;
        let output = perf.wait_with_output().ok()?;
        String::from_utf8(output.stderr)
            .ok()?
            .lines()
            .find(|line| line.contains("instructions"))?
            .split(',')
            .next()?
            .parse::<f64>()
            .ok()
    });
    let report = String::from_utf8(load.stdout)?;
    if report.contains("Non-2xx") || report.contains("Socket errors") {
        return Err(format!("{url}: {report}").into());
    }
    let requests: f64 = report
        .lines()
        .find(|line| line.contains("requests in"))
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .ok_or("no requests")?;
    let p99 = report
        .lines()
        .find(|line| line.trim_start().starts_with("99%"))
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap_or("?");
    Ok(Measured {
        app_micros: (after.0 - before.0) / requests,
        redis_micros: (after.1 - before.1) / requests,
        commands: (after.2 - before.2) / requests,
        per_second: requests / seconds as f64,
        instructions: instructions.map(|instructions| instructions / requests),
        p99: p99.to_owned(),
    })
}

/// Microseconds of CPU that a process has used, to the tick of 10 ms.
fn cpu(process: &Process) -> Result<f64, Failure> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id()))?;
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .ok_or("no name")?
        .1
        .split(' ')
        .collect();
    let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks * 10_000.0)
}
