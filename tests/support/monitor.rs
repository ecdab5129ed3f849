use std::{
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::Mutex,
    time::timeout,
};

use super::{
    PATIENCE,
    server::{self, Server},
};

const MARKER: &str = "end of what a monitor has to say: ";

/// The commands that clients sent to a server, without those of scripts and those of the handshake.
///
/// Loading a script is the command `SCRIPT`. Commands that the server rejects before it runs them (no
/// memory, no permission) are not seen, nor are those of an administrator, such as `CONFIG`.
pub struct Monitor {
    client: redis::Client,
    stream: Mutex<BufReader<TcpStream>>,
}

impl Monitor {
    pub(super) async fn of(server: &Server) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", server.port())).await;
        let mut stream = BufReader::new(stream.expect("a connection"));
        if let Some(password) = server.password() {
            assert_eq!(
                ask(&mut stream, &format!("AUTH {password}")).await,
                "+OK\r\n"
            );
        }
        assert_eq!(ask(&mut stream, "MONITOR").await, "+OK\r\n");
        Self {
            client: server.client(),
            stream: Mutex::new(stream),
        }
    }

    /// The commands since the last call, each as its words. Exact: the server has run every command whose answer was seen
    /// before this one's marker, and reports them in that order.
    pub async fn drain(&self) -> Vec<Vec<String>> {
        static DRAINED: AtomicU32 = AtomicU32::new(0);
        let number = DRAINED.fetch_add(1, Ordering::Relaxed);
        let marker = format!("{MARKER}{}-{number}", process::id());
        let mut connection = server::connect(&self.client).await.expect("a connection");
        let echo: String = redis::cmd("ECHO")
            .arg(&marker)
            .query_async(&mut connection)
            .await
            .expect("an echo");
        assert_eq!(echo, marker);

        let mut stream = self.stream.lock().await;
        let mut commands = Vec::new();
        loop {
            let line = read_line(&mut stream).await;
            let (source, command) = line.split_once("] ").expect("`+time [db address] command`");
            let words = words(command);
            if words.last() == Some(&marker) {
                return commands;
            }
            let of_a_script = source.ends_with("lua");
            if !of_a_script && !connects(&words) && !of_a_monitor(&words) {
                commands.push(words);
            }
        }
    }
}

/// Whether this command is part of the handshake.
fn connects(words: &[String]) -> bool {
    let is = |at: usize, name: &str| {
        words
            .get(at)
            .is_some_and(|word| word.eq_ignore_ascii_case(name))
    };
    ["HELLO", "AUTH", "SELECT", "PING"]
        .iter()
        .any(|name| is(0, name))
        || is(0, "CLIENT") && (is(1, "SETINFO") || is(1, "SETNAME"))
}

/// Another monitor's marker.
fn of_a_monitor(words: &[String]) -> bool {
    words.last().is_some_and(|word| word.starts_with(MARKER))
}

async fn ask(stream: &mut BufReader<TcpStream>, command: &str) -> String {
    let line = format!("{command}\r\n");
    stream.write_all(line.as_bytes()).await.expect("sent");
    read_line(stream).await
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    let read = timeout(PATIENCE, stream.read_line(&mut line)).await;
    let length = read.expect("a line in time").expect("a line");
    assert_ne!(
        length, 0,
        "the server ended, and with it what it had to say"
    );
    line
}

/// The words of a line of MONITOR, each in double quotes and with the server's escapes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.bytes();
    while rest.any(|byte| byte == b'"') {
        let mut word = Vec::new();
        loop {
            match rest.next().expect("a closing quote") {
                b'"' => break,
                b'\\' => word.push(match rest.next().expect("an escaped character") {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'a' => 0x07,
                    b'b' => 0x08,
                    b'x' => {
                        let digits = [rest.next(), rest.next()].map(|digit| {
                            let digit = digit.map(char::from).and_then(|digit| digit.to_digit(16));
                            u8::try_from(digit.expect("a hexadecimal digit")).expect("below 16")
                        });
                        digits[0] << 4 | digits[1]
                    }
                    quote_or_backslash => quote_or_backslash,
                }),
                byte => word.push(byte),
            }
        }
        words.push(String::from_utf8_lossy(&word).into_owned());
    }
    words
}
