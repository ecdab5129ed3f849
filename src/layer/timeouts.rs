use std::time::Duration;

use super::RedisSessionLayer;

/// An idle timeout and an absolute timeout, for [`RedisSessionLayer::with_timeouts`].
///
/// The presets are the maxima of [NIST SP 800-63B-4](https://pages.nist.gov/800-63-4/sp800-63b.html) (sections 2.1.3, 2.2.3 and 2.3.3)
/// for each authentication assurance level (AAL), after which a user has to authenticate again. ASVS 5.0, 7.1.1, 7.3.1 and 7.3.2, asks
/// an app to document the timeouts that it has chosen.
///
/// # Examples
///
/// ```
/// use axum_redis_sessions::{RedisSessionLayer, Timeouts};
///
/// let layer = RedisSessionLayer::in_memory().with_timeouts(Timeouts::NIST_AAL2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// The time since the last use, for all sessions, including permanent ones.
    pub idle: Duration,
    /// The time since the session was created.
    pub absolute: Duration,
}

const HOUR: u64 = 60 * 60;

impl Timeouts {
    /// AAL1: 30 days for both. The level has no idle timeout.
    pub const NIST_AAL1: Self = Self {
        idle: Duration::from_secs(30 * 24 * HOUR),
        absolute: Duration::from_secs(30 * 24 * HOUR),
    };

    /// AAL2: idle 1 hour, absolute 24 hours.
    pub const NIST_AAL2: Self = Self {
        idle: Duration::from_secs(HOUR),
        absolute: Duration::from_secs(24 * HOUR),
    };

    /// AAL3: idle 15 minutes, absolute 12 hours.
    pub const NIST_AAL3: Self = Self {
        idle: Duration::from_secs(HOUR / 4),
        absolute: Duration::from_secs(12 * HOUR),
    };
}

/// # Timeouts
impl RedisSessionLayer {
    /// Sets both timeouts for all sessions.
    ///
    /// The same as [`with_idle_timeout`](Self::with_idle_timeout) and [`with_permanent_lifetime`](Self::with_permanent_lifetime) with
    /// [`Timeouts::idle`], and [`with_absolute_timeout`](Self::with_absolute_timeout) with [`Timeouts::absolute`].
    pub fn with_timeouts(self, timeouts: Timeouts) -> Self {
        self.with_idle_timeout(timeouts.idle)
            .with_permanent_lifetime(timeouts.idle)
            .with_absolute_timeout(timeouts.absolute)
    }

    /// Sets how long a session lives after its last use, in milliseconds as Redis counts. Default: 1 day.
    ///
    /// Each load restarts it. NIST SP 800-63B-4 allows at most one hour at AAL2, and 15 minutes at AAL3. At least 1 ms, at most 100 years.
    pub fn with_idle_timeout(self, timeout: Duration) -> Self {
        self.configured(|context| context.config.idle_timeout = timeout)
    }

    /// Sets how long a session lives after it was created, however much it is used, in seconds. Default: no limit.
    ///
    /// NIST SP 800-63B-4 allows at most 30 days at AAL1, 24 hours at AAL2, and 12 hours at AAL3. At least 1 ms.
    pub fn with_absolute_timeout(self, timeout: Duration) -> Self {
        self.configured(|context| context.config.absolute_timeout = Some(timeout))
    }

    /// Sets the idle timeout of permanent sessions ([`set_permanent`](crate::Session::set_permanent), "remember me"), which is also their
    /// cookie's Max-Age, in seconds. Default: 31 days, as in Flask.
    ///
    /// At least 1 second and at most 400 days, the limit of browsers (RFC 6265bis, section 4.1.2.2). The cookie is sent again once a tenth of
    /// the lifetime has passed.
    pub fn with_permanent_lifetime(self, lifetime: Duration) -> Self {
        self.configured(|context| context.config.permanent_lifetime = lifetime)
    }

    /// Sets how long a request with a rotated id may still read what the session held. Default: 10 s; 0 for never.
    ///
    /// When an id changes, other requests of the browser are on their way with the former one. They can write nothing and never learn the
    /// new id. If the session had no user, they may read it for this long, so that a second click on "sign in" still finds the form's
    /// token. A session that had a user is dead at once under its former id, unless the app calls
    /// [`cycle_id_with_grace`](crate::Session::cycle_id_with_grace).
    ///
    /// After this time a visitor with the former id, whose browser never got the new cookie, can begin a new session. Its cookie then
    /// replaces that of a login whose response takes even longer. With 0, the former id blocks a new session for a minute.
    pub fn with_rotation_grace(self, grace: Duration) -> Self {
        self.configured(|context| context.config.rotation_grace = grace)
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

    #[test]
    fn both_timeouts_hold_for_permanent_sessions_too() {
        let layer = RedisSessionLayer::in_memory().with_timeouts(Timeouts::NIST_AAL2);
        let config = &layer.context.config;
        assert_eq!(config.idle_timeout, Timeouts::NIST_AAL2.idle);
        assert_eq!(config.permanent_lifetime, Timeouts::NIST_AAL2.idle);
        assert_eq!(config.absolute_timeout, Some(Timeouts::NIST_AAL2.absolute));
    }
}
