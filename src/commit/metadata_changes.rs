//! What a request changed metadata the session itself, beside the app's keys.

use std::sync::Arc;

use crate::{
    clock::unix_secs,
    record::{Metadata, Record},
};

/// Each with the seq of its change.
#[derive(Clone, Default)]
pub(super) struct MetadataChanges {
    permanent: Option<(u64, Option<u64>)>,
    /// When a lasting cookie is sent. No wish of the app's: if another request made the session one that ends with the browser, it stays so.
    cookie_sent: Option<(u64, u64)>,
    idle_timeout: Option<(u64, u64)>,
    absolute_timeout: Option<(u64, u64)>,
    user: Option<(u64, Option<Arc<str>>)>,
    /// When the session began anew, with another user.
    created: Option<(u64, u64)>,
    indexed_at: Option<(u64, u64)>,
}

impl MetadataChanges {
    pub(super) fn is_empty(&self) -> bool {
        self.permanent.is_none()
            && self.cookie_sent.is_none()
            && self.idle_timeout.is_none()
            && self.absolute_timeout.is_none()
            && self.user.is_none()
            && self.indexed_at.is_none()
    }

    pub(super) fn set_permanent(&mut self, at: u64, permanent: Option<u64>) {
        self.permanent = Some((at, permanent));
    }

    pub(super) fn set_cookie_sent(&mut self, at: u64, sent: u64) {
        self.cookie_sent = Some((at, sent));
    }

    pub(super) fn set_idle_timeout(&mut self, at: u64, millis: u64) {
        self.idle_timeout = Some((at, millis));
    }

    pub(super) fn set_absolute_timeout(&mut self, at: u64, millis: u64) {
        self.absolute_timeout = Some((at, millis));
    }

    pub(super) fn set_user(&mut self, at: u64, user: Option<Arc<str>>) {
        self.created = user.is_some().then(|| (at, unix_secs()));
        self.user = Some((at, user));
    }

    pub(super) fn set_indexed_at(&mut self, at: u64, indexed_at: u64) {
        self.indexed_at = Some((at, indexed_at));
    }

    pub(super) fn user<'a>(&'a self, base: &'a Record) -> Option<&'a Arc<str>> {
        match &self.user {
            Some((_, user)) => user.as_ref(),
            None => base.user.as_ref(),
        }
    }

    pub(super) fn is_login(&self) -> bool {
        matches!(self.user, Some((_, Some(_))))
    }

    pub(super) fn metadata(&self, base: &Record) -> Metadata {
        let Metadata {
            created,
            permanent,
            idle_timeout,
            absolute_timeout,
            indexed_at,
        } = base.metadata;
        let own = |change: Option<(u64, u64)>| change.map(|(_, value)| value);
        let permanent = self.permanent.map_or(permanent, |(_, permanent)| permanent);
        Metadata {
            created: own(self.created).or(created),
            permanent: permanent.map(|sent| own(self.cookie_sent).unwrap_or(sent)),
            idle_timeout: own(self.idle_timeout).or(idle_timeout),
            absolute_timeout: own(self.absolute_timeout).or(absolute_timeout),
            indexed_at: self
                .user(base)
                .and_then(|_| own(self.indexed_at).or(indexed_at)),
        }
    }

    /// Forgets what was made up to `seq`, because the base unix_secs has it.
    pub(super) fn discard_through(&mut self, seq: u64) {
        self.permanent = self.permanent.filter(|(at, _)| *at > seq);
        self.cookie_sent = self.cookie_sent.filter(|(at, _)| *at > seq);
        self.idle_timeout = self.idle_timeout.filter(|(at, _)| *at > seq);
        self.absolute_timeout = self.absolute_timeout.filter(|(at, _)| *at > seq);
        self.created = self.created.filter(|(at, _)| *at > seq);
        self.indexed_at = self.indexed_at.filter(|(at, _)| *at > seq);
        self.user.take_if(|(at, _)| *at <= seq);
    }
}
