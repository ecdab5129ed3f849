use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;

use super::*;
use crate::{
    LocalCache,
    record::{Decoded, Record},
};

const HOUR: Duration = Duration::from_secs(3600);

/// Reports over one connection, and entries under these keys.
fn reports(staleness: Duration, keys: &[&str]) -> Reports {
    let options = LocalCache::new().max_staleness(staleness);
    let reports = Reports::new(&Arc::new(Cache::new(options.stale_if_error(HOUR))));
    reports.tracking.begin(Instant::now());
    for key in keys {
        put(&reports, key, HOUR);
    }
    reports
}

fn put(reports: &Reports, key: &str, ttl: Duration) {
    let json = Bytes::from_static(br#"{"_rev":"0123456789abcdef","a":1}"#);
    let Ok(Decoded::Session(record)) = Record::decode(&json) else {
        panic!("a session");
    };
    let tracking = || Some(reports.tracking.clone());
    let ticket = reports.cache.ticket(key, tracking).expect("tracked");
    reports.cache.install(key, ticket, &record, ttl);
}

fn push(kind: PushKind, data: Vec<Value>) -> PushInfo {
    PushInfo { kind, data }
}

#[test]
fn a_report_drops_the_keys_that_it_names_or_all() {
    let (bulk, simple) = (
        Value::BulkString(b"a".to_vec()),
        Value::SimpleString("a".to_owned()),
    );
    for (name, kind, data, has_a, has_b, is_trusted) in [
        (
            "a key",
            PushKind::Invalidate,
            vec![Value::Array(vec![bulk])],
            false,
            true,
            true,
        ),
        (
            "a key, as a line",
            PushKind::Invalidate,
            vec![Value::Array(vec![simple])],
            false,
            true,
            true,
        ),
        (
            "a flush",
            PushKind::Invalidate,
            vec![Value::Nil],
            false,
            false,
            false,
        ),
        (
            "the end",
            PushKind::Disconnection,
            Vec::new(),
            false,
            false,
            true,
        ),
    ] {
        let reports = reports(HOUR, &["a", "b"]);
        reports.handle(&push(kind, data));
        assert_eq!(reports.cache.get("a").is_some(), has_a, "{name}");
        assert_eq!(reports.cache.get("b").is_some(), has_b, "{name}");
        // While the server cannot be reached.
        assert_eq!(reports.cache.get_stale("b").is_some(), is_trusted, "{name}");
    }
}

#[test]
fn the_end_of_a_connection_ends_its_tracking() {
    let reports = reports(HOUR, &["a"]);
    let guard = TrackingGuard(reports.tracking.clone());
    assert!(reports.cache.get("a").is_some());
    drop(guard);
    assert!(reports.cache.get("a").is_none());
}

/// In paused time.
#[tokio::test(start_paused = true)]
async fn a_sign_of_life_is_asked_for_four_times_in_the_staleness() {
    let reports = reports(HOUR, &[]);
    let (begun, asked) = (tokio::time::Instant::now(), AtomicUsize::new(0));
    let interval = reports.cache.options().heartbeat();
    let ping = || {
        let number = asked.fetch_add(1, Relaxed);
        let passed = begun.elapsed();
        assert!(
            passed >= interval * u32::try_from(number).expect("few"),
            "{number}"
        );
        (number < 3).then_some(async { true })
    };
    heartbeat(reports.cache.clone(), reports.tracking.clone(), ping).await;
    assert_eq!(asked.load(Relaxed), 4);
}

/// In paused time, with a PING every fifteen seconds.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_used_leaves_memory_once_a_minute() {
    let reports = reports(Duration::from_secs(60), &[]);
    let (asked, pinged) = (AtomicUsize::new(0), reports.clone());
    put(&reports, "key", Duration::ZERO);
    let ping = || {
        let number = asked.fetch_add(1, Relaxed);
        let is_removed = [5, 9].contains(&number);
        let entries = pinged.cache.stats().entries;
        assert_eq!(entries, u64::from(!is_removed), "{number}");
        put(&pinged, "key", Duration::ZERO);
        (number < 9).then_some(async { true })
    };
    heartbeat(reports.cache.clone(), reports.tracking.clone(), ping).await;
}
