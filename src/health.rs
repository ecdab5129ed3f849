//! Readiness: every operation of the store, on throw-away keys.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::future::{try_join, try_join_all};

use crate::{
    clock::{unix_micros, unix_millis},
    config::SessionLimit,
    context::Context,
    error::{ErrorKind, SessionError},
    id::SessionId,
    record::{Encoder, Metadata, Record, same_revision, tombstone},
    store::{
        AddOptions, Created, Cursor, Destroyed, Fault, IndexEntry, Outcome, Rotation, retry_once,
    },
};

/// What a process that dies in between leaves behind ends after this.
const TTL: Duration = Duration::from_secs(10);

/// Does what requests do, once on each server that has sessions, within one deadline.
pub(crate) async fn check(context: &Context) -> Result<(), SessionError> {
    let work = pin!(async {
        // Without random numbers there would be nothing to check.
        SessionId::random()?;
        let sessions = async {
            let ids = random_ids();
            let ids = context
                .store
                .one_per_server(ids, |id| context.key(*id))
                .await?;
            try_join_all(ids.iter().map(|id| check_session(context, *id))).await
        };
        let indexes = async {
            let users = random_ids().map(|id| id.expose_secret());
            let key = |user: &String| context.user_index_key(user).to_string();
            let users = context.store.one_per_server(users, key).await?;
            try_join_all(users.iter().map(|user| check_index(context, user))).await
        };
        try_join(sessions, indexes).await.map(drop)
    });
    let deadline = context.config.deadline;
    let checked = context.store.with_deadline(deadline, work).await;
    checked.inspect_err(|error| {
        let event = "the readiness check failed";
        context.shared.failures.report(event, error);
    })
}

fn random_ids() -> impl Iterator<Item = SessionId> {
    std::iter::from_fn(|| SessionId::random().ok())
}

async fn check_session(context: &Context, id: SessionId) -> Result<(), SessionError> {
    let store = &context.store;
    let key = &context.key(id);
    let versions = [version()?, version()?, version()?];
    let [first, second, third] = &versions;

    let evaluated = retry_once(|| store.check_scripts(key)).await;
    ensure("running a script", evaluated, |()| true)?;
    let created = retry_once(|| store.create(key, first, TTL)).await;
    ensure("creating a session", created, |created| {
        *created == Created::Created
    })?;
    let loaded = retry_once(|| store.load(key, TTL)).await;
    ensure("loading a session", loaded, |loaded| {
        loaded
            .as_ref()
            .is_some_and(|loaded| same_revision(loaded, first))
    })?;
    #[cfg(feature = "local-cache")]
    check_local_cache(context, key).await?;
    let saved = retry_once(|| store.save(key, first, second, TTL)).await;
    ensure("saving a session", saved, |saved| *saved == Outcome::Saved)?;
    let listed = retry_once(|| store.peek(key)).await;
    ensure("reading a session of a user", listed, Option::is_some)?;

    let new_key = context.key(SessionId::random()?);
    let tombstone = tombstone(unix_millis(), None)?;
    let rotation = Rotation {
        from: key,
        expected: second,
        to: &new_key,
        value: third,
        record: None,
        lifetime: TTL,
        tombstone: &tombstone,
        tombstone_lifetime: TTL,
    };
    let rotated = retry_once(|| store.rotate(&rotation)).await;
    ensure("giving a session a new id", rotated, |rotated| {
        *rotated == Outcome::Saved
    })?;
    let deleted = retry_once(|| store.delete(key, &tombstone)).await;
    ensure("deleting an empty session", deleted, |deleted| {
        *deleted == Outcome::Saved
    })?;
    let destroyed = retry_once(|| store.destroy(&new_key)).await;
    ensure("ending a session", destroyed, |destroyed| {
        *destroyed == Destroyed::Deleted
    })
}

/// The server of `key` reports changes, if there is a cache.
#[cfg(feature = "local-cache")]
async fn check_local_cache(context: &Context, key: &str) -> Result<(), SessionError> {
    let store = &context.store;
    let Some(cache) = store.cache() else {
        return Ok(());
    };
    let fetched = retry_once(|| store.fetch(key)).await;
    ensure(
        "reading a session for the local cache",
        fetched,
        Option::is_some,
    )?;
    match cache.reports().why_off() {
        Some(why) if store.ticket(key).is_none() => {
            let error = format!("not ready, since {why}");
            Err(SessionError::new(ErrorKind::Rejected, error))
        }
        // Without a reason, the connection was lost just now.
        Some(_) | None => Ok(()),
    }
}

async fn check_index(context: &Context, user: &str) -> Result<(), SessionError> {
    const STEP: &str = "listing the sessions of a user";
    let store = &context.store;
    let index = context.user_index_key(user);
    let entry = IndexEntry {
        name: context.key_suffix(SessionId::random()?),
        added_at: unix_micros(),
    };
    let options = AddOptions {
        replaces: None,
        max: match context.config.sessions_per_user {
            Some((max, SessionLimit::Reject)) => Some(max),
            Some((_, SessionLimit::RevokeOldest)) | None => None,
        },
    };
    let added = retry_once(|| store.add_to_index(&index, &entry, TTL, options)).await;
    ensure("a login", added, |added| *added)?;
    let counted = retry_once(|| store.index_len(&index)).await;
    ensure(STEP, counted, |count| *count == 1)?;
    let page = retry_once(|| store.index_page(&index, Cursor::default(), 2)).await;
    ensure(STEP, page, |page| page.len() == 1)?;
    let names = [entry.name];
    let removed = retry_once(|| store.remove_from_index(&index, &names)).await;
    ensure("a logout", removed, |()| true)
}

/// A version of a session.
fn version() -> Result<Bytes, SessionError> {
    let base = Record::default();
    let mut encoder = Encoder::new(&base, Metadata::default(), None, 16)?;
    encoder.append("ready", b"true");
    Ok(encoder.finish().record.bytes().clone())
}

/// The error says which step failed, and why.
fn ensure<T>(
    step: &str,
    result: Result<T, Fault>,
    is_expected: impl FnOnce(&T) -> bool,
) -> Result<(), SessionError> {
    let (kind, why) = match result.map_err(Fault::into_error) {
        Ok(value) if is_expected(&value) => return Ok(()),
        Ok(_) => (
            ErrorKind::Rejected,
            "Redis did not keep what was just written; check that the address leads to a master, and that nothing else writes under \
             the prefix"
                .to_owned(),
        ),
        Err(error) => (error.kind(), error.to_string()),
    };
    Err(SessionError::new(
        kind,
        format!("not ready, since {step} fails: {why}"),
    ))
}
