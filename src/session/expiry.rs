//! A session's own timeouts.

use std::time::{Duration, SystemTime};

use super::Session;
use crate::{
    commit::{metadata_changes::MetadataChange, state::Status},
    config::MAX_TIMEOUT,
    expiry,
};

impl Session {
    /// Sets how long this session lives after its last use, in place of the layer's idle timeout and permanent lifetime.
    ///
    /// It is kept in milliseconds, at least one, with the session and over a new id. Use it where logins differ, such as with and
    /// without "remember me".
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
        self.set_metadata(MetadataChange::IdleTimeout(millis(timeout)));
    }

    /// Sets how long this session lives after it was created, in place of the layer's absolute timeout.
    ///
    /// It is kept in milliseconds, at least one. [`cycle_id`](Self::cycle_id) does not start it anew;
    /// [`set_user`](Self::set_user) does.
    pub fn set_absolute_timeout(&self, timeout: Duration) {
        self.set_metadata(MetadataChange::AbsoluteTimeout(millis(timeout)));
    }

    /// When the session ends if it is not used again, or at the latest. `None` for a session that is not stored.
    ///
    /// As of its load, or of its last save in this request, by this machine's clock.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        let state = self.0.state();
        match state.status {
            Status::Persisted(_) => {
                let ttl = expiry::ttl(&self.0.context.config, state.base.metadata)?;
                state.ttl_set_at.checked_add(ttl)
            }
            Status::New { .. } | Status::Rotated { .. } | Status::Gone => None,
        }
    }
}

fn millis(timeout: Duration) -> u64 {
    let timeout = timeout.clamp(Duration::from_millis(1), MAX_TIMEOUT);
    u64::try_from(timeout.as_millis()).expect("MAX_TIMEOUT in milliseconds fits into 64 bits")
}
