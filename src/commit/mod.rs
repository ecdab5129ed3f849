//! The protocol: how a request's changes reach the store without losing another request's, and without reviving a session.
//!
//! 1. A write names the version it builds on. If another one is there, its bytes come back in the same answer, the changes are
//!    done again on top of them, and the write is sent again.
//! 2. Where nothing is there any more, nothing is encoded: logout wins.
//! 3. A write whose answer was lost is sent once more; the store recognises its own version.
//!
//! `src/docs/design.md` has the pictures.

pub(crate) mod changes;
mod metadata_changes;
pub(crate) mod state;
mod user_index;

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;

use self::state::{CookieAction, PendingDelete, Plan, State, Status, Write, WriteKind};
use crate::{
    clock::unix_millis,
    context::Context,
    error::{ErrorKind, SessionError},
    id::SessionId,
    random::random_bytes,
    record::{Decoded, Record, same_revision, tombstone},
    store::{Created, Destroyed, Fault, Outcome, Rotation, retry_once},
};

/// How long an id that was rotated away is kept from being used: longer than any request that began with it should take.
const TOMBSTONE: Duration = Duration::from_secs(60);

/// A bound beside the deadline. With the requests of one process taking turns, other nodes have to get in between this often.
const MAX_ATTEMPTS: u32 = 64;

/// Trying again at once has the best chance, since the winner's bytes are at their freshest; after a pause they are stale. But when
/// this many tries in a row failed, something keeps step with us, and a pause of random length breaks the step.
const ATTEMPTS_BEFORE_PAUSE: u32 = 8;
const MAX_PAUSE: Duration = Duration::from_millis(1);

/// The session of one request, shared by the handler, its middleware and the service.
pub(crate) struct SessionCell {
    pub(crate) context: Arc<Context>,
    /// Held across a commit, on purpose: two of one request take turns.
    committing: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

/// What became of a request's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitOutcome {
    /// There were none.
    Unchanged,
    Stored,
    /// The session had ended.
    Dropped,
}

/// Brings the session's changes to the store. One commit of a session at a time; later ones wait.
pub(crate) async fn commit(session: &SessionCell) -> Result<CommitOutcome, SessionError> {
    let _turn = session.committing.lock().await;
    let work = pin!(commit_changes(session));
    let deadline = session.context.config.deadline;
    let result = session.context.store.with_deadline(deadline, work).await;
    let context = &session.context;
    match &result {
        Ok(CommitOutcome::Stored) => context.count(|counters| &counters.commits),
        Ok(CommitOutcome::Dropped) => {
            context.count(|counters| &counters.discarded);
            tracing::debug!(
                "a session's changes were dropped: it was logged out, rotated away or expired meanwhile"
            );
        }
        Ok(CommitOutcome::Unchanged) => {}
        Err(error) => {
            if error.kind() == ErrorKind::Conflict {
                context.count(|counters| &counters.retries_exhausted);
            }
        }
    }
    result
}

async fn destroy(session: &SessionCell, pending_delete: PendingDelete) -> Result<(), SessionError> {
    let key = session.context.key(pending_delete.id);
    let store = &session.context.store;
    let destroyed = retry_once(|| store.destroy(&key)).await;
    let destroyed = destroyed.map_err(Fault::into_error)?;
    {
        let mut state = session.state();
        state.pending_delete = None;
        match destroyed {
            Destroyed::Deleted if pending_delete.existed => state.cookie = CookieAction::Remove,
            Destroyed::Deleted => {}
            // A login came first. Its cookie is on the way to the browser, or there already.
            Destroyed::Tombstone => state.status = Status::Rotated,
        }
    }
    if let Some(user) = &pending_delete.user {
        user_index::leave(session, user, pending_delete.id).await;
    }
    Ok(())
}

async fn commit_changes(session: &SessionCell) -> Result<CommitOutcome, SessionError> {
    let mut guard = None;
    let mut tries = 0;
    let mut verdict = CommitOutcome::Unchanged;
    // What is rare is boxed, here and below, so that it does not enlarge every commit's future.
    let pending_delete = session.state().pending_delete.clone();
    if let Some(destroy) =
        pending_delete.map(|pending_delete| Box::pin(destroy(session, pending_delete)))
    {
        destroy.await?;
        verdict = CommitOutcome::Stored;
    }
    loop {
        let write = match session.plan(new_tombstone)? {
            Plan::Noop => return Ok(verdict),
            Plan::Discard => {
                let status = session.state().status;
                session.state().discard(status);
                return Ok(CommitOutcome::Dropped);
            }
            Plan::Write(write) => write,
        };
        tries += 1;
        if tries > MAX_ATTEMPTS {
            return Err(SessionError::new(
                ErrorKind::Conflict,
                format!(
                    "other requests changed this session before each of {MAX_ATTEMPTS} tries to save it; nothing was saved: try \
                     again, and write less often to one session"
                ),
            ));
        }
        // Where others of this process take turns already, one who came later does not jump the queue.
        let lock = write.kind.id().map(|id| session.context.commit_lock(id));
        if guard.is_none()
            && let Some(lock) = lock
            && lock.try_lock().is_err()
        {
            guard = Some(Box::pin(lock.lock()).await);
        }
        if write.adds_to_index {
            Box::pin(user_index::enter(session, &write)).await?;
        }
        let (outcome, in_doubt) = send_with_retry(session, &write).await?;
        // Kept only for those who need it, so that a record that nobody else has is not copied.
        let listed = (write.previous_user.is_some() || write.is_login).then(|| write.clone());
        let Some(write) = session.apply_saved(write, &outcome) else {
            if let Some(listed) = listed {
                Box::pin(user_index::settle(session, &listed)).await;
            }
            verdict = CommitOutcome::Stored;
            continue;
        };
        drop(listed);
        match Box::pin(handle_rejection(session, write, outcome, in_doubt)).await? {
            Next::Done(verdict) => return Ok(verdict),
            Next::Again => {}
            Next::Stored => verdict = CommitOutcome::Stored,
            // From the second try on, the requests of this process take turns.
            Next::InTurn if guard.is_none() => {
                if let Some(lock) = lock {
                    guard = Some(Box::pin(lock.lock()).await);
                }
            }
            Next::InTurn if tries % ATTEMPTS_BEFORE_PAUSE == 0 => {
                Box::pin(session.context.store.pause(jitter()?)).await;
            }
            Next::InTurn => {}
        }
    }
}

/// What to do after an answer that was not simply "saved".
enum Next {
    Done(CommitOutcome),
    Again,
    /// Again with what was changed since; a write whose answer was lost is stored.
    Stored,
    /// Again, on top of another request's version.
    InTurn,
}

async fn handle_rejection(
    session: &SessionCell,
    write: Arc<Write>,
    outcome: Outcome,
    in_doubt: bool,
) -> Result<Next, SessionError> {
    if write.adds_to_index && !in_doubt && outcome != Outcome::Saved {
        user_index::withdraw(session, &write, &outcome).await;
    }
    if session.state().epoch != write.epoch {
        return delete_after_destroy(session, &write, &outcome)
            .await
            .map(Next::Done);
    }
    let Outcome::Conflict(bytes) = outcome else {
        // A delete leaves nothing behind by which it could recognise itself.
        if in_doubt && matches!(write.kind, WriteKind::Delete { .. }) {
            session.state().apply_saved(write);
            return Ok(Next::Done(CommitOutcome::Stored));
        }
        session.state().discard(Status::Gone);
        return Ok(Next::Done(CommitOutcome::Dropped));
    };
    if session.apply_write_in_doubt(&bytes) {
        return Ok(Next::Stored);
    }
    match Record::decode(&bytes)? {
        Decoded::Session(winner) => {
            if in_doubt && session.state().changes.has_non_idempotent() {
                return Err(SessionError::new(
                    ErrorKind::Conflict,
                    "the connection to Redis broke while a session was saved, and another request saved it since, so an \
                     `update` may have been done or not; it is not done a second time: load the session again and look",
                ));
            }
            session.context.count(|counters| &counters.retries);
            session.rebase(&winner)?;
            Ok(Next::InTurn)
        }
        // Another login rotated the session away first. This one is good as well, and gets an id of its own.
        Decoded::Tombstone { .. } if session.state().cycle => {
            session.state().status = Status::New;
            Ok(Next::Again)
        }
        Decoded::Tombstone { .. } => {
            session.state().discard(Status::Rotated);
            Ok(Next::Done(CommitOutcome::Dropped))
        }
        Decoded::Empty => {
            session.state().discard(Status::Gone);
            Ok(Next::Done(CommitOutcome::Dropped))
        }
    }
}

/// The session was destroyed, by a clone of it, while a write was on its way. A new id that the write gave it ends as well; the
/// old one is deleted by the commit that the destruction asks for.
async fn delete_after_destroy(
    session: &SessionCell,
    write: &Write,
    outcome: &Outcome,
) -> Result<CommitOutcome, SessionError> {
    let (Outcome::Saved, WriteKind::Create { id } | WriteKind::Rotate { to: id, .. }) =
        (outcome, &write.kind)
    else {
        return Ok(CommitOutcome::Unchanged);
    };
    let key = session.context.key(*id);
    let store = &session.context.store;
    let buried = retry_once(|| store.destroy(&key)).await;
    buried.map_err(Fault::into_error)?;
    if let Some(user) = &write.record.user {
        user_index::leave(session, user, *id).await;
    }
    Ok(CommitOutcome::Stored)
}

/// Sends one write, and once more if the connection broke underneath. Beside the answer: whether this write, or one before it,
/// may have been carried out without our knowing.
async fn send_with_retry(
    session: &SessionCell,
    write: &Arc<Write>,
) -> Result<(Outcome, bool), SessionError> {
    // An earlier write whose answer is still out stays the one to look for.
    let in_doubt = {
        let earlier = &mut session.state().in_doubt;
        let in_doubt = earlier.is_some();
        earlier.get_or_insert_with(|| write.clone());
        in_doubt
    };
    let answer = send(session, write).await;
    if let Err(Fault::ConnectionLost(_)) = answer {
        drop(answer);
        let again = Box::pin(send(session, write)).await;
        let outcome = again.map_err(Fault::into_error)?;
        return Ok((outcome, true));
    }
    let answer = answer
        .map(|outcome| (outcome, in_doubt))
        .map_err(Fault::into_error);
    // An answer, whatever it is, means that the write is not still on its way. (Adopting a saved one says so too.)
    if !in_doubt && !matches!(answer, Ok((Outcome::Saved, _))) {
        session.state().in_doubt = None;
    }
    answer
}

async fn send(session: &SessionCell, write: &Write) -> Result<Outcome, Fault> {
    let context = &session.context;
    let value = write.record.bytes();
    let lifetime = crate::expiry::ttl(&context.config, write.record.metadata).unwrap_or_default();
    match &write.kind {
        WriteKind::Create { id } => match context
            .store
            .create(&context.key(*id), value, lifetime)
            .await?
        {
            Created::Yes => Ok(Outcome::Saved),
            Created::AlreadyExists => Err(Fault::Failed(SessionError::id_taken())),
        },
        WriteKind::Save { id, expected } => {
            let key = session.take_key(*id);
            let outcome = context.store.save(&key, expected, value, lifetime).await;
            session.state().key = Some((*id, key));
            outcome
        }
        WriteKind::Delete { id, expected } => {
            context.store.delete(&context.key(*id), expected).await
        }
        WriteKind::Rotate {
            from,
            expected,
            to,
            tombstone,
        } => {
            let rotation = Rotation {
                from: &context.key(*from),
                expected,
                to: &context.key(*to),
                value,
                lifetime,
                tombstone,
                tombstone_lifetime: TOMBSTONE,
            };
            Box::pin(context.store.rotate(&rotation)).await
        }
    }
}

impl SessionCell {
    pub(crate) fn new(context: Arc<Context>, status: Status, base: Record) -> Self {
        Self {
            context,
            committing: tokio::sync::Mutex::default(),
            state: Mutex::new(State::new(status, base)),
        }
    }

    /// Never held while code of the app runs, nor across an await.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of the session that was loaded, which mostly this is.
    fn take_key(&self, id: SessionId) -> String {
        match self.state().key.take() {
            Some((loaded, key)) if loaded == id => key,
            _ => self.context.key(id),
        }
    }

    fn plan(
        &self,
        tombstone: impl FnOnce() -> Result<Bytes, SessionError>,
    ) -> Result<Plan, SessionError> {
        self.state().plan(&self.context, tombstone)
    }

    /// Takes what was saved for what the store holds. Gives the write back if there is more to think about: it was not saved, or a clone
    /// destroyed the session meanwhile.
    fn apply_saved(&self, write: Arc<Write>, outcome: &Outcome) -> Option<Arc<Write>> {
        let mut state = self.state();
        if *outcome != Outcome::Saved || state.epoch != write.epoch {
            return Some(write);
        }
        state.apply_saved(write);
        None
    }

    /// Puts the changes on top of the version that another request stored.
    fn rebase(&self, winner: &Record) -> Result<(), SessionError> {
        loop {
            let changes = self.state().changes.clone();
            // The app's closures run here, so not under the lock.
            let replayed = changes.replayed_on(winner)?;
            let mut state = self.state();
            if state.changes.seq() == changes.seq() {
                state.base = winner.clone();
                state.changes = replayed;
                return Ok(());
            }
        }
    }

    /// Whether the winner is a write of our own whose answer never came.
    fn apply_write_in_doubt(&self, stored: &Bytes) -> bool {
        let mut state = self.state();
        let Some(write) = state.in_doubt.clone() else {
            return false;
        };
        let own = same_revision(stored, write.record.bytes())
            || matches!(&write.kind, WriteKind::Rotate { tombstone, .. } if tombstone == stored);
        if own {
            state.apply_saved(write);
        }
        own
    }
}

impl Drop for SessionCell {
    fn drop(&mut self) {
        if self.state().has_unsaved() {
            tracing::debug!(
                "a session was dropped with changes that nobody saved: the request ended early, or it changed the session after \
                 its response, where only `save` keeps a change"
            );
        }
    }
}

fn new_tombstone() -> Result<Bytes, SessionError> {
    let lifetime = u64::try_from(TOMBSTONE.as_millis()).unwrap_or(u64::MAX);
    tombstone(unix_millis().saturating_add(lifetime))
}

fn jitter() -> Result<Duration, SessionError> {
    let share = f64::from(u32::from_le_bytes(random_bytes()?)) / f64::from(u32::MAX);
    Ok(MAX_PAUSE.mul_f64(share))
}
