use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use redis::RedisConnectionInfo;

use super::*;
use crate::testing::fake_server::{Hello, serve};

const HOUR: Duration = Duration::from_secs(3600);

fn source(answer: Option<Credentials>) -> CredentialSource {
    CredentialSource::new(Arc::new(move || {
        let answer = answer.clone().ok_or_else(|| "no answer".into());
        Box::pin(async move { answer })
    }))
}

fn keep(source: &CredentialSource, password: &str, renew_at: Instant, ends_at: Instant) {
    *source.current() = Some(Current {
        credentials: Credentials::password(password),
        renew_at,
        ends_at,
    });
}

#[tokio::test]
async fn credentials_are_fetched_after_three_quarters_of_their_time() {
    let fetched = Credentials::password("new").valid_for(4 * HOUR);
    let source = source(Some(fetched));
    let begun = Instant::now();
    source.get().await.expect("fetched");
    let current = source.current().clone().expect("kept");
    let late = |at: Instant, time| at.saturating_duration_since(begun + time);
    assert!(current.renew_at >= begun + 3 * HOUR && late(current.renew_at, 3 * HOUR) < HOUR);
    assert!(current.ends_at >= begun + 4 * HOUR && late(current.ends_at, 4 * HOUR) < HOUR);
    keep(&source, "old", begun + HOUR, begun + HOUR);
    assert_eq!(source.get().await.expect("kept").password, "old");
    keep(&source, "old", begun, begun + HOUR);
    assert_eq!(source.get().await.expect("fetched").password, "new");
}

#[tokio::test]
async fn credentials_that_cannot_be_fetched_are_used_until_they_end() {
    let source = source(None);
    let now = Instant::now();
    assert!(source.get().await.is_err());
    keep(&source, "old", now, now + HOUR);
    assert_eq!(source.get().await.expect("valid").password, "old");
    keep(&source, "old", now, now);
    assert!(source.get().await.is_err());
}

/// Connection 1, as long as it is in use.
struct InUse {
    connection: MultiplexedConnection,
    is_open: AtomicBool,
}

impl Open for InUse {
    fn open_connection(&self, generation: u64) -> Option<MultiplexedConnection> {
        let is_open = generation == 1 && self.is_open.load(Relaxed);
        is_open.then(|| self.connection.clone())
    }
}

type Log = Arc<Mutex<Vec<(&'static str, u64)>>>;

/// In paused time: fetches credentials that are valid for 100 s as long as `fetches` says that this works and for how long the next ones are
/// valid; AUTH succeeds as `auths` says. Returns what happened in which second.
async fn log_for(
    seconds: u64,
    fetches: Vec<Option<Option<u64>>>,
    auths: Vec<bool>,
) -> (Vec<(&'static str, u64)>, bool) {
    let (log, begun) = (Log::default(), Instant::now());
    let note = {
        let log = log.clone();
        move |what| {
            let entry = (what, begun.elapsed().as_secs());
            log.lock().expect("no panic").push(entry);
        }
    };
    let fetches = Mutex::new(VecDeque::from(fetches));
    let noted = note.clone();
    let source = CredentialSource::new(Arc::new(move || {
        let next = fetches.lock().expect("no panic").pop_front();
        let next = next.unwrap_or(Some(Some(100)));
        noted(if next.is_some() { "fetched" } else { "failed" });
        Box::pin(async move {
            let valid_for = next.ok_or("no answer")?.map(Duration::from_secs);
            let credentials = Credentials::new("app", "sesame");
            Ok(match valid_for {
                Some(time) => credentials.valid_for(time),
                None => credentials,
            })
        })
    }));
    let auths = Mutex::new(VecDeque::from(auths));
    let rule = move |words: &[String]| {
        assert_eq!(words, ["AUTH", "app", "sesame"]);
        match auths.lock().expect("no panic").pop_front() {
            Some(false) => {
                note("refused");
                "-WRONGPASS x".to_owned()
            }
            Some(true) | None => {
                note("authenticated");
                "+OK".to_owned()
            }
        }
    };
    let (client, server) = tokio::io::duplex(4096);
    tokio::spawn(serve(
        server,
        Hello::Unknown,
        Arc::default(),
        Arc::new(rule),
    ));
    // The driver borrows them.
    let settings = RedisConnectionInfo::default().set_skip_set_lib_name();
    let opened = MultiplexedConnection::new(Box::leak(Box::new(settings)), client).await;
    let (connection, driver) = opened.expect("nothing is sent");
    tokio::spawn(driver);
    let in_use = Arc::new(InUse {
        connection,
        is_open: AtomicBool::new(true),
    });
    let source = Arc::new(source);
    source.get().await.expect("fetched");
    let kept = tokio::spawn(source.keep_authenticated(Arc::downgrade(&in_use), 1));
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let has_ended = kept.is_finished();
    in_use.is_open.store(false, Relaxed);
    tokio::time::timeout(HOUR, kept)
        .await
        .expect("it ends")
        .expect("no panic");
    let log = log.lock().expect("no panic").clone();
    (log, has_ended)
}

/// Each thing that happened, and the first and the last second when it may.
fn assert_log(log: &[(&str, u64)], expected: &[(&str, u64, u64)]) {
    let is_expected = |((what, at), (expected, first, last)): (&(&str, u64), &(&str, u64, u64))| {
        what == expected && (first..=last).contains(&at)
    };
    let matches = log.len() == expected.len() && log.iter().zip(expected).all(is_expected);
    assert!(matches, "{log:?}, {expected:?}");
}

/// With a tenth of what is left then as the spread.
#[tokio::test(start_paused = true)]
async fn an_open_connection_is_authenticated_after_three_quarters_of_each_time() {
    let (log, has_ended) = log_for(160, vec![], vec![]).await;
    let expected = [
        ("fetched", 0, 0),
        ("fetched", 75, 77),
        ("authenticated", 75, 77),
        ("fetched", 150, 155),
        ("authenticated", 150, 155),
    ];
    assert_log(&log, &expected);
    assert!(!has_ended);
    // From now on until the server refuses them.
    let (log, has_ended) = log_for(160, vec![Some(Some(100)), Some(None)], vec![]).await;
    assert_log(&log, &expected[..3]);
    assert!(has_ended);
}

/// With the former credentials nothing is gained, so AUTH waits for new ones.
#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_after_a_fiftieth_of_the_time() {
    let fetches = vec![Some(Some(100)), None, None];
    let (log, _) = log_for(90, fetches, vec![]).await;
    let expected = [
        ("fetched", 0, 0),
        ("failed", 75, 77),
        ("failed", 77, 82),
        ("fetched", 79, 86),
        ("authenticated", 79, 86),
    ];
    assert_log(&log, &expected);
    let (log, _) = log_for(90, vec![], vec![false]).await;
    let expected = [
        ("fetched", 0, 0),
        ("fetched", 75, 77),
        ("refused", 75, 77),
        ("fetched", 77, 82),
        ("authenticated", 77, 82),
    ];
    assert_log(&log, &expected);
}
