//! An app of a framework, in a process of its own.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::support::server::Server;

/// The apps of `apps/`, with what differs in how they store a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framework {
    FlaskJson,
    FlaskMsgpack,
    FlaskSigner,
    /// The session interface of the Flask snippet, with pickles.
    FlaskSnippet,
    DjangoPickle,
    DjangoJson,
    Express,
    /// Signs with a second secret and accepts the first.
    ExpressRotated,
}

impl Framework {
    pub const FLASK_SECRET: &str = "flask secret";
    pub const EXPRESS_SECRETS: [&str; 2] = ["new cat", "keyboard cat"];

    /// The script in `apps/` and its `--variant`.
    fn app(self) -> (&'static str, &'static str) {
        match self {
            Self::FlaskJson => ("flask_app.py", "json"),
            Self::FlaskMsgpack => ("flask_app.py", "msgpack"),
            Self::FlaskSigner => ("flask_app.py", "signer"),
            Self::FlaskSnippet => ("flask_app.py", "snippet"),
            Self::DjangoPickle => ("django_app.py", "pickle"),
            Self::DjangoJson => ("django_app.py", "json"),
            Self::Express => ("express_app.js", "current"),
            Self::ExpressRotated => ("express_app.js", "rotated"),
        }
    }

    pub fn cookie_name(self) -> &'static str {
        match self {
            Self::FlaskJson | Self::FlaskMsgpack | Self::FlaskSigner | Self::FlaskSnippet => {
                "session"
            }
            Self::DjangoPickle | Self::DjangoJson => "sessionid",
            Self::Express | Self::ExpressRotated => "connect.sid",
        }
    }

    /// The keys of its sessions in Redis. The Flask snippet's has the form of ours.
    pub fn keys(self) -> &'static str {
        match self {
            Self::FlaskJson | Self::FlaskMsgpack | Self::FlaskSigner | Self::FlaskSnippet => {
                "session:*"
            }
            Self::DjangoPickle | Self::DjangoJson => ":1:django*",
            Self::Express | Self::ExpressRotated => "sess:*",
        }
    }

    /// Random steps of a test. Those that differ from another in their cookie alone need fewer.
    pub fn steps(self) -> usize {
        match self {
            Self::FlaskSigner | Self::ExpressRotated => 40,
            _ => 200,
        }
    }

    /// In JavaScript, a number is a float of 64 bits.
    pub fn has_large_integers(self) -> bool {
        !matches!(self, Self::Express | Self::ExpressRotated)
    }

    /// Django discards what another user left in the session.
    pub fn login_ends_the_session_of_another(self) -> bool {
        matches!(self, Self::DjangoPickle | Self::DjangoJson)
    }
}

/// A running app, which ends when this value is dropped. When the test fails, its output is printed.
pub struct Process {
    child: Child,
    port: u16,
    output: File,
}

impl Process {
    /// Starts the app on a free port, and waits until it listens.
    pub fn start(framework: Framework, redis: &Server) -> Self {
        let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/frameworks");
        let (script, variant) = framework.app();
        let interpreter = match script.rsplit_once('.') {
            Some((_, "py")) => "python/bin/python",
            _ => "bin/node",
        };
        let interpreter = installed.join(interpreter);
        assert!(
            installed.join("installed").exists(),
            "{} is missing: run tests/run.sh, which installs Flask, Django and Express there (`tests/run.sh frameworks` does nothing else)",
            installed.display()
        );
        let mut output = tempfile(redis.directory(), script);
        let mut child = Command::new(interpreter)
            .arg(apps().join(script))
            .args(["--port", "0", "--variant", variant])
            .args(["--redis", &redis.url()])
            .env("NODE_PATH", installed.join("node/node_modules"))
            // No `__pycache__` beside the sources.
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(output.try_clone().expect("a file"))
            .spawn()
            .expect("what tests/run.sh installed");
        let mut line = String::new();
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        lines.read_line(&mut line).expect("its first line");
        let port = line.trim().strip_prefix("listening on ");
        let Some(port) = port.and_then(|port| port.parse().ok()) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{framework:?} does not start: {line}{}", text(&mut output));
        };
        Self {
            child,
            port,
            output,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let text = text(&mut self.output);
            let lines: Vec<_> = text.lines().collect();
            let end = lines[lines.len().saturating_sub(30)..].join("\n");
            eprintln!("The framework ended its output with:\n{end}");
        }
    }
}

fn apps() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frameworks/apps")
}

/// A file in the directory of the Redis server, which is removed with it.
fn tempfile(directory: &Path, script: &str) -> File {
    let mut options = File::options();
    let options = options.create(true).append(true).read(true);
    options.open(directory.join(script)).expect("a file")
}

fn text(output: &mut File) -> String {
    let mut text = String::new();
    let _ = output.rewind();
    let _ = output.read_to_string(&mut text);
    text
}
