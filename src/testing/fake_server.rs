//! A server that answers each command as a test says, and records them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

use crate::store::{Endpoint, RedisStore, Transport};

/// It ends with this value.
pub(crate) struct FakeServer {
    port: u16,
    received: Arc<Mutex<Vec<Vec<String>>>>,
    accepted: Arc<AtomicUsize>,
    connections: Arc<Mutex<JoinSet<Option<()>>>>,
    task: JoinHandle<()>,
}

/// How it answers HELLO.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hello {
    /// Its clients speak RESP3.
    Supported,
    /// Its clients speak RESP2.
    Unknown,
    /// By closing the connection, as some proxies do.
    Closes,
    /// The password is wrong.
    WrongPass,
}

impl FakeServer {
    /// `rule` gets a command and returns a reply in RESP, without the end of the line; an empty text is no reply.
    pub(crate) async fn start(rule: impl Fn(&[String]) -> String + Send + Sync + 'static) -> Self {
        Self::start_with(Hello::Unknown, rule).await
    }

    pub(crate) async fn start_with(
        hello: Hello,
        rule: impl Fn(&[String]) -> String + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let received = Arc::new(Mutex::new(Vec::new()));
        let (commands, rule) = (received.clone(), Arc::new(rule));
        let accepted = Arc::new(AtomicUsize::new(0));
        let connections = Arc::new(Mutex::new(JoinSet::new()));
        let (count, open) = (accepted.clone(), connections.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Relaxed);
                let served = serve(client, hello, commands.clone(), rule.clone());
                open.lock().expect("no panic").spawn(served);
            }
        });
        Self {
            port,
            received,
            accepted,
            connections,
            task,
        }
    }

    #[cfg(any(feature = "cluster", feature = "sentinel"))]
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn info(&self) -> redis::ConnectionInfo {
        info(self.port)
    }

    pub(crate) fn store(&self) -> RedisStore {
        RedisStore::new(Transport::new(Endpoint::server(self.info())))
    }

    /// How many connections there were.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Relaxed)
    }

    /// Closes all connections.
    pub(crate) fn sever(&self) {
        self.connections.lock().expect("no panic").abort_all();
    }

    /// The first words of the commands since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        let received = self.take_all().into_iter();
        received.map(|mut words| words.swap_remove(0)).collect()
    }

    /// The commands since the last call.
    pub(crate) fn take_all(&self) -> Vec<Vec<String>> {
        std::mem::take(&mut *self.received.lock().expect("no panic"))
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.task.abort();
        self.sever();
    }
}

/// A server that accepts connections and says nothing.
pub(crate) async fn silent() -> (TcpListener, Endpoint) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    (listener, Endpoint::server(info(port)))
}

/// A server on this port.
pub(crate) fn info(port: u16) -> redis::ConnectionInfo {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/"));
    client.expect("an address").get_connection_info().clone()
}

pub(crate) async fn serve(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    hello: Hello,
    commands: Arc<Mutex<Vec<Vec<String>>>>,
    rule: Arc<impl Fn(&[String]) -> String + Send + Sync + 'static>,
) -> Option<()> {
    let mut received = Vec::new();
    loop {
        let Ok(command) = redis::parse_redis_value(&received) else {
            let mut buffer = [0; 4096];
            let length = client.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
            received.extend_from_slice(&buffer[..length]);
            continue;
        };
        let words: Vec<String> = redis::from_redis_value(command).ok()?;
        let packed: Vec<Vec<u8>> = words.iter().map(|word| word.clone().into()).collect();
        received.drain(..redis::pack_command(&packed).len());
        let reply = match (words[0].as_str(), hello) {
            ("HELLO", Hello::Supported) => "%1\r\n+proto\r\n:3".to_owned(),
            ("HELLO", Hello::Unknown) => "-ERR unknown command 'HELLO'".to_owned(),
            ("HELLO", Hello::Closes) => return None,
            ("HELLO", Hello::WrongPass) => "-WRONGPASS x".to_owned(),
            _ => {
                commands.lock().expect("no panic").push(words.clone());
                rule(&words)
            }
        };
        if reply.is_empty() {
            continue;
        }
        client
            .write_all(format!("{reply}\r\n").as_bytes())
            .await
            .ok()?;
    }
}
