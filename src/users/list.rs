//! Lists a user's live sessions.

use std::{
    cmp::Reverse,
    collections::HashSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::future::join_all;

use super::{UserSession, UserSessions};
use crate::{
    clock::unix_micros,
    error::SessionError,
    expiry,
    record::Decoded,
    store::{Cursor, IndexEntry},
};

/// How long an entry may be without a session. An entry is added before its session is stored.
const GRACE: Duration = Duration::from_secs(60);

/// What an entry of the index refers to.
enum Found {
    Live(Box<UserSession>),
    /// Deleted, expired, rotated, or another user's by now.
    Dead,
    /// Not a session of this crate. It is left alone.
    Unreadable,
}

impl UserSessions {
    /// The live sessions among the first `max_pages` pages of the index, newest first. Removes the entries of dead sessions.
    pub(super) async fn list_pages(
        &self,
        max_pages: usize,
    ) -> Result<Vec<UserSession>, SessionError> {
        let mut sessions = Vec::new();
        // An entry that is written again meanwhile moves to the end of the index and is read a second time.
        let mut seen = HashSet::new();
        let mut cursor = Cursor::default();
        for _ in 0..max_pages {
            let page = self.page(cursor).await?;
            if page.is_empty() {
                break;
            }
            let mut dead = Vec::new();
            for (entry, found) in page.iter().zip(self.fetch(&page).await?) {
                match found {
                    Found::Live(session) if seen.insert(session.handle) => sessions.push(*session),
                    Found::Dead if grace_elapsed(entry) => dead.push(entry.name.clone()),
                    Found::Live(_) | Found::Dead | Found::Unreadable => {}
                }
            }
            self.remove_entries(&dead).await?;
            cursor = cursor.after(&page, &dead);
        }
        sessions.reverse();
        sessions.sort_by_key(|session| Reverse(session.begun_at()));
        Ok(sessions)
    }

    async fn fetch(&self, page: &[IndexEntry]) -> Result<Vec<Found>, SessionError> {
        let fetches = page.iter().map(|entry| async {
            let key = self.context.session_key(&entry.name);
            let found = self
                .with_deadline(async { self.context.store.peek(&key).await })
                .await?;
            Ok(match found {
                Some((bytes, ttl)) => self.classify(entry, &key, &bytes, ttl),
                None => Found::Dead,
            })
        });
        join_all(fetches).await.into_iter().collect()
    }

    fn classify(&self, entry: &IndexEntry, key: &str, bytes: &Bytes, ttl: Duration) -> Found {
        let record = match self.context.decode(key, bytes) {
            Ok(Decoded::Session(record)) => record,
            Ok(Decoded::Tombstone { .. } | Decoded::Empty) => return Found::Dead,
            Err(_) => return Found::Unreadable,
        };
        if record.user.as_ref() != Some(&self.user) {
            return Found::Dead;
        }
        let Some(full_ttl) = expiry::ttl(&self.context.config, record.metadata) else {
            return Found::Dead;
        };
        let now = SystemTime::now();
        let unused = full_ttl.saturating_sub(ttl);
        Found::Live(Box::new(UserSession {
            handle: self.handle(entry),
            entry: entry.clone(),
            is_current: self.is_current(entry),
            record,
            last_seen: now.checked_sub(unused).unwrap_or(UNIX_EPOCH),
            expires_at: now.checked_add(ttl.min(full_ttl)).unwrap_or(now),
        }))
    }
}

/// Whether an entry without a session can be removed.
pub(super) fn grace_elapsed(entry: &IndexEntry) -> bool {
    let age = unix_micros().saturating_sub(entry.added_at);
    Duration::from_micros(age) > GRACE
}
