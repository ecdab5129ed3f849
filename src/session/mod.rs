//! The session as a handler sees it: a map with synchronous access.

#[cfg(feature = "local-cache")]
mod cached;
mod expiry;
pub(crate) mod lazy;
mod load;
mod long_lived;
#[cfg(feature = "migration")]
mod migrate;
mod update;
mod user;

use std::{fmt, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    clock::unix_secs,
    commit::{CommitOutcome, SessionCell, commit, metadata_changes::MetadataChange, state::Status},
    context::Context,
    error::{ErrorKind, SessionError},
    id::SessionId,
    record::{Record, decode, encode},
};

/// Whether a load may be answered by the local cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoadMode {
    Cached,
    /// Redis is asked.
    Latest,
}

/// The session of one request: a map from string keys to serializable values.
///
/// Take it as an argument of an axum handler. Outside of axum, [`LazySession::load`](crate::LazySession::load) returns it. The session
/// is loaded once for each request and saved after the handler; everything but [`save`](Self::save) is synchronous. Clones are the
/// same session.
///
/// ```
/// use axum_redis_sessions::{Session, SessionError};
///
/// async fn visits(session: Session) -> Result<String, SessionError> {
///     let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
///     Ok(format!("visit {visits}"))
/// }
/// ```
///
/// # Concurrent requests
///
/// Browsers send requests in parallel. Each sees the session as it was when it was loaded. A save applies this request's changes, key
/// by key, to the version that is stored by then:
///
/// | this request called | result if another request saved first |
/// |---|---|
/// | [`update(key, f)`](Self::update), [`modify(key, f)`](Self::modify) | `f` runs again on the other request's value: 200 parallel increments count 200 |
/// | [`try_update(key, f)`](Self::try_update) | the same; if `f` returns an error on that value, nothing of this request is saved, and its response is 409 |
/// | [`insert(key, value)`](Self::insert) | this key has the value of the later save; all other keys are kept |
/// | [`remove(key)`](Self::remove), [`take(key)`](Self::take) | this key is removed; all other keys are kept. Two requests can take the same value |
/// | [`clear()`](Self::clear), then inserts | the map contains what this request inserted |
/// | removed the last key | the session is deleted only if no concurrent request added a key |
/// | [`destroy()`](Self::destroy) | the session is deleted |
/// | nothing | nothing is written |
/// | any change, and the session was destroyed or expired meanwhile | the changes are discarded: a logout wins. No cookie is sent, and [`save`](Self::save) returns [`Ended`](ErrorKind::Ended) |
/// | any change, and another request called [`cycle_id`](Self::cycle_id) | the same, since the session continues under an id that this request does not know |
/// | [`cycle_id`](Self::cycle_id), and so did the other request | two sessions with one id each; the browser keeps the one whose response came last |
/// | an insert into a new session, and so did the other request | two sessions; the browser keeps the one whose response came last |
///
/// A change after the handler has returned its response, in a stream or a WebSocket, is kept only by [`save`](Self::save). A change
/// that is never saved is logged at debug level when the session is dropped.
#[derive(Clone)]
pub struct Session(Arc<SessionCell>);

impl Session {
    /// Returns the value under `key`; `None` if there is none. A stored `null` that is not a `T` counts as none.
    ///
    /// It is the value that [`insert`](Self::insert) was called with, floats bit for bit.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] if the value is not a `T`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, SessionError> {
        let value = {
            let state = self.0.state();
            if state.base.is_reserved(key.as_bytes()) {
                return Ok(None);
            }
            state.changes.value(&state.base, key)
        };
        value.map_or(Ok(None), |value| decode(key, &value))
    }

    /// Stores `value` under `key`, replacing the former value.
    ///
    /// A value that [`get`](Self::get) could not return unchanged is refused: JSON has no infinite floats and no NaN, cannot tell
    /// `Some(None)` or `Some(())` from `None`, and is read up to 127 levels deep.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`] if the value cannot be stored as JSON; the text says why. [`ErrorKind::ReservedKey`] for a key that begins
    /// with `_`.
    pub fn insert(&self, key: &str, value: impl Serialize) -> Result<(), SessionError> {
        self.check_key(key)?;
        let value = encode(key, &value)?;
        self.0.state().changes.assign(key, Some(value));
        Ok(())
    }

    /// Removes `key` and returns its value. A value that is not a `T` is kept.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] if the value is not a `T`.
    pub fn take<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, SessionError> {
        let value = self.get(key)?;
        if value.is_some() {
            self.remove(key);
        }
        Ok(value)
    }

    /// Removes `key` and returns whether it was there.
    pub fn remove(&self, key: &str) -> bool {
        let mut state = self.0.state();
        let existed =
            !state.base.is_reserved(key.as_bytes()) && state.changes.contains(&state.base, key);
        if existed {
            state.changes.assign(key, None);
        }
        existed
    }

    /// Removes every key. A session that stays empty is deleted, and its cookie removed.
    ///
    /// For a logout use [`destroy`](Self::destroy), which no concurrent request can prevent.
    pub fn clear(&self) {
        self.0.state().changes.clear();
    }

    /// Whether there is a value under `key`.
    #[must_use]
    pub fn contains_key(&self, key: &str) -> bool {
        let state = self.0.state();
        !state.base.is_reserved(key.as_bytes()) && state.changes.contains(&state.base, key)
    }

    /// The keys, in the order in which they were added.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let state = self.0.state();
        state.changes.keys(&state.base).map(str::to_owned).collect()
    }

    /// The number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        let state = self.0.state();
        state.changes.keys(&state.base).count()
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let state = self.0.state();
        state.changes.keys(&state.base).next().is_none()
    }

    /// Gives the session a new id when it is saved, and retires the old one. The data is kept.
    ///
    /// Call it when a user gains rights, against session fixation (ASVS 5.0, 7.2.4). [`log_in`](Self::log_in) does it by itself. A session
    /// that is not stored yet gets a fresh id in any case.
    ///
    /// A request with the former id can write nothing, and never learns the new one. If the session had no user, it may read what the
    /// session held for a [grace period](crate::RedisSessionLayer::with_rotation_grace).
    ///
    /// ```
    /// # use axum_redis_sessions::{Session, SessionError};
    /// async fn become_administrator(session: Session) -> Result<(), SessionError> {
    ///     // … check the password once more …
    ///     session.cycle_id();
    ///     session.insert("is_administrator", true)
    /// }
    /// ```
    pub fn cycle_id(&self) {
        self.0.state().cycle_id();
    }

    /// As [`cycle_id`](Self::cycle_id), but the former id may read the session for the
    /// [grace period](crate::RedisSessionLayer::with_rotation_grace) although it has a user.
    ///
    /// Not for a login: whoever had the former id reads the session for that long. For an id that is changed now and then while a user
    /// is logged in, so that the other requests that a page sends at that moment do not find a visitor without a session. A
    /// [`cycle_id`](Self::cycle_id), or a change of the user, in the same request ends the grace.
    pub fn cycle_id_with_grace(&self) {
        self.0.state().cycle_id_with_grace();
    }

    /// Ends the session, for a logout: deletes it, whatever concurrent requests do, and removes its cookie.
    ///
    /// It takes place after the handler, also if the handler then fails, panics or is cancelled; after the response, in a stream or a
    /// WebSocket, only by [`save`](Self::save). Values that are inserted afterwards begin another session with an id of its own.
    pub fn destroy(&self) {
        self.0.state().destroy();
    }

    /// Sets whether the session outlives the browser ("remember me"). Default: `false`.
    ///
    /// `true`: the cookie has a Max-Age, and the session lives for
    /// [`with_permanent_lifetime`](crate::RedisSessionLayer::with_permanent_lifetime) after its last use. `false`: the cookie ends
    /// with the browser, and the session lives for
    /// [`with_idle_timeout`](crate::RedisSessionLayer::with_idle_timeout) after its last use.
    pub fn set_permanent(&self, permanent: bool) {
        if self.is_permanent() != permanent {
            let sent = permanent.then(unix_secs);
            self.set_metadata(MetadataChange::Permanent(sent));
        }
    }

    /// Whether the session outlives the browser.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        let state = self.0.state();
        state.changes.metadata(&state.base).permanent.is_some()
    }

    /// The id under which the session is stored; `None` before its first save and after its end.
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        self.0.state().id()
    }

    /// Saves the changes so far now, instead of after the handler.
    ///
    /// For handlers that continue after their response: streams, Server-Sent Events, WebSockets. Such a handler must begin the
    /// session before it responds, since no cookie can be set afterwards. After an error the changes are kept and can be saved
    /// again, except those that [`ErrorKind::Ended`] and [`ErrorKind::UpdateRejected`] discarded.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ended`] if the session was destroyed, rotated or has expired: the changes are discarded.
    /// [`ErrorKind::HeadersSent`] if a cookie would have to be set after the response headers were sent.
    /// [`ErrorKind::Unavailable`] and [`ErrorKind::Rejected`] from the store, [`ErrorKind::Conflict`] if other requests saved first
    /// each time, [`ErrorKind::TooLarge`], [`ErrorKind::Decode`] from a replayed [`update`](Self::update), and
    /// [`ErrorKind::UpdateRejected`] from a replayed [`try_update`](Self::try_update).
    pub async fn save(&self) -> Result<(), SessionError> {
        match commit(&self.0).await? {
            CommitOutcome::Unchanged | CommitOutcome::Saved => Ok(()),
            CommitOutcome::Discarded => Err(ended()),
        }
    }

    pub(crate) fn new(context: Arc<Context>, status: Status, base: Record) -> Self {
        Self(Arc::new(SessionCell::new(context, status, base)))
    }

    pub(crate) fn cell(&self) -> &Arc<SessionCell> {
        &self.0
    }

    fn check_key(&self, key: &str) -> Result<(), SessionError> {
        if !self.0.state().base.is_reserved(key.as_bytes()) {
            return Ok(());
        }
        Err(SessionError::new(
            ErrorKind::ReservedKey,
            "session keys that begin with `_` are reserved for this crate: use another key",
        ))
    }

    fn set_metadata(&self, change: MetadataChange) {
        self.0.state().changes.set_metadata(change);
    }
}

/// A panic fails the request, whatever response a layer further in makes of it: what it changed may be half done.
impl Drop for Session {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.mark_panicked();
        }
    }
}

/// Shows no id, key or value.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

fn ended() -> SessionError {
    SessionError::new(
        ErrorKind::Ended,
        "the session was destroyed, rotated or has expired since this request loaded it, so its changes were discarded: end \
         the stream and let the client connect again",
    )
}
