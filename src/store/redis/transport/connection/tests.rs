use std::future::pending;

use futures_util::FutureExt;
use redis::RedisConnectionInfo;
use tokio::{net::TcpListener, runtime::Runtime, task::yield_now};

use super::{
    super::{
        connect::Connected,
        unanswered::{Sender, Unanswered},
    },
    *,
};
use crate::{
    store::redis::transport::command_pool::command,
    testing::fake_server::{FakeServer, Hello, silent},
};

const HOUR: Duration = Duration::from_secs(3600);
/// How long a busy machine may take.
const LIMIT: Duration = Duration::from_secs(20);

fn connection_to(endpoint: Endpoint, timeout: Duration) -> Arc<Connection> {
    let settings = ConnectSettings {
        timeout,
        ..ConnectSettings::default()
    };
    Connection::new(endpoint, settings)
}

/// An open connection, number 1, that nothing is sent over. The next one leads to a silent server.
async fn opened(timeout: Duration) -> (TcpListener, Arc<Connection>) {
    let (listener, endpoint) = silent().await;
    let connection = connection_to(endpoint, timeout);
    let (stream, _) = tokio::io::duplex(64);
    let settings = RedisConnectionInfo::default().set_skip_set_lib_name();
    let opened = MultiplexedConnection::new(&settings, stream).await;
    let opened = Connected {
        connection: opened.expect("nothing is sent").0,
        #[cfg(feature = "local-cache")]
        tracking: None,
    };
    let counted = OpenConnection::new(Arc::default());
    connection.attempts.store(1, Relaxed);
    connection.state().begin(AttemptKind::Patient, 1);
    assert!(connection.state().opened(1, opened, counted));
    (listener, connection)
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

/// Gives up a command on connection 1 that is answered after this long.
fn give_up(connection: &Arc<Connection>, after: Option<Duration>) {
    let answer = async move {
        match after {
            Some(after) => tokio::time::sleep(after).await,
            None => pending().await,
        }
    };
    let command = Unanswered {
        sent: Instant::now(),
        reply: Box::pin(answer),
    };
    connection.abandon(1, command);
}

/// In paused time, as below. After 150 ms a reply is late.
#[tokio::test(start_paused = true)]
async fn a_reply_within_its_time_replaces_nothing() {
    let (_listener, connection) = opened(HOUR).await;
    give_up(&connection, Some(Duration::from_millis(100)));
    assert!(!connection.state().is_responsive());
    tokio::time::sleep(LIMIT).await;
    assert!(connection.state().is_responsive());
    assert_eq!(connection.attempts.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_late_reply_ends_the_attempts_to_replace_its_connection() {
    let (_listener, connection) = opened(HOUR).await;
    give_up(&connection, Some(LIMIT / 2));
    tokio::time::sleep(LIMIT).await;
    assert!(connection.attempts.load(Relaxed) > 1);
    assert!(connection.state().is_responsive());
    assert!(connection.state().ready().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_reply_and_without_a_replacement_is_closed() {
    let (_listener, connection) = opened(Duration::ZERO).await;
    give_up(&connection, None);
    tokio::time::sleep(LIMIT).await;
    assert!(!connection.state().is_open(1));
}

#[test]
fn what_ends_with_its_runtime_blocks_no_other_one() {
    let first = runtime();
    let (_listener, connection) = first.block_on(async {
        let (listener, endpoint) = silent().await;
        let connection = connection_to(endpoint, HOUR);
        connection.begin_due_attempt();
        yield_now().await;
        (listener, connection)
    });
    assert!(connection.is_connecting());
    drop(first);
    assert!(!connection.is_connecting());

    let second = runtime();
    let (_listener, connection) = second.block_on(async {
        let opened = opened(HOUR).await;
        give_up(&opened.1, None);
        yield_now().await;
        opened
    });
    assert!(!connection.state().is_responsive());
    drop(second);
    assert!(connection.state().is_responsive());
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_reaches_its_timeout_has_failed_unless_it_is_a_probe() {
    for kind in [AttemptKind::Probe, AttemptKind::Patient] {
        // As often as to meet long backoffs and short ones.
        for _ in 0..16 {
            let (_listener, endpoint) = silent().await;
            let connection = connection_to(endpoint, HOUR);
            connection.state().begin(kind, 1);
            let attempt = Attempt {
                connection: connection.clone(),
                number: 1,
            };
            attempt.run(kind, Duration::ZERO).await;
            assert!(!connection.is_connecting());
            let failures = connection.settings.counters.stats().connection_failures;
            let state = connection.state();
            match (kind, state.failure()) {
                (AttemptKind::Probe, None) => assert_eq!(failures, 0),
                (AttemptKind::Patient, Some(failure)) => {
                    assert_eq!(failures, 1);
                    assert!((BACKOFF / 2..=BACKOFF * 3 / 2).contains(&failure.backoff));
                }
                (kind, failure) => panic!("{kind:?}: {}", failure.is_some()),
            }
        }
    }
}

#[tokio::test]
async fn a_connection_that_the_server_closes_is_closed_without_a_request() {
    let report = ">2\r\n+invalidate\r\n*1\r\n$3\r\nkey\r\n+OK";
    let server = FakeServer::start_with(Hello::Supported, |_| report.to_owned()).await;
    let connection = connection_to(Endpoint::server(server.info()), LIMIT);
    let reply = connection.send(&mut command("GET", &[b"key"])).await;
    assert!(reply.is_ok());
    assert!(connection.state().is_open(1), "a report is no end");
    server.sever();
    let closed = async {
        while connection.state().is_open(1) {
            yield_now().await;
        }
    };
    timeout(LIMIT, closed).await.expect("it is closed");
}

#[tokio::test]
async fn a_command_that_is_given_up_makes_its_connection_suspect() {
    let server = FakeServer::start(|_| String::new()).await;
    let connection = connection_to(Endpoint::server(server.info()), LIMIT);
    assert!(
        timeout(LIMIT, connection.connected())
            .await
            .expect("it ends")
            .is_ok()
    );
    assert!(connection.state().is_responsive());
    let mut command = command("GET", &[b"key"]);
    let sent = timeout(Duration::from_millis(5), connection.send(&mut command));
    assert!(sent.await.is_err());
    assert!(!connection.state().is_responsive());
}

/// A request may end before its command is sent.
#[tokio::test]
async fn a_command_that_was_not_sent_is_not_waited_for() {
    let (_listener, connection) = opened(HOUR).await;
    let in_flight = || InFlight::new(Box::pin(pending::<()>()), &connection, 1);
    drop(in_flight());
    assert!(connection.state().is_responsive());
    let mut sent = in_flight();
    assert!(futures_util::poll!(&mut sent).is_pending());
    drop(sent);
    assert!(!connection.state().is_responsive());
}

/// The texts are Envoy's and Twemproxy's. The command may have been executed.
#[tokio::test]
async fn a_proxy_that_lost_its_server_leaves_the_connection_open() {
    for (reply, is_lost) in [
        ("-upstream failure", true),
        ("-ERR Connection refused", true),
        ("-ERR x", false),
    ] {
        let server = FakeServer::start(move |_| reply.to_owned()).await;
        let connection = connection_to(Endpoint::server(server.info()), LIMIT);
        let sent = connection.send(&mut command("GET", &[b"key"])).await;
        match sent.expect_err("an error") {
            CommandError::ConnectionLost(_) => assert!(is_lost, "{reply}"),
            _ => assert!(!is_lost, "{reply}"),
        }
        assert!(connection.state().is_open(1), "{reply}");
    }
}

#[tokio::test]
async fn a_failure_is_told_while_the_connection_rests_and_not_after_it() {
    let server = FakeServer::start(|_| String::new()).await;
    for (backoff, is_told) in [(HOUR, true), (Duration::ZERO, false)] {
        let connection = connection_to(Endpoint::server(server.info()), LIMIT);
        let failure = LastFailure {
            at: Instant::now(),
            backoff,
            error: error::unexpected_reply(),
        };
        connection.state().begin(AttemptKind::Patient, 1);
        connection.state().attempt_failed(1, failure);
        let connected = timeout(LIMIT, connection.connected()).await;
        assert_eq!(connected.expect("it ends").is_err(), is_told);
    }
}

#[tokio::test]
async fn only_the_connection_in_use_is_authenticated_anew() {
    let (_listener, connection) = opened(HOUR).await;
    let open = |generation| authentication::Open::open_connection(&*connection, generation);
    assert!(open(1).is_some());
    assert!(open(2).is_none());
}

#[cfg(feature = "sentinel")]
#[tokio::test]
async fn what_watches_for_another_master_knows_which_connection_is_open() {
    use super::super::sentinel::Watched;

    let (_listener, connection) = opened(HOUR).await;
    assert!(Watched::is_open(&*connection, 1));
    assert!(!Watched::is_open(&*connection, 2));
    connection.replace(2);
    assert_eq!(connection.attempts.load(Relaxed), 1);
    connection.replace(1);
    assert_eq!(connection.attempts.load(Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_open_connection_batches_what_is_on_its_way() {
    let server = FakeServer::start(|_| "+PONG\r\n".to_owned()).await;
    let connection = connection_to(Endpoint::server(server.info()), HOUR);
    let mut ping = command("PING", &[]);
    connection.send(&mut ping).await.expect("answered");
    let batch = &connection.write_batch;
    assert_eq!(batch.in_flight(), 0, "it was answered");
    {
        let mut on_its_way = Box::pin(connection.send(&mut ping));
        assert!((&mut on_its_way).now_or_never().is_none());
        assert_eq!(batch.in_flight(), 1);
    }
    assert_eq!(batch.in_flight(), 0, "it was given up");
    for _ in 0..100 {
        yield_now().await;
    }
    assert_eq!(Arc::strong_count(batch), 2, "its task runs");
    connection.close(1);
    let deadline = Instant::now() + LIMIT;
    while Arc::strong_count(batch) > 1 {
        assert!(Instant::now() < deadline, "its task goes on");
        yield_now().await;
    }
}
