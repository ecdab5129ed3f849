//! Metrics that Redis reports: INFO and MONITOR.

use std::collections::BTreeMap;

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::{Failure, client::Client};

/// Returns a field of INFO.
pub fn info(connection: &mut redis::Connection, name: &str) -> Result<String, Failure> {
    let info: String = redis::cmd("INFO").query(connection)?;
    let value = info
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .ok_or_else(|| format!("no {name} in INFO"))?;
    Ok(value.trim().to_owned())
}

pub fn used_memory(connection: &mut redis::Connection) -> Result<f64, Failure> {
    Ok(info(connection, "used_memory")?.parse()?)
}

/// Returns the number of calls of each command so far, by clients and by scripts.
pub fn calls(connection: &mut redis::Connection) -> Result<BTreeMap<String, f64>, Failure> {
    let info: String = redis::cmd("INFO").arg("commandstats").query(connection)?;
    let mut calls = BTreeMap::new();
    for line in info.lines() {
        let Some((name, numbers)) = line
            .strip_prefix("cmdstat_")
            .and_then(|line| line.split_once(":calls="))
        else {
            continue;
        };
        let number = numbers
            .split(',')
            .next()
            .ok_or("commandstats: a line without a number of calls")?;
        if name != "info" {
            calls.insert(name.to_owned(), number.parse()?);
        }
    }
    Ok(calls)
}

/// The commands of a request, those sent by the app and those called by scripts.
#[derive(Debug, Default)]
pub struct Commands {
    /// The average per request.
    pub sent: f64,
    pub inner: f64,
    /// The commands of the last request, in order; those called by scripts in brackets.
    pub text: String,
}

/// Records with MONITOR the commands of requests that are sent one after the other, each with its own cookie. The first request is not
/// recorded, since it may load a script.
pub async fn watch(
    redis: &str,
    address: &str,
    path: &str,
    cookies: &[String],
) -> Result<Commands, Failure> {
    let (first, cookies) = cookies.split_first().ok_or("watch: no cookies")?;
    let mut client = Client::connect(address).await?;
    client.get(path, first).await?;
    let server = redis
        .trim_start_matches("redis://")
        .trim_end_matches('/')
        .to_owned();
    let mut monitor = BufReader::new(TcpStream::connect(&server).await?);
    let mut marker = TcpStream::connect(&server).await?;
    monitor.get_mut().write_all(b"MONITOR\r\n").await?;
    let mut line = String::new();
    monitor.read_line(&mut line).await?;
    let mut commands = Commands::default();
    for cookie in cookies {
        client.get(path, cookie).await?;
        marker.write_all(b"ECHO end-of-request\r\n").await?;
        commands.text.clear();
        loop {
            line.clear();
            monitor.read_line(&mut line).await?;
            if line.contains("\"end-of-request\"") {
                break;
            }
            let name = line
                .split('"')
                .nth(1)
                .ok_or("MONITOR: a line without a command")?;
            let (text, count) = if line.contains(" lua] ") {
                (format!("({name})"), &mut commands.inner)
            } else {
                (format!(" {name}"), &mut commands.sent)
            };
            commands.text += &text.to_uppercase();
            *count += 1.0;
        }
    }
    commands.sent /= cookies.len() as f64;
    commands.inner /= cookies.len() as f64;
    commands.text = commands.text.trim().to_owned();
    Ok(commands)
}
