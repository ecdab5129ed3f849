//! `examples/login` as a process, with a browser beside it.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::SystemTime,
};

use crate::{
    chromium::{Chromedriver, Chromium},
    support::server::Server,
};

/// The example, running, with a chromedriver beside it.
pub struct Stage {
    pub driver: Chromedriver,
    app: App,
    pub redis: Option<Server>,
}

/// Runs `case` with sessions in memory and again with Redis.
pub async fn on_each_store(case: impl AsyncFn(&Stage)) {
    for redis in [None, Some(Server::start().await)] {
        let stage = Stage::start(redis).await;
        case(&stage).await;
    }
}

impl Stage {
    pub async fn start(redis: Option<Server>) -> Self {
        Self {
            app: App::start(redis.as_ref().map(Server::url)),
            driver: Chromedriver::start().await,
            redis,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.app.port)
    }

    pub async fn sign_up(&self, browser: &Chromium, name: &str) {
        browser.open(&self.url("/sign-up")).await;
        browser.fill("name", name).await;
        browser.fill("password", PASSWORD).await;
        browser.press("Create account").await;
        browser.shows("h1", HOME).await;
    }

    pub async fn sign_in(&self, browser: &Chromium, name: &str) {
        browser.open(&self.url("/sign-in")).await;
        browser.fill("name", name).await;
        browser.fill("password", PASSWORD).await;
        browser.press("Sign in").await;
        browser.shows("h1", HOME).await;
    }
}

pub const PASSWORD: &str = "correct horse battery staple";
pub const HOME: &str = "Where you are signed in";

struct App {
    child: Child,
    port: u16,
}

impl App {
    fn start(redis_url: Option<String>) -> Self {
        let mut command = Command::new(binary());
        command
            .env_remove("REDIS_URL")
            .envs(redis_url.map(|url| ("REDIS_URL", url)))
            .env("PORT", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("the example starts");
        // It prints its port once it listens, and exits with an error otherwise, so this ends.
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let port = lines
            .map_while(Result::ok)
            .find_map(|line| line.rsplit_once("localhost:")?.1.parse().ok());
        let port = port.expect("the example listens");
        Self { child, port }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The example that `cargo test` built beside this test. Running cargo here would wait for the lock of any other cargo.
fn binary() -> PathBuf {
    let test = env::current_exe().expect("a path");
    let target = test.ancestors().nth(2).expect("target/debug");
    let name = format!("login{}", env::consts::EXE_SUFFIX);
    let binary = target.join("examples").join(name);
    let built = modified(&binary);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = [root.join("src"), root.join("examples/login")];
    let changed = sources
        .iter()
        .filter_map(|directory| newest(directory))
        .max();
    assert!(
        built.is_some() && built >= changed,
        "{} is missing or older than its sources; run `cargo build --all-features --example login`, as tests/run.sh does",
        binary.display()
    );
    binary
}

/// When a file in or below this directory was last changed.
fn newest(directory: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(directory).expect("a directory");
    let times = entries.map(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            newest(&path)
        } else {
            modified(&path)
        }
    });
    times.max().flatten()
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|data| data.modified()).ok()
}
