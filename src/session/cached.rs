//! Loads through the local cache. Its rules are in `cache/mod.rs`.
//!
//! 1. **A load without an entry** reads the value and its TTL, and does not set the TTL: that would drop the entry of every other node.
//! 2. **The TTL is set** once a tenth of it has passed, and the session is read again in the same write to the connection.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::{LoadMode, Session};
use crate::{
    cache::{Cache, Entry, Loaded, Ticket},
    commit::state::{Persisted, Status},
    context::Context,
    error::{ErrorKind, SessionError},
    expiry,
    id::SessionId,
    record::{Decoded, Record},
    signing::Signature,
    stats::Event,
    store::{Fault, retry_once},
};

/// A session whose absolute timeout is near has a second less with every second.
const TTL_TOLERANCE: Duration = Duration::from_secs(2);

/// What a load through the cache came to.
pub(super) enum Found {
    Session(Session),
    /// Nothing, or a value that is not a live session.
    Other(Option<Bytes>),
    /// Nothing is cached now.
    Off,
}

/// The session, if the cache has it. Without any await, and without a deadline.
pub(super) fn hit(
    context: &Arc<Context>,
    (id, signature): (SessionId, Signature),
) -> Option<Session> {
    let cache = context.store.cache()?;
    let key = context.key(id);
    let entry = cache.get(&key)?;
    let ttl = cache.ttl(&entry);
    let full = expiry::ttl(&context.config, entry.record.metadata)?;
    // The cookie of the app that had this session before is still to be retired.
    if is_touch_due(ttl, full) || entry.record.moved_from.is_some() {
        return None;
    }
    cache.count_hit();
    let record = entry.record.clone();
    Some(session(
        context,
        id,
        signature,
        key,
        record,
        full - ttl.min(full),
    ))
}

/// With a session that may be served in an outage, a load does not wait longer than this. Redis answers within a millisecond.
const STALE_AFTER: Duration = Duration::from_millis(50);

/// A session from the cache, in place of one that cannot be loaded.
pub(super) struct StaleIfError {
    presented: (SessionId, Signature),
}

impl StaleIfError {
    /// `None` if there is none, or the app did not allow it.
    pub(super) fn find(
        context: &Context,
        first: Option<&(SessionId, Signature)>,
        others: &[(SessionId, Signature)],
        mode: LoadMode,
    ) -> Option<Self> {
        if mode == LoadMode::Latest || !others.is_empty() {
            return None;
        }
        let presented = first.filter(|(id, _)| stale_entry(context, *id).is_some())?;
        Some(Self {
            presented: *presented,
        })
    }

    /// The result of `load`, or in an outage the session from the cache.
    pub(super) async fn or_session(
        self,
        context: &Arc<Context>,
        load: impl Future<Output = Result<Session, SessionError>> + Unpin,
    ) -> Result<Session, SessionError> {
        let (id, signature) = self.presented;
        let deadline = context.config.deadline.min(STALE_AFTER);
        let error = match context.observe_load(deadline, load).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => error,
            loaded => return loaded,
        };
        let Some((cache, key, entry)) = stale_entry(context, id) else {
            return Err(error);
        };
        let Some(full) = expiry::ttl(&context.config, entry.record.metadata) else {
            return Err(error);
        };
        cache.count_stale_hit();
        let unused = full.saturating_sub(cache.ttl(&entry));
        let record = entry.record.clone();
        Ok(session(context, id, signature, key, record, unused))
    }
}

fn stale_entry(context: &Context, id: SessionId) -> Option<(&Arc<Cache>, String, Arc<Entry>)> {
    let cache = context.store.cache()?;
    cache.options().serves_stale().then_some(())?;
    let key = context.key(id);
    let entry = cache.get_stale(&key)?;
    Some((cache, key, entry))
}

/// Reads the session, and keeps it in the cache.
pub(super) async fn load(
    context: &Arc<Context>,
    &(ref id, signature): &(SessionId, Signature),
    key: &str,
    mode: LoadMode,
) -> Result<Found, SessionError> {
    let Some(cache) = context.store.cache() else {
        return Ok(Found::Off);
    };
    let ticket = context.store.ticket(key);
    // An entry that may be served in an outage stays, so nothing is changed while there is no connection.
    if ticket.is_none() && cache.get_stale(key).is_none() {
        return Ok(Found::Off);
    }
    cache.count_miss();
    let read = |ticket: Option<Ticket>| async move {
        let read = retry_once(|| read(context, cache, key, ticket.clone()));
        read.await.map_err(Fault::into_error)
    };
    let loaded = match (mode, ticket) {
        (LoadMode::Cached, Some(ticket)) => {
            let flight = cache.flight(key, ticket);
            flight.result(|ticket| read(Some(ticket))).await
        }
        (_, ticket) => read(ticket).await,
    };
    Ok(match loaded? {
        Loaded::Session { record, unused } => Found::Session(session(
            context,
            *id,
            signature,
            key.to_owned(),
            record,
            unused,
        )),
        Loaded::Other(bytes) => Found::Other(bytes),
    })
}

async fn read(
    context: &Context,
    cache: &Arc<Cache>,
    key: &str,
    ticket: Option<Ticket>,
) -> Result<Loaded, Fault> {
    let Some((bytes, ttl)) = context.store.fetch(key).await? else {
        cache.remove_ended(key);
        return Ok(Loaded::Other(None));
    };
    let Some((record, full)) = live(context, key, &bytes) else {
        cache.remove_ended(key);
        return Ok(Loaded::Other(Some(bytes)));
    };
    let unused = full.saturating_sub(ttl.unwrap_or_default());
    match (ttl, ticket) {
        (Some(ttl), Some(ticket)) if !is_touch_due(ttl, full) => {
            cache.install(key, ticket, &record, ttl);
            Ok(Loaded::Session { record, unused })
        }
        // Without a TTL: another program has changed it.
        (_, Some(_)) => touch_and_read(context, cache, key, full).await,
        (_, None) => {
            cache.remove_ended(key);
            Ok(Loaded::Session { record, unused })
        }
    }
}

/// Sets the TTL and reads the session again.
async fn touch_and_read(
    context: &Context,
    cache: &Arc<Cache>,
    key: &str,
    ttl: Duration,
) -> Result<Loaded, Fault> {
    let modification = cache.modify(key);
    let ticket = context.store.ticket(key);
    let Some(bytes) = context.store.touch_and_fetch(key, ttl).await? else {
        return Ok(Loaded::Other(None));
    };
    match live(context, key, &bytes) {
        Some((record, full)) if full >= ttl.saturating_sub(TTL_TOLERANCE) => {
            if let Some(ticket) = ticket {
                modification.install(ticket, &record, ttl);
            }
            let unused = Duration::ZERO;
            Ok(Loaded::Session { record, unused })
        }
        // If its own timeouts were changed meanwhile, the TTL is wrong, and is set as without a cache.
        Some(_) | None => Ok(Loaded::Other(Some(bytes))),
    }
}

/// The session and its full TTL.
fn live(context: &Context, key: &str, bytes: &Bytes) -> Option<(Record, Duration)> {
    let Ok(Decoded::Session(record)) = context.decode(key, bytes) else {
        return None;
    };
    let full = expiry::ttl(&context.config, record.metadata)?;
    Some((record, full))
}

/// Whether a tenth of the TTL has passed. Sooner, a load does not set it: each time drops the entries of all nodes.
fn is_touch_due(ttl: Duration, full: Duration) -> bool {
    ttl < full.mul_f64(0.9)
}

fn session(
    context: &Arc<Context>,
    id: SessionId,
    signature: Signature,
    key: String,
    record: Record,
    unused: Duration,
) -> Session {
    context.count(Event::LoadFound);
    let persisted = Persisted {
        id,
        key: Some(key),
        re_sign_cookie: signature == Signature::Former,
    };
    let session = Session::new(context.clone(), Status::Persisted(persisted), record);
    let now = SystemTime::now();
    session.0.state().ttl_set_at = now.checked_sub(unused).unwrap_or(now);
    session
}
