//! Sessions outside a request.

use std::{fmt, sync::Arc};

use http::HeaderValue;

use crate::{
    commit::{
        reload::read,
        state::{Persisted, Status},
    },
    context::Context,
    cookie,
    error::{ErrorKind, SessionError},
    id::SessionId,
    record::Record,
    session::Session,
};

/// The sessions of a layer outside a request, from [`RedisSessionLayer::sessions`](crate::RedisSessionLayer::sessions): for background jobs,
/// administration and tests. Cloning is cheap.
///
/// # Examples
///
/// A job continues what a request began. It gets the id in memory; an id in a queue or a database authenticates like a password.
///
/// ```
/// use axum_redis_sessions::{RedisSessionLayer, Session, SessionError, SessionId};
///
/// async fn export(layer: RedisSessionLayer, id: SessionId) -> Result<(), SessionError> {
///     // … which takes a minute …
///     let Some(session) = layer.sessions().load(id).await? else {
///         return Ok(()); // the user has logged out
///     };
///     session.insert("export", "ready")?;
///     session.save().await
/// }
/// ```
#[derive(Clone)]
pub struct Sessions {
    context: Arc<Context>,
}

impl Sessions {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// Loads the session with this id, as [`Session::id`] returned it in a request. `None`: it has ended, or has another id by now.
    ///
    /// Loading does not extend the idle timeout; a save does. Changes are kept only by [`Session::save`], which compares versions as in a
    /// request: changes of concurrent requests are kept, and a session that was logged out meanwhile stays so, with
    /// [`ErrorKind::Ended`]. Such a session cannot get a new id ([`ErrorKind::HeadersSent`]), since its browser would not learn of it.
    ///
    /// # Errors
    ///
    /// As [`LazySession::load`](crate::LazySession::load).
    pub async fn load(&self, id: SessionId) -> Result<Option<Session>, SessionError> {
        let Some(record) = read(&self.context, id, None).await? else {
            return Ok(None);
        };
        let persisted = Persisted {
            id,
            key: None,
            re_sign_cookie: false,
        };
        Ok(Some(self.session(Status::Persisted(persisted), record)))
    }

    /// Creates a session and returns the value of a `Cookie` header that presents it: `__Host-session=…`, signed if the layer signs.
    ///
    /// For tests of an app, which so need no login: `begin` logs a user in and inserts values. The layer must be the app's, or a clone with the
    /// same options. The value is marked as sensitive, so `Debug` does not show it.
    ///
    /// # Errors
    ///
    /// The error of `begin`, and those of [`Session::save`]. [`ErrorKind::Ended`] if `begin` leaves the session empty, since an empty session
    /// is not stored.
    ///
    /// # Examples
    ///
    /// ```
    /// use axum::{Router, body::Body, extract::Request, http::header::COOKIE, routing::get};
    /// use axum_redis_sessions::{RedisSessionLayer, Session};
    /// use tower::ServiceExt;
    ///
    /// fn app(sessions: RedisSessionLayer) -> Router {
    ///     let cart = async |session: Session| format!("cart of {:?}", session.user());
    ///     Router::new().route("/cart", get(cart)).layer(sessions)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = RedisSessionLayer::in_memory();
    /// let cookie = layer.sessions().create(|session| session.log_in("42")).await?;
    ///
    /// let request = Request::get("/cart").header(COOKIE, cookie).body(Body::empty())?;
    /// let response = app(layer).oneshot(request).await?;
    /// let body = axum::body::to_bytes(response.into_body(), 1024).await?;
    /// assert_eq!(body, "cart of Some(\"42\")");
    /// # Ok(()) }
    /// ```
    pub async fn create(
        &self,
        begin: impl FnOnce(&Session) -> Result<(), SessionError>,
    ) -> Result<HeaderValue, SessionError> {
        let session = self.session(Status::New { presented: None }, self.context.new_record());
        session.cell().state().headers_sent = false;
        begin(&session)?;
        session.save().await?;
        session.cell().state().headers_sent = true;
        let Some(id) = session.id() else {
            return Err(SessionError::new(
                ErrorKind::Ended,
                "the session is empty, and an empty session is not stored: insert a value or log a user in",
            ));
        };
        Ok(cookie::pair(&self.context.config.cookie, id))
    }

    fn session(&self, status: Status, record: Record) -> Session {
        let session = Session::new(self.context.clone(), status, record);
        // There is no response.
        session.cell().state().headers_sent = true;
        session
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}
