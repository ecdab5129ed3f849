//! Keeps a user's index in step with the user's sessions.
//!
//! 1. An entry is added before its session is stored, also before the session gets a new id: the index never lacks a live session.
//! 2. An entry is removed after its session was deleted or rotated. One that a crash leaves behind is removed when the index is listed.

use std::{pin::pin, sync::Arc, time::Duration};

use super::write::{Write, WriteKind};
use crate::{
    clock::unix_micros,
    config::SessionLimit,
    context::Context,
    error::{ErrorKind, SessionError},
    expiry,
    id::SessionId,
    record::UserId,
    store::{AddOptions, Fault, IndexEntry, Outcome, retry_once},
    users::UserSessions,
};

/// An index outlives each of its sessions by at least this.
const MARGIN: Duration = Duration::from_secs(60);

/// Adds the session of a write that is about to be sent.
pub(crate) async fn add(context: &Arc<Context>, write: &Write) -> Result<(), SessionError> {
    let (Some(user), Some(id)) = (&write.record.user, write.kind.next_id()) else {
        return Ok(());
    };
    let index = context.user_index_key(user);
    let entry = IndexEntry {
        name: context.key_suffix(id),
        added_at: unix_micros(),
    };
    // Loads extend a session without writing its entry, until the entry is refreshed.
    let ttl = expiry::ttl(&context.config, write.record.metadata).unwrap_or_default();
    let ttl = ttl * 2 + MARGIN;
    let replaces = write.kind.id().map(|id| context.key_suffix(id));
    let max = match context.config.sessions_per_user {
        Some((max, SessionLimit::Reject)) if write.is_login => Some(max),
        Some((_, SessionLimit::Reject | SessionLimit::RevokeOldest)) | None => None,
    };
    let options = AddOptions {
        replaces: replaces.as_deref(),
        max,
    };
    let add = async || {
        let added = retry_once(|| context.store.add_to_index(&index, &entry, ttl, options)).await;
        added.map_err(Fault::into_error)
    };
    if add().await? {
        return Ok(());
    }
    // Listing removes the entries of expired sessions, which may make room.
    let sessions = UserSessions::new(context.clone(), user.clone(), None);
    let max = max.unwrap_or(usize::MAX);
    if sessions.list().await?.len() < max && add().await? {
        return Ok(());
    }
    Err(SessionError::new(
        ErrorKind::TooManySessions,
        format!(
            "the login was rejected because this user has {max} sessions, as many as with_sessions_per_user allows: log out \
             on another device first, or use SessionLimit::RevokeOldest"
        ),
    ))
}

/// Adds the session again, so that the index outlives a session that only `touch` extends.
pub(crate) async fn refresh(
    context: &Arc<Context>,
    user: &UserId,
    id: SessionId,
    ttl: Duration,
) -> Result<(), SessionError> {
    let index = context.user_index_key(user);
    let entry = IndexEntry {
        name: context.key_suffix(id),
        added_at: unix_micros(),
    };
    let ttl = ttl * 2 + MARGIN;
    let options = AddOptions {
        replaces: None,
        max: None,
    };
    let work = pin!(async {
        let added = retry_once(|| context.store.add_to_index(&index, &entry, ttl, options)).await;
        added.map(drop).map_err(Fault::into_error)
    });
    let deadline = context.config.deadline;
    context.store.with_deadline(deadline, work).await
}

/// Removes the entry of a session that has ended. A failure is not the request's: the entry is removed when the index is listed.
pub(crate) async fn remove(context: &Context, user: &UserId, id: SessionId) {
    let index = context.user_index_key(user);
    if let Err(fault) = context
        .store
        .remove_from_index(&index, &[context.key_suffix(id)])
        .await
    {
        let error = fault.into_error();
        let event = "the entry of an ended session stays in its user's index until the user's sessions are listed";
        context.shared.failures.report(event, &error);
    }
}

/// Removes the entry of a write that is known not to have been executed. The next attempt uses another id, and this entry would count against
/// the user's limit until its grace period is over.
pub(crate) async fn rollback(context: &Context, write: &Write, outcome: &Outcome) {
    let (Some(user), Some(id)) = (&write.record.user, write.kind.next_id()) else {
        return;
    };
    if write.kind.id() != Some(id) || *outcome == Outcome::Gone {
        remove(context, user, id).await;
    }
}

/// Removes the previous entry once the write is stored, and applies the limit of a user's sessions.
pub(crate) async fn finish(context: &Arc<Context>, write: &Write) {
    if let (Some(user), Some(id)) = (&write.previous_user, write.kind.id()) {
        let stays = match &write.kind {
            WriteKind::Create { .. } | WriteKind::Save { .. } => {
                write.record.user.as_ref() == Some(user)
            }
            WriteKind::Delete { .. } | WriteKind::Rotate { .. } => false,
        };
        if !stays {
            remove(context, user, id).await;
        }
    }
    if let (Some((max, SessionLimit::RevokeOldest)), Some(user), true) = (
        context.config.sessions_per_user,
        &write.record.user,
        write.is_login,
    ) {
        let sessions = UserSessions::new(context.clone(), user.clone(), None);
        if let Err(error) = sessions.revoke_oldest(max).await {
            let event =
                "a user has more sessions than with_sessions_per_user allows, until the next login";
            context.shared.failures.report(event, &error);
        }
    }
}
