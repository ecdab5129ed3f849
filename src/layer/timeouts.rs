use std::time::Duration;

use super::RedisSessionLayer;

/// How long sessions live: since their last use, and altogether.
///
/// ```
/// use axum_redis_sessions::{RedisSessionLayer, Timeouts};
///
/// let layer = RedisSessionLayer::in_memory().with_timeouts(Timeouts::NIST_AAL2);
/// ```
///
/// The presets are the longest times that [NIST SP 800-63B-4](https://pages.nist.gov/800-63-4/sp800-63b.html) (sections 2.1.3, 2.2.3 and
/// 2.3.3) allows at each authentication assurance level before somebody must log in again. ASVS 5.0, 7.3.1 and 7.3.2, asks an app to
/// document the ones that it chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// Since the last use, for every session, one with [`set_permanent`](crate::Session::set_permanent) included.
    pub idle: Duration,
    /// Since the session was begun.
    pub absolute: Duration,
}

const HOUR: u64 = 60 * 60;

impl Timeouts {
    /// 30 days altogether. The level asks for no idle timeout, so that is 30 days as well.
    pub const NIST_AAL1: Self = Self {
        idle: Duration::from_secs(30 * 24 * HOUR),
        absolute: Duration::from_secs(30 * 24 * HOUR),
    };

    /// 24 hours altogether, an hour since the last use.
    pub const NIST_AAL2: Self = Self {
        idle: Duration::from_secs(HOUR),
        absolute: Duration::from_secs(24 * HOUR),
    };

    /// 12 hours altogether, 15 minutes since the last use.
    pub const NIST_AAL3: Self = Self {
        idle: Duration::from_secs(HOUR / 4),
        absolute: Duration::from_secs(12 * HOUR),
    };
}

impl RedisSessionLayer {
    /// Sets [`with_idle_timeout`](Self::with_idle_timeout), [`with_permanent_lifetime`](Self::with_permanent_lifetime) and
    /// [`with_absolute_timeout`](Self::with_absolute_timeout) together. Default: a day, 31 days, and none.
    pub fn with_timeouts(self, timeouts: Timeouts) -> Self {
        self.with_idle_timeout(timeouts.idle)
            .with_permanent_lifetime(timeouts.idle)
            .with_absolute_timeout(timeouts.absolute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NIST SP 800-63B-4, sections 2.1.3, 2.2.3 and 2.3.3.
    #[test]
    fn the_presets_are_those_of_nist() {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        for (name, timeouts, idle, absolute) in [
            (
                "AAL1",
                Timeouts::NIST_AAL1,
                minutes(30 * 24 * 60),
                minutes(30 * 24 * 60),
            ),
            ("AAL2", Timeouts::NIST_AAL2, minutes(60), minutes(24 * 60)),
            ("AAL3", Timeouts::NIST_AAL3, minutes(15), minutes(12 * 60)),
        ] {
            assert_eq!(
                (timeouts.idle, timeouts.absolute),
                (idle, absolute),
                "{name}"
            );
        }
    }
}
