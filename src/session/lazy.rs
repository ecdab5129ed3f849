//! The session of a request before it is loaded.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::OnceCell;

use super::Session;
#[cfg(feature = "local-cache")]
use super::cached::{self, Found};
#[cfg(feature = "local-cache")]
use crate::cache::LoadMode;
use crate::{
    clock::unix_millis,
    commit::{
        state::{Persisted, Status},
        write::{DeleteReason, PendingDelete, TOMBSTONE_TTL},
    },
    config::Config,
    context::Context,
    error::{ErrorKind, SessionError},
    expiry,
    failure_log::FailureLog,
    id::SessionId,
    record::{Decoded, Record},
    request::RequestHead,
    signing::Signature,
    stats::Event,
    store::{Fault, retry_once},
};

/// A browser presents several cookies of one name if they differ in Domain or Path. More than this number are ignored.
const MAX_PRESENTED: usize = 4;

/// The session of a request, not loaded yet. It is stored in the request extensions; Redis is not contacted until [`load`](Self::load).
///
/// An axum handler takes [`Session`] instead. This type is for plain tower services, and for handlers that need the session only
/// sometimes.
///
/// ```
/// use axum_redis_sessions::{LazySession, SessionError};
///
/// async fn visits<B>(request: http::Request<B>) -> Result<u64, SessionError> {
///     let lazy = LazySession::from_extensions(request.extensions())?;
///     let session = lazy.load().await?;
///     session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)
/// }
/// ```
#[derive(Clone)]
pub struct LazySession(Arc<Inner>);

struct Inner {
    context: Arc<Context>,
    head: RequestHead,
    session: OnceCell<Result<Session, SessionError>>,
    /// What `destroy` began, in place of a session that was not loaded or could not be.
    replacement: OnceLock<Session>,
    /// The session of an outer layer, which has another cookie.
    outer: Option<LazySession>,
    /// No cookie can be set any more.
    headers_sent: AtomicBool,
}

impl LazySession {
    /// The session that the layer stored in the request extensions.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::MissingLayer`](crate::ErrorKind::MissingLayer).
    pub fn from_extensions(extensions: &http::Extensions) -> Result<Self, SessionError> {
        extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(SessionError::missing_layer)
    }

    /// Loads the session. Redis is asked once for each request; all callers get the same session or the same error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) and [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) from the
    /// store, [`ErrorKind::InvalidData`](crate::ErrorKind::InvalidData) and [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge)
    /// for the stored value. Never an empty session instead, which the app would take for "logged out".
    pub async fn load(&self) -> Result<Session, SessionError> {
        let Inner {
            context,
            head,
            session,
            headers_sent,
            ..
        } = &*self.0;
        if let Some(replacement) = self.0.replacement.get() {
            return Ok(replacement.clone());
        }
        session
            .get_or_init(|| async {
                let mut presented = head.presented.ids(&context.config);
                let session = match presented.next() {
                    None => return Ok(self.empty()),
                    Some(first) => {
                        let others: Vec<_> = presented.take(MAX_PRESENTED - 1).collect();
                        #[cfg(feature = "local-cache")]
                        if others.is_empty()
                            && let Some(session) = cached::hit(context, first)
                        {
                            session.0.state().headers_sent = headers_sent.load(Relaxed);
                            return Ok(session);
                        }
                        // Boxed, so that the handler's future, which axum boxes, stays small.
                        let load = Box::pin(load_first_live(context, first, others));
                        context.observe_load(load).await?
                    }
                };
                session.0.state().headers_sent = headers_sent.load(Relaxed);
                Ok(session)
            })
            .await
            .clone()
    }

    /// Ends the session without loading it: deletes what is stored under its key and removes its cookie, after the handler.
    ///
    /// Also for a session that cannot be loaded, because its value is not a session of this crate: a logout, or an error page,
    /// then frees its user from it. A later [`load`](Self::load) in this request returns a new, empty session.
    ///
    /// ```
    /// use axum_redis_sessions::{ErrorKind, LazySession, Session, SessionError};
    ///
    /// async fn session_or_new(lazy: LazySession) -> Result<Session, SessionError> {
    ///     match lazy.load().await {
    ///         Err(error) if error.kind() == ErrorKind::InvalidData => {
    ///             lazy.destroy();
    ///             lazy.load().await
    ///         }
    ///         session => session,
    ///     }
    /// }
    /// ```
    pub fn destroy(&self) {
        if let Some(session) = self.loaded() {
            session.destroy();
            return;
        }
        self.0.replacement.get_or_init(|| {
            let session = self.empty();
            let presented = self.0.head.presented.ids(self.config());
            let deletes = presented.take(MAX_PRESENTED).map(|(id, _)| PendingDelete {
                id,
                reason: DeleteReason::Destroyed,
                user: None,
            });
            session.0.state().pending_deletes.extend(deletes);
            session
        });
    }

    /// The session, if it was loaded already.
    #[must_use]
    pub fn loaded(&self) -> Option<Session> {
        if let Some(replacement) = self.0.replacement.get() {
            return Some(replacement.clone());
        }
        self.0.session.get()?.as_ref().ok().cloned()
    }

    /// The request's session with this cookie name, where several layers with different cookies are around the route.
    ///
    /// [`from_extensions`](Self::from_extensions) and the extractors give the session of the innermost layer; this finds those of
    /// the outer ones too. For a layer [without a cookie](crate::RedisSessionLayer::without_cookie), it is the header's name.
    ///
    /// ```
    /// use axum_redis_sessions::{LazySession, SessionError};
    ///
    /// async fn admin(lazy: LazySession) -> Result<Option<String>, SessionError> {
    ///     let Some(site) = lazy.by_cookie_name("__Host-session") else {
    ///         return Ok(None);
    ///     };
    ///     Ok(site.load().await?.user())
    /// }
    /// ```
    #[must_use]
    pub fn by_cookie_name(&self, name: &str) -> Option<Self> {
        let mut lazy = Some(self);
        while let Some(found) = lazy {
            if found.config().session_name() == name {
                return Some(found.clone());
            }
            lazy = found.0.outer.as_ref();
        }
        None
    }

    pub(crate) fn new(
        context: Arc<Context>,
        head: RequestHead,
        outer: Option<LazySession>,
    ) -> Self {
        Self(Arc::new(Inner {
            context,
            head,
            session: OnceCell::new(),
            outer,
            replacement: OnceLock::new(),
            headers_sent: AtomicBool::new(false),
        }))
    }

    pub(crate) fn mark_headers_sent(&self) {
        self.0.headers_sent.store(true, Relaxed);
    }

    pub(crate) fn is_by_header(&self) -> bool {
        self.0.head.presented.is_by_header()
    }

    pub(crate) fn head(&self) -> &RequestHead {
        &self.0.head
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.context.config
    }

    pub(crate) fn failures(&self) -> &FailureLog {
        &self.0.context.shared.failures
    }

    /// Whether the session was loaded, successfully or not.
    pub(crate) fn was_accessed(&self) -> bool {
        self.0.session.initialized() || self.0.replacement.get().is_some()
    }

    fn empty(&self) -> Session {
        let status = Status::New { presented: None };
        let session = Session::new(self.0.context.clone(), status, Record::default());
        session.0.state().headers_sent = self.0.headers_sent.load(Relaxed);
        session
    }
}

/// A panic fails the request, as that of a [`Session`].
impl Drop for LazySession {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(session) = self.loaded()
        {
            session.cell().mark_panicked();
        }
    }
}

/// Shows no cookie.
impl fmt::Debug for LazySession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazySession")
            .field("was_accessed", &self.was_accessed())
            .finish_non_exhaustive()
    }
}

/// Loads the first of the presented sessions that is live. Without one: one that was rotated, else one that cannot be read, else none.
async fn load_first_live(
    context: &Arc<Context>,
    first: (SessionId, Signature),
    others: Vec<(SessionId, Signature)>,
) -> Result<Session, SessionError> {
    let mut loaded = load(context, first).await;
    let mut loaded_id = first.0;
    for other in &others {
        if rank(&loaded) == LIVE {
            break;
        }
        // Boxed, since browsers rarely present several.
        let found = Box::pin(load(context, *other)).await;
        if rank(&found) > rank(&loaded) {
            loaded = found;
            loaded_id = other.0;
        }
    }
    let session = loaded?;
    if !others.is_empty() {
        let ids = [first].into_iter().chain(others).map(|(id, _)| id);
        let shadows = ids.filter(|id| *id != loaded_id).collect();
        session.0.state().shadows = shadows;
    }
    Ok(session)
}

/// Also the rank of a store that is unavailable: nothing else is worth a try.
const LIVE: u8 = 3;

fn rank(loaded: &Result<Session, SessionError>) -> u8 {
    match loaded {
        Ok(session) => match session.0.state().status {
            Status::New { .. } | Status::Gone => 0,
            Status::Rotated { .. } => 2,
            Status::Persisted(_) => LIVE,
        },
        Err(error) if error.kind() == ErrorKind::InvalidData => 1,
        Err(_) => LIVE,
    }
}

/// Reads the session and extends its idle timeout, by one command.
async fn load(
    context: &Arc<Context>,
    (id, signature): (SessionId, Signature),
) -> Result<Session, SessionError> {
    let store = &context.store;
    let (deadline, idle) = (context.config.deadline, context.config.idle_timeout);
    let key = context.key(id);
    // What cannot be used is not prolonged, once that is known.
    let was_unreadable = context.shared.unreadable_keys.contains(&key);
    #[cfg(feature = "local-cache")]
    let cached = match cached::load(context, (id, signature), &key, LoadMode::Cached).await? {
        Found::Session(session) => return Ok(session),
        Found::Other(bytes) => Some(Ok(bytes)),
        Found::Off => None,
    };
    #[cfg(not(feature = "local-cache"))]
    let cached = None;
    let loaded = if let Some(loaded) = cached {
        loaded
    } else if was_unreadable {
        retry_once(|| store.value(&key)).await
    } else {
        retry_once(|| store.load(&key, idle)).await
    };
    let presented = context.config.replica_acks.map(|_| id);
    let empty = |status| Session::new(context.clone(), status, Record::default());
    let shared = &context.shared;
    let (tasks, failures) = (&shared.detached_commits, &shared.failures);
    let unknown = || empty(Status::New { presented });
    let decoded = match loaded.map_err(Fault::into_error) {
        Ok(None) => {
            context.count(Event::LoadMissing);
            return Ok(unknown());
        }
        Ok(Some(bytes)) => context.decode(&key, &bytes),
        Err(error) => Err(error),
    };
    let decoded = match decoded {
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            note_unreadable(context, &key, &error);
            let is_discarded = context.config.discard_unreadable;
            // A logout deletes the value.
            let presented = Some(id);
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
                id,
                key: Some(key),
                re_sign_cookie: signature == Signature::Former,
            };
            Ok(Session::new(
                context.clone(),
                Status::Persisted(persisted),
                record,
            ))
        }
        Decoded::Tombstone { until, readable } => {
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
            let base = readable.map(|(_, record)| record).unwrap_or_default();
            let status = Status::Rotated { presented };
            Ok(Session::new(context.clone(), status, base))
        }
        Decoded::Empty => {
            context.count(Event::LoadMissing);
            Ok(unknown())
        }
    }
}

fn note_unreadable(context: &Context, key: &str, error: &SessionError) {
    let shared = &context.shared;
    shared.unreadable_keys.add(key);
    context.count(Event::LoadUnreadable);
    if context.config.discard_unreadable {
        let event = "a visitor has an empty session, since the stored one cannot be read";
        shared.failures.report(event, error);
    }
}
