//! For handlers that continue after their response: WebSockets, Server-Sent Events, streams.

use super::{Session, ended};
use crate::{
    commit::reload::{Liveness, reload, touch},
    error::SessionError,
};

impl Session {
    /// Reads the session again: is it still alive, and what have other requests stored since?
    ///
    /// For a handler that continues after its response, such as a WebSocket. It costs one GET, and does not extend the idle timeout, so a
    /// forgotten tab does not keep its session alive: see [`touch`](Self::touch).
    ///
    /// This request's unsaved changes stay. They are applied to the version that was read, key by key, as
    /// [after a conflict](Self#concurrent-requests): the closures of [`update`](Self::update) run again if another request changed the
    /// session. If the session has ended, the changes are discarded.
    ///
    /// A session that was not stored yet has not ended: the result is `Ok`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ended`](crate::ErrorKind::Ended) if the session was destroyed, revoked or rotated, or has expired: close the connection.
    /// The client connects again, with its present cookie. [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) and
    /// [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) from the store: nothing is known, and nothing was changed.
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) and [`ErrorKind::Decode`](crate::ErrorKind::Decode) from a replayed
    /// [`update`](Self::update).
    ///
    /// # Examples
    ///
    /// A WebSocket that closes within a second of a logout, anywhere; `examples/socket.rs` is the whole program:
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use axum::extract::ws::{Message, WebSocket};
    /// use axum_redis_sessions::{ErrorKind, Session};
    ///
    /// async fn serve(mut socket: WebSocket, session: Session) {
    ///     let mut check = tokio::time::interval(Duration::from_millis(500));
    ///     loop {
    ///         tokio::select! {
    ///             message = socket.recv() => match message {
    ///                 Some(Ok(Message::Text(text))) => {
    ///                     if socket.send(Message::Text(text)).await.is_err() {
    ///                         return;
    ///                     }
    ///                 }
    ///                 Some(Ok(_)) => {}
    ///                 Some(Err(_)) | None => return,
    ///             },
    ///             _ = check.tick() => match session.reload().await {
    ///                 // Dropping the socket closes it.
    ///                 Err(error) if error.kind() == ErrorKind::Ended => return,
    ///                 // In an outage of Redis the socket stays open.
    ///                 Ok(()) | Err(_) => {}
    ///             },
    ///         }
    ///     }
    /// }
    /// ```
    pub async fn reload(&self) -> Result<(), SessionError> {
        alive(reload(&self.0).await?)
    }

    /// Extends the idle timeout, as a new request would: the user is still here, although no request says so.
    ///
    /// For a handler that continues after its response. Call it when the user does something, at most once in a tenth of the idle timeout. A
    /// timer alone would keep the session of a forgotten tab alive for ever. It costs one GETEX. What this request sees of the session, and
    /// its unsaved changes, stay as they are, unless the session has ended. The cookie of a permanent session is renewed only by a
    /// response.
    ///
    /// A session that was not stored yet has not ended: the result is `Ok`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ended`](crate::ErrorKind::Ended) if the session was destroyed, revoked or rotated, or has expired.
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) and [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) from the store.
    ///
    /// # Examples
    ///
    /// ```
    /// # use axum_redis_sessions::{Session, SessionError};
    /// async fn on_message(session: &Session) -> Result<(), SessionError> {
    ///     session.touch().await
    /// }
    /// ```
    pub async fn touch(&self) -> Result<(), SessionError> {
        alive(touch(&self.0).await?)
    }
}

fn alive(liveness: Liveness) -> Result<(), SessionError> {
    match liveness {
        Liveness::Alive => Ok(()),
        Liveness::Ended => Err(ended()),
    }
}
