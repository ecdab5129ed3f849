//! The server's reports of changes (client tracking), for the local cache.
//!
//! 1. Tracking is turned on before a connection is used. Every key that is read over the connection is then tracked, and the server reports its
//!    next change by another connection. It does not report changes by the connection itself (NOLOOP).
//! 2. **Reports are handled inside redis-rs' callback**, in the order of the stream. Through a channel, a later reply would overtake them.
//! 3. The connection is asked for a sign of life four times in the longest staleness (PING). The answer proves that all reports before it were
//!    handled.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{PushInfo, PushKind, Value, aio::MultiplexedConnection};

use super::error_text;
use crate::cache::{Cache, Tracking};

/// A connection that does not answer for this long is looked at, and replaced if need be; at least the time between two PINGs. Redis answers
/// within a millisecond, but may be far away: the default deadline of a request.
const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// How often what cannot be used any more is removed from memory.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Handles what the server sends without being asked, on one connection.
#[derive(Clone)]
pub(super) struct Reports {
    cache: Arc<Cache>,
    tracking: Arc<Tracking>,
}

/// The tracking of an open connection. It ends with this value.
pub(super) struct TrackingGuard(Arc<Tracking>);

impl Reports {
    pub(super) fn new(cache: &Arc<Cache>) -> Self {
        Self {
            cache: cache.clone(),
            tracking: cache.tracking(),
        }
    }

    pub(super) fn handle(&self, push: &PushInfo) {
        match (&push.kind, push.data.first()) {
            (PushKind::Invalidate, Some(Value::Array(keys))) => {
                for key in keys {
                    match key {
                        Value::BulkString(key) => {
                            // A key that is not text is not a session's.
                            if let Ok(key) = str::from_utf8(key) {
                                self.cache.invalidate_reported(key);
                            }
                        }
                        Value::SimpleString(key) => self.cache.invalidate_reported(key),
                        _ => self.cache.flush(),
                    }
                }
            }
            (PushKind::Disconnection, _) => self.tracking.end(),
            // Without keys: the server was flushed, or forgot what it tracks. Anything else is not known, so it may mean the same.
            _ => self.cache.flush(),
        }
    }

    /// Turns tracking on. `None`: the server does not support it, or the user may not; then the connection works without.
    pub(super) async fn begin(
        self,
        connection: &mut MultiplexedConnection,
    ) -> Option<TrackingGuard> {
        let mut command = redis::cmd("CLIENT");
        command.arg("TRACKING").arg("ON").arg("NOLOOP");
        let sent = Instant::now();
        let reply = connection.send_packed_command(&command).await;
        let error = match reply.and_then(Value::extract_error) {
            Ok(_) => {
                self.tracking.begin(sent);
                self.cache.reports().on();
                return Some(TrackingGuard(self.tracking));
            }
            Err(error) => error,
        };
        if error.is_io_error() {
            // The connection broke. The next one tries again.
        } else if error_text::is_denied(&error) {
            self.cache.reports().off(
                "the ACL denies CLIENT TRACKING, so the local cache is off: add +client|tracking",
            );
        } else {
            self.cache.reports().off(
                "the server does not support CLIENT TRACKING, so the local cache is off: use Redis 6.2 or later, or remove with_local_cache",
            );
        }
        None
    }
}

/// Says that a connection cannot have reports.
pub(super) fn warn_without_resp3(cache: &Cache) {
    cache.reports().off(
        "the server, or a proxy before it, does not support RESP3 (HELLO 3), so the local cache is off: use Redis 6.2 or later without such a \
         proxy, or remove with_local_cache",
    );
}

impl TrackingGuard {
    pub(super) fn tracking(&self) -> &Arc<Tracking> {
        &self.0
    }
}

impl Drop for TrackingGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Asks for signs of life until `ping` has no connection any more. `ping` returns whether an answer came, of whatever content.
pub(super) async fn heartbeat<F>(
    cache: Arc<Cache>,
    tracking: Arc<Tracking>,
    mut ping: impl FnMut() -> Option<F>,
) where
    F: Future<Output = bool>,
{
    let interval = cache.options().heartbeat();
    let mut sweep_at = tokio::time::Instant::now() + SWEEP_INTERVAL;
    loop {
        let sent = tokio::time::Instant::now();
        let Some(answer) = ping() else {
            return;
        };
        if let Ok(true) = tokio::time::timeout(interval.max(PING_TIMEOUT), answer).await {
            tracking.confirm(sent.into_std());
        }
        if sent >= sweep_at {
            cache.sweep();
            sweep_at = sent + SWEEP_INTERVAL;
        }
        tokio::time::sleep_until(sent + interval).await;
    }
}

#[cfg(test)]
mod tests;
