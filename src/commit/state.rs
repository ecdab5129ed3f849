//! Where a request's session stands, and the write that its changes call for.

use std::{mem, sync::Arc, time::SystemTime};

pub(crate) use super::status::{IdChange, Persisted, Status};
use super::{
    changes::Changes,
    metadata_changes::MetadataChange,
    write::{DeleteReason, OldSessions, PendingDelete, Write, WriteKind},
};
use crate::{
    clock::unix_secs,
    context::Context,
    error::{ErrorKind, SessionError},
    expiry,
    id::SessionId,
    record::{Encoded, Record},
};

pub(crate) struct State {
    pub(crate) status: Status,
    /// The version in the store, as last read or written.
    pub(crate) base: Record,
    pub(crate) changes: Changes,
    /// By `cycle_id`, or because the user changes.
    pub(crate) id_change: IdChange,
    /// Further ids that the browser presented under the cookie's name. They end with this session, and when it gets a new id, so that
    /// none of them shadows the cookie.
    pub(crate) shadows: Vec<SessionId>,
    /// Destroyed sessions that are still to be deleted. Later changes belong to another session.
    pub(crate) pending_deletes: Vec<PendingDelete>,
    /// A write that may or may not have been executed.
    pub(crate) in_doubt: Option<Arc<Write>>,
    /// Incremented by `destroy`, so that replies to older writes are ignored.
    pub(crate) epoch: u32,
    /// When the session's TTL was last set.
    pub(crate) ttl_set_at: SystemTime,
    pub(crate) cookie: CookieAction,
    pub(crate) headers_sent: bool,
    /// A shared cache may store the response, so a renewed cookie waits for another one.
    pub(crate) defers_renewal: bool,
    pub(crate) old: OldSessions,
}

/// What the response tells the browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CookieAction {
    Keep,
    Issue,
    Remove,
}

/// What the changes call for.
pub(crate) enum Plan {
    Noop,
    /// The changes have no session any more.
    Discard,
    Write(Arc<Write>),
}

impl State {
    pub(crate) fn new(status: Status, base: Record) -> Self {
        Self {
            status,
            base,
            changes: Changes::default(),
            id_change: IdChange::Keep,
            shadows: Vec::new(),
            pending_deletes: Vec::new(),
            in_doubt: None,
            epoch: 0,
            ttl_set_at: SystemTime::now(),
            cookie: CookieAction::Keep,
            headers_sent: false,
            defers_renewal: false,
            old: OldSessions::default(),
        }
    }

    /// The id under which the session is stored.
    pub(crate) fn id(&self) -> Option<SessionId> {
        match &self.status {
            Status::Persisted(persisted) => Some(persisted.id),
            Status::New { .. } | Status::Rotated { .. } | Status::Gone => None,
        }
    }

    /// Whether a commit may have anything to do.
    pub(crate) fn is_dirty(&self, context: &Context) -> bool {
        let is_due = match &self.status {
            Status::New { .. } => false,
            Status::Persisted(_) => {
                self.id_change.is_new()
                    || self.base.is_outdated
                    || self.cookie_needs_renewal(context)
                    || self.index_entry_needs_refresh(context)
            }
            Status::Rotated { .. } | Status::Gone => self.id_change.is_new(),
        };
        is_due
            || self.old.has_deletes()
            || !self.pending_deletes.is_empty()
            || !self.changes.is_empty()
    }

    /// Whether the response is to send the cookie again, with a new Max-Age or a new signature.
    pub(crate) fn cookie_needs_renewal(&self, context: &Context) -> bool {
        self.cookie_needs_re_signing() || self.cookie_needs_refresh(context)
    }

    /// Whether dropping this state loses a change. An empty session that was never stored and has no user has none.
    pub(crate) fn has_unsaved(&self) -> bool {
        let is_blank = || {
            matches!(self.status, Status::New { .. })
                && self.changes.keys(&self.base).next().is_none()
                && self.changes.user(&self.base).is_none()
        };
        self.old.has_deletes()
            || !self.pending_deletes.is_empty()
            || !(self.changes.is_empty() || is_blank())
    }

    /// Asks for a new id. A grace that was asked for before ends: a login may be the reason.
    pub(crate) fn cycle_id(&mut self) {
        self.id_change = IdChange::New;
    }

    /// Asks for a new id, unless one without grace was asked for already.
    pub(crate) fn cycle_id_with_grace(&mut self) {
        if self.id_change == IdChange::Keep {
            self.id_change = IdChange::NewWithGrace;
        }
    }

    pub(crate) fn destroy(&mut self) {
        let delete = match &mut self.status {
            Status::Persisted(Persisted { id, .. }) => Some(PendingDelete {
                id: *id,
                reason: DeleteReason::Destroyed,
                user: self.base.user.clone(),
            }),
            Status::New { presented } | Status::Rotated { presented } => {
                presented.take().map(|id| PendingDelete {
                    id,
                    reason: DeleteReason::NotFound,
                    user: None,
                })
            }
            Status::Gone => None,
        };
        self.pending_deletes.extend(delete);
        self.old.destroy();
        self.delete_shadows(DeleteReason::Shadow);
        if let Status::Persisted(_) = self.status {
            self.status = Status::New { presented: None };
        }
        self.epoch += 1;
        self.discard_changes();
    }

    /// Discards the changes of a session that has ended; `None` keeps the status.
    pub(crate) fn discard(&mut self, status: Option<Status>) {
        if let Some(status) = status {
            self.status = status;
        }
        self.discard_changes();
    }

    /// Discards the changes of a request that failed. What `save` stored and `destroy` asked for stays.
    pub(crate) fn discard_unsaved(&mut self) {
        if self.has_unsaved() && !self.changes.is_empty() {
            tracing::debug!("a session's changes were discarded, since the request failed");
        }
        self.changes.reset();
        self.id_change = IdChange::Keep;
        if let Status::New { .. } = self.status {
            self.base = self.base.emptied();
        }
    }

    /// Discards the changes of a save that the app itself rejected. `current` is the version in the store.
    pub(crate) fn roll_back(&mut self, current: Record) {
        self.changes.reset();
        self.id_change = IdChange::Keep;
        self.base = current;
    }

    /// The write that brings the changes to the store, if any.
    pub(crate) fn plan(&mut self, context: &Context) -> Result<Plan, SessionError> {
        if let Status::Rotated { presented } = self.status
            && self.id_change.is_new()
            && !self.changes.is_empty()
        {
            // A login whose response was lost is repeated with the old cookie. What that may still read goes into a session of its own.
            self.status = Status::New { presented };
            // Unless it is a user's, which the former id may read but not carry on.
            if self.base.user.is_some() {
                self.base = self.base.emptied();
            }
        }
        match &self.status {
            Status::New { .. } => self.plan_create(context),
            Status::Persisted(Persisted { id, .. }) => {
                let id = *id;
                self.plan_save(context, id)
            }
            Status::Rotated { .. } if self.changes.is_empty() => Ok(Plan::Noop),
            Status::Gone if self.changes.is_empty() && !self.id_change.is_new() => Ok(Plan::Noop),
            Status::Rotated { .. } | Status::Gone => Ok(Plan::Discard),
        }
    }

    fn plan_create(&mut self, context: &Context) -> Result<Plan, SessionError> {
        if self.changes.is_empty() && self.base.bytes().is_empty() {
            return Ok(Plan::Noop);
        }
        let adds_to_index = self.stamp_index_entry(context);
        let encoded = self.encode(context)?;
        if encoded.is_empty {
            return Ok(Plan::Noop);
        }
        self.ensure_headers_not_sent("a new session")?;
        let id = context.generate_id()?;
        self.write(context, WriteKind::Create { id }, encoded, adds_to_index)
    }

    fn plan_save(&mut self, context: &Context, id: SessionId) -> Result<Plan, SessionError> {
        let is_permanent = || self.changes.metadata(&self.base).permanent.is_some();
        if self.cookie_needs_refresh(context) || (self.id_change.is_new() && is_permanent()) {
            let sent = MetadataChange::CookieSent(unix_secs());
            self.changes.set_metadata(sent);
        }
        let adds_to_index = self.stamp_index_entry(context);
        let re_sign = self.cookie_needs_re_signing();
        let is_due = re_sign || self.base.is_outdated;
        if self.changes.is_empty() && !self.id_change.is_new() && !is_due {
            return Ok(Plan::Noop);
        }
        let encoded = self.encode(context)?;
        let expected = self.base.stored().clone();
        let kind = if encoded.is_empty {
            WriteKind::Delete { id, expected }
        } else if self.id_change.is_new() {
            self.ensure_headers_not_sent("a new id")?;
            let grace = context.config.rotation_grace;
            let is_readable = !grace.is_zero()
                && (self.base.user.is_none() || self.id_change == IdChange::NewWithGrace);
            let readable = is_readable.then_some((grace, &self.base));
            WriteKind::rotate(id, expected, context.generate_id()?, readable)?
        } else if encoded.changed || is_due {
            let key = self.take_key().unwrap_or_else(|| context.key(id));
            WriteKind::Save { id, key, expected }
        } else {
            self.changes.reset();
            return Ok(Plan::Noop);
        };
        self.write(context, kind, encoded, adds_to_index)
    }

    /// The store holds what `write` wrote.
    pub(crate) fn apply_saved(&mut self, write: Arc<Write>) {
        self.in_doubt = None;
        self.ttl_set_at = SystemTime::now();
        // Rarely does anything else hold the write, so its record is rarely copied.
        let Write {
            kind, record, seq, ..
        } = Arc::unwrap_or_clone(write);
        self.changes.discard_through(seq);
        let re_sign = self.cookie_needs_re_signing();
        let persisted = |id, key, re_sign_cookie| {
            Status::Persisted(Persisted {
                id,
                key,
                re_sign_cookie,
            })
        };
        match kind {
            WriteKind::Create { id } | WriteKind::Rotate { to: id, .. } => {
                self.cookie = CookieAction::Issue;
                self.status = persisted(id, None, false);
                self.id_change = IdChange::Keep;
                self.delete_shadows(DeleteReason::Superseded);
            }
            // A new id that was asked for meanwhile is the next write's.
            WriteKind::Save { id, key, .. } => {
                if re_sign || record.metadata.permanent != self.base.metadata.permanent {
                    self.cookie = CookieAction::Issue;
                }
                let still_to_re_sign = !re_sign && self.has_former_signature();
                self.status = persisted(id, Some(key), still_to_re_sign);
            }
            WriteKind::Delete { .. } => {
                self.cookie = CookieAction::Remove;
                self.status = Status::New { presented: None };
                self.id_change = IdChange::Keep;
                self.base = self.base.emptied();
                return;
            }
        }
        self.base = record;
    }

    pub(crate) fn finish_delete(&mut self, id: SessionId) {
        self.pending_deletes.retain(|pending| pending.id != id);
    }

    fn delete_shadows(&mut self, reason: DeleteReason) {
        let shadows = mem::take(&mut self.shadows);
        self.pending_deletes
            .extend(shadows.into_iter().map(|id| PendingDelete {
                id,
                reason,
                user: None,
            }));
    }

    fn take_key(&mut self) -> Option<String> {
        match &mut self.status {
            Status::Persisted(persisted) => persisted.key.take(),
            Status::New { .. } | Status::Rotated { .. } | Status::Gone => None,
        }
    }

    fn encode(&self, context: &Context) -> Result<Encoded, SessionError> {
        let encoded = self.changes.encode(&self.base)?;
        let (size, limit) = (encoded.record.bytes().len(), context.config.max_size);
        // A session that is over the limit already, since the limit was lowered, can be shrunk in steps, renewed and given a new id.
        let was_larger =
            || self.base.bytes().len() > limit && encoded.record.data_len() <= self.base.data_len();
        if size > limit && !was_larger() {
            return Err(SessionError::too_large(size, limit));
        }
        Ok(encoded)
    }

    fn write(
        &self,
        context: &Context,
        kind: WriteKind,
        encoded: Encoded,
        adds_to_index: bool,
    ) -> Result<Plan, SessionError> {
        let mut write = Write {
            kind,
            record: encoded.record,
            seq: self.changes.seq(),
            epoch: self.epoch,
            adds_to_index,
            is_login: self.changes.is_login(),
            previous_user: self.base.user.clone(),
        };
        write.seal(context)?;
        Ok(Plan::Write(Arc::new(write)))
    }

    /// Notes in the session when it is added to its user's index, if the next write is to add it.
    fn stamp_index_entry(&mut self, context: &Context) -> bool {
        if self.changes.user(&self.base).is_none() {
            return false;
        }
        let has_new_id = self.id_change.is_new() || matches!(self.status, Status::New { .. });
        // The index was to outlive the session with its former TTL.
        let is_prolonged = || {
            let ttl = |metadata| expiry::ttl(&context.config, metadata);
            ttl(self.changes.metadata(&self.base)) > ttl(self.base.metadata)
        };
        let adds = has_new_id
            || self.changes.is_login()
            || self.index_entry_needs_refresh(context)
            || is_prolonged();
        if adds {
            let stamp = MetadataChange::IndexedAt(unix_secs());
            self.changes.set_metadata(stamp);
        }
        adds
    }

    fn index_entry_needs_refresh(&self, context: &Context) -> bool {
        self.base.user.is_some()
            && expiry::index_entry_needs_refresh(&context.config, self.base.metadata)
    }

    fn cookie_needs_refresh(&self, context: &Context) -> bool {
        self.may_renew_cookie() && expiry::cookie_needs_refresh(&context.config, self.base.metadata)
    }

    fn cookie_needs_re_signing(&self) -> bool {
        self.may_renew_cookie() && self.has_former_signature()
    }

    fn may_renew_cookie(&self) -> bool {
        !self.headers_sent && !self.defers_renewal
    }

    fn has_former_signature(&self) -> bool {
        matches!(&self.status, Status::Persisted(persisted) if persisted.re_sign_cookie)
    }

    fn discard_changes(&mut self) {
        self.base = self.base.emptied();
        self.changes.reset();
        self.id_change = IdChange::Keep;
        self.cookie = CookieAction::Keep;
        self.in_doubt = None;
    }

    fn ensure_headers_not_sent(&self, what: &str) -> Result<(), SessionError> {
        if !self.headers_sent {
            return Ok(());
        }
        Err(SessionError::new(
            ErrorKind::HeadersSent,
            format!(
                "the response headers are already sent, or there is no response, so no cookie for {what} can be set: make this change, \
                 or call `save`, before the response is returned"
            ),
        ))
    }
}
