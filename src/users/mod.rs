//! The sessions of a user: listed, revoked, and limited in number.

mod handle;
mod list;
mod revoke;
mod user_session;

use std::{fmt, pin::pin, sync::Arc};

pub use self::{
    handle::{ParseSessionHandleError, SessionHandle},
    user_session::UserSession,
};
use crate::{
    context::Context,
    error::SessionError,
    record::UserId,
    store::{Cursor, Fault, IndexEntry},
};

/// Entries of the index per command. A bound, so that a user with very many sessions does not delay others' commands.
const PAGE_SIZE: usize = 64;

/// The users of a layer, from [`RedisSessionLayer::users`](crate::RedisSessionLayer::users): gives access to any user's sessions
/// outside a request, for administration. Cloning is cheap.
///
/// ```
/// use axum_redis_sessions::{SessionError, Users};
///
/// async fn disable_account(users: &Users, user: &str) -> Result<usize, SessionError> {
///     // … mark the account as disabled …
///     users.of(user)?.revoke_all().await
/// }
/// ```
#[derive(Clone)]
pub struct Users {
    context: Arc<Context>,
}

/// The stored sessions of one user: lists them and revokes (ends) them.
///
/// From [`Session::user_sessions`](crate::Session::user_sessions) for the user of the current request, or from [`Users::of`].
/// Cloning is cheap.
///
/// ```
/// use axum_redis_sessions::{Session, SessionError};
///
/// async fn devices(session: Session) -> Result<String, SessionError> {
///     let Some(sessions) = session.user_sessions() else {
///         return Ok("not logged in".to_owned());
///     };
///     let mut page = String::new();
///     for other in sessions.list().await? {
///         let device = other.get::<String>("device")?.unwrap_or_default();
///         let mark = if other.is_current() { " (this device)" } else { "" };
///         page += &format!("{device}{mark}, handle {}\n", other.handle());
///     }
///     Ok(page)
/// }
///
/// async fn log_out_other_devices(session: Session) -> Result<String, SessionError> {
///     let Some(sessions) = session.user_sessions() else {
///         return Ok("not logged in".to_owned());
///     };
///     let revoked = sessions.revoke_others().await?;
///     Ok(format!("logged out {revoked} devices"))
/// }
/// ```
///
/// A revoked session is gone at its next request, on every node. The [deadline](crate::RedisSessionLayer::with_deadline) of the
/// layer applies to each command; a method that needs several commands may take longer.
///
/// If Redis evicts or loses a user's index, a session is added to it again at its next use after a tenth of its lifetime. Until then the session is
/// neither listed nor revoked. Use the eviction policy `noeviction` or `volatile-ttl`.
#[derive(Clone)]
pub struct UserSessions {
    context: Arc<Context>,
    user: UserId,
    current: Option<Arc<dyn CurrentSession>>,
}

/// The session of the request that a user's sessions were reached through.
pub(crate) trait CurrentSession: Send + Sync {
    /// Whether it is stored under this key suffix.
    fn is_stored_at(&self, key_suffix: &str) -> bool;

    /// Ends the session in this request, after it was revoked in the store.
    fn destroy(&self);
}

impl Users {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// The sessions of `user`, the text that was passed to [`Session::set_user`](crate::Session::set_user). A user without sessions is
    /// no error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUser`](crate::ErrorKind::InvalidUser) if `user` is empty.
    pub fn of(&self, user: impl AsRef<str>) -> Result<UserSessions, SessionError> {
        let user = UserId::new(user.as_ref())?;
        Ok(UserSessions::new(self.context.clone(), user, None))
    }
}

impl UserSessions {
    pub(crate) fn new(
        context: Arc<Context>,
        user: UserId,
        current: Option<Arc<dyn CurrentSession>>,
    ) -> Self {
        Self {
            context,
            user,
            current,
        }
    }

    /// The user's live sessions, newest first. Listing does not extend their lifetime.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) and [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) from the
    /// store.
    pub async fn list(&self) -> Result<Vec<UserSession>, SessionError> {
        self.list_pages(usize::MAX).await
    }

    /// Revokes the session with this handle. Returns whether the user had such a session.
    ///
    /// Revoking the current session is the same as [`destroy`](crate::Session::destroy): it ends in this request too, and its cookie is
    /// removed.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list); with [`with_replica_acks`](crate::RedisSessionLayer::with_replica_acks) also
    /// [`ErrorKind::NotReplicated`](crate::ErrorKind::NotReplicated).
    pub async fn revoke(&self, handle: &SessionHandle) -> Result<bool, SessionError> {
        let mut cursor = Cursor::default();
        loop {
            let page = self.page(cursor).await?;
            if page.is_empty() {
                return Ok(false);
            }
            if let Some(entry) = page.iter().find(|entry| self.handle(entry) == *handle) {
                return self.revoke_entry(entry).await;
            }
            cursor = cursor.after(&page, &[]);
        }
    }

    /// Revokes all of the user's sessions, also the current one, and returns how many there were. For a stolen password or a disabled
    /// account.
    ///
    /// # Errors
    ///
    /// As [`revoke`](Self::revoke). Some sessions may have been revoked before the error.
    pub async fn revoke_all(&self) -> Result<usize, SessionError> {
        self.revoke_each(|_| true).await
    }

    /// Revokes all of the user's sessions except the current one, and returns how many there were. From [`Users::of`] there is no current
    /// session, so this revokes all.
    ///
    /// # Errors
    ///
    /// As [`revoke`](Self::revoke). Some sessions may have been revoked before the error.
    pub async fn revoke_others(&self) -> Result<usize, SessionError> {
        self.revoke_each(|entry| !self.is_current(entry)).await
    }

    /// One page of the user's index, oldest entries first.
    async fn page(&self, cursor: Cursor) -> Result<Vec<IndexEntry>, SessionError> {
        let index = self.context.user_index_key(&self.user);
        self.with_deadline(async {
            self.context
                .store
                .index_page(&index, cursor, PAGE_SIZE)
                .await
        })
        .await
    }

    /// Removes entries from the user's index.
    async fn remove_entries(&self, key_suffixes: &[String]) -> Result<(), SessionError> {
        if key_suffixes.is_empty() {
            return Ok(());
        }
        let index = self.context.user_index_key(&self.user);
        self.with_deadline(async {
            self.context
                .store
                .remove_from_index(&index, key_suffixes)
                .await
        })
        .await
    }

    fn is_current(&self, entry: &IndexEntry) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| current.is_stored_at(&entry.name))
    }

    fn handle(&self, entry: &IndexEntry) -> SessionHandle {
        SessionHandle::of(&self.context.session_key(&entry.name))
    }

    async fn with_deadline<T>(
        &self,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, SessionError> {
        let work = pin!(async { work.await.map_err(Fault::into_error) });
        let deadline = self.context.config.deadline;
        self.context.store.with_deadline(deadline, work).await
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").finish_non_exhaustive()
    }
}

/// Shows neither the user nor the sessions.
impl fmt::Debug for UserSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserSessions").finish_non_exhaustive()
    }
}
