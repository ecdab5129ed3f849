//! `examples/login` as a process of its own, and a browser to look at it with.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use crate::{
    chromium::{Chromedriver, Chromium},
    support::server::Server,
};

/// The example, running, with a chromedriver beside it.
pub struct Stage {
    pub driver: Chromedriver,
    app: App,
    _redis: Option<Server>,
}

/// Runs `case` with the sessions in the example's own memory, and again with Redis.
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
            _redis: redis,
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
        // It says where it listens once it does, and ends with an error otherwise; so this ends.
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

/// The example as the sources are now, which `cargo test --test browser` alone would not build.
fn binary() -> &'static str {
    static BINARY: OnceLock<String> = OnceLock::new();
    BINARY.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args([
                "build",
                "--example",
                "login",
                "--locked",
                "--message-format=json",
            ])
            .args(["--features", &FEATURES.concat()])
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        let built = cargo.output().expect("cargo");
        let messages = String::from_utf8(built.stdout).expect("text");
        let executable = messages.lines().find_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            (message["target"]["name"] == "login").then_some(())?;
            Some(message["executable"].as_str()?.to_owned())
        });
        executable.unwrap_or_else(|| {
            panic!(
                "the example was not built:\n{}",
                String::from_utf8_lossy(&built.stderr)
            )
        })
    })
}

/// Those that this test was built with, so that nothing is built twice.
const FEATURES: &[&str] = &[
    if cfg!(feature = "cluster") {
        "cluster,"
    } else {
        ""
    },
    if cfg!(feature = "sentinel") {
        "sentinel,"
    } else {
        ""
    },
    if cfg!(feature = "tls-rustls") {
        "tls-rustls,"
    } else {
        ""
    },
];
