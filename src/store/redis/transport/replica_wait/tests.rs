use std::sync::atomic::AtomicUsize;

use super::*;
use crate::{
    store::redis::transport::{connect::ConnectSettings, endpoint::Endpoint},
    testing::fake_server::FakeServer,
};

const ACKS: ReplicaAcks = ReplicaAcks {
    replicas: 1,
    timeout: Duration::from_secs(8),
    every_write: true,
};

fn wait_over(server: &FakeServer) -> Arc<ReplicaWait> {
    let endpoint = Endpoint::server(server.info());
    let connection = Connection::new(endpoint, ConnectSettings::default());
    Arc::new(ReplicaWait::new(connection))
}

fn write() -> Pipeline {
    let mut commands = Pipeline::new();
    commands.cmd("SET").arg("key").arg("value");
    commands
}

#[tokio::test]
async fn a_wait_is_short_while_replicas_are_missing() {
    let waits = AtomicUsize::new(0);
    let server = FakeServer::start(move |words| match words[0].as_str() {
        "WAIT" => match waits.fetch_add(1, Relaxed) {
            0 | 3 => ":1".to_owned(),
            _ => ":0".to_owned(),
        },
        _ => "+OK".to_owned(),
    })
    .await;
    let wait = wait_over(&server);
    for (confirmed, millis) in [
        (1, "8000"),
        (0, "8000"),
        (0, "1000"),
        (1, "1000"),
        (0, "8000"),
    ] {
        let (_, count) = wait.send(write(), ACKS).await.expect("a number");
        assert_eq!(count, confirmed);
        let wait = server.take_all().pop().expect("it was sent");
        assert_eq!(wait, ["WAIT", "1", millis]);
    }
}

#[tokio::test]
async fn a_wait_over_another_connection_does_not_cover_a_write() {
    for (generation, is_covered) in [(1, true), (2, false)] {
        let server = FakeServer::start(|_| "+OK".to_owned()).await;
        let wait = wait_over(&server);
        // As it ended between the reply to the write and the look at it.
        wait.waits().last = Some(Confirmed {
            generation,
            written: 1,
            replicas: Some(Ok(1)),
        });
        match wait.send(write(), ACKS).await {
            Ok((_, count)) => assert!(is_covered && count == 1),
            Err(error) => assert!(!is_covered && matches!(error, CommandError::ConnectionLost(_))),
        }
    }
}

#[tokio::test]
async fn a_server_that_rejects_wait_is_an_error() {
    let server = FakeServer::start(|words| match words[0].as_str() {
        "WAIT" => "-NOPERM x".to_owned(),
        _ => "+OK".to_owned(),
    })
    .await;
    let sent = wait_over(&server).send(write(), ACKS).await;
    let Err(CommandError::NotReplicated(error)) = sent else {
        panic!("the write is made, and not confirmed");
    };
    assert!(error.to_string().contains("WAIT"), "{error}");
}
