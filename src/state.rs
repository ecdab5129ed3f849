//! Where a request's session stands: what the store holds, what the request changed, and what the two call for.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;

use crate::{
    changes::Changes,
    context::{Context, now},
    error::{ErrorKind, SessionError},
    id::SessionId,
    record::{Record, Written},
};

pub(crate) struct State {
    pub(crate) place: Place,
    /// The version that the store held when we last looked.
    pub(crate) base: Record,
    pub(crate) changes: Changes,
    /// The new id was asked for.
    pub(crate) cycle: bool,
    /// The key of the session that was loaded, so that a save need not make it again.
    pub(crate) key: Option<(SessionId, String)>,
    /// The id that the browser has and the store does not, or only its tombstone, where a logout of it has to be confirmed all the same: an
    /// earlier logout or rotation may have reached the master alone.
    pub(crate) sought: Option<SessionId>,
    /// A session that was destroyed and is to be deleted; whatever was changed since is another session.
    pub(crate) doomed: Option<Doomed>,
    /// Counts the sessions of this request: what is heard of a write of a destroyed one says nothing about the next.
    pub(crate) life: u32,
    /// When the session's time last began anew.
    pub(crate) touched: SystemTime,
    pub(crate) cookie: CookieAction,
    /// The cookie has the signature of a former key. It is sent anew only once a save has shown that the session is still there under this
    /// id: it may have been rotated meanwhile, and the browser have a newer cookie.
    pub(crate) resign: bool,
    pub(crate) head_sent: bool,
    /// A write that was sent and may or may not have been carried out.
    pub(crate) unconfirmed: Option<Arc<Attempt>>,
}

#[derive(Clone)]
pub(crate) struct Doomed {
    pub(crate) id: SessionId,
    /// If not, the browser keeps its cookie, and maybe has a newer one by now, which a removal would take away.
    pub(crate) was_found: bool,
    /// Among whose sessions it is.
    pub(crate) user: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Not in the store: no cookie, or one that names nothing.
    New,
    Stored(SessionId),
    /// Behind a tombstone. The browser has, or soon has, a newer cookie, which must not be overwritten.
    Retired,
    /// Deleted or expired beneath us.
    Ended,
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
    Nothing,
    /// The changes have nowhere to go.
    Drop,
    Act(Arc<Attempt>),
}

/// One write, to be sent as often as it takes to know what became of it.
#[derive(Clone)]
pub(crate) struct Attempt {
    pub(crate) act: Act,
    /// The next version.
    pub(crate) record: Record,
    /// The changes up to this moment are in it.
    pub(crate) moment: u64,
    pub(crate) life: u32,
    /// It is to be entered among its user's sessions first.
    pub(crate) enters: bool,
    /// Somebody logged in.
    pub(crate) logs_in: bool,
    /// Among whose sessions it is before the write.
    pub(crate) member_of: Option<Arc<str>>,
}

#[derive(Clone)]
pub(crate) enum Act {
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

impl Act {
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
    pub(crate) fn new(place: Place, base: Record) -> Self {
        Self {
            place,
            base,
            changes: Changes::default(),
            cycle: false,
            key: None,
            sought: None,
            doomed: None,
            life: 0,
            touched: SystemTime::now(),
            cookie: CookieAction::Keep,
            resign: false,
            head_sent: false,
            unconfirmed: None,
        }
    }

    /// Whether a commit could have anything to do.
    pub(crate) fn is_dirty(&self, context: &Context) -> bool {
        self.doomed.is_some()
            || !self.changes.is_empty()
            || (self.cycle && self.place != Place::New)
            || self.cookie_is_due(context)
            || self.is_to_be_resigned()
            || (matches!(self.place, Place::Stored(_)) && self.entry_is_due(context))
    }

    /// Whether a change would be lost with this state. A session that was never stored and is empty and nobody's has none.
    pub(crate) fn has_unsaved(&self) -> bool {
        let is_blank = || {
            self.place == Place::New
                && self.changes.keys(&self.base).next().is_none()
                && self.changes.user(&self.base).is_none()
        };
        self.doomed.is_some() || !(self.changes.is_empty() || is_blank())
    }

    pub(crate) fn destroy(&mut self) {
        match self.place {
            Place::Stored(id) => {
                self.doomed = Some(Doomed {
                    id,
                    was_found: true,
                    user: self.base.user.clone(),
                });
                self.place = Place::New;
            }
            Place::New | Place::Retired => {
                if let Some(id) = self.sought.take() {
                    self.doomed = Some(Doomed {
                        id,
                        was_found: false,
                        user: None,
                    });
                }
            }
            Place::Ended => {}
        }
        self.life += 1;
        self.base = Record::default();
        self.changes.reset();
        self.cycle = false;
        self.resign = false;
        self.cookie = CookieAction::Keep;
        self.unconfirmed = None;
    }

    pub(crate) fn plan(
        &mut self,
        context: &Context,
        tombstone: impl FnOnce() -> Result<Bytes, SessionError>,
    ) -> Result<Plan, SessionError> {
        if self.place == Place::Retired && self.cycle {
            // A login whose response was lost, and that is tried again with the old cookie.
            self.place = Place::New;
        }
        match self.place {
            Place::New => {
                let nothing = self.changes.is_empty() && self.base.bytes().is_empty();
                if nothing {
                    return Ok(Plan::Nothing);
                }
                let enters = self.note_entry(context);
                let written = self.write(context)?;
                if written.is_empty {
                    return Ok(Plan::Nothing);
                }
                self.check_head("a session that was begun")?;
                Ok(Plan::Act(self.attempt(
                    Act::Create {
                        id: context.generate_id()?,
                    },
                    written,
                    enters,
                )))
            }
            Place::Stored(id) => {
                if self.cookie_is_due(context)
                    || (self.cycle && self.changes.meta(&self.base).permanent.is_some())
                {
                    self.changes.set_cookie_sent(now());
                }
                let enters = self.note_entry(context);
                let resign = self.is_to_be_resigned();
                if self.changes.is_empty() && !self.cycle && !resign {
                    return Ok(Plan::Nothing);
                }
                let written = self.write(context)?;
                let expected = self.base.bytes().clone();
                let act = if written.is_empty {
                    Act::Delete { id, expected }
                } else if self.cycle {
                    self.check_head("a new id that was asked for")?;
                    let (to, tombstone) = (context.generate_id()?, tombstone()?);
                    Act::Rotate {
                        from: id,
                        expected,
                        to,
                        tombstone,
                    }
                } else if written.changed || resign {
                    Act::Save { id, expected }
                } else {
                    self.changes.reset();
                    return Ok(Plan::Nothing);
                };
                Ok(Plan::Act(self.attempt(act, written, enters)))
            }
            Place::Retired | Place::Ended if self.changes.is_empty() && !self.cycle => {
                Ok(Plan::Nothing)
            }
            Place::Retired | Place::Ended => Ok(Plan::Drop),
        }
    }

    /// The store holds what `attempt` wrote.
    pub(crate) fn adopt(&mut self, attempt: Arc<Attempt>) {
        self.unconfirmed = None;
        self.touched = SystemTime::now();
        let was_permanent = self.base.meta.permanent;
        self.place = match &attempt.act {
            Act::Create { id } => {
                self.cookie = CookieAction::Issue;
                Place::Stored(*id)
            }
            Act::Rotate { to, .. } => {
                self.cookie = CookieAction::Issue;
                Place::Stored(*to)
            }
            Act::Save { id, .. } => {
                if attempt.record.meta.permanent != was_permanent || self.is_to_be_resigned() {
                    self.cookie = CookieAction::Issue;
                    self.resign = false;
                }
                Place::Stored(*id)
            }
            Act::Delete { .. } => {
                self.cookie = CookieAction::Remove;
                Place::New
            }
        };
        self.changes.forget_until(attempt.moment);
        // A plain save leaves a new id that was asked for while it was on its way to the next one.
        self.cycle &= matches!(attempt.act, Act::Save { .. });
        self.base = match attempt.act {
            Act::Delete { .. } => Record::default(),
            // Mostly nobody else has it, and nothing need be copied.
            Act::Create { .. } | Act::Save { .. } | Act::Rotate { .. } => {
                Arc::unwrap_or_clone(attempt).record
            }
        };
    }

    /// The session is no longer where it was, and what was changed is dropped.
    pub(crate) fn lose(&mut self, place: Place) {
        self.place = place;
        self.base = Record::default();
        self.changes.reset();
        self.cycle = false;
        self.resign = false;
        self.cookie = CookieAction::Keep;
        self.unconfirmed = None;
    }

    fn write(&self, context: &Context) -> Result<Written, SessionError> {
        let written = self.changes.write(&self.base)?;
        let (size, limit) = (written.record.bytes().len(), context.config.max_size);
        if size > limit {
            return Err(SessionError::too_large(size, limit));
        }
        Ok(written)
    }

    fn attempt(&self, act: Act, written: Written, enters: bool) -> Arc<Attempt> {
        Arc::new(Attempt {
            act,
            record: written.record,
            moment: self.changes.moment(),
            life: self.life,
            enters,
            logs_in: self.changes.logs_in(),
            member_of: self.base.user.clone(),
        })
    }

    /// Notes in the session that it is entered among its user's, where that is called for.
    fn note_entry(&mut self, context: &Context) -> bool {
        let is_another = self.changes.logs_in() || self.cycle || self.place == Place::New;
        // The set was to outlive the session as it was, not one that is remembered from now on.
        let is_prolonged = || {
            let before = context.lifetime(self.base.meta);
            context.lifetime(self.changes.meta(&self.base)) > before
        };
        let enters = self.changes.user(&self.base).is_some()
            && (is_another || self.entry_is_due(context) || is_prolonged());
        if enters {
            self.changes.set_listed(now());
        }
        enters
    }

    fn entry_is_due(&self, context: &Context) -> bool {
        self.base.user.is_some() && context.entry_is_due(self.base.meta)
    }

    fn cookie_is_due(&self, context: &Context) -> bool {
        matches!(self.place, Place::Stored(_))
            && !self.head_sent
            && context.cookie_is_due(self.base.meta)
    }

    fn is_to_be_resigned(&self) -> bool {
        self.resign && !self.head_sent && matches!(self.place, Place::Stored(_))
    }

    fn check_head(&self, what: &str) -> Result<(), SessionError> {
        if !self.head_sent {
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
