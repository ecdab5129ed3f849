//! The servers: a private Redis, and the apps beside it.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::Failure;

/// A process that ends with this.
pub struct Process(Child);

impl Process {
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Microseconds of CPU that it has used so far, over all its threads.
    pub fn cpu(&self) -> Result<f64, Failure> {
        let mut nanos = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.id()))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            nanos += text
                .split_whitespace()
                .next()
                .ok_or("an empty schedstat")?
                .parse::<u64>()?;
        }
        Ok(nanos as f64 / 1000.0)
    }

    /// Bytes of memory that it has resident.
    pub fn resident(&self) -> Result<u64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .ok_or("no VmRSS")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes * 1024)
    }

    /// Asks it to end, and waits until it has.
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

/// Starts the binary that `REDIS_SERVER` names, without persistence, and waits until it answers. With its URL.
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

pub fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Starts an app, which is the binary of this name beside the one that runs. With its address.
pub fn start_app(name: &str, redis: &str) -> Result<(Process, String), Failure> {
    start_app_under(&[], name, redis)
}

/// Starts an app as an argument of another program, under which it may be slow.
pub fn start_app_under(
    program: &[&str],
    name: &str,
    redis: &str,
) -> Result<(Process, String), Failure> {
    let app = env::current_exe()?.with_file_name(name);
    let mut command = match program {
        [] => Command::new(app),
        [program, options @ ..] => {
            let mut command = Command::new(program);
            command.args(options).arg(app).env("PATIENT", "1");
            command
        }
    };
    let mut child = command
        .arg(redis)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{name} does not start: {error}"))?;
    let mut address = String::new();
    let output = child.stdout.take().ok_or("no output")?;
    let process = Process(child);
    BufReader::new(output).read_line(&mut address)?;
    if address.is_empty() {
        return Err(format!("{name} ended before it listened").into());
    }
    Ok((process, address.trim().to_owned()))
}
