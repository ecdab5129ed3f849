//! Load generators: wrk, and our own where each response sets a new cookie.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::{Failure, client::Client};

/// The result of a run.
#[derive(Debug)]
pub struct Outcome {
    pub requests: f64,
    pub seconds: f64,
    /// Microseconds.
    pub p50: f64,
    pub p99: f64,
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/load.lua");

/// `cookies` is a file with one cookie a line; the requests use them in turn.
pub fn wrk(
    url: &str,
    cookies: Option<&Path>,
    connections: u64,
    seconds: u64,
) -> Result<Outcome, Failure> {
    let mut command = Command::new("wrk");
    command
        .args(["-t1", "-s", SCRIPT])
        .arg(format!("-c{connections}"))
        .arg(format!("-d{seconds}s"))
        .arg(url);
    if let Some(cookies) = cookies {
        command.arg("--").arg(cookies);
    }
    let output = command
        .output()
        .map_err(|error| format!("wrk does not start ({error}); on Debian: apt-get install wrk"))?;
    let output = String::from_utf8(output.stdout)?;
    let line = output
        .lines()
        .find_map(|line| line.strip_prefix("outcome "))
        .ok_or_else(|| format!("{url}: {output}"))?;
    let numbers = line
        .split(' ')
        .map(str::parse)
        .collect::<Result<Vec<f64>, _>>()?;
    let [requests, micros, p50, p99, failures] = numbers[..] else {
        return Err(format!("{url}: {line}").into());
    };
    if failures > 0.0 || requests == 0.0 {
        return Err(format!("{url}: {failures} of {requests} requests failed").into());
    }
    Ok(Outcome {
        requests,
        seconds: micros / 1e6,
        p50,
        p99,
    })
}

/// Sends requests over one connection per cookie and replaces the cookie with the one that each response sets. wrk cannot do this if a
/// response has two `Set-Cookie` headers.
pub async fn following_cookies(
    address: &str,
    path: &'static str,
    cookies: &[String],
    seconds: u64,
) -> Result<Outcome, Failure> {
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds);
    let clients: Vec<_> = cookies
        .iter()
        .map(|cookie| {
            let (address, mut cookie) = (address.to_owned(), cookie.clone());
            tokio::spawn(async move {
                let mut client = Client::connect(&address).await?;
                let mut latencies = Vec::new();
                while Instant::now() < end {
                    let sent = Instant::now();
                    let response = client.get(path, &cookie).await?;
                    latencies.push(sent.elapsed());
                    let next = response
                        .cookie()
                        .ok_or("the response sets no new session cookie")?;
                    if response.status != 200 || next == cookie {
                        return Err(format!("{path}: {}", response.status).into());
                    }
                    cookie = next.to_owned();
                }
                Ok::<_, Failure>(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await??);
    }
    latencies.sort_unstable();
    let at = |share: f64| latencies[(latencies.len() as f64 * share) as usize].as_secs_f64() * 1e6;
    Ok(Outcome {
        requests: latencies.len() as f64,
        seconds: began.elapsed().as_secs_f64(),
        p50: at(0.50),
        p99: at(0.99),
    })
}
