//! Revokes a user's sessions.

use futures_util::future::join_all;

use super::{PAGE_SIZE, UserSessions, list::grace_elapsed};
use crate::{
    error::SessionError,
    record::Decoded,
    stats::Event,
    store::{Cursor, Destroyed, IndexEntry, retry_once},
};

/// What an attempt to delete the session of an entry found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Revoked {
    Deleted,
    /// A tombstone: the session has a new id.
    Rotated,
    /// No session, or another user's.
    Absent,
}

impl UserSessions {
    /// Revokes the sessions that `is_revoked` selects, and returns how many there were.
    ///
    /// Goes through the index until one pass finds none. A session that is given a new id meanwhile was added to the index under that id before,
    /// so the next pass finds it.
    pub(super) async fn revoke_each(
        &self,
        is_revoked: impl Fn(&IndexEntry) -> bool,
    ) -> Result<usize, SessionError> {
        let mut deleted = 0;
        loop {
            let mut found_any = false;
            let mut cursor = Cursor::default();
            loop {
                let page = self.page(cursor).await?;
                if page.is_empty() {
                    break;
                }
                let entries = page.iter().filter(|entry| is_revoked(entry));
                let deletions = entries.map(|entry| async move {
                    let revoked = self.delete_session(entry).await;
                    revoked.map(|revoked| (entry, revoked))
                });
                let mut ended = Vec::new();
                for result in join_all(deletions).await {
                    let (entry, revoked) = result?;
                    deleted += usize::from(revoked == Revoked::Deleted);
                    found_any |= revoked != Revoked::Absent;
                    if revoked.ends(entry) {
                        ended.push(entry.name.clone());
                    }
                }
                self.remove_entries(&ended).await?;
                cursor = cursor.after(&page, &ended);
            }
            if !found_any {
                return Ok(deleted);
            }
        }
    }

    /// Revokes the oldest sessions beyond `max`, after a login.
    ///
    /// The session that logged in can be among them: if each of two concurrent logins spared its own session, they would revoke each other's.
    /// Reads only the oldest pages of the index, since the login waits for it; the next login revokes the rest.
    pub(crate) async fn revoke_oldest(&self, max: usize) -> Result<(), SessionError> {
        let index = self.context.user_index_key(&self.user);
        let count = self
            .with_deadline(async { self.context.store.index_len(&index).await })
            .await?;
        if count <= max {
            return Ok(());
        }
        let mut sessions = self.list_pages(max / PAGE_SIZE + 2).await?;
        let oldest = sessions.drain(max.min(sessions.len())..);
        let revocations =
            oldest.map(|session| async move { self.revoke_entry(&session.entry).await });
        join_all(revocations)
            .await
            .into_iter()
            .try_for_each(|result| result.map(drop))
    }

    /// Returns whether there was a session.
    pub(super) async fn revoke_entry(&self, entry: &IndexEntry) -> Result<bool, SessionError> {
        let revoked = self.delete_session(entry).await?;
        if revoked.ends(entry) {
            self.remove_entries(std::slice::from_ref(&entry.name))
                .await?;
        }
        Ok(revoked == Revoked::Deleted)
    }

    /// Deletes the session, if it is this user's, but not its entry.
    async fn delete_session(&self, entry: &IndexEntry) -> Result<Revoked, SessionError> {
        let key = self.context.session_key(&entry.name);
        let value = self
            .with_deadline(async { self.context.store.value(&key).await })
            .await?;
        match value.map(|value| self.context.decode(&key, &value)) {
            Some(Ok(Decoded::Session(record))) if record.user.as_ref() == Some(&self.user) => {}
            Some(Ok(Decoded::Tombstone { .. })) => return Ok(Revoked::Rotated),
            Some(Ok(Decoded::Session(_) | Decoded::Empty) | Err(_)) | None => {
                return Ok(Revoked::Absent);
            }
        }
        let destroyed = self
            .with_deadline(retry_once(|| self.context.store.destroy(&key)))
            .await?;
        if let Some(current) = &self.current
            && current.is_stored_at(&entry.name)
        {
            current.destroy();
        }
        Ok(match destroyed {
            Destroyed::Deleted => {
                self.context.count(Event::Revoked);
                Revoked::Deleted
            }
            Destroyed::Tombstone => Revoked::Rotated,
        })
    }
}

impl Revoked {
    /// Whether the entry can be removed. A session may be stored for an entry shortly after the entry was added.
    fn ends(self, entry: &IndexEntry) -> bool {
        match self {
            Self::Deleted | Self::Rotated => true,
            Self::Absent => grace_elapsed(entry),
        }
    }
}
