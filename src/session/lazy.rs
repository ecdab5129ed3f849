//! The session of a request before it is loaded.

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use futures_util::future::{BoxFuture, Either};
use tokio::sync::OnceCell;

#[cfg(feature = "local-cache")]
use super::cached::{self, StaleIfError};
use super::{LoadMode, Session, load::load_first_live};
#[cfg(feature = "migration")]
use super::{
    load::{ROTATED, load_by_id, rank},
    migrate,
};
#[cfg(feature = "migration")]
use crate::commit::old_session;
use crate::{
    commit::{
        state::Status,
        write::{DeleteReason, PendingDelete},
    },
    config::Config,
    context::Context,
    error::{ErrorKind, SessionError},
    failure_log::FailureLog,
    id::SessionId,
    request::RequestHead,
    signing::Signature,
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
    /// store, [`ErrorKind::InvalidData`](crate::ErrorKind::InvalidData) for the stored value. Never an empty session instead, which the
    /// app would take for "logged out".
    pub async fn load(&self) -> Result<Session, SessionError> {
        self.load_as(LoadMode::Cached).await
    }

    /// Loads the session from Redis, also with a [local cache](crate::docs::local_cache), and again if it was loaded before.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load) and [`Session::reload`]. A session that has ended since it was loaded is no error, but empty.
    pub async fn load_latest(&self) -> Result<Session, SessionError> {
        let Some(session) = self.loaded() else {
            return self.load_as(LoadMode::Latest).await;
        };
        match session.reload().await {
            Err(error) if error.kind() != ErrorKind::Ended => Err(error),
            Ok(()) | Err(_) => Ok(session),
        }
    }

    async fn load_as(&self, mode: LoadMode) -> Result<Session, SessionError> {
        if let Some(replacement) = self.0.replacement.get() {
            return Ok(replacement.clone());
        }
        let load = || async {
            match self.begin_load(mode) {
                Either::Left(session) => Ok(session),
                Either::Right(load) => load.await.inspect(|session| self.note_headers(session)),
            }
        };
        self.0.session.get_or_init(load).await.clone()
    }

    /// The session, if it is known without waiting, or else its load. Deliberately not async: the variables would enlarge the handler's future,
    /// which axum boxes.
    fn begin_load(
        &self,
        mode: LoadMode,
    ) -> Either<Session, BoxFuture<'_, Result<Session, SessionError>>> {
        let Inner { context, head, .. } = &*self.0;
        let mut ids = head.presented.ids(&context.config);
        let first = ids.next();
        if first.is_none() && !self.may_take_over() {
            return Either::Left(self.empty());
        }
        let others: Vec<_> = ids.take(MAX_PRESENTED - 1).collect();
        #[cfg(feature = "local-cache")]
        if mode == LoadMode::Cached
            && others.is_empty()
            && let Some(first) = first
            && let Some(session) = cached::hit(context, first)
        {
            self.note_headers(&session);
            return Either::Left(session);
        }
        Either::Right(self.load_presented(first, others, mode))
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
            #[cfg(feature = "migration")]
            old_session::destroy(
                &mut session.0.state(),
                &self.config().migrations,
                &self.0.head.presented,
            );
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

    /// Reads from the store, within the deadline.
    fn load_presented(
        &self,
        first: Option<(SessionId, Signature)>,
        others: Vec<(SessionId, Signature)>,
        mode: LoadMode,
    ) -> BoxFuture<'_, Result<Session, SessionError>> {
        Box::pin(async move {
            let context = &self.0.context;
            let load = pin!(self.load_or_take_over(first.as_ref(), &others, mode));
            #[cfg(feature = "local-cache")]
            if let Some(stale) = StaleIfError::find(context, first.as_ref(), &others, mode) {
                return Box::pin(stale.or_session(context, load)).await;
            }
            context.observe_load(context.config.deadline, load).await
        })
    }

    async fn load_or_take_over(
        &self,
        first: Option<&(SessionId, Signature)>,
        others: &[(SessionId, Signature)],
        mode: LoadMode,
    ) -> Result<Session, SessionError> {
        let context = &self.0.context;
        let own = match first {
            Some(first) => load_first_live(context, first, others, mode).await,
            None => Ok(self.empty()),
        };
        #[cfg(feature = "migration")]
        if self.may_take_over() {
            if let Ok(session) = &own {
                Box::pin(migrate::retire(context, session)).await;
            }
            // A tombstone of ours: the browser is about to get a newer cookie of ours.
            if rank(&own) < ROTATED {
                let taken = migrate::take_over(context, &self.0.head.presented, load_by_id);
                if let Some(session) = Box::pin(taken).await? {
                    return Ok(session);
                }
            }
        }
        own
    }

    /// Whether a cookie of another app can give this request a session.
    fn may_take_over(&self) -> bool {
        #[cfg(feature = "migration")]
        return !self.config().migrations.is_empty() && !self.0.headers_sent.load(Relaxed);
        #[cfg(not(feature = "migration"))]
        false
    }

    fn empty(&self) -> Session {
        let status = Status::New { presented: None };
        let session = Session::new(self.0.context.clone(), status, self.0.context.new_record());
        self.note_headers(&session);
        session
    }

    fn note_headers(&self, session: &Session) {
        session.0.state().headers_sent = self.0.headers_sent.load(Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{MAX_CACHED_ALLOCATION, lazy_in_memory};

    #[test]
    fn a_load_fits_into_the_allocators_cache_and_enlarges_the_handlers_future_little() {
        let lazy = lazy_in_memory();
        let size = size_of_val(&*lazy.load_presented(None, Vec::new(), LoadMode::Cached));
        assert!(size <= MAX_CACHED_ALLOCATION, "{size} bytes");
        let size = size_of_val(&lazy.load());
        assert!(size <= 256, "{size} bytes");
    }
}
