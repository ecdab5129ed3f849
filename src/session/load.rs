//! Loads the session that a browser presents.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
#[cfg(feature = "migration")]
use futures_util::future::BoxFuture;

#[cfg(feature = "local-cache")]
use super::cached::{self, Found};
use super::{LoadMode, Session};
use crate::{
    clock::unix_millis,
    commit::{
        state::{Persisted, Status},
        write::TOMBSTONE_TTL,
    },
    context::Context,
    error::{ErrorKind, SessionError},
    expiry,
    id::SessionId,
    record::Decoded,
    signing::Signature,
    stats::Event,
    store::{Fault, retry_once},
};

/// Loads the first of the presented sessions that is live. Without one: one that was rotated, else one that cannot be read, else none.
pub(super) fn load_first_live(
    context: &Arc<Context>,
    first: &(SessionId, Signature),
    others: &[(SessionId, Signature)],
    mode: LoadMode,
) -> impl Future<Output = Result<Session, SessionError>> + Send {
    match others {
        [] => load(context, first, mode).left_future(),
        // Boxed, since browsers rarely present several.
        others => Box::pin(load_several(context, first, others, mode)).right_future(),
    }
}

async fn load_several(
    context: &Arc<Context>,
    first: &(SessionId, Signature),
    others: &[(SessionId, Signature)],
    mode: LoadMode,
) -> Result<Session, SessionError> {
    let mut loaded = load(context, first, mode).await;
    let mut loaded_id = &first.0;
    for other in others {
        if rank(&loaded) == LIVE {
            break;
        }
        let found = load(context, other, mode).await;
        if rank(&found) > rank(&loaded) {
            loaded = found;
            loaded_id = &other.0;
        }
    }
    let session = loaded?;
    let ids = [first].into_iter().chain(others).map(|(id, _)| id);
    let shadows = ids.filter(|id| *id != loaded_id).copied().collect();
    session.0.state().shadows = shadows;
    Ok(session)
}

#[cfg_attr(not(feature = "migration"), allow(dead_code))]
pub(super) const ROTATED: u8 = 2;
/// Also the rank of a store that is unavailable: nothing else is worth a try.
const LIVE: u8 = 3;

pub(super) fn rank(loaded: &Result<Session, SessionError>) -> u8 {
    match loaded {
        Ok(session) => match session.0.state().status {
            Status::New { .. } | Status::Gone => 0,
            Status::Rotated { .. } => ROTATED,
            Status::Persisted(_) => LIVE,
        },
        Err(error) if error.kind() == ErrorKind::InvalidData => 1,
        Err(_) => LIVE,
    }
}

/// Reads the session and extends its idle timeout, by one command.
async fn load(
    context: &Arc<Context>,
    presented: &(SessionId, Signature),
    mode: LoadMode,
) -> Result<Session, SessionError> {
    let store = &context.store;
    let key = context.key(presented.0);
    // What cannot be used is not prolonged, once that is known.
    let was_unreadable = context.shared.unreadable_keys.contains(&key);
    #[cfg(feature = "local-cache")]
    if store.cache().is_some() {
        // Boxed, so that it does not enlarge the futures of layers without a cache.
        let found = Box::pin(cached::load(context, presented, &key, mode)).await?;
        match found {
            Found::Session(session) => return Ok(session),
            Found::Other(bytes) => {
                return loaded_session(context, presented, key, was_unreadable, Ok(bytes));
            }
            Found::Off => {}
        }
    }
    #[cfg(not(feature = "local-cache"))]
    let _ = mode;
    let loaded = if was_unreadable {
        Box::pin(retry_once(|| store.value(&key))).await
    } else {
        retry_once(|| store.load(&key, context.config.idle_timeout)).await
    };
    loaded_session(context, presented, key, was_unreadable, loaded)
}

/// What the store returned, as a session.
fn loaded_session(
    context: &Arc<Context>,
    &(ref id, signature): &(SessionId, Signature),
    key: String,
    was_unreadable: bool,
    loaded: Result<Option<Bytes>, Fault>,
) -> Result<Session, SessionError> {
    let store = &context.store;
    let (deadline, idle) = (context.config.deadline, context.config.idle_timeout);
    let presented = context.config.replica_acks.map(|_| *id);
    let empty = |status| Session::new(context.clone(), status, context.new_record());
    let shared = &context.shared;
    let (tasks, failures) = (&shared.detached_commits, &shared.failures);
    let unknown = || empty(Status::New { presented });
    // Under the same prefix and cookie name, an id of the old app may have the form of one of this crate.
    #[cfg(feature = "migration")]
    let old = loaded.as_ref().ok().cloned().flatten();
    #[cfg(feature = "migration")]
    let is_old = || {
        let mut migrations = context.config.migrations.iter();
        old.is_some_and(|old| migrations.any(|migration| migration.reads(&key, &old)))
    };
    let decoded = match loaded.map_err(Fault::into_error) {
        Ok(None) => {
            context.count(Event::LoadMissing);
            return Ok(unknown());
        }
        Ok(Some(bytes)) => context.decode(&key, &bytes),
        Err(error) => Err(error),
    };
    let decoded = match decoded {
        #[cfg(feature = "migration")]
        Err(error) if error.kind() == ErrorKind::InvalidData && is_old() => return Ok(unknown()),
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            context.note_unreadable(&key, &error);
            let is_discarded = context.config.discard_unreadable;
            // A logout deletes the value.
            let presented = Some(*id);
            return if is_discarded {
                Ok(empty(Status::New { presented }))
            } else {
                Err(error)
            };
        }
        decoded => decoded?,
    };
    if was_unreadable {
        context.shared.unreadable_keys.remove(&key);
    }
    match decoded {
        Decoded::Session(record) => {
            // Not deleted: if this node's clock is wrong, the session is alive for the others.
            let Some(ttl) = expiry::ttl(&context.config, record.metadata) else {
                context.count(Event::LoadExpired);
                if let Some(ahead) = expiry::created_in_future(record.metadata) {
                    failures.report_clock(ahead);
                }
                return Ok(unknown());
            };
            context.count(Event::LoadFound);
            // The read could not know that this session has a timeout of its own.
            if ttl != idle || was_unreadable {
                store.touch_later(key.clone(), ttl, deadline, tasks, failures);
            }
            let persisted = Persisted {
                id: *id,
                key: Some(key),
                re_sign_cookie: signature == Signature::Former,
            };
            Ok(Session::new(
                context.clone(),
                Status::Persisted(persisted),
                record,
            ))
        }
        // The session that this cookie presented when it was the old app's.
        Decoded::Tombstone {
            moved_to: Some(_), ..
        } => Ok(unknown()),
        Decoded::Tombstone {
            until, readable, ..
        } => {
            let now = unix_millis();
            let left = Duration::from_millis(until.saturating_sub(now));
            if left.is_zero() {
                context.count(Event::LoadMissing);
                return Ok(unknown());
            }
            context.count(Event::LoadRotated);
            store.touch_later(key, left, deadline, tasks, failures);
            let grace = context.config.rotation_grace;
            // By now the browser has the cookie of the new id, or its response was lost: a new session may begin.
            if !grace.is_zero() && TOMBSTONE_TTL.saturating_sub(left) >= grace {
                return Ok(unknown());
            }
            let readable = readable.filter(|(until, _)| *until > now);
            let base = readable.map_or_else(|| context.new_record(), |(_, record)| record);
            let status = Status::Rotated { presented };
            Ok(Session::new(context.clone(), status, base))
        }
        Decoded::Empty => {
            context.count(Event::LoadMissing);
            Ok(unknown())
        }
    }
}

#[cfg(feature = "migration")]
pub(super) fn load_by_id(
    context: &Arc<Context>,
    id: SessionId,
) -> BoxFuture<'_, Result<Session, SessionError>> {
    Box::pin(async move {
        let presented = (id, Signature::Current);
        load(context, &presented, LoadMode::Latest).await
    })
}
