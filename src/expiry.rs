//! When a session ends, and when its cookie and its index entry are refreshed: rules over [`Config`] and [`Metadata`] alone.

use std::time::Duration;

use crate::{
    clock::unix_secs,
    config::{Config, MAX_MAX_AGE, MAX_TIMEOUT},
    record::Metadata,
};

/// One hour, in seconds. A creation time further in the future means that a clock is wrong.
const MAX_CLOCK_SKEW: u64 = 3600;

/// The TTL that the session's key gets now; `None` once its absolute timeout has passed.
pub(crate) fn ttl(config: &Config, metadata: Metadata) -> Option<Duration> {
    // A stored timeout may be larger than Redis can add to the present.
    let idle = idle_timeout(config, metadata).min(MAX_TIMEOUT);
    if idle.is_zero() {
        return None;
    }
    let absolute = match metadata.absolute_timeout {
        Some(millis) => Some(Duration::from_millis(millis)),
        None => config.absolute_timeout,
    };
    let (Some(absolute), Some(created)) = (absolute, metadata.created) else {
        return Some(idle);
    };
    let now = unix_secs();
    let age = Duration::from_secs(match now.checked_sub(created) {
        Some(age) => age,
        None if created - now <= MAX_CLOCK_SKEW => 0,
        // See `created_in_future`.
        None => return None,
    });
    let left = absolute.checked_sub(age).filter(|left| !left.is_zero())?;
    Some(idle.min(left))
}

/// How far in the future the session was created, if that is more than clocks usually differ.
pub(crate) fn created_in_future(metadata: Metadata) -> Option<Duration> {
    let ahead = metadata.created?.checked_sub(unix_secs())?;
    (ahead > MAX_CLOCK_SKEW).then(|| Duration::from_secs(ahead))
}

/// The cookie's Max-Age; `None` for a cookie that ends with the browser.
pub(crate) fn max_age(config: &Config, metadata: Metadata) -> Option<Duration> {
    metadata.permanent?;
    Some(ttl(config, metadata)?.min(MAX_MAX_AGE))
}

/// Whether a permanent session's cookie is due to be sent again: once a tenth of its time has passed.
pub(crate) fn cookie_needs_refresh(config: &Config, metadata: Metadata) -> bool {
    metadata
        .permanent
        .is_some_and(|sent| is_due(config, metadata, sent))
}

/// Whether the session's entry in its user's index is due to be refreshed: once a tenth of its time has passed.
pub(crate) fn index_entry_needs_refresh(config: &Config, metadata: Metadata) -> bool {
    is_due(config, metadata, metadata.indexed_at.unwrap_or(0))
}

fn is_due(config: &Config, metadata: Metadata, last: u64) -> bool {
    let interval = (idle_timeout(config, metadata).as_secs() / 10).max(1);
    unix_secs().saturating_sub(last) >= interval
}

fn idle_timeout(config: &Config, metadata: Metadata) -> Duration {
    match (metadata.idle_timeout, metadata.permanent) {
        (Some(millis), _) => Duration::from_millis(millis),
        (None, Some(_)) => config.permanent_lifetime,
        (None, None) => config.idle_timeout,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    #[test]
    fn clocks_may_differ_by_an_hour() {
        let config = Config {
            absolute_timeout: Some(Duration::from_secs(DAY)),
            ..Config::default()
        };
        for (name, ahead, is_accepted) in [
            ("now", 0, true),
            ("half an hour", 1800, true),
            ("an hour and a half", 5400, false),
            ("a day", DAY, false),
        ] {
            let metadata = Metadata {
                created: Some(unix_secs() + ahead),
                ..Metadata::default()
            };
            let ttl = ttl(&config, metadata);
            assert_eq!(ttl.is_some(), is_accepted, "{name}");
            let created_in_future = created_in_future(metadata);
            assert_eq!(created_in_future.is_none(), is_accepted, "{name}");
            if let Some(found) = created_in_future {
                assert!(found.as_secs() > ahead - 60, "{name}: {found:?}");
            }
        }
        assert_eq!(created_in_future(Metadata::default()), None);
    }

    #[test]
    fn a_timeout_of_zero_and_a_passed_one_end_the_session() {
        let config = Config::default();
        let idle = |millis| Metadata {
            idle_timeout: Some(millis),
            ..Metadata::default()
        };
        assert_eq!(ttl(&config, idle(0)), None);
        assert_eq!(ttl(&config, idle(1)), Some(Duration::from_millis(1)));
        assert_eq!(ttl(&config, idle(u64::MAX)), Some(MAX_TIMEOUT));
        let passed = Metadata {
            created: Some(unix_secs() - DAY),
            absolute_timeout: Some(DAY * 1000),
            ..Metadata::default()
        };
        assert_eq!(ttl(&config, passed), None);
    }

    #[test]
    fn cookie_and_entry_are_refreshed_after_a_tenth_of_the_time() {
        let config = Config {
            idle_timeout: Duration::from_secs(1000),
            permanent_lifetime: Duration::from_secs(2000),
            ..Config::default()
        };
        // A test may be interrupted for less than that.
        const PAUSE: u64 = 60;
        for (since, cookie, entry) in [
            (0, false, false),
            (100 - PAUSE, false, false),
            (100, false, true),
            (200, true, true),
        ] {
            let then = unix_secs() - since;
            let permanent = Metadata {
                permanent: Some(then),
                ..Metadata::default()
            };
            assert_eq!(cookie_needs_refresh(&config, permanent), cookie, "{since}");
            let indexed = Metadata {
                indexed_at: Some(then),
                ..Metadata::default()
            };
            assert_eq!(index_entry_needs_refresh(&config, indexed), entry);
        }
        let none = Metadata::default();
        assert!(
            !cookie_needs_refresh(&config, none),
            "ends with the browser"
        );
        assert!(index_entry_needs_refresh(&config, none), "never written");
        let short = Metadata {
            idle_timeout: Some(5000),
            indexed_at: Some(unix_secs() + DAY),
            ..Metadata::default()
        };
        assert!(
            !index_entry_needs_refresh(&config, short),
            "not within a second"
        );
    }

    #[test]
    fn max_age_exceeds_neither_400_days_nor_the_absolute_timeout() {
        let days = |days: u64| Duration::from_secs(days * DAY);
        let millis = |days: u64| Some(days * DAY * 1000);
        let now = unix_secs();
        for (name, idle, absolute, age, expected) in [
            ("the idle timeout", 30, None, 0, 30),
            ("more than browsers keep", 500, None, 0, 400),
            ("the rest of the absolute timeout", 30, Some(40), 35, 5),
            ("both too long", 500, Some(1000), 100, 400),
        ] {
            let metadata = Metadata {
                created: Some(now - age * DAY),
                permanent: Some(now),
                idle_timeout: millis(idle),
                absolute_timeout: absolute.and_then(millis),
                ..Metadata::default()
            };
            let max_age = max_age(&Config::default(), metadata).expect(name);
            // The clock may go on by a few seconds here.
            let expected = days(expected);
            assert!(max_age <= expected, "{name}: {max_age:?}");
            assert!(
                max_age + Duration::from_secs(60) > expected,
                "{name}: {max_age:?}"
            );
        }
    }
}
