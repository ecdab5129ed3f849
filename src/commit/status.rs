//! Where a session stands in the store.

use crate::id::SessionId;

/// The id that the session is to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdChange {
    Keep,
    New,
    /// A new one, and the former id may read the session for a while although it has a user.
    NewWithGrace,
}

pub(crate) enum Status {
    /// Not in the store.
    New {
        /// The id that the browser presented, where a logout of it must be confirmed by replicas: an earlier logout or rotation may
        /// have reached the master alone. Also where its value cannot be read, so that a logout deletes it.
        presented: Option<SessionId>,
    },
    Persisted(Persisted),
    /// Behind a tombstone. The browser has a newer cookie or is about to get it, so none may be sent.
    Rotated {
        /// As in `New`.
        presented: Option<SessionId>,
    },
    /// Deleted or expired while this request ran.
    Gone,
}

pub(crate) struct Persisted {
    pub(crate) id: SessionId,
    /// The key of `id`, so that a save need not format it again.
    pub(crate) key: Option<String>,
    /// The cookie is signed by a former key. It is sent again only after a save has shown that the session still has this id; after a
    /// rotation the browser may have a newer cookie.
    pub(crate) re_sign_cookie: bool,
}

impl IdChange {
    pub(crate) fn is_new(self) -> bool {
        self != Self::Keep
    }
}
