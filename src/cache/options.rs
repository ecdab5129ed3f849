use std::time::Duration;

use crate::error::ConfigError;

/// 64 MiB: about 70,000 sessions of 300 bytes.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// The least that is worth the bookkeeping.
const MIN_BYTES: usize = 64 * 1024;
/// A round trip takes a millisecond, a busy server's or app's turn tens of them. The time also bounds how long a revoked session is read on a
/// node whose connection is stuck.
const MAX_STALENESS: Duration = Duration::from_secs(1);
/// The connection is asked for a sign of life four times in `max_staleness`, so this is 100 commands a second.
const MIN_STALENESS: Duration = Duration::from_millis(40);

/// Options of the [local cache](crate::RedisSessionLayer::with_local_cache): sessions in this process's memory, which Redis invalidates.
///
/// ```
/// use std::time::Duration;
///
/// use axum_redis_sessions::{LocalCache, RedisSessionLayer};
///
/// let cache = LocalCache::new()
///     .max_bytes(256 * 1024 * 1024)
///     .max_staleness(Duration::from_millis(500));
/// let layer = RedisSessionLayer::open("redis://127.0.0.1/")?.with_local_cache(cache);
/// # Ok::<(), axum_redis_sessions::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until they are passed to with_local_cache"]
pub struct LocalCache {
    pub(super) max_bytes: usize,
    pub(super) max_staleness: Duration,
    pub(super) stale_if_error: Option<Duration>,
    #[cfg(test)]
    pub(crate) test: TestOptions,
}

/// For the interleavings: a clock that can be advanced, and rules that can be broken.
#[cfg(test)]
#[derive(Clone, Debug, Default)]
pub(crate) struct TestOptions {
    pub(crate) skew_secs: std::sync::Arc<std::sync::atomic::AtomicU64>,
    pub(crate) broken: Option<Broken>,
}

/// A mutant, which a test must find.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// What a read returns is put in whatever happened meanwhile.
    NoFence,
    /// What a write stored is put in whatever happened meanwhile.
    UnfencedWrite,
    /// The end of a change does not make reads in flight worthless.
    SilentEnd,
    /// Entries do not end with their keys.
    IgnoreTtl,
    /// Entries outlive the connection that reports their changes.
    KeepAtDisconnect,
    /// A write is taken for tracked although the key was not read again.
    UntrackedWrite,
}

#[cfg(test)]
impl TestOptions {
    pub(super) fn skew(&self) -> Duration {
        Duration::from_secs(self.skew_secs.load(std::sync::atomic::Ordering::SeqCst))
    }

    pub(super) fn ttl(&self, ttl: Duration) -> Duration {
        match self.is_broken(Broken::IgnoreTtl) {
            true => Duration::from_secs(3600),
            false => ttl,
        }
    }

    pub(crate) fn is_broken(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }
}

impl LocalCache {
    /// 64 MiB, a staleness of at most 1 s, and nothing from the cache while Redis is unavailable.
    pub fn new() -> Self {
        Self {
            max_bytes: MAX_BYTES,
            max_staleness: MAX_STALENESS,
            stale_if_error: None,
            #[cfg(test)]
            test: TestOptions::default(),
        }
    }

    /// Sets how much memory the cached sessions take, in bytes. Default: 64 MiB, at least 64 KiB.
    ///
    /// What was used least recently and least often makes room. A session of 300 bytes takes about 900.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets how long a cached session is used after the connection's last sign of life. Default: 1 s, at least 40 ms.
    ///
    /// Normally an invalidation arrives within milliseconds. If the connection is stuck, this is how long a session that was changed or ended
    /// elsewhere can still be read here. The connection is asked four times in it (PING).
    pub fn max_staleness(mut self, staleness: Duration) -> Self {
        self.max_staleness = staleness;
        self
    }

    /// Sets how long cached sessions can be read while Redis is unavailable, since the last sign of life. Default: not at all.
    ///
    /// The word is RFC 5861's. Writes are answered with 503 as ever. During that time a session that was ended elsewhere can still be
    /// read here, so it is a decision for availability and against security: see [the docs](crate::docs::local_cache).
    pub fn stale_if_error(mut self, limit: Duration) -> Self {
        self.stale_if_error = Some(limit);
        self
    }

    pub(crate) fn heartbeat(&self) -> Duration {
        self.max_staleness / 4
    }

    pub(crate) fn serves_stale(&self) -> bool {
        self.stale_if_error.is_some()
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let error = |text: &'static str| Err(ConfigError(text.into()));
        if self.max_bytes < MIN_BYTES {
            return error("LocalCache::max_bytes is less than 64 KiB: make it larger");
        }
        if self.max_staleness < MIN_STALENESS {
            return error("LocalCache::max_staleness is shorter than 40 ms: make it longer");
        }
        Ok(())
    }
}

impl Default for LocalCache {
    fn default() -> Self {
        Self::new()
    }
}
