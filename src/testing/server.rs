//! A Redis or Valkey server for the crate's unit tests, which have to run inside the package as well.

use std::{
    env, fs,
    net::TcpListener,
    path::PathBuf,
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use redis::{FromRedisValue, RedisResult};

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// A server of this test's own, without persistence, that is killed when it is dropped. `REDIS_SERVER` names the binary; default:
/// `redis-server`.
pub(crate) struct Server {
    child: Child,
    port: u16,
    directory: PathBuf,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn replica_of(master: &Self) -> Self {
        let port = master.port.to_string();
        let replica = Self::start_with(&["--replicaof", "127.0.0.1", &port]).await;
        let replication = async || replica.command::<String>(&["INFO", "replication"]).await;
        eventually(async || replication().await.contains("master_link_status:up")).await;
        replica
    }

    /// Starts it with further arguments, and waits until it answers.
    async fn start_with(arguments: &[&str]) -> Self {
        // Another process may take the port before the server does.
        for _ in 0..5 {
            let mut server = Self::spawn(arguments);
            let end = Instant::now() + LIMIT;
            while server.child.try_wait().expect("a child").is_none() && Instant::now() < end {
                let own_pid = format!("process_id:{}\r", server.child.id());
                let info = server.try_command::<String>(&["INFO", "server"]).await;
                if info.is_ok_and(|info| info.contains(&own_pid)) {
                    return server;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        panic!("{} does not start", binary());
    }

    fn spawn(arguments: &[&str]) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Relaxed);
        let directory = format!("axum-redis-sessions-unit-{}-{number}", process::id());
        let directory = env::temp_dir().join(directory);
        fs::create_dir_all(&directory).expect("a temporary directory");
        let port = free_port();
        let child = Command::new(binary())
            .args(["--save", "", "--appendonly", "no"])
            .args(["--repl-diskless-sync-delay", "0"])
            .args(arguments)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", binary()));
        Self {
            child,
            port,
            directory,
        }
    }

    pub(crate) fn client(&self) -> redis::Client {
        redis::Client::open(format!("redis://127.0.0.1:{}/", self.port)).expect("an address")
    }

    /// Sends one command over a connection of its own.
    pub(crate) async fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let reply = self.try_command(words).await;
        reply.unwrap_or_else(|error| panic!("{}: {error}", words[0]))
    }

    async fn try_command<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(LIMIT))
            .set_response_timeout(Some(LIMIT));
        let client = self.client();
        let connection = client.get_multiplexed_async_connection_with_config(&config);
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut connection.await?).await
    }

    /// Stops the process: connections stay open, and nothing is answered.
    pub(crate) fn stop(&self) {
        self.signal("STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        // The shell's own `kill`, since small systems have no other.
        let mut shell = Command::new("sh");
        shell.args(["-c", "kill -s \"$0\" \"$1\"", name]);
        let sent = shell.arg(self.child.id().to_string()).status();
        assert!(sent.expect("a shell").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Polls until `holds`.
#[track_caller]
fn eventually(mut holds: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let end = Instant::now() + LIMIT;
        while !holds().await {
            assert!(Instant::now() < end, "{caller}: not within {LIMIT:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn binary() -> String {
    env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

/// Below the ports that systems give to outgoing connections, where another process could get it meanwhile.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = process::id()
            .wrapping_mul(101)
            .wrapping_add(NEXT.fetch_add(1, Relaxed));
        let port = u16::try_from(12_000 + number % 8_000).expect("below 65,536");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
