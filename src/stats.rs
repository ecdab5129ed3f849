//! What a layer counts: for [`Stats`], and with the feature `metrics` for the `metrics` facade.

#[cfg(feature = "metrics")]
use std::sync::OnceLock;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// What is counted, each with its metric and its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    LoadFound,
    LoadMissing,
    LoadExpired,
    LoadRotated,
    LoadUnreadable,
    LoadFailed,
    Saved,
    SaveDiscarded,
    SaveConflict,
    SaveFailed,
    SaveRetried,
    Begun,
    Rotated,
    Destroyed,
    Emptied,
    Revoked,
    #[cfg(feature = "migration")]
    Migrated,
    ConnectionOpened,
    ConnectionFailed,
}

/// Which operation took how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timed {
    Load,
    Save,
}

const EVENTS: usize = Event::ConnectionFailed as usize + 1;
const TIMED: usize = Timed::Save as usize + 1;

/// Counters of a layer and its clones in this process, from [`stats`](crate::RedisSessionLayer::stats). The feature `metrics` exports the same
/// numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Loads that found a session.
    pub loads_found: u64,
    /// Loads of an id that is not stored: unknown, expired or ended.
    pub loads_missing: u64,
    /// Loads of a stored session that is over its absolute timeout.
    pub loads_expired: u64,
    /// Loads of the former id of a session that was rotated.
    pub loads_rotated: u64,
    /// Loads of a stored value that is not a session of this crate. With
    /// [`with_discard_unreadable`](crate::RedisSessionLayer::with_discard_unreadable), the visitor had an empty session instead.
    pub unreadable: u64,
    /// Loads that failed for another reason, such as an outage.
    pub loads_failed: u64,
    /// The time of all loads together.
    pub load_time: Duration,
    /// Successful writes: sessions created, saved, deleted, rotated or destroyed.
    pub commits: u64,
    /// Retries of saves after a conflict with another request.
    pub retries: u64,
    /// Requests that failed with [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) after all retries.
    pub retries_exhausted: u64,
    /// Requests whose changes were discarded because their session was destroyed, rotated or expired.
    pub discarded: u64,
    /// Saves that failed for another reason, such as an outage.
    pub saves_failed: u64,
    /// The time of all saves together.
    pub save_time: Duration,
    /// Sessions that were created.
    pub begun: u64,
    /// Sessions that got a new id.
    pub rotated: u64,
    /// Sessions that [`destroy`](crate::Session::destroy) ended.
    pub destroyed: u64,
    /// Sessions that ended since their last key was removed.
    pub emptied: u64,
    /// Sessions that were revoked through [`UserSessions`](crate::UserSessions).
    pub revoked: u64,
    /// Sessions of another app that were taken over, by [`with_migration_from`](crate::RedisSessionLayer::with_migration_from). Those that cannot be
    /// read are counted in `unreadable`, once for each session and process.
    #[cfg(feature = "migration")]
    #[cfg_attr(docsrs, doc(cfg(feature = "migration")))]
    pub migrated: u64,
    /// Connections that are open now.
    pub connections_open: u64,
    /// Connections that were opened: at first use, or in place of one that broke or did not answer.
    pub connections_opened: u64,
    /// Attempts to connect that failed.
    pub connection_failures: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    events: [AtomicU64; EVENTS],
    /// In nanoseconds.
    times: [AtomicU64; TIMED],
    connections_open: AtomicU64,
    #[cfg(feature = "metrics")]
    exported: OnceLock<Exported>,
}

impl Counters {
    pub(crate) fn count(&self, event: Event) {
        self.events[event as usize].fetch_add(1, Relaxed);
        #[cfg(feature = "metrics")]
        self.exported().events[event as usize].increment(1);
    }

    pub(crate) fn time(&self, timed: Timed, begun: Instant) {
        let took = begun.elapsed();
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.times[timed as usize].fetch_add(nanos, Relaxed);
        #[cfg(feature = "metrics")]
        self.exported().times[timed as usize].record(took);
    }

    pub(crate) fn stats(&self) -> Stats {
        let event = |event: Event| self.events[event as usize].load(Relaxed);
        let time = |timed: Timed| Duration::from_nanos(self.times[timed as usize].load(Relaxed));
        Stats {
            loads_found: event(Event::LoadFound),
            loads_missing: event(Event::LoadMissing),
            loads_expired: event(Event::LoadExpired),
            loads_rotated: event(Event::LoadRotated),
            unreadable: event(Event::LoadUnreadable),
            loads_failed: event(Event::LoadFailed),
            load_time: time(Timed::Load),
            commits: event(Event::Saved),
            retries: event(Event::SaveRetried),
            retries_exhausted: event(Event::SaveConflict),
            discarded: event(Event::SaveDiscarded),
            saves_failed: event(Event::SaveFailed),
            save_time: time(Timed::Save),
            begun: event(Event::Begun),
            rotated: event(Event::Rotated),
            destroyed: event(Event::Destroyed),
            emptied: event(Event::Emptied),
            revoked: event(Event::Revoked),
            #[cfg(feature = "migration")]
            migrated: event(Event::Migrated),
            connections_open: self.connections_open.load(Relaxed),
            connections_opened: event(Event::ConnectionOpened),
            connection_failures: event(Event::ConnectionFailed),
        }
    }

    /// Registers all metrics at the first event, so that each is there before it is counted, and the app has installed its recorder by then.
    #[cfg(feature = "metrics")]
    fn exported(&self) -> &Exported {
        self.exported.get_or_init(Exported::register)
    }
}

/// An open connection, from here until this is dropped.
pub(crate) struct OpenConnection(Arc<Counters>);

impl OpenConnection {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        counters.count(Event::ConnectionOpened);
        counters.connections_open.fetch_add(1, Relaxed);
        #[cfg(feature = "metrics")]
        counters.exported().connections_open.increment(1);
        Self(counters)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections_open.fetch_sub(1, Relaxed);
        #[cfg(feature = "metrics")]
        self.0.exported().connections_open.decrement(1);
    }
}

#[cfg(feature = "metrics")]
struct Exported {
    events: [metrics::Counter; EVENTS],
    times: [metrics::Histogram; TIMED],
    connections_open: metrics::Gauge,
}

#[cfg(feature = "metrics")]
impl Exported {
    fn register() -> Self {
        use metrics::{
            Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
        };

        for (name, help) in [
            (LOADS, "Sessions that were asked for, by what was found"),
            (SAVES, "Saves, by what became of the changes"),
            (
                RETRIES,
                "Retries of saves after a conflict with another request",
            ),
            (BEGUN, "Sessions that were created"),
            (ROTATED, "Sessions that got a new id"),
            (ENDED, "Sessions that were ended, by how"),
            #[cfg(feature = "migration")]
            (MIGRATED, "Sessions of another app that were taken over"),
            (OPENED, "Connections that were opened"),
            (FAILURES, "Attempts to connect that failed"),
        ] {
            describe_counter!(name, Unit::Count, help);
        }
        describe_histogram!(DURATION, Unit::Seconds, "How long loads and saves took");
        describe_gauge!(OPEN, Unit::Count, "Connections that are open");
        let load = |result| counter!(LOADS, "result" => result);
        let save = |outcome| counter!(SAVES, "outcome" => outcome);
        let ended = |by| counter!(ENDED, "by" => by);
        Self {
            // In the order of `Event`.
            events: [
                load("found"),
                load("missing"),
                load("expired"),
                load("rotated"),
                load("unreadable"),
                load("failed"),
                save("saved"),
                save("discarded"),
                save("conflict"),
                save("failed"),
                counter!(RETRIES),
                counter!(BEGUN),
                counter!(ROTATED),
                ended("destroy"),
                ended("removal"),
                ended("revocation"),
                #[cfg(feature = "migration")]
                counter!(MIGRATED),
                counter!(OPENED),
                counter!(FAILURES),
            ],
            times: [
                histogram!(DURATION, "operation" => "load"),
                histogram!(DURATION, "operation" => "save"),
            ],
            connections_open: gauge!(OPEN),
        }
    }
}

#[cfg(feature = "metrics")]
const LOADS: &str = "axum_redis_sessions_loads_total";
#[cfg(feature = "metrics")]
const SAVES: &str = "axum_redis_sessions_saves_total";
#[cfg(feature = "metrics")]
const RETRIES: &str = "axum_redis_sessions_save_retries_total";
#[cfg(feature = "metrics")]
const BEGUN: &str = "axum_redis_sessions_begun_total";
#[cfg(feature = "metrics")]
const ROTATED: &str = "axum_redis_sessions_rotated_total";
#[cfg(feature = "metrics")]
const ENDED: &str = "axum_redis_sessions_ended_total";
#[cfg(all(feature = "metrics", feature = "migration"))]
const MIGRATED: &str = "axum_redis_sessions_migrated_total";
#[cfg(feature = "metrics")]
const DURATION: &str = "axum_redis_sessions_operation_duration_seconds";
#[cfg(feature = "metrics")]
const OPEN: &str = "axum_redis_sessions_connections_open";
#[cfg(feature = "metrics")]
const OPENED: &str = "axum_redis_sessions_connections_opened_total";
#[cfg(feature = "metrics")]
const FAILURES: &str = "axum_redis_sessions_connection_failures_total";
