use std::{
    env, fs,
    net::TcpListener,
    path::PathBuf,
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use redis::FromRedisValue;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    sync::Mutex,
};

/// How long a server may take to start on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// A Redis or Valkey server of this test's own, without persistence, that ends with it.
pub struct Server {
    child: Child,
    port: u16,
    arguments: Vec<String>,
    directory: PathBuf,
}

impl Server {
    /// Starts the binary that `REDIS_SERVER` names, `redis-server` by default, and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub async fn start_with(arguments: &[&str]) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let directory =
            env::temp_dir().join(format!("axum-redis-sessions-{}-{number}", process::id()));
        fs::create_dir_all(&directory).expect("a temporary directory");
        let arguments: Vec<String> = arguments
            .iter()
            .map(|&argument| argument.to_owned())
            .collect();
        // Another test may take the port between our finding it free and the server's taking it.
        for _ in 0..5 {
            let port = free_port();
            let mut server = Self {
                child: spawn(port, &arguments, &directory),
                port,
                arguments: arguments.clone(),
                directory: directory.clone(),
            };
            if server.answers().await {
                return server;
            }
        }
        panic!(
            "{} did not start: {}",
            binary(),
            fs::read_to_string(directory.join("log")).unwrap_or_default()
        );
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn client(&self) -> redis::Client {
        redis::Client::open(self.url()).expect("an address")
    }

    /// Sends one command over a connection of its own.
    pub async fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = self
            .client()
            .get_multiplexed_async_connection()
            .await
            .expect("a connection");
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command
            .query_async(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", words[0]))
    }

    /// SIGKILL: it loses everything, and its port is closed.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// SIGSTOP: its port accepts and nothing answers.
    pub fn stop(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Starts it again on the same port.
    pub async fn restart(&mut self) {
        let end = Instant::now() + PATIENCE;
        loop {
            self.child = spawn(self.port, &self.arguments, &self.directory);
            if self.answers().await {
                return;
            }
            assert!(
                Instant::now() < end,
                "the server did not come back on port {}",
                self.port
            );
        }
    }

    /// Records every command that a client sends from now on.
    pub async fn monitor(&self) -> Monitor {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port))
            .await
            .expect("a connection");
        let mut stream = BufReader::new(stream);
        stream.write_all(b"MONITOR\r\n").await.expect("sent");
        let mut line = String::new();
        stream.read_line(&mut line).await.expect("an answer");
        assert_eq!(line, "+OK\r\n");
        Monitor {
            stream: Mutex::new(stream),
            client: self.client(),
        }
    }

    /// Whether it is up, before it ends by itself.
    async fn answers(&mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if self.child.try_wait().expect("a child").is_some() {
                return false;
            }
            // Connecting alone says little: the port may be another process's.
            if let Ok(mut connection) = self
                .client()
                .get_connection_with_timeout(Duration::from_secs(1))
            {
                let up: redis::RedisResult<String> =
                    redis::cmd("INFO").arg("server").query(&mut connection);
                if up.is_ok_and(|info| info.contains(&format!("process_id:{}\r", self.child.id())))
                {
                    return true;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status();
        assert!(sent.expect("kill runs").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// What clients asked of a server, without what its scripts did on their behalf.
pub struct Monitor {
    stream: Mutex<BufReader<tokio::net::TcpStream>>,
    client: redis::Client,
}

impl Monitor {
    /// The commands since the last time, each as its words. Exact: a marker of our own comes last.
    pub async fn drain(&self) -> Vec<Vec<String>> {
        const MARKER: &str = "that was all";
        let mut connection = self
            .client
            .get_multiplexed_async_connection()
            .await
            .expect("a connection");
        let _: String = redis::cmd("ECHO")
            .arg(MARKER)
            .query_async(&mut connection)
            .await
            .expect("an echo");
        let mut stream = self.stream.lock().await;
        let mut commands = Vec::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.expect("a line");
            let (source, command) = line.split_once("] ").expect("`+time [db address] command`");
            let words = words(command);
            if words.last().is_some_and(|word| word == MARKER) {
                return commands;
            }
            let of_a_script = source.ends_with("lua");
            let of_a_connection = ["HELLO", "CLIENT", "AUTH", "SELECT", "PING", "MONITOR"]
                .iter()
                .any(|name| words[0].eq_ignore_ascii_case(name));
            if !of_a_script && !of_a_connection {
                commands.push(words);
            }
        }
    }
}

/// The words of a line of MONITOR: each in double quotes, with backslashes before quotes and backslashes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut characters = line.chars();
    while characters.by_ref().any(|character| character == '"') {
        let mut word = String::new();
        loop {
            match characters.next().expect("a closing quote") {
                '"' => break,
                '\\' => word.push(characters.next().expect("an escaped character")),
                character => word.push(character),
            }
        }
        words.push(word);
    }
    words
}

fn binary() -> String {
    env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

fn spawn(port: u16, arguments: &[String], directory: &PathBuf) -> Child {
    let log = fs::File::create(directory.join("log")).expect("a log");
    Command::new(binary())
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no"])
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stderr(log.try_clone().expect("a log"))
        .stdout(log)
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "{} does not start ({error}): run tests/run.sh, which installs it",
                binary()
            )
        })
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);

    port
}
