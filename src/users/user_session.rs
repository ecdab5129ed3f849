use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::de::DeserializeOwned;

use super::SessionHandle;
use crate::{
    error::SessionError,
    record::{self, Record},
    store::IndexEntry,
};

/// A live session, as of [`UserSessions::list`](super::UserSessions::list).
pub struct UserSession {
    pub(super) handle: SessionHandle,
    pub(super) entry: IndexEntry,
    pub(super) is_current: bool,
    pub(super) record: Record,
    pub(super) last_seen: SystemTime,
    pub(super) expires_at: SystemTime,
}

impl UserSession {
    /// Identifies the session on a page. It cannot be used to authenticate.
    #[must_use]
    pub fn handle(&self) -> SessionHandle {
        self.handle
    }

    /// Whether it is the session of the current request. Always `false` for a list from [`Users::of`](super::Users::of).
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.is_current
    }

    /// When the user logged in, to the second.
    #[must_use]
    pub fn created(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.begun_at().0)
    }

    /// When it was last used.
    #[must_use]
    pub fn last_seen(&self) -> SystemTime {
        self.last_seen
    }

    /// When it expires if it is not used again.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// Whether it outlives the browser ("remember me").
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.record.metadata.permanent.is_some()
    }

    /// The session's value under `key`, such as the device or the address; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) if the value is not a `T`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, SessionError> {
        let value = self.record.value(key);
        value.map_or(Ok(None), |value| record::decode(key, &value))
    }

    /// Unix seconds; then Unix microseconds of its entry, which order the sessions of one second.
    pub(super) fn begun_at(&self) -> (u64, u64) {
        (
            self.record.metadata.created.unwrap_or(0),
            self.entry.added_at,
        )
    }
}

/// Shows neither keys nor values.
impl fmt::Debug for UserSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserSession")
            .field("handle", &self.handle)
            .field("last_seen", &self.last_seen)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
