use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize};

use tokio::{task::yield_now, time::timeout};

use super::*;
use crate::testing::fake_server::{FakeServer, Hello};

/// How long a busy machine may take.
const LIMIT: Duration = Duration::from_secs(20);

/// A reply of a sentinel, with the port of the master; 0 for none of this name.
fn named(port: u16) -> String {
    match port {
        0 => "*-1".to_owned(),
        port => {
            let port = port.to_string();
            format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}", port.len())
        }
    }
}

/// A sentinel that names the master whose port is in the cell.
async fn sentinel() -> (FakeServer, Arc<AtomicU16>) {
    let master = Arc::new(AtomicU16::new(0));
    let port = master.clone();
    let rule = move |_: &[String]| named(port.load(Relaxed));
    let sentinel = FakeServer::start_with(Hello::Supported, rule).await;
    (sentinel, master)
}

/// A server that says of itself that it is this.
async fn server(role: &'static str) -> FakeServer {
    let rule = move |_: &[String]| format!("*1\r\n${}\r\n{role}", role.len());
    FakeServer::start_with(Hello::Supported, rule).await
}

fn sentinels(servers: &[&FakeServer]) -> Arc<Sentinels> {
    let infos: Vec<_> = servers.iter().map(|server| server.info()).collect();
    let master = infos[0].clone();
    Arc::new(Sentinels::new("main".to_owned(), infos, master))
}

fn address(server: &FakeServer) -> ConnectionAddr {
    ConnectionAddr::Tcp("127.0.0.1".to_owned(), server.port())
}

async fn open(sentinels: &Sentinels) -> Result<ConnectionAddr, String> {
    let settings = ConnectSettings::default();
    let opened = timeout(LIMIT, sentinels.open_master(&settings, || {}));
    match opened.await.expect("it ends") {
        Ok((_, address)) => Ok(address),
        Err(error) => Err(error.to_string()),
    }
}

#[tokio::test]
async fn only_a_server_that_is_a_master_by_its_own_word_is_used() {
    let (one, first) = sentinel().await;
    let (two, second) = sentinel().await;
    let (replica, master) = (server("slave").await, server("master").await);
    let both = sentinels(&[&one, &two]);
    let error = open(&both).await.expect_err("no name");
    assert!(error.contains("no sentinel knows"), "{error}");
    first.store(replica.port(), Relaxed);
    second.store(replica.port(), Relaxed);
    let error = open(&both).await.expect_err("a replica");
    assert!(error.contains("not a master"), "{error}");
    assert_eq!(replica.accepted(), 1, "both name it, and it is tried once");
    second.store(master.port(), Relaxed);
    assert_eq!(open(&both).await, Ok(address(&master)));
    // The sentinel that was right is asked first, and its answer is enough.
    one.take();
    assert_eq!(open(&both).await, Ok(address(&master)));
    assert!(one.take().is_empty());
    assert_eq!((one.accepted(), two.accepted()), (1, 1), "they are kept");
}

/// An ACL may forbid ROLE.
#[tokio::test]
async fn a_server_that_does_not_tell_its_role_is_used() {
    let (one, first) = sentinel().await;
    let silent = FakeServer::start(|_| "-NOPERM x".to_owned()).await;
    first.store(silent.port(), Relaxed);
    assert_eq!(open(&sentinels(&[&one])).await, Ok(address(&silent)));
}

#[tokio::test]
async fn a_sentinel_whose_connection_ended_is_asked_over_another_one() {
    let (one, first) = sentinel().await;
    let master = server("master").await;
    first.store(master.port(), Relaxed);
    let only = sentinels(&[&one]);
    for connections in [1, 2] {
        assert_eq!(open(&only).await, Ok(address(&master)));
        assert_eq!(one.accepted(), connections);
        one.sever();
    }
}

#[tokio::test]
async fn a_sentinel_does_not_get_the_credentials_of_the_master() {
    // They speak RESP2, so a password is in a command of its own.
    let master = FakeServer::start(|_| "+OK".to_owned()).await;
    let port = master.port();
    let one = FakeServer::start(move |_| named(port)).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let provider = move || -> BoxFuture<'static, _> {
        count.fetch_add(1, Relaxed);
        Box::pin(async { Ok(crate::Credentials::password("sesame")) })
    };
    let source = super::super::authentication::CredentialSource::new(Arc::new(provider));
    let settings = ConnectSettings {
        credentials: Some(Arc::new(source)),
        ..ConnectSettings::default()
    };
    let only = sentinels(&[&one]);
    let opened = timeout(LIMIT, only.open_master(&settings, || {})).await;
    assert!(opened.expect("it ends").is_ok());
    assert_eq!(asked.load(Relaxed), 1);
    assert!(!one.take().contains(&"AUTH".to_owned()));
    assert!(master.take().contains(&"AUTH".to_owned()));
}

/// Watches connection 1 until it is replaced.
#[derive(Default)]
struct Watch {
    is_replaced: AtomicBool,
}

impl Watched for Watch {
    fn is_open(&self, generation: u64) -> bool {
        generation == 1 && !self.is_replaced.load(Relaxed)
    }

    fn replace(self: &Arc<Self>, generation: u64) {
        assert_eq!(generation, 1);
        self.is_replaced.store(true, Relaxed);
    }
}

#[tokio::test]
async fn a_connection_is_replaced_once_another_master_is_named() {
    let (one, first) = sentinel().await;
    let (old, new) = (server("master").await, server("master").await);
    first.store(old.port(), Relaxed);
    let (only, watch) = (sentinels(&[&one]), Arc::new(Watch::default()));
    let watching = tokio::spawn(only.watch(address(&old), &watch, 1));
    let is_asked = async {
        while one.take().is_empty() {
            yield_now().await;
        }
    };
    timeout(LIMIT, is_asked).await.expect("it is asked");
    yield_now().await;
    assert!(!watch.is_replaced.load(Relaxed), "it names the same one");
    first.store(new.port(), Relaxed);
    timeout(LIMIT, watching)
        .await
        .expect("it ends")
        .expect("no panic");
    assert!(watch.is_replaced.load(Relaxed));
}

#[test]
fn no_address_is_shown() {
    let sentinels = Sentinels::new(
        "main".to_owned(),
        Vec::new(),
        "redis://localhost/"
            .parse::<redis::ConnectionInfo>()
            .expect("an address"),
    );
    assert_eq!(format!("{sentinels:?}"), "Sentinels { .. }");
}
