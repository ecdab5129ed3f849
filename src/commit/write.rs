//! One write to the store.

#[cfg(feature = "migration")]
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

#[cfg(feature = "migration")]
use crate::format::{Migration, OldCookie};
use crate::{
    clock::unix_millis,
    context::Context,
    error::SessionError,
    id::SessionId,
    record::{Record, UserId, same_revision, tombstone},
    stats::Event,
};

/// How long a tombstone blocks the id of a rotated session: longer than a request that began with it should take.
pub(crate) const TOMBSTONE_TTL: Duration = Duration::from_secs(60);

/// One write, sent until its result is known.
#[derive(Clone)]
pub(crate) struct Write {
    pub(crate) kind: WriteKind,
    /// The session's next version.
    pub(crate) record: Record,
    /// The sequence number of the last change in it.
    pub(crate) seq: u64,
    pub(crate) epoch: u32,
    /// The session is first added to its user's index.
    pub(crate) adds_to_index: bool,
    pub(crate) is_login: bool,
    /// The session's user before the write.
    pub(crate) previous_user: Option<UserId>,
}

#[derive(Clone)]
pub(crate) enum WriteKind {
    Create {
        id: SessionId,
    },
    Save {
        id: SessionId,
        key: String,
        expected: Bytes,
    },
    Delete {
        id: SessionId,
        expected: Bytes,
    },
    Rotate {
        from: SessionId,
        expected: Bytes,
        to: SessionId,
        tombstone: Bytes,
    },
}

#[derive(Clone)]
pub(crate) struct PendingDelete {
    pub(crate) id: SessionId,
    pub(crate) reason: DeleteReason,
    pub(crate) user: Option<UserId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeleteReason {
    /// The app destroyed the session that this request found.
    Destroyed,
    /// The app destroyed a session that this request did not find. The browser may have a newer cookie, so none is removed.
    NotFound,
    /// The browser presented this id beside that of a destroyed session.
    Shadow,
    /// The browser presented this id beside that of a session that got a new one. The deletion may fail.
    Superseded,
}

/// What a request's state knows of other apps' sessions.
#[derive(Default)]
pub(crate) struct OldSessions {
    /// Whose cookies the response removes.
    #[cfg(feature = "migration")]
    pub(crate) migrations: Vec<Arc<Migration>>,
    /// Destroyed sessions that are still to be deleted.
    #[cfg(feature = "migration")]
    pub(crate) pending_deletes: Vec<OldCookie>,
    /// The app destroyed the session, so those that old cookies present are to end as well.
    #[cfg(feature = "migration")]
    pub(crate) is_destroyed: bool,
}

impl OldSessions {
    pub(super) fn destroy(&mut self) {
        #[cfg(feature = "migration")]
        {
            self.is_destroyed = true;
        }
    }

    pub(crate) fn has_deletes(&self) -> bool {
        #[cfg(feature = "migration")]
        return !self.pending_deletes.is_empty();
        #[cfg(not(feature = "migration"))]
        false
    }
}

impl WriteKind {
    pub(super) fn rotate(
        from: SessionId,
        expected: Bytes,
        to: SessionId,
        readable: Option<(Duration, &Record)>,
    ) -> Result<Self, SessionError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let now = unix_millis();
        let readable = readable.map(|(grace, base)| (now.saturating_add(millis(grace)), base));
        Ok(Self::Rotate {
            from,
            expected,
            to,
            tombstone: tombstone(now.saturating_add(millis(TOMBSTONE_TTL)), readable)?,
        })
    }

    /// The id of the stored session that other requests may change at the same time.
    pub(crate) fn id(&self) -> Option<SessionId> {
        match self {
            Self::Create { .. } => None,
            Self::Save { id, .. } | Self::Delete { id, .. } | Self::Rotate { from: id, .. } => {
                Some(*id)
            }
        }
    }

    /// What the store is to hold before the write.
    fn expected(&self) -> Option<&Bytes> {
        match self {
            Self::Create { .. } => None,
            Self::Save { expected, .. }
            | Self::Delete { expected, .. }
            | Self::Rotate { expected, .. } => Some(expected),
        }
    }

    /// For spans.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Save { .. } => "save",
            Self::Delete { .. } => "delete",
            Self::Rotate { .. } => "rotate",
        }
    }

    /// What it is counted as, beside a save.
    pub(super) fn event(&self) -> Option<Event> {
        match self {
            Self::Create { .. } => Some(Event::Begun),
            Self::Save { .. } => None,
            Self::Delete { .. } => Some(Event::Emptied),
            Self::Rotate { .. } => Some(Event::Rotated),
        }
    }

    /// The session's id after the write.
    pub(crate) fn next_id(&self) -> Option<SessionId> {
        match self {
            Self::Delete { .. } => None,
            Self::Create { id } | Self::Save { id, .. } | Self::Rotate { to: id, .. } => Some(*id),
        }
    }
}

impl Write {
    /// Brings what the store is to hold into the form that it has there.
    pub(crate) fn seal(&mut self, context: &Context) -> Result<(), SessionError> {
        if let Some(id) = self.kind.next_id()
            && let Some(sealed) = context.seal(id, &self.record, self.kind.expected())?
        {
            self.record.set_sealed(sealed);
        }
        if let WriteKind::Rotate {
            from, tombstone, ..
        } = &mut self.kind
            && let Some(sealed) = context.seal_tombstone(*from, tombstone)?
        {
            *tombstone = sealed;
        }
        Ok(())
    }

    /// Whether `stored` is what this write left behind.
    pub(crate) fn wrote(&self, context: &Context, stored: &Bytes) -> bool {
        let tombstone = match &self.kind {
            WriteKind::Rotate { tombstone, .. } => Some(tombstone),
            WriteKind::Create { .. } | WriteKind::Save { .. } | WriteKind::Delete { .. } => None,
        };
        same_revision(stored, self.record.stored())
            || tombstone.is_some_and(|tombstone| tombstone == stored)
            || [Some(self.record.stored()), tombstone]
                .into_iter()
                .flatten()
                .any(|own| context.is_built_on(stored, own))
    }
}
