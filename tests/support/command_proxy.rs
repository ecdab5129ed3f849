use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A proxy that reads commands, as those of managed services do: it answers or rejects some itself and passes the others on, one after
/// the other.
pub struct CommandProxy {
    port: u16,
    task: JoinHandle<()>,
}

/// What the proxy does with a command.
#[derive(Clone, Debug)]
pub enum Verdict {
    Pass,
    /// To one of several servers.
    PassTo(usize),
    /// With each first string in the reply replaced by the second one, which is as long.
    Rewrite(Arc<Vec<(String, String)>>),
    /// A RESP value without the end of the line.
    Reply(String),
    /// The command is passed on, but this is the reply.
    PassAndReply(String),
    Close,
}

impl CommandProxy {
    pub async fn before(
        server: u16,
        rule: impl Fn(&[String]) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        Self::before_all(vec![server], rule).await
    }

    /// The words of the command are given to `rule`, the first one in upper case.
    pub async fn before_all(
        servers: Vec<u16>,
        rule: impl Fn(&[String]) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let (servers, rule) = (Arc::new(servers), Arc::new(rule));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (servers, rule) = (servers.clone(), rule.clone());
                tokio::spawn(async move { relay(client, &servers, &*rule).await });
            }
        });
        Self { port, task }
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
}

impl Drop for CommandProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Until either end closes.
async fn relay(
    mut client: TcpStream,
    servers: &[u16],
    rule: &(dyn Fn(&[String]) -> Verdict + Send + Sync),
) -> Option<()> {
    let mut connections = Vec::new();
    for port in servers {
        connections.push(TcpStream::connect(("127.0.0.1", *port)).await.ok()?);
    }
    client.set_nodelay(true).ok()?;
    let mut received = Vec::new();
    loop {
        let Some((words, length)) = command(&received) else {
            let mut buffer = [0; 1 << 12];
            let length = client.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
            received.extend_from_slice(&buffer[..length]);
            continue;
        };
        let bytes: Vec<u8> = received.drain(..length).collect();
        let reply = match rule(&words) {
            Verdict::Pass => exchange(&mut connections[0], &bytes).await?,
            Verdict::Rewrite(strings) => {
                let reply = exchange(&mut connections[0], &bytes).await?;
                let reply = String::from_utf8_lossy(&reply).into_owned();
                let replace =
                    |reply: String, (from, to): &(String, String)| reply.replace(from, to);
                strings.iter().fold(reply, replace).into_bytes()
            }
            Verdict::PassTo(server) => exchange(&mut connections[server], &bytes).await?,
            Verdict::Reply(line) => format!("{line}\r\n").into_bytes(),
            Verdict::PassAndReply(line) => {
                exchange(&mut connections[0], &bytes).await?;
                format!("{line}\r\n").into_bytes()
            }
            Verdict::Close => return None,
        };
        client.write_all(&reply).await.ok()?;
    }
}

/// The words of the first command, and its length in bytes, if it is complete.
fn command(received: &[u8]) -> Option<(Vec<String>, usize)> {
    let mut rest = received;
    let count = number(&mut rest)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let length = number(&mut rest)?;
        let word = rest.get(..length)?;
        words.push(String::from_utf8_lossy(word).into_owned());
        rest = rest.get(length + 2..)?;
    }
    words.first_mut()?.make_ascii_uppercase();
    Some((words, received.len() - rest.len()))
}

/// Reads a line such as `*3` or `$5`.
fn number(rest: &mut &[u8]) -> Option<usize> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let digits = std::str::from_utf8(&rest[1..end]).expect("digits");
    *rest = &rest[end + 2..];
    Some(digits.parse().expect("a number"))
}

/// Sends a command, and reads one reply, and the push messages before it.
async fn exchange(server: &mut TcpStream, command: &[u8]) -> Option<Vec<u8>> {
    server.write_all(command).await.ok()?;
    let mut received = Vec::new();
    // The length of the push messages.
    let mut pushed = 0;
    loop {
        while let Some(length) = value_length(&received[pushed..]) {
            if received[pushed] != b'>' {
                return Some(received);
            }
            pushed += length;
        }
        let mut buffer = [0; 1 << 12];
        let length = server.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
        received.extend_from_slice(&buffer[..length]);
    }
}

/// The length of the first RESP value in bytes, if it is complete.
fn value_length(received: &[u8]) -> Option<usize> {
    let line = received.windows(2).position(|pair| pair == b"\r\n")?;
    let number = || {
        std::str::from_utf8(&received[1..line])
            .ok()?
            .parse::<i64>()
            .ok()
    };
    let mut length = line + 2;
    let elements = match received[0] {
        b'$' | b'=' | b'!' => {
            if let Ok(text) = usize::try_from(number()?) {
                length += text + 2;
            }
            0
        }
        b'*' | b'~' | b'>' => number()?,
        b'%' => 2 * number()?,
        _ => 0,
    };
    for _ in 0..elements {
        length += value_length(received.get(length..)?)?;
    }
    (length <= received.len()).then_some(length)
}
