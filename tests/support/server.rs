use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use redis::{AsyncConnectionConfig, FromRedisValue, RedisResult, aio::MultiplexedConnection};

use super::{PATIENCE, monitor::Monitor, secrets};

/// A Redis or Valkey server that ends when this value is dropped, without persistence by default.
///
/// When the test fails, the end of its log is printed.
pub struct Server {
    child: Child,
    port: u16,
    arguments: Vec<String>,
    password: Option<String>,
    directory: PathBuf,
}

impl Server {
    /// Starts the binary that `REDIS_SERVER` names, `redis-server` by default, and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With further arguments. With `--requirepass`, [`url`](Self::url) has the password.
    pub async fn start_with(arguments: &[&str]) -> Self {
        match Self::try_start(None, arguments).await {
            Ok(server) => server,
            Err(log) => panic!("{} did not start: {log}", binary()),
        }
    }

    /// With a configuration file, which the server may write to. With a line `requirepass`, [`url`](Self::url) has the password.
    pub async fn start_configured(lines: &[&str]) -> Self {
        match Self::try_start(Some(&lines.join("\n")), &[]).await {
            Ok(server) => server,
            Err(log) => panic!("{} did not start: {log}", binary()),
        }
    }

    /// As a sentinel, with a configuration file that it writes its state to.
    pub(super) async fn start_sentinel(configuration: &str) -> Self {
        match Self::try_start(Some(configuration), &["--sentinel"]).await {
            Ok(server) => server,
            Err(log) => panic!("{} --sentinel did not start: {log}", binary()),
        }
    }

    /// The error is the log: a server may be built without a feature that an argument needs.
    pub(super) async fn try_start(
        configuration: Option<&str>,
        arguments: &[&str],
    ) -> Result<Self, String> {
        let mut log = String::new();
        let is_node = arguments.contains(&"--cluster-enabled");
        // Another process may take the port before the server does.
        for _ in 0..5 {
            let port = if is_node {
                free_port_of_a_node()
            } else {
                free_port()
            };
            let mut server = Self::spawn(port, configuration, arguments);
            if server.answers().await {
                return Ok(server);
            }
            log = server.log();
        }
        Err(log)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The working directory, for relative paths in arguments.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn url(&self) -> String {
        let password = self.password();
        let credentials = password.map_or_else(String::new, |password| format!(":{password}@"));
        format!("redis://{credentials}127.0.0.1:{}/", self.port)
    }

    pub fn client(&self) -> redis::Client {
        redis::Client::open(self.url()).expect("an address")
    }

    /// Sends one command over a connection of its own.
    pub async fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let answer: RedisResult<T> = self.try_command(words).await;
        answer.unwrap_or_else(|error| panic!("{}: {error}", words[0]))
    }

    /// The same, with an error of the server or the connection as a result.
    pub async fn try_command<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let mut connection = connect(&self.client()).await?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut connection).await
    }

    pub async fn connection(&self) -> MultiplexedConnection {
        connect(&self.client()).await.expect("a connection")
    }

    pub async fn set(&self, option: &str, value: &str) {
        self.command::<String>(&["CONFIG", "SET", option, value])
            .await;
    }

    /// The keys of sessions.
    pub async fn session_keys(&self) -> Vec<String> {
        self.command(&["KEYS", "session:*"]).await
    }

    /// Whether it is Valkey, which also reports a version of Redis.
    pub async fn is_valkey(&self) -> bool {
        self.information("valkey_version").await.is_some()
    }

    /// The server's own version, such as `7.0.15`.
    pub async fn version(&self) -> String {
        match self.information("valkey_version").await {
            Some(version) => version,
            None => self.information("redis_version").await.expect("a version"),
        }
    }

    /// SIGKILL: data that is not on disk is lost, and the port is closed.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// SIGSTOP: the port accepts connections and nothing answers.
    pub fn stop(&self) {
        self.signal("STOP");
        // The signal is asynchronous; wait until the process has stopped, where there is a /proc.
        let end = Instant::now() + PATIENCE;
        let stat = format!("/proc/{}/stat", self.child.id());
        while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") T ")) {
            assert!(Instant::now() < end, "the server did not stop");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Restarts it on the same port with what is on disk, and waits until it answers, even if with LOADING.
    pub async fn restart(&mut self) {
        self.kill();
        let end = Instant::now() + PATIENCE;
        loop {
            self.relaunch();
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

    /// Restarts it on the same port without waiting.
    pub fn relaunch(&mut self) {
        self.kill();
        self.child = launch(self.port, &self.arguments, &self.directory);
    }

    /// Records every command that a client sends from now on.
    pub async fn monitor(&self) -> Monitor {
        Monitor::of(self).await
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    pub(super) fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    fn spawn(port: u16, configuration: Option<&str>, arguments: &[&str]) -> Self {
        secrets::watch();
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let directory =
            env::temp_dir().join(format!("axum-redis-sessions-{}-{number}", process::id()));
        fs::create_dir_all(&directory).expect("a temporary directory");
        let own: &[&str] = match configuration {
            Some(configuration) => {
                fs::write(directory.join("configuration"), configuration).expect("written");
                &["configuration"]
            }
            None => &["--save", "", "--appendonly", "no"],
        };
        let arguments = own.iter().chain(arguments);
        let arguments: Vec<String> = arguments.map(|&word| word.to_owned()).collect();
        let words = configuration.unwrap_or_default().split_whitespace();
        let words = words.chain(arguments.iter().map(|word| word.trim_start_matches("--")));
        let mut after = words.skip_while(|word| *word != "requirepass").skip(1);
        Self {
            password: after.next().map(str::to_owned),
            child: launch(port, &arguments, &directory),
            port,
            arguments,
            directory,
        }
    }

    /// Waits until it answers; `false` if it exits instead.
    async fn answers(&mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if self.child.try_wait().expect("a child").is_some() {
                return false;
            }
            // Another process may have the port, so a connection alone does not show it.
            let process = self.information("process_id").await;
            if process.is_some_and(|id| id == self.child.id().to_string()) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }

    /// A line of INFO, if it answers.
    pub async fn information(&self, name: &str) -> Option<String> {
        let lines: String = self.try_command(&["INFO"]).await.ok()?;
        lines
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find_map(|(key, value)| (key == name).then(|| value.to_owned()))
    }

    fn signal(&self, name: &str) {
        // The shell's built-in, since small systems have no `kill` program.
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
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(10)..].join("\n");
            eprintln!(
                "The server on port {} ended its log with:\n{end}",
                self.port
            );
        }
        let _ = fs::remove_dir_all(&self.directory);
        if !thread::panicking() {
            secrets::assert_none_logged();
        }
    }
}

/// A connection with a long timeout. The client's default of half a second is too short for a busy machine.
pub(super) async fn connect(client: &redis::Client) -> RedisResult<MultiplexedConnection> {
    let patient = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    client
        .get_multiplexed_async_connection_with_config(&patient)
        .await
}

fn binary() -> String {
    env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

fn launch(port: u16, arguments: &[String], directory: &PathBuf) -> Child {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(directory.join("log"));
    let log = log.expect("a log");
    Command::new(binary())
        // A configuration file must be the first argument.
        .args(arguments)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stderr(log.try_clone().expect("a log"))
        .stdout(log)
        .spawn()
        .unwrap_or_else(|error| {
            let _ = fs::remove_dir_all(directory);
            panic!(
                "{} does not start ({error}): run tests/run.sh, which installs it",
                binary()
            )
        })
}

/// A free port below the ephemeral range. A port in that range may be given to another process while the server is down, and
/// a client that connects to it may even get it as its own port, and so connect to itself.
pub(super) fn free_port() -> u16 {
    free_port_among(22_700, 7_300, |_| true)
}

/// A free port whose cluster bus port, 10,000 above it, is free as well.
fn free_port_of_a_node() -> u16 {
    free_port_among(20_000, 2_700, |port| is_free(port + 10_000))
}

fn free_port_among(first: u32, count: u32, serves: impl Fn(u16) -> bool) -> u16 {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    loop {
        // Concurrent test binaries begin at different ports.
        let number = process::id()
            .wrapping_mul(101)
            .wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(first + number % count).expect("below 2 to the 16");
        if is_free(port) && serves(port) {
            return port;
        }
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
