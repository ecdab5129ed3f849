//! What both benchmarks stand on: a private Redis, and the app beside it.

use std::{
    env,
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A process that ends with this.
pub struct Process(Child);

impl Process {
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A number from the environment.
pub fn setting(name: &str, default: u64) -> u64 {
    env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// Starts the binary that `REDIS_SERVER` names, without persistence, and waits until it answers. With its URL.
pub fn start_redis() -> Result<(Process, String), Failure> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let binary = env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
    let process = Command::new(&binary)
        .args([
            "--port",
            &port.to_string(),
            "--save",
            "",
            "--appendonly",
            "no",
        ])
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| {
            format!("{binary} does not start ({error}): run tests/run.sh, which installs it")
        })?;
    let process = Process(process);
    let url = format!("redis://127.0.0.1:{port}/");
    let started = Instant::now();
    while redis::Client::open(&*url)?.get_connection().is_err() {
        if started.elapsed() > Duration::from_secs(10) {
            return Err(format!("{binary} does not answer").into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok((process, url))
}

/// Starts the app, `by-hand` or `layer`. With its address.
pub fn start_app(kind: &str, redis: &str) -> Result<(Process, String), Failure> {
    let server = env::current_exe()?.with_file_name("server");
    let mut child = Command::new(server)
        .args([kind, redis])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut address = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut address)?;
    Ok((Process(child), address.trim().to_owned()))
}
