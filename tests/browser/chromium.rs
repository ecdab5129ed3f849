//! Chromium, driven by WebDriver.

use std::{
    env, fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use thirtyfour::prelude::*;

use crate::support::eventually;

/// Starting a browser takes long on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const COOKIE: &str = "__Host-session";

/// A chromedriver process. Its browsers end with it.
pub struct Chromedriver {
    child: Child,
    port: u16,
    directory: PathBuf,
    profiles: AtomicU32,
}

impl Chromedriver {
    /// Starts the binary that `CHROMEDRIVER` names, `chromedriver` by default, on a port that it chooses.
    pub async fn start() -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let directory = env::temp_dir().join(format!(
            "axum-redis-sessions-browser-{}-{number}",
            process::id()
        ));
        fs::create_dir_all(&directory).expect("a temporary directory");
        let log = fs::File::create(directory.join("log")).expect("a log");
        let binary = env::var("CHROMEDRIVER").unwrap_or_else(|_| "chromedriver".to_owned());
        let child = Command::new(&binary)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a log"))
            .stdout(log)
            .spawn()
            .unwrap_or_else(|error| {
                let _ = fs::remove_dir_all(&directory);
                panic!("{binary} does not start ({error}): run tests/run.sh, which installs it")
            });
        let mut driver = Self {
            child,
            port: 0,
            directory,
            profiles: AtomicU32::new(0),
        };
        eventually(PATIENCE, || async { driver.printed_port().is_some() }).await;
        driver.port = driver.printed_port().expect("printed");
        driver
    }

    /// A browser with a new profile.
    pub async fn browser(&self) -> Chromium {
        self.browser_at(&self.new_profile(), &[]).await
    }

    /// A browser with another User-Agent.
    pub async fn browser_like(&self, user_agent: &str) -> Chromium {
        let user_agent = format!("--user-agent={user_agent}");
        self.browser_at(&self.new_profile(), &[&user_agent]).await
    }

    /// A browser with this profile.
    pub async fn browser_at(&self, profile: &Path, arguments: &[&str]) -> Chromium {
        let mut capabilities = DesiredCapabilities::chrome();
        for argument in ARGUMENTS.iter().chain(arguments) {
            capabilities.add_arg(argument).expect("an argument");
        }
        let profile = format!("--user-data-dir={}", profile.display());
        capabilities.add_arg(&profile).expect("an argument");
        // A proxy from the environment cannot reach our loopback.
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .build();
        let address = format!("http://127.0.0.1:{}", self.port);
        let driver = WebDriver::builder(address, capabilities)
            .client(client.expect("a client"))
            .await
            .expect("a browser: run tests/run.sh, which installs Chromium");
        Chromium(driver)
    }

    pub fn new_profile(&self) -> PathBuf {
        let number = self.profiles.fetch_add(1, Ordering::Relaxed);
        let profile = self.directory.join(format!("profile-{number}"));
        fs::create_dir(&profile).expect("a directory");
        profile
    }

    fn printed_port(&self) -> Option<u16> {
        let log = self.log();
        let (_, rest) = log.split_once("started successfully on port ")?;
        rest.split_once('.')?.0.parse().ok()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Chromedriver {
    fn drop(&mut self) {
        // Ask it to shut down, since killing it would leave its browsers running.
        let asked = TcpStream::connect(("127.0.0.1", self.port)).and_then(|mut stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"GET /shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
            stream.read(&mut [0; 64])
        });
        let end = Instant::now() + Duration::from_secs(10);
        while asked.is_ok() && matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("chromedriver printed:\n{}", self.log());
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

const ARGUMENTS: &[&str] = &[
    "--headless=new",
    // Chromium's sandbox does not start as root or in many containers. The pages are ours.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1000,800",
];

/// One browser, with one tab.
pub struct Chromium(pub WebDriver);

impl Chromium {
    pub async fn open(&self, url: &str) {
        self.0.goto(url).await.expect("opened");
    }

    pub async fn reload(&self) {
        self.0.refresh().await.expect("reloaded");
    }

    /// Presses the back button, and waits until there is another page.
    pub async fn back(&self) {
        self.run("window.isTheSamePage = true").await;
        self.0.back().await.expect("went back");
        eventually(PATIENCE, || async {
            self.run("return document.readyState == 'complete' && !window.isTheSamePage")
                .await
                == true
        })
        .await;
    }

    pub async fn fill(&self, name: &str, value: &str) {
        let field = self.find(By::Name(name)).await;
        field.clear().await.expect("cleared");
        field.send_keys(value).await.expect("filled in");
    }

    pub async fn tick(&self, name: &str) {
        let field = self.find(By::Name(name)).await;
        field.click().await.expect("ticked");
    }

    /// Presses the button that a screen reader would call `name`.
    pub async fn press(&self, name: &str) {
        let by = format!("//button[@aria-label='{name}' or (not(@aria-label) and .='{name}')]");
        let button = self.find(By::XPath(&by)).await;
        button.click().await.expect("pressed");
    }

    /// Waits until `selector` finds an element with this text.
    pub async fn shows(&self, selector: &str, text: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let found = self.texts(selector).await;
            if found.iter().any(|other| other == text) {
                return;
            }
            assert!(
                Instant::now() < end,
                "no `{selector}` with {text:?}, but {found:?} on:\n{}",
                self.texts("body").await.join("")
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The visible texts of what `selector` finds, as they are now.
    pub async fn texts(&self, selector: &str) -> Vec<String> {
        // In one script, so that a navigation in between cannot mix two pages.
        let script = format!(
            "return [...document.querySelectorAll({selector:?})].map(element => element.innerText.replace(/\\s+/g, ' ').trim())"
        );
        let texts = self.run(&script).await;
        serde_json::from_value(texts).unwrap_or_default()
    }

    /// The result of a script on the page; `null` while there is no page.
    pub async fn run(&self, script: &str) -> serde_json::Value {
        let result = self.0.execute(script, Vec::new()).await;
        result.map_or(serde_json::Value::Null, |result| result.json().clone())
    }

    /// The session cookie, as the browser keeps it for the page that is open.
    pub async fn cookie(&self) -> Option<thirtyfour::Cookie> {
        let cookies = self.0.get_all_cookies().await.expect("cookies");
        cookies.into_iter().find(|cookie| cookie.name == COOKIE)
    }

    /// Closes the browser normally, so that it writes its profile.
    pub async fn quit(self) {
        self.0.quit().await.expect("closed");
    }

    async fn find(&self, by: By) -> WebElement {
        let query = self
            .0
            .query(by)
            .wait(PATIENCE, Duration::from_millis(10))
            .and_displayed();
        query.first().await.expect("an element")
    }
}
