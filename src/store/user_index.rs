//! The index of a user's sessions: one sorted set per user, which has the names of the sessions by the time when each was last added.
//!
//! An index may name sessions that have ended, since most end by expiring; its readers check each session. But no live session is missing: a
//! session is added before it is created, and the index outlives all of its sessions.

use std::fmt;

/// A session in the index of its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// What follows the prefix in the session's key.
    pub(crate) name: String,
    /// Unix time in microseconds when it was last added.
    pub(crate) added_at: u64,
}

/// The key of a user's index.
pub(crate) struct UserIndexKey {
    pub(super) key: String,
    prefix_len: usize,
}

/// A position in an index, by time and not by number: sessions that are removed meanwhile, or are added again and so move to the end, do not
/// hide others.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    pub(crate) added_at: u64,
    /// The number of entries of this very microsecond that were seen and are still there.
    pub(crate) seen: usize,
}

/// How a session is added.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AddOptions<'a> {
    /// The previous name of the same session, which does not count towards the limit.
    pub(crate) replaces: Option<&'a str>,
    /// Only if fewer than this many other sessions are there.
    pub(crate) max: Option<usize>,
}

impl UserIndexKey {
    /// Never the key of a session, in which hexadecimal digits follow the prefix.
    pub(crate) fn new(prefix: &str, user: &str) -> Self {
        Self {
            key: [prefix, "user:", user].concat(),
            prefix_len: prefix.len(),
        }
    }

    /// The part of the key that an error may show.
    pub(super) fn prefix(&self) -> &str {
        &self.key[..self.prefix_len]
    }
}

impl fmt::Display for UserIndexKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)
    }
}

impl Cursor {
    /// The position after `page`, of which the names in `removed` were removed.
    pub(crate) fn after(self, page: &[IndexEntry], removed: &[String]) -> Self {
        let Some(IndexEntry { added_at, .. }) = page.last() else {
            return self;
        };
        let stay = page
            .iter()
            .filter(|other| other.added_at == *added_at && !removed.contains(&other.name));
        let before = if self.added_at == *added_at {
            self.seen
        } else {
            0
        };
        Self {
            added_at: *added_at,
            seen: before + stay.count(),
        }
    }
}
