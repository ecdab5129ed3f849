//! The sessions of a user: for each user one sorted set, whose members are the names of the user's sessions, by when each was last entered.
//!
//! A set may name sessions that have ended, as they end by themselves; who reads it looks at each. What matters is that no live session is
//! missing: a session is entered before it exists, and the set outlives all that are in it.

/// A session among those of its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// What follows the prefix in the session's key.
    pub(crate) name: String,
    /// Unix microseconds at which it was last entered.
    pub(crate) added_at: u64,
}

/// The key of the set of a user's sessions.
pub(crate) struct UserIndexKey {
    pub(super) key: String,
    prefix: usize,
}

/// How far into a set somebody has looked. By time rather than by number: sessions that leave meanwhile, or are entered again and so move to
/// the end, hide no other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    pub(crate) added_at: u64,
    /// How many that were entered at that very microsecond were seen and are still there.
    pub(crate) seen: usize,
}

/// How a session is entered.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AddOptions<'a> {
    /// The name of the same session so far, whose place it takes.
    pub(crate) replaces: Option<&'a str>,
    /// Only if fewer than this many others are there.
    pub(crate) max: Option<usize>,
}

impl UserIndexKey {
    /// No session's key is one of these: what follows the prefix there are hexadecimal digits.
    pub(crate) fn new(prefix: &str, user: &str) -> Self {
        Self {
            key: [prefix, "user:", user].concat(),
            prefix: prefix.len(),
        }
    }

    /// All that an error may show of it.
    pub(super) fn prefix(&self) -> &str {
        &self.key[..self.prefix]
    }
}

impl Cursor {
    /// Behind `page`, of which `gone` have left.
    pub(crate) fn after(self, page: &[IndexEntry], gone: &[String]) -> Self {
        let Some(IndexEntry { added_at, .. }) = page.last() else {
            return self;
        };
        let stay = page
            .iter()
            .filter(|other| other.added_at == *added_at && !gone.contains(&other.name));
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
