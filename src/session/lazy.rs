use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::OnceCell;

use super::Session;
use crate::{
    clock::unix_millis,
    commit::state::Status,
    context::Context,
    cookie::CookieHeaders,
    error::SessionError,
    expiry,
    id::SessionId,
    record::{Decoded, Record},
    signing::Signature,
    store::{Fault, retry_once},
};

/// A request's session before anybody looked at it. It lies in the request's extensions, and costs nothing until then.
///
/// An axum handler takes [`Session`] instead; this is for what is not axum, and for handlers that need the session only
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
    presented: CookieHeaders,
    session: OnceCell<Result<Session, SessionError>>,
    /// Whoever loads from now on can no longer tell the browser of a new id.
    headers_sent: AtomicBool,
}

impl LazySession {
    /// The request's session, as the layer left it in the extensions.
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

    /// Loads the session. However many ask in one request, Redis is asked once, and all get the same session or the same error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) and [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) from the
    /// store, [`ErrorKind::InvalidData`](crate::ErrorKind::InvalidData) and [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) for
    /// what it holds. Never an empty session instead, which would read as "logged out".
    pub async fn load(&self) -> Result<Session, SessionError> {
        let Inner {
            context,
            presented,
            session,
            headers_sent,
        } = &*self.0;
        session
            .get_or_init(|| async {
                let Some((id, signature)) = presented.id(&context.config.cookie) else {
                    let session = Session::new(context.clone(), Status::New, Record::default());
                    session.inner().state().headers_sent = headers_sent.load(Relaxed);
                    return Ok(session);
                };
                // Boxed, so that a handler's future, which axum boxes, stays small.
                let load = Box::pin(load(context, id));
                let session = context
                    .store
                    .with_deadline(context.config.deadline, load)
                    .await?;
                {
                    let mut state = session.inner().state();
                    state.re_sign_cookie = signature == Signature::Former;
                    state.headers_sent = headers_sent.load(Relaxed);
                }
                Ok(session)
            })
            .await
            .clone()
    }

    /// The session, if somebody loaded it already.
    #[must_use]
    pub fn loaded(&self) -> Option<Session> {
        self.0.session.get()?.as_ref().ok().cloned()
    }

    pub(crate) fn new(context: Arc<Context>, presented: CookieHeaders) -> Self {
        Self(Arc::new(Inner {
            context,
            presented,
            session: OnceCell::new(),
            headers_sent: AtomicBool::new(false),
        }))
    }

    pub(crate) fn mark_headers_sent(&self) {
        self.0.headers_sent.store(true, Relaxed);
    }

    pub(crate) fn context(&self) -> &Context {
        &self.0.context
    }

    /// Whether anybody looked, successfully or not.
    pub(crate) fn was_accessed(&self) -> bool {
        self.0.session.initialized()
    }
}

/// Shows no cookie.
impl fmt::Debug for LazySession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazySession")
            .field("looked_at", &self.was_accessed())
            .finish_non_exhaustive()
    }
}

/// One command: the read slides the idle timeout.
async fn load(context: &Arc<Context>, id: SessionId) -> Result<Session, SessionError> {
    let key = context.key(id);
    let idle = context.config.idle_timeout;
    let loaded = retry_once(|| context.store.load(&key, idle)).await;
    let without = |status| {
        let session = Session::new(context.clone(), status, Record::default());
        session.inner().state().presented_id = context.config.replica_acks.map(|_| id);
        session
    };
    let unknown = || without(Status::New);
    let Some(bytes) = loaded.map_err(Fault::into_error)? else {
        return Ok(unknown());
    };
    let (size, limit) = (bytes.len(), context.config.max_size);
    if size > limit {
        return Err(SessionError::too_large(size, limit));
    }
    Ok(match Record::decode(&bytes)? {
        Decoded::Session(record) => match expiry::ttl(&context.config, record.metadata) {
            Some(lifetime) => {
                // The read cannot know in advance that a session has another lifetime than most.
                if lifetime != idle {
                    context
                        .store
                        .touch_later(key.clone(), lifetime, context.config.deadline);
                }
                let session = Session::new(context.clone(), Status::Persisted(id), record);
                session.inner().state().key = Some((id, key));
                session
            }
            None => {
                Box::pin(context.store.destroy(&key))
                    .await
                    .map_err(Fault::into_error)?;
                unknown()
            }
        },
        Decoded::Tombstone { until } => match until.saturating_sub(unix_millis()) {
            0 => unknown(),
            left => {
                context.store.touch_later(
                    key,
                    Duration::from_millis(left),
                    context.config.deadline,
                );
                without(Status::Rotated)
            }
        },
        Decoded::Empty => unknown(),
    })
}
