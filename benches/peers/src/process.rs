//! Starts the servers: a private Redis and the apps.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{CURRENT_THREAD, Failure, RUNTIME};

/// A child process, killed when dropped.
pub struct Process(Child);

impl Process {
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// CPU time used so far by all its threads, in microseconds.
    pub fn cpu(&self) -> Result<f64, Failure> {
        let mut nanos = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.id()))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            nanos += text
                .split_whitespace()
                .next()
                .ok_or("schedstat is empty")?
                .parse::<u64>()?;
        }
        Ok(nanos as f64 / 1000.0)
    }

    /// Resident memory, in bytes.
    pub fn resident(&self) -> Result<u64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .ok_or("/proc/PID/status has no VmRSS")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes * 1024)
    }

    /// Sends SIGTERM and waits until the process has ended.
    pub fn end(mut self) -> Result<(), Failure> {
        Command::new("kill").arg(self.id().to_string()).status()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the binary that `REDIS_SERVER` names, without persistence, and waits until it responds. Returns its URL as well.
pub fn start_redis() -> Result<(Process, String), Failure> {
    start_redis_with(free_port()?, &[])
}

pub fn start_redis_with(port: u16, options: &[&str]) -> Result<(Process, String), Failure> {
    let binary = env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
    let process = Command::new(&binary)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no"])
        .args(options)
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start {binary} ({error}); tests/run.sh installs it"))?;
    let process = Process(process);
    let url = format!("redis://127.0.0.1:{port}/");
    let started = Instant::now();
    while redis::Client::open(&*url)?.get_connection().is_err() {
        if started.elapsed() > Duration::from_secs(10) {
            return Err(format!("{binary} does not respond after 10 seconds").into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok((process, url))
}

pub fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Starts an app: the binary of this name in the directory of the running one. Returns its address as well.
pub fn start_app(name: &str, redis: &str) -> Result<(Process, String), Failure> {
    start_app_under(&[], name, redis)
}

/// Starts an app under valgrind, on one thread.
pub fn start_app_under(
    valgrind: &[&str],
    name: &str,
    redis: &str,
) -> Result<(Process, String), Failure> {
    let app = env::current_exe()?.with_file_name(name);
    let mut command = match valgrind {
        [] => Command::new(app),
        [program, options @ ..] => {
            let mut command = Command::new(program);
            // Valgrind runs one thread at a time; with several, the counts would depend on how it schedules them.
            command
                .args(options)
                .arg(app)
                .env("UNDER_VALGRIND", "1")
                .env(RUNTIME, CURRENT_THREAD);
            command
        }
    };
    let mut child = command
        .arg(redis)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {name}: {error}"))?;
    let mut address = String::new();
    let output = child.stdout.take().ok_or("no standard output")?;
    let process = Process(child);
    BufReader::new(output).read_line(&mut address)?;
    if address.is_empty() {
        return Err(format!("{name} ended before it listened on a port").into());
    }
    Ok((process, address.trim().to_owned()))
}
