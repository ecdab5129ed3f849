//! What a request changed about the session itself, beside the app's keys.

use std::mem;

use crate::record::{Metadata, Record, UserId};

#[derive(Clone)]
pub(crate) enum MetadataChange {
    /// `Some`: a permanent session, whose cookie was sent at this Unix second.
    Permanent(Option<u64>),
    /// The Unix second at which a permanent session's cookie is sent. Not a wish of the app's: if another request made the session
    /// one that ends with the browser, it stays so.
    CookieSent(u64),
    /// The session's own idle timeout, in milliseconds.
    IdleTimeout(u64),
    /// The session's own absolute timeout, in milliseconds.
    AbsoluteTimeout(u64),
    /// The session's user from here on. A login, at this Unix second, starts the absolute timeout anew.
    User(Option<(UserId, u64)>),
    /// The user authenticated again, at this Unix second.
    ConfirmedAt(u64),
    /// The Unix second at which the session is added to its user's index.
    IndexedAt(u64),
}

/// In the order of their sequence numbers, at most one of each kind.
#[derive(Clone, Default)]
pub(super) struct MetadataChanges(Vec<(u64, MetadataChange)>);

impl MetadataChanges {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn set(&mut self, seq: u64, change: MetadataChange) {
        let kind = mem::discriminant(&change);
        self.0.retain(|(_, other)| mem::discriminant(other) != kind);
        self.0.push((seq, change));
    }

    pub(super) fn user<'a>(&'a self, base: &'a Record) -> Option<&'a UserId> {
        match self.user_change() {
            Some(user) => user.as_ref().map(|(user, _)| user),
            None => base.user.as_ref(),
        }
    }

    pub(super) fn is_login(&self) -> bool {
        matches!(self.user_change(), Some(Some(_)))
    }

    pub(super) fn metadata(&self, base: &Record) -> Metadata {
        let mut metadata = base.metadata;
        for (_, change) in &self.0 {
            match change {
                MetadataChange::Permanent(sent) => metadata.permanent = *sent,
                MetadataChange::CookieSent(sent) => {
                    metadata.permanent = metadata.permanent.map(|_| *sent);
                }
                MetadataChange::IdleTimeout(millis) => metadata.idle_timeout = Some(*millis),
                MetadataChange::AbsoluteTimeout(millis) => {
                    metadata.absolute_timeout = Some(*millis);
                }
                MetadataChange::User(Some((_, login))) => {
                    metadata.created = Some(*login);
                    metadata.confirmed_at = None;
                }
                MetadataChange::User(None) => {}
                // Not earlier than what another request stored meanwhile.
                MetadataChange::ConfirmedAt(at) => {
                    metadata.confirmed_at = metadata.confirmed_at.max(Some(*at));
                }
                MetadataChange::IndexedAt(at) => metadata.indexed_at = Some(*at),
            }
        }
        if self.user(base).is_none() {
            metadata.indexed_at = None;
            metadata.confirmed_at = None;
        }
        metadata
    }

    /// Discards the changes up to `seq`, which the base now has.
    pub(super) fn discard_through(&mut self, seq: u64) {
        self.0.retain(|(at, _)| *at > seq);
    }

    fn user_change(&self) -> Option<&Option<(UserId, u64)>> {
        self.0.iter().find_map(|(_, change)| match change {
            MetadataChange::User(user) => Some(user),
            _ => None,
        })
    }
}
