//! The end of a session of another app that was not taken over.

use std::sync::MutexGuard;

use super::state::{CookieAction, State};
use crate::{
    context::Context,
    error::SessionError,
    format::{OldCookie, follow, is_pointer},
    store::{Destroyed, Fault, retry_once},
};

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
    state.cookie = CookieAction::Remove;
}
