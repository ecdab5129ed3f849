//! 64 writers on one session for five seconds, over two instances of the app that share one Redis: what became of each write.
//!
//! ```sh
//! cargo build --release --manifest-path benches/by_hand/Cargo.toml --target-dir target/by-hand
//! target/by-hand/release/storm              # needs redis-server on the PATH
//! ```
//!
//! `WRITERS` (64), `SECONDS_EACH` (5) and `REDIS_SERVER` (`redis-server`) may be set.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use by_hand::{Failure, setting, start_app, start_redis};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let (writers, seconds) = (setting("WRITERS", 64), setting("SECONDS_EACH", 5));
    let (_redis, url) = start_redis()?;
    let nodes = [start_app("layer", &url)?, start_app("layer", &url)?];

    let (_, head, _) = Client::connect(&nodes[0].1)
        .await?
        .get("/write", "")
        .await?;
    let cookie = head
        .lines()
        .find_map(|line| line.strip_prefix("set-cookie: ")?.split(';').next());
    let cookie = cookie.ok_or("no cookie")?.to_owned();
    let end = Instant::now() + Duration::from_secs(seconds);
    let writers: Vec<_> = (0..writers)
        .map(|writer| {
            let (address, cookie) = (nodes[(writer % 2) as usize].1.clone(), cookie.clone());
            tokio::spawn(async move {
                let mut client = Client::connect(&address).await?;
                let mut answers: Vec<(u16, Duration)> = Vec::new();
                while Instant::now() < end {
                    let asked = Instant::now();
                    let (status, _, _) = client.get("/write", &cookie).await?;
                    answers.push((status, asked.elapsed()));
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
    let (_, _, counter) = Client::connect(&nodes[0].1)
        .await?
        .get("/read", &cookie)
        .await?;
    println!("answers by status:      {by_status:?}");
    println!(
        "acknowledged / counted: {} / {}",
        by_status.get(&200).copied().unwrap_or(0) + 1,
        counter
    );
    println!(
        "median / longest:       {:?} / {:?}",
        took[took.len() / 2],
        took[took.len() - 1]
    );
    let mut totals = [0_u64; 4];
    for (_, address) in &nodes {
        let (_, _, stats) = Client::connect(address).await?.get("/stats", "").await?;
        for (total, number) in totals.iter_mut().zip(stats.split(' ')) {
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

struct Client(tokio::io::BufReader<TcpStream>);

impl Client {
    async fn connect(address: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(tokio::io::BufReader::new(stream)))
    }

    /// Status, head and body.
    async fn get(&mut self, path: &str, cookie: &str) -> Result<(u16, String, String), Failure> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).await?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head).await? == 0 {
                return Err("the connection closed".into());
            }
        }
        let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(Ok(0), str::parse)?;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        Ok((status, head, String::from_utf8(body)?))
    }
}
