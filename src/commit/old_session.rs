//! The end of a session of another app.

use std::sync::{Arc, MutexGuard};

use super::state::{CookieAction, State};
use crate::{
    context::Context,
    cookie::PresentedIds,
    error::SessionError,
    format::{Migration, OldCookie, follow, is_pointer},
    store::{Destroyed, Fault, retry_once},
};

/// Asks for the end of the sessions that the old cookies of this request present.
pub(crate) fn destroy(state: &mut State, migrations: &[Arc<Migration>], presented: &PresentedIds) {
    let old = &mut state.old;
    for migration in migrations {
        let cookies: Vec<_> = migration.presented(presented.cookie_headers()).collect();
        let is_listed = old
            .migrations
            .iter()
            .any(|other| Arc::ptr_eq(other, migration));
        if !(cookies.is_empty() || is_listed) {
            old.migrations.push(migration.clone());
        }
        old.pending_deletes.extend(cookies);
    }
}

/// The same, if the session was destroyed. Without this, the old cookie would log a user in again who is logged in to both apps.
pub(crate) fn destroy_with_ours(
    state: &mut State,
    migrations: &[Arc<Migration>],
    presented: &PresentedIds,
) {
    if std::mem::take(&mut state.old.is_destroyed) {
        destroy(state, migrations, presented);
    }
}

/// Deletes the session that the cookie presents, wherever it is by now.
pub(super) async fn delete(context: &Context, old: &OldCookie) -> Result<(), SessionError> {
    let store = &context.store;
    let destroy = async |key: &str| {
        let destroyed = retry_once(|| store.destroy(key)).await;
        destroyed.map_err(Fault::into_error)
    };
    // Another request may move the session in between, and then the pointer keeps it from being deleted.
    loop {
        let stored = retry_once(|| store.value(&old.key)).await;
        let stored = stored.map_err(Fault::into_error)?;
        let Some(stored) = stored else {
            return Ok(());
        };
        if let Some(id) = follow(old, &stored) {
            destroy(&context.key(id)).await?;
            let deleted = retry_once(|| store.delete(&old.key, &stored)).await;
            return deleted.map(drop).map_err(Fault::into_error);
        }
        if is_pointer(&stored) || destroy(&old.key).await? == Destroyed::Deleted {
            return Ok(());
        }
    }
}

pub(super) fn next(state: &State) -> Option<OldCookie> {
    state.old.pending_deletes.first().cloned()
}

pub(super) fn finish(mut state: MutexGuard<'_, State>, old: &OldCookie) {
    state.old.pending_deletes.retain(|other| other != old);
    // A session that began since has a cookie of its own.
    if state.id().is_none() {
        state.cookie = CookieAction::Remove;
    }
}
