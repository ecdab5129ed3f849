//! An app of a framework, in a process of its own.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{site::Side, support::server::Server};

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
    TowerPlain,
    TowerSigned,
    TowerPrivate,
    ActixSigned,
    ActixPrivate,
    AxumSession,
}

impl Framework {
    pub const FLASK_SECRET: &str = "flask secret";
    /// As in `peers/`.
    pub const COOKIE_KEY: [u8; 64] = [7; 64];
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
            Self::TowerPlain => ("tower_sessions_app", "plain"),
            Self::TowerSigned => ("tower_sessions_app", "signed"),
            Self::TowerPrivate => ("tower_sessions_app", "private"),
            Self::ActixSigned => ("actix_session_app", "signed"),
            Self::ActixPrivate => ("actix_session_app", "private"),
            Self::AxumSession => ("axum_session_app", "plain"),
        }
    }

    pub fn cookie_name(self) -> &'static str {
        match self {
            Self::FlaskJson
            | Self::FlaskMsgpack
            | Self::FlaskSigner
            | Self::FlaskSnippet
            | Self::AxumSession => "session",
            Self::DjangoPickle | Self::DjangoJson => "sessionid",
            Self::Express | Self::ExpressRotated => "connect.sid",
            Self::TowerPlain
            | Self::TowerSigned
            | Self::TowerPrivate
            | Self::ActixSigned
            | Self::ActixPrivate => "id",
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
            // Without a prefix.
            Self::TowerPlain
            | Self::TowerSigned
            | Self::TowerPrivate
            | Self::ActixSigned
            | Self::ActixPrivate => "*",
            Self::AxumSession => "sessions:*",
        }
    }

    /// Random steps of a test. Those that differ from another in their cookie alone need fewer.
    pub fn steps(self) -> usize {
        match self {
            Self::FlaskSigner
            | Self::ExpressRotated
            | Self::TowerSigned
            | Self::TowerPrivate
            | Self::ActixSigned => 40,
            _ => 200,
        }
    }

    /// In JavaScript, a number is a float of 64 bits.
    pub fn has_large_integers(self) -> bool {
        !matches!(self, Self::Express | Self::ExpressRotated)
    }

    /// Django ends a session with a user whose password's hash it does not have.
    pub fn keeps_its_login(self) -> bool {
        matches!(self, Self::DjangoPickle | Self::DjangoJson)
    }

    /// Whether a login on this side gives the session a new id.
    pub fn rotates(self, side: Side) -> bool {
        self != Self::FlaskSnippet || side == Side::Ours
    }

    /// Values of pickles keep their types, not their bytes.
    pub fn keeps_bytes(self) -> bool {
        !matches!(self, Self::DjangoPickle | Self::FlaskSnippet)
    }

    /// A pointer is JSON. What reads another form alone answers 500 until the pointer is gone.
    pub fn reads_a_pointer(self) -> bool {
        !matches!(
            self,
            Self::FlaskSnippet | Self::TowerPlain | Self::TowerSigned | Self::TowerPrivate
        )
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
        let (script, variant) = framework.app();
        let mut output = tempfile(redis.directory(), script);
        let mut child = command(script)
            .args(["--port", "0", "--variant", variant])
            .args(["--redis", &redis.url()])
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

/// What starts the app.
fn command(app: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let installed = root.join("target/frameworks");
    let assert_exists = |path: &Path, command: &str| {
        assert!(
            path.exists(),
            "{} is missing: run {command}",
            path.display()
        );
    };
    let interpreter = match app.rsplit_once('.') {
        Some((_, "py")) => "python/bin/python",
        Some(_) => "bin/node",
        None => {
            let program = installed.join("peers/debug").join(app);
            assert_exists(&program, "`tests/run.sh peers`");
            return Command::new(program);
        }
    };
    assert_exists(
        &installed.join("installed"),
        "tests/run.sh (or `tests/run.sh frameworks`, which does nothing else)",
    );
    let mut command = Command::new(installed.join(interpreter));
    command
        .arg(root.join("tests/frameworks/apps").join(app))
        .env("NODE_PATH", installed.join("node/node_modules"))
        // No `__pycache__` beside the sources.
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
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
