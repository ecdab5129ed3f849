//! The user of a session.

use super::Session;
use crate::{
    clock::unix_secs,
    commit::{SessionCell, metadata_changes::MetadataChange},
    error::SessionError,
    record::UserId,
    users::{CurrentSession, SessionHandle, UserSessions},
};

impl Session {
    /// Logs a user in: associates the session with the user, and gives it a new id, against session fixation (ASVS 5.0, 7.2.4).
    ///
    /// The session is then one of the user's [`user_sessions`](Self::user_sessions). Its data is kept. Call it again when the user
    /// authenticates again.
    ///
    /// `user` is any text that identifies a user for good, such as the primary key in the app's database. It is stored in Redis, also as part
    /// of a key. The absolute timeout counts from this call. [`clear`](Self::clear) keeps the user;
    /// [`remove_user`](Self::remove_user) and [`destroy`](Self::destroy) do not.
    ///
    /// ```
    /// # use axum_redis_sessions::{Session, SessionError};
    /// async fn log_in(session: Session) -> Result<(), SessionError> {
    ///     // … check the password …
    ///     session.log_in("42")?;
    ///     session.insert("device", "Firefox on Linux")
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUser`](crate::ErrorKind::InvalidUser) if `user` is empty.
    pub fn log_in(&self, user: impl AsRef<str>) -> Result<(), SessionError> {
        self.set_user(user)?;
        self.cycle_id();
        Ok(())
    }

    /// Associates the session with a user, as [`log_in`](Self::log_in) does, but keeps the id if the session belongs to this user already.
    ///
    /// # Errors
    ///
    /// As [`log_in`](Self::log_in).
    pub fn set_user(&self, user: impl AsRef<str>) -> Result<(), SessionError> {
        let user = UserId::new(user.as_ref())?;
        let mut state = self.0.state();
        if state.changes.user(&state.base) != Some(&user) {
            state.cycle_id();
        }
        let change = MetadataChange::User(Some((user, unix_secs())));
        state.changes.set_metadata(change);
        Ok(())
    }

    /// Removes the association with a user and keeps the session's data, under a new id. To log out, use [`destroy`](Self::destroy).
    pub fn remove_user(&self) {
        let mut state = self.0.state();
        if state.changes.user(&state.base).is_some() {
            state.changes.set_metadata(MetadataChange::User(None));
            state.cycle_id();
        }
    }

    /// The user of the session, as passed to [`set_user`](Self::set_user).
    #[must_use]
    pub fn user(&self) -> Option<String> {
        let state = self.0.state();
        state.changes.user(&state.base).map(|user| user.to_string())
    }

    /// All stored sessions of this session's user, to list and revoke them; `None` if the session has no user.
    #[must_use]
    pub fn user_sessions(&self) -> Option<UserSessions> {
        let user = {
            let state = self.0.state();
            state.changes.user(&state.base)?.clone()
        };
        let current = Some(self.0.clone() as _);
        Some(UserSessions::new(self.0.context.clone(), user, current))
    }

    /// Identifies this session on a page; it cannot be used to authenticate. `None` if the session is not stored (yet).
    #[must_use]
    pub fn handle(&self) -> Option<SessionHandle> {
        let id = self.id()?;
        Some(SessionHandle::of(&self.0.context.key(id)))
    }
}

impl CurrentSession for SessionCell {
    fn is_stored_at(&self, key_suffix: &str) -> bool {
        let id = self.state().id();
        id.is_some_and(|id| self.context.key_suffix(id) == key_suffix)
    }

    fn destroy(&self) {
        self.state().destroy();
    }
}
