//! The sessions of a user: listed, ended, limited.

mod handle;
mod user_session;

use std::{
    cmp::Reverse,
    collections::HashSet,
    fmt,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::future::join_all;

pub use self::{
    handle::{ParseSessionHandleError, SessionHandle},
    user_session::UserSession,
};
use crate::{
    clock::unix_micros,
    context::Context,
    error::SessionError,
    expiry,
    record::{Decoded, Record},
    session::Session,
    store::{Cursor, Destroyed, Fault, IndexEntry, retry_once},
};

/// So many sessions are looked at at a time. No command is about more, so that one user's sessions, however many, hold up nobody.
const PAGE_SIZE: usize = 64;

/// An entry without a session may be of one that is being stored right now; after this long it is of one that has ended.
const GRACE: Duration = Duration::from_secs(60);

/// The sessions of users, by the name that [`Session::set_user`] gave them: where somebody is signed in, and to end that.
///
/// From [`RedisSessionLayer::sessions`](crate::RedisSessionLayer::sessions), for the app's state and for administration, or from [`Session::sessions`] in a handler. Cloning
/// is cheap.
///
/// ```
/// use axum_redis_sessions::{Session, SessionError};
///
/// async fn where_you_are_signed_in(session: Session) -> Result<String, SessionError> {
///     let Some(user) = session.user() else {
///         return Ok("nowhere".to_owned());
///     };
///     let mut page = String::new();
///     for other in session.sessions().list(&user).await? {
///         let device = other.get::<String>("device")?.unwrap_or_default();
///         let mark = if other.is(&session) { " (here)" } else { "" };
///         page += &format!("{device}{mark}, handle {}\n", other.handle());
///     }
///     Ok(page)
/// }
///
/// async fn sign_out_everywhere_else(session: Session) -> Result<String, SessionError> {
///     let Some(user) = session.user() else {
///         return Ok("nowhere".to_owned());
///     };
///     let ended = session.sessions().revoke_others(&user, &session).await?;
///     Ok(format!("signed out {ended} times"))
/// }
/// ```
///
/// A session that was ended is gone at its next request, on every node. Each of Redis' answers must come within the layer's
/// [deadline](crate::RedisSessionLayer::with_deadline); a method that needs several may take that long for each.
///
/// What Redis evicts or loses from a user's set comes back when the session itself is next used after a tenth of its lifetime; until then
/// it is not listed, and not ended by [`revoke_all`](Self::revoke_all). Do not let Redis evict keys, or let it choose by time to live.
#[derive(Clone)]
pub struct UserSessions {
    context: Arc<Context>,
}

impl UserSessions {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// The user's live sessions, the one first that was begun last. Listing lets none of them live longer.
    ///
    /// # Errors
    ///
    /// From the store: [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) and [`ErrorKind::Rejected`](crate::ErrorKind::Rejected).
    pub async fn list(&self, user: &str) -> Result<Vec<UserSession>, SessionError> {
        self.list_pages(user, usize::MAX).await
    }

    /// Ends the user's session with this handle; whether there was one.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list); with [`with_replica_acks`](crate::RedisSessionLayer::with_replica_acks) also
    /// [`ErrorKind::NotReplicated`](crate::ErrorKind::NotReplicated).
    pub async fn revoke(&self, user: &str, handle: &SessionHandle) -> Result<bool, SessionError> {
        let mut cursor = Cursor::default();
        loop {
            let page = self.listed(user, cursor).await?;
            if page.is_empty() {
                return Ok(false);
            }
            cursor = cursor.after(&page, &[]);
            let meant = page
                .into_iter()
                .find(|listed| self.handle(&listed.name) == *handle);
            if let Some(listed) = meant {
                return self.revoke_one(user, &listed).await;
            }
        }
    }

    /// Ends all of the user's sessions, and says how many there were: after a stolen password, or for somebody who leaves.
    ///
    /// # Errors
    ///
    /// As [`revoke`](Self::revoke). Some may have ended before the error.
    pub async fn revoke_all(&self, user: &str) -> Result<usize, SessionError> {
        self.revoke_except(user, None).await
    }

    /// Ends all of the user's sessions but this one, and says how many there were.
    ///
    /// # Errors
    ///
    /// As [`revoke`](Self::revoke). Some may have ended before the error.
    pub async fn revoke_others(&self, user: &str, keep: &Session) -> Result<usize, SessionError> {
        let keep = keep.id().map(|id| self.context.key_suffix(id));
        self.revoke_except(user, keep).await
    }

    /// Again and again until there is nobody left: a session that gets a new id meanwhile is entered under it before, and so is found by the
    /// next look.
    async fn revoke_except(&self, user: &str, keep: Option<String>) -> Result<usize, SessionError> {
        let mut ended = 0;
        loop {
            let mut cursor = Cursor::default();
            let mut was_any = false;
            loop {
                let page = self.listed(user, cursor).await?;
                if page.is_empty() {
                    break;
                }
                let others = page
                    .iter()
                    .filter(|listed| Some(&listed.name) != keep.as_ref());
                let ends = others.map(|listed| async move {
                    let end = self.delete_session(user, &listed.name).await;
                    end.map(|end| (listed, end))
                });
                let mut gone = Vec::new();
                for result in join_all(ends).await {
                    let (listed, end) = result?;
                    ended += usize::from(end == Revoked::Deleted);
                    was_any |= end != Revoked::Absent;
                    if end.is_final(listed) {
                        gone.push(listed.name.clone());
                    }
                }
                self.leave(user, &gone).await?;
                cursor = cursor.after(&page, &gone);
            }
            if !was_any {
                return Ok(ended);
            }
        }
    }

    /// Ends the oldest sessions beyond `max`. Of logins that race, all agree on which those are, and one can be its own: if each spared itself,
    /// two that race for one place would end each other.
    ///
    /// Of a user with very many, only those that were entered the longest ago are looked at, for a login waits for it. The next login
    /// goes on.
    pub(crate) async fn revoke_oldest(&self, user: &str, max: usize) -> Result<(), SessionError> {
        let set = self.context.user_index_key(user);
        let entered = self
            .with_deadline(async { self.context.store.entered(&set).await })
            .await?;
        if entered <= max {
            return Ok(());
        }
        let pages = max / PAGE_SIZE + 2;
        let sessions = self.list_pages(user, pages).await?;
        let beyond = sessions.len().saturating_sub(max);
        let oldest = sessions.into_iter().rev().take(beyond);
        let ends = oldest.map(|session| async move {
            let listed = IndexEntry {
                name: session.name,
                added_at: session.added_at,
            };
            self.revoke_one(user, &listed).await
        });
        for result in join_all(ends).await {
            result?;
        }
        Ok(())
    }

    async fn revoke_one(&self, user: &str, listed: &IndexEntry) -> Result<bool, SessionError> {
        let end = self.delete_session(user, &listed.name).await?;
        if end.is_final(listed) {
            self.leave(user, std::slice::from_ref(&listed.name)).await?;
        }
        Ok(end == Revoked::Deleted)
    }

    /// Ends it without taking it out of the set. Somebody else's stays.
    async fn delete_session(&self, user: &str, name: &str) -> Result<Revoked, SessionError> {
        let key = self.context.session_key(name);
        let found = self
            .with_deadline(async { self.context.store.value(&key).await })
            .await?;
        match found.as_ref().map(Record::decode) {
            Some(Ok(Decoded::Session(record))) if record.user.as_deref() == Some(user) => {}
            Some(Ok(Decoded::Tombstone { .. })) => return Ok(Revoked::Rotated),
            Some(Ok(Decoded::Session(_) | Decoded::Empty) | Err(_)) | None => {
                return Ok(Revoked::Absent);
            }
        }
        let destroyed = self
            .with_deadline(retry_once(|| self.context.store.destroy(&key)))
            .await?;
        Ok(match destroyed {
            Destroyed::Deleted => Revoked::Deleted,
            Destroyed::Tombstone => Revoked::Rotated,
        })
    }

    /// The live sessions among the first pages of a user's set, newest first.
    async fn list_pages(&self, user: &str, pages: usize) -> Result<Vec<UserSession>, SessionError> {
        let mut sessions = Vec::new();
        // One that is entered again meanwhile moves to the end, and is seen there once more.
        let mut seen = HashSet::new();
        let mut cursor = Cursor::default();
        for _ in 0..pages {
            let page = self.listed(user, cursor).await?;
            if page.is_empty() {
                break;
            }
            let mut dead = Vec::new();
            for (listed, found) in page.iter().zip(self.fetch(user, &page).await?) {
                match found {
                    Found::Live(session) if seen.insert(session.handle) => sessions.push(*session),
                    Found::Dead if grace_elapsed(listed) => dead.push(listed.name.clone()),
                    Found::Live(_) | Found::Dead | Found::Unreadable => {}
                }
            }
            self.leave(user, &dead).await?;
            cursor = cursor.after(&page, &dead);
        }
        sessions.reverse();
        sessions.sort_by_key(|session| Reverse(session.age()));
        Ok(sessions)
    }

    async fn listed(&self, user: &str, cursor: Cursor) -> Result<Vec<IndexEntry>, SessionError> {
        let set = self.context.user_index_key(user);
        self.with_deadline(async { self.context.store.listed(&set, cursor, PAGE_SIZE).await })
            .await
    }

    async fn leave(&self, user: &str, names: &[String]) -> Result<(), SessionError> {
        if names.is_empty() {
            return Ok(());
        }
        let set = self.context.user_index_key(user);
        self.with_deadline(async { self.context.store.leave(&set, names).await })
            .await
    }

    /// What is behind each entry of a page.
    async fn fetch(&self, user: &str, page: &[IndexEntry]) -> Result<Vec<Found>, SessionError> {
        let looks = page.iter().map(|listed| async {
            let key = self.context.session_key(&listed.name);
            let found = self
                .with_deadline(async { self.context.store.peek(&key).await })
                .await?;
            Ok(match found {
                Some((bytes, left)) => self.classify(user, listed, &bytes, left),
                None => Found::Dead,
            })
        });
        join_all(looks).await.into_iter().collect()
    }

    fn classify(&self, user: &str, listed: &IndexEntry, bytes: &Bytes, left: Duration) -> Found {
        let record = match Record::decode(bytes) {
            Ok(Decoded::Session(record)) => record,
            Ok(Decoded::Tombstone { .. } | Decoded::Empty) => return Found::Dead,
            Err(_) => return Found::Unreadable,
        };
        if record.user.as_deref() != Some(user) {
            return Found::Dead;
        }
        let Some(lifetime) = expiry::ttl(&self.context.config, record.metadata) else {
            return Found::Dead;
        };
        let now = SystemTime::now();
        let unused = lifetime.saturating_sub(left);
        Found::Live(Box::new(UserSession {
            handle: self.handle(&listed.name),
            name: listed.name.clone(),
            record,
            added_at: listed.added_at,
            last_seen: now.checked_sub(unused).unwrap_or(UNIX_EPOCH),
            expires_at: now.checked_add(left.min(lifetime)).unwrap_or(now),
        }))
    }

    fn handle(&self, name: &str) -> SessionHandle {
        SessionHandle::of(&self.context.session_key(name))
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

/// What became of a session that was to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Revoked {
    Deleted,
    /// It has a new id.
    Rotated,
    /// Nothing is there, or another's session. That may be about to change, for a session is entered before it is stored.
    Absent,
}

impl Revoked {
    /// Whether nothing will come of the entry any more.
    fn is_final(self, listed: &IndexEntry) -> bool {
        match self {
            Self::Deleted | Self::Rotated => true,
            Self::Absent => grace_elapsed(listed),
        }
    }
}

/// What is behind an entry.
enum Found {
    Live(Box<UserSession>),
    /// Ended, rotated away, or another user's by now.
    Dead,
    /// Not a session of this crate. Left alone.
    Unreadable,
}

fn grace_elapsed(listed: &IndexEntry) -> bool {
    let age = unix_micros().saturating_sub(listed.added_at);
    Duration::from_micros(age) > GRACE
}

impl fmt::Debug for UserSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserSessions").finish_non_exhaustive()
    }
}
