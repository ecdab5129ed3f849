//! A handler that lives on after its response asks whether its session is still alive.

use std::{pin::pin, sync::Arc, time::Duration};

use super::{
    SessionCell,
    state::{State, Status},
    user_index,
    write::Write,
};
use crate::{
    clock::{unix_millis, unix_secs},
    context::Context,
    error::SessionError,
    expiry,
    id::SessionId,
    record::{Decoded, Record, same_revision},
    stats::Event,
    store::{Fault, retry_once},
};

/// Whether a session is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    Alive,
    /// It was destroyed, rotated or has expired.
    Ended,
}

/// Reads the session again, without extending its idle timeout. The changes are replayed on what is stored now.
pub(crate) async fn reload(session: &SessionCell) -> Result<Liveness, SessionError> {
    // Not between the steps of a save.
    let _guard = session.committing.lock().await;
    let (id, epoch) = match stored_at(&session.state()) {
        Ok(found) => found,
        Err(liveness) => return Ok(liveness),
    };
    let stored = read(&session.context, id, None).await?;
    if session.state().epoch != epoch {
        return Ok(Liveness::Ended);
    }
    let Some(stored) = stored else {
        session.discard(Some(Status::Gone));
        return Ok(Liveness::Ended);
    };
    adopt(session, &stored)?;
    Ok(Liveness::Alive)
}

/// Extends the idle timeout. What the handler sees stays as it is.
pub(crate) async fn touch(session: &SessionCell) -> Result<Liveness, SessionError> {
    let _guard = session.committing.lock().await;
    let context = &session.context;
    let (id, epoch, ttl) = {
        let state = session.state();
        match stored_at(&state) {
            Ok((id, epoch)) => (id, epoch, expiry::ttl(&context.config, state.base.metadata)),
            Err(liveness) => return Ok(liveness),
        }
    };
    let stored = match ttl {
        Some(ttl) => read(context, id, Some(ttl)).await?,
        None => None,
    };
    if session.state().epoch != epoch {
        return Ok(Liveness::Ended);
    }
    let Some(stored) = stored else {
        session.discard(Some(Status::Gone));
        return Ok(Liveness::Ended);
    };
    session.state().ttl_set_at = std::time::SystemTime::now();
    if let Some(user) = &stored.user
        && expiry::index_entry_needs_refresh(&context.config, session.state().base.metadata)
        && expiry::index_entry_needs_refresh(&context.config, stored.metadata)
    {
        let ttl = expiry::ttl(&context.config, stored.metadata).unwrap_or_default();
        user_index::refresh(context, user, id, ttl).await?;
        // Until the next save, which stores it.
        session.state().base.metadata.indexed_at = Some(unix_secs());
    }
    Ok(Liveness::Alive)
}

/// The session under `id`, unless it has ended. With a TTL, the idle timeout starts anew.
pub(crate) async fn read(
    context: &Arc<Context>,
    id: SessionId,
    ttl: Option<Duration>,
) -> Result<Option<Record>, SessionError> {
    let work = pin!(read_live(context, id, ttl));
    context.observe_load(context.config.deadline, work).await
}

async fn read_live(
    context: &Arc<Context>,
    id: SessionId,
    asked: Option<Duration>,
) -> Result<Option<Record>, SessionError> {
    let Context { config, store, .. } = &**context;
    let key = context.key(id);
    let bytes = match asked {
        Some(ttl) => retry_once(|| store.load(&key, ttl)).await,
        None => retry_once(|| store.value(&key)).await,
    };
    let Some(bytes) = bytes.map_err(Fault::into_error)? else {
        context.count(Event::LoadMissing);
        return Ok(None);
    };
    let decoded = match context.decode(&key, &bytes) {
        Ok(decoded) => decoded,
        Err(invalid) => {
            context.count(Event::LoadUnreadable);
            return if config.discard_unreadable {
                Ok(None)
            } else {
                Err(invalid)
            };
        }
    };
    let (live, ttl) = match decoded {
        Decoded::Session(record) => {
            let ttl = expiry::ttl(config, record.metadata);
            context.count(match ttl {
                Some(_) => Event::LoadFound,
                None => Event::LoadExpired,
            });
            (ttl.map(|_| record), ttl)
        }
        Decoded::Tombstone { until, .. } => {
            context.count(Event::LoadRotated);
            let left = Duration::from_millis(until.saturating_sub(unix_millis()));
            (None, Some(left))
        }
        Decoded::Empty => {
            context.count(Event::LoadMissing);
            (None, None)
        }
    };
    // The read could not know that another request changed the timeout, or that the session has ended.
    if let (Some(asked), Some(ttl)) = (asked, ttl)
        && asked != ttl
    {
        let shared = &context.shared;
        let (tasks, failures) = (&shared.detached_commits, &shared.failures);
        store.touch_later(key, ttl, config.deadline, tasks, failures);
    }
    Ok(live)
}

/// Where the session is stored, and in which epoch; else what is known without asking.
fn stored_at(state: &State) -> Result<(SessionId, u32), Liveness> {
    match &state.status {
        Status::Persisted(persisted) => Ok((persisted.id, state.epoch)),
        // A session that has not begun cannot have ended.
        Status::New { .. } if state.epoch == 0 => Err(Liveness::Alive),
        Status::New { .. } | Status::Rotated { .. } | Status::Gone => Err(Liveness::Ended),
    }
}

fn adopt(session: &SessionCell, stored: &Record) -> Result<(), SessionError> {
    {
        let mut state = session.state();
        if same_revision(stored.stored(), state.base.stored()) {
            return Ok(());
        }
        let mut in_doubt = state.in_doubt.iter();
        let wrote = |write: &&Arc<Write>| write.wrote(&session.context, stored.stored());
        match in_doubt.find(wrote).cloned() {
            Some(write) => {
                state.apply_saved(write);
                // Another framework may have changed it since.
                if same_revision(stored.stored(), state.base.stored()) {
                    return Ok(());
                }
            }
            None if state.in_doubt.is_some() && state.changes.has_non_idempotent() => {
                return Err(SessionError::doubtful_update());
            }
            None => {}
        }
    }
    session.rebase(stored)
}
