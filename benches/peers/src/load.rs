//! Load: wrk's, and where each answer brings a new cookie, our own.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::{Failure, client::Client};

/// What became of the requests.
#[derive(Debug)]
pub struct Outcome {
    pub requests: f64,
    pub seconds: f64,
    /// Microseconds.
    pub p50: f64,
    pub p99: f64,
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/load.lua");

/// `cookies`: a file with one a line; the requests take turns with them.
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

/// One connection for each cookie, which follows the cookies that it is given. (wrk cannot where an answer has two Set-Cookie lines.)
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
                let mut took = Vec::new();
                while Instant::now() < end {
                    let asked = Instant::now();
                    let answer = client.get(path, &cookie).await?;
                    took.push(asked.elapsed());
                    let next = answer.cookie().ok_or("no new cookie")?;
                    if answer.status != 200 || next == cookie {
                        return Err(format!("{path}: {}", answer.status).into());
                    }
                    cookie = next.to_owned();
                }
                Ok::<_, Failure>(took)
            })
        })
        .collect();
    let mut took = Vec::new();
    for client in clients {
        took.extend(client.await??);
    }
    took.sort_unstable();
    let at = |share: f64| took[(took.len() as f64 * share) as usize].as_secs_f64() * 1e6;
    Ok(Outcome {
        requests: took.len() as f64,
        seconds: began.elapsed().as_secs_f64(),
        p50: at(0.50),
        p99: at(0.99),
    })
}
