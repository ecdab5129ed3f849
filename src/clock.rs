//! The present time, in the units that sessions are stored with.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) fn unix_secs() -> u64 {
    since_epoch().as_secs()
}

pub(crate) fn unix_millis() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn unix_micros() -> u64 {
    u64::try_from(since_epoch().as_micros()).unwrap_or(u64::MAX)
}

/// The lower 64 bits of the Unix time in nanoseconds.
pub(crate) fn unix_nanos() -> u64 {
    since_epoch().as_nanos() as u64
}

/// Zero if the clock is before 1970.
fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
