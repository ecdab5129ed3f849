//! The protocol: how a request's changes reach the store without losing another request's, and without reviving a session.
//!
//! 1. A write names the version it builds on. If another one is there, its bytes come back in the same answer, the changes are
//!    done again on top of them, and the write is sent again.
//! 2. Where nothing is there any more, nothing is written: logout wins.
//! 3. A write whose answer was lost is sent once more; the store recognises its own version.
//!
//! `src/docs/design.md` has the pictures.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    context::now_millis,
    error::{ErrorKind, SessionError},
    id::{SessionId, random_bytes},
    record::{Record, Stored, same_version, tombstone},
    session::Inner,
    state::{Act, Attempt, CookieAction, Doomed, Place, Plan},
    store::{Created, Destroyed, Fault, Outcome, Rotation, twice},
    users,
};

/// How long an id that was rotated away is kept from being used: longer than any request that began with it should take.
const TOMBSTONE: Duration = Duration::from_secs(60);

/// A bound beside the deadline. With the requests of one process taking turns, other nodes have to get in between this often.
const MOST_TRIES: u32 = 64;

/// Trying again at once has the best chance, since the winner's bytes are at their freshest; after a pause they are stale. But when
/// this many tries in a row failed, something keeps step with us, and a pause of random length breaks the step.
const TRIES_IN_A_ROW: u32 = 8;
const LONGEST_PAUSE: Duration = Duration::from_millis(1);

/// What became of a request's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There were none.
    Unchanged,
    Stored,
    /// The session had ended.
    Dropped,
}

/// Brings the session's changes to the store. One commit of a session at a time; later ones wait.
pub(crate) async fn commit(session: &Inner) -> Result<Verdict, SessionError> {
    let _turn = session.committing.lock().await;
    let work = pin!(commit_changes(session));
    let deadline = session.context.config.deadline;
    let result = session.context.store.within(deadline, work).await;
    let context = &session.context;
    match &result {
        Ok(Verdict::Stored) => context.count(|counters| &counters.commits),
        Ok(Verdict::Dropped) => {
            context.count(|counters| &counters.discarded);
            tracing::debug!(
                "a session's changes were dropped: it was logged out, rotated away or expired meanwhile"
            );
        }
        Ok(Verdict::Unchanged) => {}
        Err(error) => {
            if error.kind() == ErrorKind::Conflict {
                context.count(|counters| &counters.retries_exhausted);
            }
        }
    }
    result
}

async fn destroy(session: &Inner, doomed: Doomed) -> Result<(), SessionError> {
    let key = session.context.key(doomed.id);
    let store = &session.context.store;
    let destroyed = twice(|| store.destroy(&key)).await;
    let destroyed = destroyed.map_err(Fault::into_error)?;
    {
        let mut state = session.state();
        state.doomed = None;
        match destroyed {
            Destroyed::Yes if doomed.was_found => state.cookie = CookieAction::Remove,
            Destroyed::Yes => {}
            // A login came first. Its cookie is on the way to the browser, or there already.
            Destroyed::Retired => state.place = Place::Retired,
        }
    }
    if let Some(user) = &doomed.user {
        users::leave(session, user, doomed.id).await;
    }
    Ok(())
}

async fn commit_changes(session: &Inner) -> Result<Verdict, SessionError> {
    let mut turn = None;
    let mut tries = 0;
    let mut verdict = Verdict::Unchanged;
    // What is rare is boxed, here and below, so that it does not enlarge every commit's future.
    let doomed = session.state().doomed.clone();
    if let Some(destroy) = doomed.map(|doomed| Box::pin(destroy(session, doomed))) {
        destroy.await?;
        verdict = Verdict::Stored;
    }
    loop {
        let attempt = match session.plan(new_tombstone)? {
            Plan::Nothing => return Ok(verdict),
            Plan::Drop => {
                let place = session.state().place;
                session.state().lose(place);
                return Ok(Verdict::Dropped);
            }
            Plan::Act(attempt) => attempt,
        };
        tries += 1;
        if tries > MOST_TRIES {
            return Err(SessionError::new(
                ErrorKind::Conflict,
                format!(
                    "other requests changed this session before each of {MOST_TRIES} tries to save it; nothing was saved: try \
                     again, and write less often to one session"
                ),
            ));
        }
        // Where others of this process take turns already, one who came later does not jump the queue.
        let line = attempt.act.id().map(|id| session.context.line(id));
        if turn.is_none()
            && let Some(line) = line
            && line.try_lock().is_err()
        {
            turn = Some(Box::pin(line.lock()).await);
        }
        if attempt.enters {
            Box::pin(users::enter(session, &attempt)).await?;
        }
        let (outcome, uncertain) = carry_out(session, &attempt).await?;
        // Kept only for those who need it, so that a record that nobody else has is not copied.
        let listed = (attempt.member_of.is_some() || attempt.logs_in).then(|| attempt.clone());
        let Some(attempt) = session.adopt(attempt, &outcome) else {
            if let Some(listed) = listed {
                Box::pin(users::settle(session, &listed)).await;
            }
            verdict = Verdict::Stored;
            continue;
        };
        drop(listed);
        match Box::pin(reconsider(session, attempt, outcome, uncertain)).await? {
            Next::Done(verdict) => return Ok(verdict),
            Next::Again => {}
            Next::Stored => verdict = Verdict::Stored,
            // From the second try on, the requests of this process take turns.
            Next::InTurn if turn.is_none() => {
                if let Some(line) = line {
                    turn = Some(Box::pin(line.lock()).await);
                }
            }
            Next::InTurn if tries % TRIES_IN_A_ROW == 0 => {
                Box::pin(session.context.store.pause(jitter()?)).await;
            }
            Next::InTurn => {}
        }
    }
}

/// What to do after an answer that was not simply "saved".
enum Next {
    Done(Verdict),
    Again,
    /// Again with what was changed since; a write whose answer was lost is stored.
    Stored,
    /// Again, on top of another request's version.
    InTurn,
}

async fn reconsider(
    session: &Inner,
    attempt: Arc<Attempt>,
    outcome: Outcome,
    uncertain: bool,
) -> Result<Next, SessionError> {
    if attempt.enters && !uncertain && outcome != Outcome::Saved {
        users::withdraw(session, &attempt, &outcome).await;
    }
    if session.state().life != attempt.life {
        return bury(session, &attempt, &outcome).await.map(Next::Done);
    }
    let Outcome::Conflict(bytes) = outcome else {
        // A delete leaves nothing behind by which it could recognise itself.
        if uncertain && matches!(attempt.act, Act::Delete { .. }) {
            session.state().adopt(attempt);
            return Ok(Next::Done(Verdict::Stored));
        }
        session.state().lose(Place::Ended);
        return Ok(Next::Done(Verdict::Dropped));
    };
    if session.adopt_unconfirmed(&bytes) {
        return Ok(Next::Stored);
    }
    match Record::decode(&bytes)? {
        Stored::Live(winner) => {
            if uncertain && session.state().changes.has_steps() {
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
        Stored::Retired { .. } if session.state().cycle => {
            session.state().place = Place::New;
            Ok(Next::Again)
        }
        Stored::Retired { .. } => {
            session.state().lose(Place::Retired);
            Ok(Next::Done(Verdict::Dropped))
        }
        Stored::Empty => {
            session.state().lose(Place::Ended);
            Ok(Next::Done(Verdict::Dropped))
        }
    }
}

/// The session was destroyed, by a clone of it, while a write was on its way. A new id that the write gave it ends as well; the
/// old one is deleted by the commit that the destruction asks for.
async fn bury(
    session: &Inner,
    attempt: &Attempt,
    outcome: &Outcome,
) -> Result<Verdict, SessionError> {
    let (Outcome::Saved, Act::Create { id } | Act::Rotate { to: id, .. }) = (outcome, &attempt.act)
    else {
        return Ok(Verdict::Unchanged);
    };
    let key = session.context.key(*id);
    let store = &session.context.store;
    let buried = twice(|| store.destroy(&key)).await;
    buried.map_err(Fault::into_error)?;
    if let Some(user) = &attempt.record.user {
        users::leave(session, user, *id).await;
    }
    Ok(Verdict::Stored)
}

/// Sends one write, and once more if the connection broke underneath. Beside the answer: whether this write, or one before it,
/// may have been carried out without our knowing.
async fn carry_out(
    session: &Inner,
    attempt: &Arc<Attempt>,
) -> Result<(Outcome, bool), SessionError> {
    // An earlier write whose answer is still out stays the one to look for.
    let uncertain = {
        let unconfirmed = &mut session.state().unconfirmed;
        let uncertain = unconfirmed.is_some();
        unconfirmed.get_or_insert_with(|| attempt.clone());
        uncertain
    };
    let answer = send(session, attempt).await;
    if let Err(Fault::Dropped(_)) = answer {
        drop(answer);
        let again = Box::pin(send(session, attempt)).await;
        let outcome = again.map_err(Fault::into_error)?;
        return Ok((outcome, true));
    }
    let answer = answer
        .map(|outcome| (outcome, uncertain))
        .map_err(Fault::into_error);
    // An answer, whatever it is, means that the write is not still on its way. (Adopting a saved one says so too.)
    if !uncertain && !matches!(answer, Ok((Outcome::Saved, _))) {
        session.state().unconfirmed = None;
    }
    answer
}

async fn send(session: &Inner, attempt: &Attempt) -> Result<Outcome, Fault> {
    let context = &session.context;
    let value = attempt.record.bytes();
    let lifetime = context.lifetime(attempt.record.meta).unwrap_or_default();
    match &attempt.act {
        Act::Create { id } => match context
            .store
            .create(&context.key(*id), value, lifetime)
            .await?
        {
            Created::Yes => Ok(Outcome::Saved),
            Created::Taken => Err(Fault::Failed(SessionError::id_taken())),
        },
        Act::Save { id, expected } => {
            let key = session.take_key(*id);
            let outcome = context.store.save(&key, expected, value, lifetime).await;
            session.state().key = Some((*id, key));
            outcome
        }
        Act::Delete { id, expected } => context.store.delete(&context.key(*id), expected).await,
        Act::Rotate {
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

impl Inner {
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

    /// Takes what was saved for what the store holds. Gives the attempt back if there is more to think about: it was not saved, or a clone
    /// destroyed the session meanwhile.
    fn adopt(&self, attempt: Arc<Attempt>, outcome: &Outcome) -> Option<Arc<Attempt>> {
        let mut state = self.state();
        if *outcome != Outcome::Saved || state.life != attempt.life {
            return Some(attempt);
        }
        state.adopt(attempt);
        None
    }

    /// Puts the changes on top of the version that another request stored.
    fn rebase(&self, winner: &Record) -> Result<(), SessionError> {
        loop {
            let changes = self.state().changes.clone();
            // The app's closures run here, so not under the lock.
            let replayed = changes.replayed_on(winner)?;
            let mut state = self.state();
            if state.changes.moment() == changes.moment() {
                state.base = winner.clone();
                state.changes = replayed;
                return Ok(());
            }
        }
    }

    /// Whether the winner is a write of our own whose answer never came.
    fn adopt_unconfirmed(&self, stored: &Bytes) -> bool {
        let mut state = self.state();
        let Some(attempt) = state.unconfirmed.clone() else {
            return false;
        };
        let own = same_version(stored, attempt.record.bytes())
            || matches!(&attempt.act, Act::Rotate { tombstone, .. } if tombstone == stored);
        if own {
            state.adopt(attempt);
        }
        own
    }
}

fn new_tombstone() -> Result<Bytes, SessionError> {
    let lifetime = u64::try_from(TOMBSTONE.as_millis()).unwrap_or(u64::MAX);
    tombstone(now_millis().saturating_add(lifetime))
}

fn jitter() -> Result<Duration, SessionError> {
    let share = f64::from(u32::from_le_bytes(random_bytes()?)) / f64::from(u32::MAX);
    Ok(LONGEST_PAUSE.mul_f64(share))
}
