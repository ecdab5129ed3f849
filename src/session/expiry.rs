//! A session's own timeouts.

use std::time::{Duration, SystemTime};

use super::Session;
use crate::{commit::state::Status, config::MAX_TIMEOUT, expiry};

impl Session {
    /// How long this session lives after its last use, in place of the layer's timeout and of the permanent lifetime; to the
    /// millisecond, of which it has one at least.
    ///
    /// For a login with "remember me" and one without, each with its own times. It stays with the session, over a new id as well.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use axum_redis_sessions::{Session, SessionError};
    /// async fn log_in(session: Session, remember: bool) -> Result<(), SessionError> {
    ///     session.cycle_id();
    ///     session.insert("user", 42)?;
    ///     session.set_permanent(remember);
    ///     if remember {
    ///         session.set_idle_timeout(Duration::from_secs(14 * 24 * 60 * 60));
    ///         session.set_absolute_timeout(Duration::from_secs(30 * 24 * 60 * 60));
    ///     } else {
    ///         session.set_idle_timeout(Duration::from_secs(60 * 60));
    ///         session.set_absolute_timeout(Duration::from_secs(12 * 60 * 60));
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn set_idle_timeout(&self, timeout: Duration) {
        let millis = millis(timeout);
        self.inner().state().changes.set_idle_timeout(millis);
    }

    /// How long this session lives after it was begun, in place of the layer's timeout. `cycle_id` does not begin it anew.
    pub fn set_absolute_timeout(&self, timeout: Duration) {
        let millis = millis(timeout);
        self.inner().state().changes.set_absolute_timeout(millis);
    }

    /// When the session ends if nobody uses it, or at the latest; for a page that warns before. `None` for one that is not stored (yet).
    ///
    /// As of its load, or of its last save in this request. By this machine's clock.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        let inner = self.inner();
        let state = inner.state();
        match state.status {
            Status::Persisted(_) => {
                let left = expiry::ttl(&inner.context.config, state.base.metadata)?;
                state.ttl_set_at.checked_add(left)
            }
            Status::New | Status::Rotated | Status::Gone => None,
        }
    }
}

fn millis(timeout: Duration) -> u64 {
    let timeout = timeout.clamp(Duration::from_millis(1), MAX_TIMEOUT);
    u64::try_from(timeout.as_millis()).expect("a hundred years in milliseconds")
}
