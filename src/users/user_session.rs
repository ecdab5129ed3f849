use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::de::DeserializeOwned;

use super::SessionHandle;
use crate::{
    error::SessionError,
    record::Record,
    session::{Session, decode},
};

/// A live session, as [`UserSessions::list`](super::UserSessions::list) found it.
pub struct UserSession {
    pub(super) handle: SessionHandle,
    pub(super) name: String,
    pub(super) record: Record,
    /// Unix microseconds at which it was last entered, for those begun in the same second.
    pub(super) added_at: u64,
    pub(super) last_seen: SystemTime,
    pub(super) expires_at: SystemTime,
}

impl UserSession {
    /// Names the session on a page, and opens it to nobody.
    #[must_use]
    pub fn handle(&self) -> SessionHandle {
        self.handle
    }

    /// Whether it is this one.
    #[must_use]
    pub fn is_current(&self, session: &Session) -> bool {
        session.handle() == Some(self.handle)
    }

    /// When the user logged in with it, to the second.
    #[must_use]
    pub fn created(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.age().0)
    }

    /// When it was last used.
    #[must_use]
    pub fn last_seen(&self) -> SystemTime {
        self.last_seen
    }

    /// When it ends if nobody uses it.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// Whether it outlives the browser.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.record.metadata.permanent.is_some()
    }

    /// What the app keeps in it under `key`, such as the device or the address; `None` if there is nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) if the value is not a `T`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, SessionError> {
        let value = self.record.value(key);
        value.map(|value| decode(key, &value)).transpose()
    }

    /// Older ones have less.
    pub(super) fn age(&self) -> (u64, u64) {
        (self.record.metadata.created.unwrap_or(0), self.added_at)
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
