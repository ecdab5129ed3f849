//! How sessions get to their users, and who may look.

use std::sync::Arc;

use super::Session;
use crate::{
    clock::unix_secs,
    commit::metadata_changes::MetadataChange,
    users::{SessionHandle, UserSessions},
};

impl Session {
    /// Says whose session it is, from here on: call it when somebody logs in, together with [`cycle_id`](Self::cycle_id). Then it is among the
    /// user's [`sessions`](Self::sessions).
    ///
    /// `user` is any text that names one user for good, such as the number in the app's database. It is kept in Redis, as part of a key
    /// too. The session's age counts from now on, for the absolute timeout. [`clear`](Self::clear) does not undo it;
    /// [`destroy`](Self::destroy) and [`remove_user`](Self::remove_user) do.
    ///
    /// ```
    /// # use axum_redis_sessions::{Session, SessionError};
    /// async fn log_in(session: Session) -> Result<(), SessionError> {
    ///     // … check the password …
    ///     session.cycle_id();
    ///     session.set_user("42");
    ///     session.insert("device", "Firefox on Linux")
    /// }
    /// ```
    pub fn set_user(&self, user: impl AsRef<str>) {
        let user = (Arc::from(user.as_ref()), unix_secs());
        self.set_metadata(MetadataChange::User(Some(user)));
    }

    /// The session is nobody's any more. To log somebody out, [`destroy`](Self::destroy) it instead.
    pub fn remove_user(&self) {
        let mut state = self.0.state();
        if state.changes.user(&state.base).is_some() {
            state.changes.set_metadata(MetadataChange::User(None));
        }
    }

    /// Whose session it is, as of [`set_user`](Self::set_user).
    #[must_use]
    pub fn user(&self) -> Option<String> {
        let state = self.0.state();
        state.changes.user(&state.base).map(ToString::to_string)
    }

    /// The sessions of users, to be listed and ended.
    #[must_use]
    pub fn sessions(&self) -> UserSessions {
        UserSessions::new(self.0.context.clone())
    }

    /// What names this session on a page, and opens it to nobody; `None` for one that is not stored (yet).
    #[must_use]
    pub fn handle(&self) -> Option<SessionHandle> {
        let id = self.id()?;
        Some(SessionHandle::of(&self.0.context.key(id)))
    }
}
