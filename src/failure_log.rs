//! Failures that an operator must mend, in the log. Each kind is logged at most once in [`INTERVAL`], with the number of those left out.

use std::{
    error::Error,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::error::{ErrorKind, SessionError};

/// Short enough to see an outage while it lasts, long enough that a thousand failures a second do not fill a disk.
const INTERVAL: Duration = Duration::from_secs(10);

/// The log of a layer and its clones, or of what belongs to no layer.
#[derive(Default)]
pub(crate) struct FailureLog(Mutex<Vec<Entry>>);

/// The latest line of one kind.
struct Entry {
    event: &'static str,
    kind: Option<ErrorKind>,
    logged_at: Instant,
    /// Since that line.
    omitted: u64,
}

impl FailureLog {
    /// Logs an error, once however often it is reported. `event` says what could not be done.
    pub(crate) fn report(&self, event: &'static str, error: &SessionError) {
        let is_transient = match error.kind() {
            // What a visitor did, not what an operator must mend.
            ErrorKind::TooManySessions | ErrorKind::Ended | ErrorKind::UpdateRejected => return,
            ErrorKind::Unavailable | ErrorKind::NotReplicated | ErrorKind::Conflict => true,
            ErrorKind::MissingLayer
            | ErrorKind::Rejected
            | ErrorKind::HeadersSent
            | ErrorKind::InvalidData
            | ErrorKind::Decode
            | ErrorKind::Encode
            | ErrorKind::ReservedKey
            | ErrorKind::InvalidUser
            | ErrorKind::TooLarge
            | ErrorKind::IdGeneration => false,
        };
        if !error.begin_report() {
            return;
        }
        let Some(omitted) = self.admit(event, Some(error.kind()), Instant::now()) else {
            return;
        };
        let source = error.source();
        if is_transient {
            tracing::warn!(%error, source, omitted, "{event}");
        } else {
            tracing::error!(%error, source, omitted, "{event}");
        }
    }

    /// Logs that a session's creation time is further in the future than clocks usually differ.
    pub(crate) fn report_clock(&self, ahead: Duration) {
        const EVENT: &str = "a session was not used, since it was created in the future: the clock of this server, or of the one that \
                             created it, is wrong; synchronize both with NTP";
        if let Some(omitted) = self.admit(EVENT, None, Instant::now()) {
            tracing::warn!(ahead_secs = ahead.as_secs(), omitted, "{EVENT}");
        }
    }

    /// The number of lines that were left out, if one is due.
    fn admit(&self, event: &'static str, kind: Option<ErrorKind>, now: Instant) -> Option<u64> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = entries.iter_mut();
        let Some(entry) = known.find(|entry| entry.event == event && entry.kind == kind) else {
            entries.push(Entry {
                event,
                kind,
                logged_at: now,
                omitted: 0,
            });
            return Some(0);
        };
        if now.saturating_duration_since(entry.logged_at) < INTERVAL {
            entry.omitted += 1;
            return None;
        }
        entry.logged_at = now;
        Some(std::mem::take(&mut entry.omitted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_admitted_once_in_an_interval() {
        let log = FailureLog::default();
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let load = |kind, now| log.admit("load", Some(kind), now);
        assert_eq!(load(ErrorKind::Unavailable, after(0)), Some(0));
        assert_eq!(load(ErrorKind::Unavailable, after(1)), None);
        assert_eq!(load(ErrorKind::Unavailable, after(9_999)), None);
        assert_eq!(load(ErrorKind::Rejected, after(9_999)), Some(0));
        assert_eq!(
            log.admit("save", Some(ErrorKind::Unavailable), after(9_999)),
            Some(0)
        );
        assert_eq!(load(ErrorKind::Unavailable, after(10_000)), Some(2));
        assert_eq!(load(ErrorKind::Unavailable, after(10_001)), None);
        assert_eq!(load(ErrorKind::Rejected, after(20_000)), Some(0));
        assert_eq!(load(ErrorKind::Unavailable, after(60_000)), Some(1));
        assert_eq!(load(ErrorKind::Unavailable, after(70_000)), Some(0));
    }
}
