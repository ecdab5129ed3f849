//! Takes over the session that the cookie of another app presents.
//!
//! 1. One operation stores the session under a new id and replaces the old value by a pointer to it. Of parallel first requests, one does; the others
//!    find the pointer.
//! 2. The pointer stays until the browser has shown the new cookie: if the first response was lost, the old cookie still finds the session.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::Session;
use crate::{
    clock::{unix_millis, unix_secs},
    commit::{
        state::{CookieAction, Persisted, Status},
        user_index,
        write::{Write, WriteKind},
    },
    context::Context,
    cookie::PresentedIds,
    error::{ErrorKind, SessionError},
    expiry,
    format::{Migration, OldCookie, follow, is_pointer, pointer},
    id::SessionId,
    record::Metadata,
    stats::Event,
    store::{Fault, Outcome, Rotation, retry_once},
};

/// The old app may write its session at the same time.
const MAX_ATTEMPTS: usize = 8;

/// Loads a session of this crate.
type Load = for<'a> fn(&'a Arc<Context>, SessionId) -> BoxFuture<'a, Result<Session, SessionError>>;

/// The session that an old cookie of the request presents.
pub(super) async fn take_over(
    context: &Arc<Context>,
    presented: &PresentedIds,
    load: Load,
) -> Result<Option<Session>, SessionError> {
    for migration in &context.config.migrations {
        let old_cookies: Vec<_> = migration.presented(presented.cookie_headers()).collect();
        for old in old_cookies {
            let Some(session) = take_over_one(context, migration, &old, load).await? else {
                continue;
            };
            {
                let mut state = session.0.state();
                if let Status::Persisted(_) = state.status {
                    state.cookie = CookieAction::Issue;
                    state.old.migrations.push(migration.clone());
                }
            }
            return Ok(Some(session));
        }
    }
    Ok(None)
}

async fn take_over_one(
    context: &Arc<Context>,
    migration: &Migration,
    old: &OldCookie,
    load: Load,
) -> Result<Option<Session>, SessionError> {
    for _ in 0..MAX_ATTEMPTS {
        let stored = retry_once(|| context.store.value(&old.key)).await;
        let stored = match stored.map_err(Fault::into_error) {
            Ok(Some(stored)) => stored,
            Ok(None) => return Ok(None),
            // A key of another type.
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                note_unreadable(context, old, &error);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if let Some(id) = follow(old, &stored) {
            let session = load(context, id).await?;
            let is_found = match session.0.state().status {
                Status::Persisted(_) | Status::Rotated { .. } => true,
                Status::New { .. } | Status::Gone => false,
            };
            return Ok(is_found.then_some(session));
        }
        if is_pointer(&stored) {
            return Ok(None);
        }
        let taken = match migration.take(&stored, &old.key) {
            Ok(taken) => taken,
            Err(error) => {
                note_unreadable(context, old, &error);
                return Ok(None);
            }
        };
        let now = unix_secs();
        let metadata = Metadata {
            created: Some(now),
            permanent: taken.is_permanent.then_some(now),
            indexed_at: taken.user.is_some().then_some(now),
            ..Metadata::default()
        };
        let encoded = taken.encode(metadata)?;
        if encoded.is_empty {
            return Ok(None);
        }
        let id = context.generate_id()?;
        let mut write = Write {
            kind: WriteKind::Create { id },
            adds_to_index: encoded.record.user.is_some(),
            record: encoded.record,
            seq: 0,
            epoch: 0,
            is_login: false,
            previous_user: None,
        };
        write.seal(context)?;
        if move_session(context, old, &stored, id, &write).await? {
            context.count(Event::Migrated);
            let persisted = Persisted {
                id,
                key: None,
                re_sign_cookie: false,
            };
            let status = Status::Persisted(persisted);
            return Ok(Some(Session::new(context.clone(), status, write.record)));
        }
    }
    Err(SessionError::new(
        ErrorKind::Conflict,
        format!(
            "the old app changed a session before each of {MAX_ATTEMPTS} attempts to take it over, so it was not taken over: try again"
        ),
    ))
}

/// Returns whether the old session was still the one that was read.
async fn move_session(
    context: &Arc<Context>,
    old: &OldCookie,
    stored: &[u8],
    id: SessionId,
    write: &Write,
) -> Result<bool, SessionError> {
    let ttl = expiry::ttl(&context.config, write.record.metadata).unwrap_or_default();
    let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    let pointer = pointer(old, id, unix_millis().saturating_add(millis))?;
    if write.adds_to_index {
        user_index::add(context, write).await?;
    }
    let rotation = Rotation {
        from: &old.key,
        expected: stored,
        to: &context.key(id),
        value: write.record.stored(),
        lifetime: ttl,
        tombstone: &pointer,
        tombstone_lifetime: ttl,
        record: None,
    };
    let outcome = retry_once(|| context.store.rotate(&rotation)).await;
    let outcome = outcome.map_err(Fault::into_error)?;
    // After a lost reply, the stored pointer is the own one.
    let is_moved = outcome == Outcome::Saved
        || matches!(&outcome, Outcome::Conflict(stored) if *stored == pointer);
    if !is_moved && write.adds_to_index {
        user_index::rollback(context, write, &outcome).await;
    }
    Ok(is_moved)
}

/// The browser has shown the new cookie, so the old one is to be worth nothing. If that fails, the next request tries again.
pub(super) async fn retire(context: &Context, session: &Session) {
    let Some(key) = session.0.state().base.moved_from.clone() else {
        return;
    };
    let delete = async || match context.store.value(&key).await? {
        Some(stored) if is_pointer(&stored) => context.store.delete(&key, &stored).await.map(drop),
        Some(_) | None => Ok(()),
    };
    match retry_once(delete).await.map_err(Fault::into_error) {
        Ok(()) => {
            let mut state = session.0.state();
            state.base.moved_from = None;
            state.base.is_outdated = true;
        }
        Err(error) => {
            let event =
                "the cookie of the old app stays valid until the next request of its browser";
            context.shared.failures.report(event, &error);
        }
    }
}

/// Counts and logs an old session once.
fn note_unreadable(context: &Context, old: &OldCookie, error: &SessionError) {
    let shared = &context.shared;
    if shared.unreadable_keys.contains(&old.key) {
        return;
    }
    shared.unreadable_keys.add(&old.key);
    context.count(Event::LoadUnreadable);
    let event = "a visitor has no session, since that of the old app cannot be read";
    shared.failures.report(event, error);
}
