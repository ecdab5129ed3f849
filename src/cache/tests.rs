use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::record::Decoded;

const LONG: Duration = Duration::from_secs(1000);

fn record(length: usize) -> Record {
    let text = "x".repeat(length);
    let json = format!("{{\"_rev\":\"0123456789abcdef\",\"text\":\"{text}\"}}");
    // As exact as a reply.
    match Record::decode(&Bytes::from(json.into_boxed_str().into_boxed_bytes())) {
        Ok(Decoded::Session(record)) => record,
        _ => panic!("a session"),
    }
}

fn connected(options: LocalCache) -> (Cache, Arc<Tracking>) {
    let cache = Cache::new(options);
    let tracking = cache.tracking();
    tracking.begin(Instant::now());
    (cache, tracking)
}

fn put(cache: &Cache, tracking: &Arc<Tracking>, key: &str, length: usize) {
    let ticket = cache.ticket(key, || Some(tracking.clone()));
    cache.install(key, ticket.expect("tracked"), &record(length), LONG);
}

/// The resident memory of this process, in bytes.
fn resident() -> u64 {
    let Ok(statm) = std::fs::read_to_string("/proc/self/statm") else {
        return 0;
    };
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// `CACHE_ENTRIES` is the number of sessions, 30,000 by default, and `CACHE_LENGTH` the length of each. By hand, a million in 64 MiB, in a process
/// each, with `-- --nocapture`.
#[test]
fn many_sessions_take_at_most_max_bytes() {
    let entries: u64 =
        std::env::var("CACHE_ENTRIES").map_or(30_000, |count| count.parse().expect("a number"));
    let max_bytes = if entries > 100_000 { 64 << 20 } else { 2 << 20 };
    let length = std::env::var("CACHE_LENGTH").map(|length| length.parse().expect("a number"));
    let lengths = length.map_or(vec![50, 300, 2_000], |length| vec![length]);
    for length in lengths {
        let before = resident();
        let (cache, tracking) = connected(LocalCache::new().max_bytes(max_bytes));
        for number in 0..entries {
            put(&cache, &tracking, &format!("session:{number:036}"), length);
        }
        let stats = cache.stats();
        println!(
            "{length} B: {} entries of {entries}, {} bytes, {} more in the process",
            stats.entries,
            stats.bytes,
            resident().saturating_sub(before)
        );
        assert!(stats.bytes <= max_bytes as u64, "{stats:?}");
        assert!(stats.bytes > max_bytes as u64 / 2, "{stats:?}");
        assert_eq!(stats.dropped_evicted, entries - stats.entries);
    }
}

#[test]
fn a_session_that_does_not_fit_replaces_its_former_version_all_the_same() {
    let (cache, tracking) = connected(LocalCache::new().max_bytes(64 * 1024));
    put(&cache, &tracking, "k", 10);
    assert!(cache.get("k").is_some());
    put(&cache, &tracking, "k", 70 * 1024);
    assert!(cache.get("k").is_none());
}

#[test]
fn an_entry_is_used_for_a_minute_and_while_its_connection_lives() {
    let options = LocalCache::new().max_staleness(LONG);
    let skew = options.test.skew_secs.clone();
    let (cache, tracking) = connected(options);
    put(&cache, &tracking, "k", 10);
    skew.store(59, SeqCst);
    assert!(cache.get("k").is_some());
    skew.store(61, SeqCst);
    assert!(cache.get("k").is_none());
    assert_eq!(cache.stats().dropped_aged, 1);

    let options = LocalCache::new().max_staleness(Duration::from_secs(2));
    let skew = options.test.skew_secs.clone();
    let (cache, tracking) = connected(options);
    put(&cache, &tracking, "k", 10);
    skew.store(3, SeqCst);
    assert!(cache.get("k").is_none(), "no sign of life");
    tracking.confirm(cache.now());
    assert!(cache.get("k").is_some(), "it came, so nothing was missed");
    tracking.end();
    assert!(cache.get("k").is_none());
    assert_eq!(cache.stats().dropped_disconnected, 1);
}

#[test]
fn an_invalidation_keeps_out_what_was_asked_for_before() {
    let (cache, tracking) = connected(LocalCache::new());
    let ticket = || {
        cache
            .ticket("k", || Some(tracking.clone()))
            .expect("tracked")
    };
    let early = ticket();
    cache.invalidate_reported("k");
    cache.install("k", early, &record(10), LONG);
    assert!(cache.get("k").is_none());
    // A change by this process does, too, and an unfinished one removes what is there.
    put(&cache, &tracking, "k", 10);
    let early = ticket();
    drop(cache.modify("k"));
    assert!(cache.get("k").is_none());
    cache.install("k", early, &record(10), LONG);
    assert!(cache.get("k").is_none());
    // Of two changes at once, neither is kept.
    let (first, second) = (cache.modify("k"), cache.modify("k"));
    let tickets = (ticket(), ticket());
    first.install(tickets.0, &record(10), LONG);
    second.install(tickets.1, &record(10), LONG);
    assert!(cache.get("k").is_none());
    // One that was not sent changes nothing.
    put(&cache, &tracking, "k", 10);
    cache.modify("k").cancel();
    assert!(cache.get("k").is_some());
    // One that ends the session removes it at once.
    let end = cache.end("k");
    assert!(cache.get("k").is_none());
    drop(end);
}

#[test]
fn ended_sessions_do_not_stay_in_memory() {
    let options = LocalCache::new();
    let skew = options.test.skew_secs.clone();
    let (cache, tracking) = connected(options);
    for key in ["a", "b"] {
        put(&cache, &tracking, key, 10);
    }
    cache.sweep();
    assert_eq!(cache.stats().entries, 2);
    skew.store(61, SeqCst);
    cache.sweep();
    assert_eq!(cache.stats().entries, 0);
}
