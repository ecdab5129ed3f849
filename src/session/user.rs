//! The user of a session.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

    /// When the session's user last proved who they are: at the login, or at a later
    /// [`confirm_authentication`](Self::confirm_authentication). `None` without a user.
    ///
    /// In whole seconds, by the clock of the server that handled it. For grave actions such as a change of the password or of the e-mail
    /// address (ASVS 5.0, 7.5.1 and 7.5.3). With axum, [`RecentLogin`](crate::RecentLogin) checks it.
    ///
    /// ```
    /// use std::time::Duration;
    /// # use axum_redis_sessions::Session;
    ///
    /// fn may_delete_account(session: &Session) -> bool {
    ///     let age = session.authenticated_at().and_then(|at| at.elapsed().ok());
    ///     age.is_some_and(|age| age < Duration::from_secs(300))
    /// }
    /// ```
    #[must_use]
    pub fn authenticated_at(&self) -> Option<SystemTime> {
        let state = self.0.state();
        state.changes.user(&state.base)?;
        let metadata = state.changes.metadata(&state.base);
        // A login sets the creation time.
        let latest = metadata.created.max(metadata.confirmed_at)?;
        UNIX_EPOCH.checked_add(Duration::from_secs(latest))
    }

    /// Notes that the user authenticated again just now, for a grave action, and gives the session a new id (ASVS 5.0, 7.2.4).
    ///
    /// Call it after checking the password, a passkey or a second factor once more. The timeouts go on; [`log_in`](Self::log_in) would start
    /// the absolute one anew. Does nothing in a session without a user.
    ///
    /// ```
    /// # use axum_redis_sessions::Session;
    /// # async fn is_password_of(user: &str, password: &str) -> bool { true }
    /// async fn confirm(session: Session, password: String) -> &'static str {
    ///     match session.user() {
    ///         Some(user) if is_password_of(&user, &password).await => {
    ///             session.confirm_authentication();
    ///             "confirmed"
    ///         }
    ///         _ => "try again",
    ///     }
    /// }
    /// ```
    pub fn confirm_authentication(&self) {
        let mut state = self.0.state();
        if state.changes.user(&state.base).is_some() {
            let change = MetadataChange::ConfirmedAt(unix_secs());
            state.changes.set_metadata(change);
            state.cycle_id();
        }
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
