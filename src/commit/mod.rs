//! The commit protocol: how a request's changes reach the store without losing another request's changes and without reviving a
//! session that has ended.
//!
//! 1. A write names the version that it builds on. If the store holds another version, the reply contains it; the changes are
//!    replayed on top of it, and the write is sent again.
//! 2. If the store holds nothing any more, nothing is written: a logout wins.
//! 3. A write whose reply was lost is sent once more. The store recognises a version that it holds already.
//!
//! `src/docs/design.md` explains why.

pub(crate) mod changes;
pub(crate) mod metadata_changes;
#[cfg(feature = "migration")]
pub(crate) mod old_session;
mod queue;
pub(crate) mod reload;
pub(crate) mod state;
mod status;
pub(crate) mod user_index;
pub(crate) mod write;

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use self::{
    queue::{CommitQueue, MAX_ATTEMPTS, attempts_exhausted},
    state::{CookieAction, Plan, State, Status},
    write::{DeleteReason, PendingDelete, TOMBSTONE_TTL, Write, WriteKind},
};
use crate::{
    context::Context,
    error::{ErrorKind, SessionError},
    expiry,
    id::SessionId,
    record::{Decoded, Record},
    stats::{Event, Timed},
    store::{Created, Destroyed, Fault, Outcome, Rotation, retry_once},
    trace,
};

/// The session of one request, shared by its handler, its middleware and the service.
pub(crate) struct SessionCell {
    pub(crate) context: Arc<Context>,
    /// Held across a commit: commits of one request run one after the other.
    committing: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// A thread panicked while it had the session.
    panicked: AtomicBool,
}

/// What became of a request's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitOutcome {
    /// There were none.
    Unchanged,
    Saved,
    /// The session had ended.
    Discarded,
}

/// What the store holds after a write.
enum Stored {
    /// This write, or an earlier one that was in doubt.
    Write(Arc<Write>),
    /// Another request's version. Boxed, since it is rare and would enlarge every result.
    Other(Box<Record>),
    Tombstone,
    Nothing,
}

/// Brings the session's changes to the store.
pub(crate) async fn commit(session: &SessionCell) -> Result<CommitOutcome, SessionError> {
    let _guard = session.committing.lock().await;
    let context = &session.context;
    let work = pin!(commit_changes(session));
    let begun = Instant::now();
    let work = context.store.with_deadline(context.config.deadline, work);
    let result = if trace::is_enabled() {
        Box::pin(trace::in_span(trace::commit_span(), work)).await
    } else {
        work.await
    };
    context.shared.counters.time(Timed::Save, begun);
    match &result {
        Ok(CommitOutcome::Saved) => context.count(Event::Saved),
        Ok(CommitOutcome::Discarded) => {
            context.count(Event::SaveDiscarded);
            tracing::debug!(
                "a session's changes were discarded: the session was destroyed, rotated or had expired"
            );
        }
        Ok(CommitOutcome::Unchanged) => {}
        Err(error) => {
            context.count(match error.kind() {
                ErrorKind::Conflict => Event::SaveConflict,
                _ => Event::SaveFailed,
            });
            let event = "a session could not be saved";
            context.shared.failures.report(event, error);
        }
    }
    result
}

async fn commit_changes(session: &SessionCell) -> Result<CommitOutcome, SessionError> {
    let mut outcome = CommitOutcome::Unchanged;
    let mut queue = CommitQueue::default();
    let mut attempt = 0;
    #[cfg(feature = "migration")]
    let next_old_session = || old_session::next(&session.state());
    loop {
        attempt += 1;
        // Boxed, here and below, so that what is rare does not enlarge the future of every commit.
        while let Some(delete) = session.next_delete() {
            Box::pin(delete_destroyed(session, delete)).await?;
            outcome = CommitOutcome::Saved;
        }
        #[cfg(feature = "migration")]
        while let Some(old) = next_old_session() {
            Box::pin(old_session::delete(&session.context, &old)).await?;
            old_session::finish(session.state(), &old);
            outcome = CommitOutcome::Saved;
        }
        let write = match session.plan()? {
            Plan::Noop => return Ok(outcome),
            Plan::Discard => return Ok(session.discard(None)),
            Plan::Write(_) if attempt > MAX_ATTEMPTS => {
                return Err(attempts_exhausted());
            }
            Plan::Write(write) => write,
        };
        let epoch = write.epoch;
        let lock = write.kind.id().map(|id| session.context.commit_lock(id));
        if let Some(lock) = lock {
            queue.enter(lock).await;
        }
        if write.adds_to_index {
            Box::pin(user_index::add(&session.context, &write)).await?;
        }
        match send(session, write).await? {
            Stored::Write(write) => {
                if let Some(event) = write.kind.event() {
                    session.context.count(event);
                }
                // Cloned only if it is needed, since the record of a write that is held twice is copied.
                let changes_index = write.previous_user.is_some() || write.is_login;
                let indexed = changes_index.then(|| write.clone());
                if let Err(write) = session.apply_saved(write) {
                    drop(indexed);
                    return Box::pin(delete_after_destroy(session, &write)).await;
                }
                if let Some(write) = indexed {
                    Box::pin(user_index::finish(&session.context, &write)).await;
                }
                outcome = CommitOutcome::Saved;
            }
            _ if session.state().epoch != epoch => return Ok(CommitOutcome::Unchanged),
            Stored::Other(current) => {
                session.context.count(Event::SaveRetried);
                session.rebase(&current)?;
                if let Some(lock) = lock {
                    queue.wait(&session.context, lock, attempt).await;
                }
            }
            // Another login rotated the session first. This one gets an id of its own.
            Stored::Tombstone if session.state().id_change.is_new() => {
                session.state().status = Status::New { presented: None };
            }
            Stored::Tombstone => {
                return Ok(session.discard(Some(Status::Rotated { presented: None })));
            }
            Stored::Nothing => return Ok(session.discard(Some(Status::Gone))),
        }
    }
}

/// Deletes a session that the app destroyed.
async fn delete_destroyed(
    session: &SessionCell,
    pending: PendingDelete,
) -> Result<(), SessionError> {
    let destroyed = match destroy_key(session, pending.id).await {
        Err(_) if pending.reason == DeleteReason::Superseded => Destroyed::Deleted,
        destroyed => destroyed?,
    };
    {
        let mut state = session.state();
        state.finish_delete(pending.id);
        match (pending.reason, destroyed) {
            (DeleteReason::Destroyed, Destroyed::Deleted) => {
                session.context.count(Event::Destroyed);
                state.cookie = CookieAction::Remove;
            }
            // A login came first. The browser has its cookie or is about to get it.
            (DeleteReason::Destroyed | DeleteReason::NotFound, Destroyed::Tombstone) => {
                state.status = Status::Rotated { presented: None };
            }
            (DeleteReason::NotFound, Destroyed::Deleted)
            | (DeleteReason::Shadow | DeleteReason::Superseded, _) => {}
        }
    }
    if let Some(user) = &pending.user {
        user_index::remove(&session.context, user, pending.id).await;
    }
    Ok(())
}

/// A clone of the session was destroyed while `write` was on its way. If the write gave the session a new id, that one is deleted
/// too. The old id is deleted by the next commit.
async fn delete_after_destroy(
    session: &SessionCell,
    write: &Write,
) -> Result<CommitOutcome, SessionError> {
    let (WriteKind::Create { id } | WriteKind::Rotate { to: id, .. }) = &write.kind else {
        return Ok(CommitOutcome::Unchanged);
    };
    destroy_key(session, *id).await?;
    if let Some(user) = &write.record.user {
        user_index::remove(&session.context, user, *id).await;
    }
    Ok(CommitOutcome::Saved)
}

async fn destroy_key(session: &SessionCell, id: SessionId) -> Result<Destroyed, SessionError> {
    trace::record_operation("destroy");
    let key = session.context.key(id);
    let store = &session.context.store;
    let destroyed = retry_once(|| store.destroy(&key)).await;
    destroyed.map_err(Fault::into_error)
}

/// Sends a write until its result is known.
async fn send(session: &SessionCell, write: Arc<Write>) -> Result<Stored, SessionError> {
    let (outcome, in_doubt) = send_with_retry(session, &write).await?;
    if outcome == Outcome::Saved {
        return Ok(Stored::Write(write));
    }
    Box::pin(resolve_rejection(session, write, outcome, in_doubt)).await
}

/// Sends a write, and once more if the connection broke. The boolean: whether this write, or an earlier one, may have been executed
/// without its reply.
async fn send_with_retry(
    session: &SessionCell,
    write: &Arc<Write>,
) -> Result<(Outcome, bool), SessionError> {
    let in_doubt = {
        let earlier = &mut session.state().in_doubt;
        let in_doubt = earlier.is_some();
        earlier.get_or_insert_with(|| write.clone());
        in_doubt
    };
    let reply = execute(session, write).await;
    if let Err(Fault::ConnectionLost(_)) = reply {
        drop(reply);
        let retried = Box::pin(execute(session, write)).await;
        let outcome = retried.map_err(Fault::into_error)?;
        return Ok((outcome, true));
    }
    // A reply means that the write is not on its way any more. `apply_saved` clears the field too.
    if !in_doubt && !matches!(reply, Ok(Outcome::Saved)) {
        session.state().in_doubt = None;
    }
    reply
        .map(|outcome| (outcome, in_doubt))
        .map_err(Fault::into_error)
}

async fn execute(session: &SessionCell, write: &Write) -> Result<Outcome, Fault> {
    trace::record_operation(write.kind.name());
    let Context { config, store, .. } = &*session.context;
    let key = |id| session.context.key(id);
    let record = &write.record;
    let ttl = expiry::ttl(config, write.record.metadata).unwrap_or_default();
    match &write.kind {
        WriteKind::Create { id } => match store.create(&key(*id), record, ttl).await? {
            Created::Created => Ok(Outcome::Saved),
            Created::AlreadyExists => Err(Fault::Failed(SessionError::id_taken())),
        },
        WriteKind::Save { key, expected, .. } => store.save(key, expected, record, ttl).await,
        WriteKind::Delete { id, expected } => store.delete(&key(*id), expected).await,
        WriteKind::Rotate {
            from,
            expected,
            to,
            tombstone,
        } => {
            let rotation = Rotation {
                from: &key(*from),
                expected,
                to: &key(*to),
                value: record.stored(),
                record: Some(record),
                lifetime: ttl,
                tombstone,
                tombstone_lifetime: TOMBSTONE_TTL,
            };
            Box::pin(store.rotate(&rotation)).await
        }
    }
}

/// What the store holds instead of the version that `write` builds on.
async fn resolve_rejection(
    session: &SessionCell,
    write: Arc<Write>,
    outcome: Outcome,
    in_doubt: bool,
) -> Result<Stored, SessionError> {
    if write.adds_to_index && !in_doubt {
        user_index::rollback(&session.context, &write, &outcome).await;
    }
    let Outcome::Conflict(stored) = outcome else {
        // A deletion leaves nothing behind by which it could be recognised.
        let is_own_deletion = in_doubt && matches!(write.kind, WriteKind::Delete { .. });
        return Ok(if is_own_deletion {
            Stored::Write(write)
        } else {
            Stored::Nothing
        });
    };
    let state = session.state();
    let wrote = |write: &&Arc<Write>| write.wrote(&session.context, &stored);
    if let Some(earlier) = state.in_doubt.as_ref().filter(wrote) {
        return Ok(Stored::Write(earlier.clone()));
    }
    let key = write.kind.id().map(|id| session.context.key(id));
    match session.context.decode(&key.unwrap_or_default(), &stored)? {
        Decoded::Session(_) if in_doubt && state.changes.has_non_idempotent() => {
            Err(SessionError::doubtful_update())
        }
        Decoded::Session(current) => Ok(Stored::Other(Box::new(current))),
        Decoded::Tombstone { .. } => Ok(Stored::Tombstone),
        Decoded::Empty => Ok(Stored::Nothing),
    }
}

impl SessionCell {
    pub(crate) fn new(context: Arc<Context>, status: Status, base: Record) -> Self {
        Self {
            context,
            committing: tokio::sync::Mutex::default(),
            state: Mutex::new(State::new(status, base)),
            panicked: AtomicBool::new(false),
        }
    }

    /// Never held while code of the app runs, nor across an await.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn mark_panicked(&self) {
        self.panicked.store(true, Relaxed);
    }

    pub(crate) fn has_panicked(&self) -> bool {
        self.panicked.load(Relaxed)
    }

    fn next_delete(&self) -> Option<PendingDelete> {
        self.state().pending_deletes.first().cloned()
    }

    fn plan(&self) -> Result<Plan, SessionError> {
        self.state().plan(&self.context)
    }

    /// Gives the write back if the session was destroyed since it was planned.
    fn apply_saved(&self, write: Arc<Write>) -> Result<(), Arc<Write>> {
        let mut state = self.state();
        if state.epoch != write.epoch {
            return Err(write);
        }
        state.apply_saved(write);
        Ok(())
    }

    /// `None` keeps the status.
    fn discard(&self, status: Option<Status>) -> CommitOutcome {
        self.state().discard(status);
        CommitOutcome::Discarded
    }

    /// Replays the changes on top of the version that another request stored.
    fn rebase(&self, current: &Record) -> Result<(), SessionError> {
        loop {
            let changes = self.state().changes.clone();
            // The app's closures run here, so the state is not locked.
            let replayed = changes.replayed_on(current);
            let mut state = self.state();
            if matches!(&replayed, Err(error) if error.kind() == ErrorKind::UpdateRejected) {
                state.roll_back(current.clone());
            }
            let replayed = replayed?;
            if state.changes.seq() == changes.seq() {
                state.base = current.clone();
                state.changes = replayed;
                return Ok(());
            }
        }
    }
}

impl Drop for SessionCell {
    fn drop(&mut self) {
        if self.state().has_unsaved() {
            tracing::debug!(
                "a session was dropped with unsaved changes: the request ended early, or it changed the session after its response, \
                 where only `save` keeps a change"
            );
        }
    }
}
