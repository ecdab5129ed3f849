//! Where a request's session stands: what the store holds, what the request changed, and what the two call for.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;

use super::changes::Changes;
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
    /// The version that the store held when we last looked.
    pub(crate) base: Record,
    pub(crate) changes: Changes,
    /// The new id was asked for.
    pub(crate) cycle: bool,
    /// The key of the session that was loaded, so that a save need not make it again.
    pub(crate) key: Option<(SessionId, String)>,
    /// The id that the browser has and the store does not, or only its tombstone, where a logout of it has to be confirmed all the same: an
    /// earlier logout or rotation may have reached the master alone.
    pub(crate) presented_id: Option<SessionId>,
    /// A session that was destroyed and is to be deleted; whatever was changed since is another session.
    pub(crate) pending_delete: Option<PendingDelete>,
    /// Counts the sessions of this request: what is heard of a write of a destroyed one says nothing about the next.
    pub(crate) epoch: u32,
    /// When the session's time last began anew.
    pub(crate) ttl_set_at: SystemTime,
    pub(crate) cookie: CookieAction,
    /// The cookie has the signature of a replaces key. It is sent anew only once a save has shown that the session is still there under this
    /// id: it may have been rotated meanwhile, and the browser have a newer cookie.
    pub(crate) re_sign_cookie: bool,
    pub(crate) headers_sent: bool,
    /// A write that was sent and may or may not have been carried out.
    pub(crate) in_doubt: Option<Arc<Write>>,
}

#[derive(Clone)]
pub(crate) struct PendingDelete {
    pub(crate) id: SessionId,
    /// If not, the browser keeps its cookie, and maybe has a newer one by now, which a removal would take away.
    pub(crate) existed: bool,
    /// Among whose sessions it is.
    pub(crate) user: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Not in the store: no cookie, or one that names nothing.
    New,
    Persisted(SessionId),
    /// Behind a tombstone. The browser has, or soon has, a newer cookie, which must not be overwritten.
    Rotated,
    /// Deleted or expired beneath us.
    Gone,
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
    /// The changes have nowhere to go.
    Discard,
    Write(Arc<Write>),
}

/// One write, to be sent as often as it takes to know what became of it.
#[derive(Clone)]
pub(crate) struct Write {
    pub(crate) kind: WriteKind,
    /// The next version.
    pub(crate) record: Record,
    /// The changes up to this seq are in it.
    pub(crate) seq: u64,
    pub(crate) epoch: u32,
    /// It is to be entered among its user's sessions first.
    pub(crate) adds_to_index: bool,
    /// Somebody logged in.
    pub(crate) is_login: bool,
    /// Among whose sessions it is before the write.
    pub(crate) previous_user: Option<Arc<str>>,
}

#[derive(Clone)]
pub(crate) enum WriteKind {
    Create {
        id: SessionId,
    },
    Save {
        id: SessionId,
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

impl WriteKind {
    /// The session that is there already, and that others may change at the same time.
    pub(crate) fn id(&self) -> Option<SessionId> {
        match self {
            Self::Create { .. } => None,
            Self::Save { id, .. } | Self::Delete { id, .. } | Self::Rotate { from: id, .. } => {
                Some(*id)
            }
        }
    }

    /// Where it is afterwards.
    pub(crate) fn next_id(&self) -> Option<SessionId> {
        match self {
            Self::Delete { .. } => None,
            Self::Create { id } | Self::Save { id, .. } | Self::Rotate { to: id, .. } => Some(*id),
        }
    }
}

impl State {
    pub(crate) fn new(status: Status, base: Record) -> Self {
        Self {
            status,
            base,
            changes: Changes::default(),
            cycle: false,
            key: None,
            presented_id: None,
            pending_delete: None,
            epoch: 0,
            ttl_set_at: SystemTime::now(),
            cookie: CookieAction::Keep,
            re_sign_cookie: false,
            headers_sent: false,
            in_doubt: None,
        }
    }

    /// Whether a commit could have anything to do.
    pub(crate) fn is_dirty(&self, context: &Context) -> bool {
        self.pending_delete.is_some()
            || !self.changes.is_empty()
            || (self.cycle && self.status != Status::New)
            || self.cookie_needs_refresh(context)
            || self.cookie_needs_re_signing()
            || (matches!(self.status, Status::Persisted(_))
                && self.index_entry_needs_refresh(context))
    }

    /// Whether a change would be lost with this state. A session that was never stored and is empty and nobody's has none.
    pub(crate) fn has_unsaved(&self) -> bool {
        let is_blank = || {
            self.status == Status::New
                && self.changes.keys(&self.base).next().is_none()
                && self.changes.user(&self.base).is_none()
        };
        self.pending_delete.is_some() || !(self.changes.is_empty() || is_blank())
    }

    pub(crate) fn destroy(&mut self) {
        match self.status {
            Status::Persisted(id) => {
                self.pending_delete = Some(PendingDelete {
                    id,
                    existed: true,
                    user: self.base.user.clone(),
                });
                self.status = Status::New;
            }
            Status::New | Status::Rotated => {
                if let Some(id) = self.presented_id.take() {
                    self.pending_delete = Some(PendingDelete {
                        id,
                        existed: false,
                        user: None,
                    });
                }
            }
            Status::Gone => {}
        }
        self.epoch += 1;
        self.base = Record::default();
        self.changes.reset();
        self.cycle = false;
        self.re_sign_cookie = false;
        self.cookie = CookieAction::Keep;
        self.in_doubt = None;
    }

    pub(crate) fn plan(
        &mut self,
        context: &Context,
        tombstone: impl FnOnce() -> Result<Bytes, SessionError>,
    ) -> Result<Plan, SessionError> {
        if self.status == Status::Rotated && self.cycle {
            // A login whose response was lost, and that is tried again with the old cookie.
            self.status = Status::New;
        }
        match self.status {
            Status::New => {
                let nothing = self.changes.is_empty() && self.base.bytes().is_empty();
                if nothing {
                    return Ok(Plan::Noop);
                }
                let adds_to_index = self.stamp_index_entry(context);
                let encoded = self.encode(context)?;
                if encoded.is_empty {
                    return Ok(Plan::Noop);
                }
                self.ensure_headers_not_sent("a session that was begun")?;
                Ok(Plan::Write(self.write(
                    WriteKind::Create {
                        id: context.generate_id()?,
                    },
                    encoded,
                    adds_to_index,
                )))
            }
            Status::Persisted(id) => {
                if self.cookie_needs_refresh(context)
                    || (self.cycle && self.changes.metadata(&self.base).permanent.is_some())
                {
                    self.changes.set_cookie_sent(unix_secs());
                }
                let adds_to_index = self.stamp_index_entry(context);
                let re_sign_cookie = self.cookie_needs_re_signing();
                if self.changes.is_empty() && !self.cycle && !re_sign_cookie {
                    return Ok(Plan::Noop);
                }
                let encoded = self.encode(context)?;
                let expected = self.base.bytes().clone();
                let kind = if encoded.is_empty {
                    WriteKind::Delete { id, expected }
                } else if self.cycle {
                    self.ensure_headers_not_sent("a new id that was asked for")?;
                    let (to, tombstone) = (context.generate_id()?, tombstone()?);
                    WriteKind::Rotate {
                        from: id,
                        expected,
                        to,
                        tombstone,
                    }
                } else if encoded.changed || re_sign_cookie {
                    WriteKind::Save { id, expected }
                } else {
                    self.changes.reset();
                    return Ok(Plan::Noop);
                };
                Ok(Plan::Write(self.write(kind, encoded, adds_to_index)))
            }
            Status::Rotated | Status::Gone if self.changes.is_empty() && !self.cycle => {
                Ok(Plan::Noop)
            }
            Status::Rotated | Status::Gone => Ok(Plan::Discard),
        }
    }

    /// The store holds what `write` wrote.
    pub(crate) fn apply_saved(&mut self, write: Arc<Write>) {
        self.in_doubt = None;
        self.ttl_set_at = SystemTime::now();
        let was_permanent = self.base.metadata.permanent;
        self.status = match &write.kind {
            WriteKind::Create { id } => {
                self.cookie = CookieAction::Issue;
                Status::Persisted(*id)
            }
            WriteKind::Rotate { to, .. } => {
                self.cookie = CookieAction::Issue;
                Status::Persisted(*to)
            }
            WriteKind::Save { id, .. } => {
                if write.record.metadata.permanent != was_permanent
                    || self.cookie_needs_re_signing()
                {
                    self.cookie = CookieAction::Issue;
                    self.re_sign_cookie = false;
                }
                Status::Persisted(*id)
            }
            WriteKind::Delete { .. } => {
                self.cookie = CookieAction::Remove;
                Status::New
            }
        };
        self.changes.discard_through(write.seq);
        // A plain save leaves a new id that was asked for while it was on its way to the next one.
        self.cycle &= matches!(write.kind, WriteKind::Save { .. });
        self.base = match write.kind {
            WriteKind::Delete { .. } => Record::default(),
            // Mostly nobody else has it, and nothing need be copied.
            WriteKind::Create { .. } | WriteKind::Save { .. } | WriteKind::Rotate { .. } => {
                Arc::unwrap_or_clone(write).record
            }
        };
    }

    /// The session is no longer where it was, and what was changed is dropped.
    pub(crate) fn discard(&mut self, status: Status) {
        self.status = status;
        self.base = Record::default();
        self.changes.reset();
        self.cycle = false;
        self.re_sign_cookie = false;
        self.cookie = CookieAction::Keep;
        self.in_doubt = None;
    }

    fn encode(&self, context: &Context) -> Result<Encoded, SessionError> {
        let encoded = self.changes.write(&self.base)?;
        let (size, limit) = (encoded.record.bytes().len(), context.config.max_size);
        if size > limit {
            return Err(SessionError::too_large(size, limit));
        }
        Ok(encoded)
    }

    fn write(&self, kind: WriteKind, encoded: Encoded, adds_to_index: bool) -> Arc<Write> {
        Arc::new(Write {
            kind,
            record: encoded.record,
            seq: self.changes.seq(),
            epoch: self.epoch,
            adds_to_index,
            is_login: self.changes.is_login(),
            previous_user: self.base.user.clone(),
        })
    }

    /// Notes in the session that it is entered among its user's, where that is called for.
    fn stamp_index_entry(&mut self, context: &Context) -> bool {
        let is_another = self.changes.is_login() || self.cycle || self.status == Status::New;
        // The set was to outlive the session as it was, not one that is remembered from now on.
        let is_prolonged = || {
            let before = expiry::ttl(&context.config, self.base.metadata);
            expiry::ttl(&context.config, self.changes.metadata(&self.base)) > before
        };
        let adds_to_index = self.changes.user(&self.base).is_some()
            && (is_another || self.index_entry_needs_refresh(context) || is_prolonged());
        if adds_to_index {
            self.changes.set_indexed_at(unix_secs());
        }
        adds_to_index
    }

    fn index_entry_needs_refresh(&self, context: &Context) -> bool {
        self.base.user.is_some()
            && expiry::index_entry_needs_refresh(&context.config, self.base.metadata)
    }

    fn cookie_needs_refresh(&self, context: &Context) -> bool {
        matches!(self.status, Status::Persisted(_))
            && !self.headers_sent
            && expiry::cookie_needs_refresh(&context.config, self.base.metadata)
    }

    fn cookie_needs_re_signing(&self) -> bool {
        self.re_sign_cookie && !self.headers_sent && matches!(self.status, Status::Persisted(_))
    }

    fn ensure_headers_not_sent(&self, what: &str) -> Result<(), SessionError> {
        if !self.headers_sent {
            return Ok(());
        }
        Err(SessionError::new(
            ErrorKind::HeadersSent,
            format!(
                "the response's head is sent, so the browser cannot be told of {what}: do it before the response is returned"
            ),
        ))
    }
}
