//! A server that answers each command as a test says, and records them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::store::{Endpoint, RedisStore, Transport};

/// Without HELLO, so its clients speak RESP2. It ends with this value.
pub(crate) struct FakeServer {
    port: u16,
    received: Arc<Mutex<Vec<Vec<String>>>>,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl FakeServer {
    /// `rule` gets a command and returns a reply in RESP, without the end of the line.
    pub(crate) async fn start(rule: impl Fn(&[String]) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let received = Arc::new(Mutex::new(Vec::new()));
        let (commands, rule) = (received.clone(), Arc::new(rule));
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = accepted.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Relaxed);
                tokio::spawn(serve(client, commands.clone(), rule.clone()));
            }
        });
        Self {
            port,
            received,
            accepted,
            task,
        }
    }

    pub(crate) fn info(&self) -> redis::ConnectionInfo {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port));
        client.expect("an address").get_connection_info().clone()
    }

    pub(crate) fn store(&self) -> RedisStore {
        RedisStore::new(Transport::new(Endpoint::server(self.info())))
    }

    /// How many connections there were.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Relaxed)
    }

    /// The first words of the commands since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        let received = std::mem::take(&mut *self.received.lock().expect("no panic"));
        received
            .into_iter()
            .map(|mut words| words.swap_remove(0))
            .collect()
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut client: TcpStream,
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
        let reply = match words[0].as_str() {
            "HELLO" => "-ERR unknown command 'HELLO'".to_owned(),
            _ => {
                commands.lock().expect("no panic").push(words.clone());
                rule(&words)
            }
        };
        client
            .write_all(format!("{reply}\r\n").as_bytes())
            .await
            .ok()?;
    }
}
