//! What a commit does about the set of a session's user.
//!
//! 1. A session is entered before it is stored, and before it gets a new id: no live session is missing from its user's set.
//! 2. It is taken out after it has ended or moved. What is left over by a crash in between, whoever reads the set notices.

use std::time::Duration;

use super::{
    SessionCell,
    write::{Write, WriteKind},
};
use crate::{
    clock::unix_micros,
    config::SessionLimit,
    error::{ErrorKind, SessionError},
    expiry,
    id::SessionId,
    store::{AddOptions, Fault, IndexEntry, Outcome, retry_once},
    users::UserSessions,
};

/// A set outlives each session in it by at least this.
const MARGIN: Duration = Duration::from_secs(60);

/// Takes a session that has ended out of its user's set. A failure is none of the request's: what is left over, others notice.
pub(crate) async fn remove(session: &SessionCell, user: &str, id: SessionId) {
    let context = &session.context;
    let (set, name) = (context.user_index_key(user), context.key_suffix(id));
    if let Err(fault) = context.store.leave(&set, &[name]).await {
        let error = fault.into_error();
        tracing::debug!(%error, "a session that ended is still among its user's, until somebody lists them");
    }
}

/// Enters the session that is about to be encoded.
pub(crate) async fn add(session: &SessionCell, write: &Write) -> Result<(), SessionError> {
    let context = &session.context;
    let (Some(user), Some(id)) = (&write.record.user, write.kind.next_id()) else {
        return Ok(());
    };
    let replaces = write.kind.id().map(|id| context.key_suffix(id));
    let refuse_at = match context.config.sessions_per_user {
        Some((max, SessionLimit::Reject)) if write.is_login => Some(max),
        Some((_, SessionLimit::Reject | SessionLimit::RevokeOldest)) | None => None,
    };
    let set = context.user_index_key(user);
    let listed = IndexEntry {
        name: context.key_suffix(id),
        added_at: unix_micros(),
    };
    // From one refresh to the next a load can prolong the session by itself.
    let lifetime = expiry::ttl(&context.config, write.record.metadata).unwrap_or_default();
    let lifetime = lifetime * 2 + MARGIN;
    let enter = async |max| {
        let replaces = replaces.as_deref();
        let entry = AddOptions { replaces, max };
        let store = &context.store;
        let entered = retry_once(|| store.enter(&set, &listed, lifetime, entry)).await;
        entered.map_err(Fault::into_error)
    };
    if enter(refuse_at).await? {
        return Ok(());
    }
    // Some of those that are in the way may have ended by themselves, which listing notices.
    let sessions = UserSessions::new(context.clone());
    let max = refuse_at.unwrap_or(usize::MAX);
    if sessions.list(user).await?.len() < max && enter(refuse_at).await? {
        return Ok(());
    }
    Err(SessionError::new(
        ErrorKind::TooManySessions,
        format!(
            "this user has {max} sessions, which is as many as with_sessions_per_user allows, so the login was refused: log out \
             elsewhere first, or use SessionLimit::RevokeOldest"
        ),
    ))
}

/// Takes out again what was entered for a write that is known not to have happened: the next try is under another id, and the first would count
/// as one of the user's until it is too old to be on its way.
pub(crate) async fn rollback(session: &SessionCell, write: &Write, outcome: &Outcome) {
    let (Some(user), Some(id)) = (&write.record.user, write.kind.next_id()) else {
        return;
    };
    if write.kind.id() != Some(id) || *outcome == Outcome::Gone {
        remove(session, user, id).await;
    }
}

/// What is left to do once the session is stored.
pub(crate) async fn finish(session: &SessionCell, write: &Write) {
    // The write may have left it somewhere else, or nowhere.
    if let (Some(user), Some(id)) = (&write.previous_user, write.kind.id()) {
        let stays = match &write.kind {
            WriteKind::Create { .. } | WriteKind::Save { .. } => {
                write.record.user.as_ref() == Some(user)
            }
            WriteKind::Delete { .. } | WriteKind::Rotate { .. } => false,
        };
        if !stays {
            remove(session, user, id).await;
        }
    }
    revoke_oldest(session, write).await;
}

/// Ends the oldest sessions of somebody who has logged in once too often.
async fn revoke_oldest(session: &SessionCell, write: &Write) {
    let context = &session.context;
    let (Some((max, SessionLimit::RevokeOldest)), Some(user), true) = (
        context.config.sessions_per_user,
        &write.record.user,
        write.is_login,
    ) else {
        return;
    };
    let sessions = UserSessions::new(context.clone());
    if let Err(error) = sessions.revoke_oldest(user, max).await {
        tracing::debug!(%error, "a user has more sessions than the limit, until the next login");
    }
}
