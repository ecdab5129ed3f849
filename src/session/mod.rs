mod expiry;
pub(crate) mod lazy;
mod user;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    clock::unix_secs,
    commit::{CommitOutcome, SessionCell, commit, state::Status},
    context::Context,
    error::{ErrorKind, SessionError},
    id::SessionId,
    record::{self, RESERVED, Record},
    section::Section,
};

/// The session of one request: a map from text to values that serialize, loaded, and saved after the handler.
///
/// Take it as an argument of an axum handler; elsewhere [`LazySession::load`](crate::LazySession::load) gives it. Everything
/// but [`save`](Self::save) is synchronous. Clones are the same session.
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
/// # What happens when requests overlap
///
/// Browsers send requests in parallel, and each has its own view of the session, as of when it was loaded. What a request
/// changed is saved on top of what is stored by then, key by key:
///
/// | this request did | and when another one saved first |
/// |---|---|
/// | [`update(key, f)`](Self::update) | `f` runs again on the other's value: 200 parallel increments count 200 |
/// | [`insert(key, value)`](Self::insert) | the later save has this key; all other keys are the other's |
/// | [`remove(key)`](Self::remove), [`take(key)`](Self::take) | this key is gone; all other keys are the other's. Two requests can both take one value |
/// | [`clear()`](Self::clear), then inserts | the whole map is what this request inserted |
/// | removed the last key | deleted only if the other did not add one |
/// | [`destroy()`](Self::destroy) | deleted, whatever the other saved |
/// | nothing | nothing is encoded |
/// | anything, and the other one logged out or the session expired | dropped: logout wins. No cookie is sent, [`save`](Self::save) says [`Ended`](ErrorKind::Ended) |
/// | anything, and the other one called [`cycle_id`](Self::cycle_id) | dropped likewise, since the session goes on under an id that this request cannot know |
/// | [`cycle_id`](Self::cycle_id), and so did the other | each gets a session with an id of its own; the browser keeps the one whose response came last |
/// | inserted without a session yet, and so did the other | two sessions; the browser keeps the one whose response came last |
///
/// A change that is made after the handler returned its response, in a stream or a WebSocket, is kept by [`save`](Self::save)
/// alone; one that is never saved is reported at debug when the session is dropped.
#[derive(Clone)]
pub struct Session(Arc<SessionCell>);

impl Session {
    /// The value under `key`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] if the value is not a `T`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, SessionError> {
        if key.starts_with(RESERVED) {
            return Ok(None);
        }
        let value = {
            let state = self.0.state();
            state.changes.value(&state.base, key)
        };
        value.map(|value| decode(key, &value)).transpose()
    }

    /// Puts `value` under `key`, in place of what was there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`] if the value does not serialize to JSON, [`ErrorKind::ReservedKey`] for a key that begins with `_`.
    pub fn insert(&self, key: &str, value: impl Serialize) -> Result<(), SessionError> {
        check_key(key)?;
        let value = encode(key, &value)?;
        self.0.state().changes.set(key, value);
        Ok(())
    }

    /// Puts what `f` makes of the present value under `key`, and returns it.
    ///
    /// `f` runs again if another request changes the session before this one is saved, then on that one's value, so it should
    /// do nothing but compute. What the store holds in the end can therefore be another value than the one returned.
    ///
    /// ```
    /// # fn example(session: axum_redis_sessions::Session) -> Result<(), axum_redis_sessions::SessionError> {
    /// session.update("cart", |cart: Option<Vec<u32>>| {
    ///     let mut cart = cart.unwrap_or_default();
    ///     cart.push(42);
    ///     cart
    /// })?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get) and [`insert`](Self::insert). If the value that another request stored meanwhile is not a `T`, the
    /// save fails with [`ErrorKind::Decode`].
    pub fn update<T, F>(&self, key: &str, f: F) -> Result<T, SessionError>
    where
        T: Serialize + DeserializeOwned,
        F: Fn(Option<T>) -> T + Send + Sync + 'static,
    {
        check_key(key)?;
        let step = move |key: &str, value: Option<&[u8]>| {
            let next = f(value.map(|value| decode(key, value)).transpose()?);
            let value = encode(key, &next)?;
            Ok::<_, SessionError>((next, value))
        };
        loop {
            let (value, seq) = {
                let state = self.0.state();
                (state.changes.value(&state.base, key), state.changes.seq())
            };
            // Not under the lock, for `f` may use this session.
            let (next, value) = step(key, value.as_deref())?;
            let mut state = self.0.state();
            // Unless a clone of this session made a change in between.
            if state.changes.seq() == seq {
                let step = Arc::new(move |key: &str, value: Option<&[u8]>| {
                    step(key, value).map(|(_, value)| value)
                });
                state.changes.update(key, step, value);
                return Ok(next);
            }
        }
    }

    /// Removes `key` and returns what was under it. A value that is not a `T` stays.
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

    /// Removes `key`; whether it was there.
    pub fn remove(&self, key: &str) -> bool {
        if key.starts_with(RESERVED) {
            return false;
        }
        let mut state = self.0.state();
        let state = &mut *state;
        let was_there = state.changes.contains(&state.base, key);
        if was_there {
            state.changes.remove(key);
        }
        was_there
    }

    /// Removes every key. A session that stays empty is deleted and its cookie removed.
    ///
    /// To log somebody out use [`destroy`](Self::destroy), which no parallel request can prevent.
    pub fn clear(&self) {
        self.0.state().changes.clear();
    }

    /// Whether there is a value under `key`.
    #[must_use]
    pub fn contains_key(&self, key: &str) -> bool {
        let state = self.0.state();
        !key.starts_with(RESERVED) && state.changes.contains(&state.base, key)
    }

    /// The keys, oldest first.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let state = self.0.state();
        state.changes.keys(&state.base).map(str::to_owned).collect()
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        let state = self.0.state();
        state.changes.keys(&state.base).count()
    }

    /// Whether there is no key at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let state = self.0.state();
        state.changes.keys(&state.base).next().is_none()
    }

    /// The typed section `T`; `None` if it was never set.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn section<T: Section>(&self) -> Result<Option<T>, SessionError> {
        self.get(T::KEY)
    }

    /// Sets the typed section `T` as a whole.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn set_section<T: Section>(&self, section: &T) -> Result<(), SessionError> {
        self.insert(T::KEY, section)
    }

    /// Changes the typed section `T`, as [`update`](Self::update) does, and returns it.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    pub fn update_section<T, F>(&self, f: F) -> Result<T, SessionError>
    where
        T: Section,
        F: Fn(Option<T>) -> T + Send + Sync + 'static,
    {
        self.update(T::KEY, f)
    }

    /// Removes the typed section `T`; whether it was there.
    pub fn remove_section<T: Section>(&self) -> bool {
        self.remove(T::KEY)
    }

    /// Gives the session a new id when it is saved, and retires the old one.
    ///
    /// Call it when somebody logs in or gains rights, so that an id that was known before is worth nothing afterwards
    /// (OWASP, session fixation; ASVS 5.0, 7.2.4). The data stays. A session that is not stored yet gets a fresh id anyway.
    ///
    /// ```
    /// # use axum_redis_sessions::{Session, SessionError};
    /// async fn log_in(session: Session) -> Result<(), SessionError> {
    ///     // … check the password …
    ///     session.cycle_id();
    ///     session.insert("user", 42)
    /// }
    /// ```
    pub fn cycle_id(&self) {
        self.0.state().cycle = true;
    }

    /// Ends the session: log out. It is deleted whatever other requests do, and its cookie removed.
    ///
    /// What is inserted afterwards begins another session, with an id of its own.
    pub fn destroy(&self) {
        self.0.state().destroy();
    }

    /// Whether the session outlives the browser ("remember me").
    ///
    /// `true`: the cookie has a Max-Age, and the session lives for
    /// [`with_permanent_lifetime`](crate::RedisSessionLayer::with_permanent_lifetime) from its last use. `false`, the default:
    /// the cookie ends with the browser, and the session
    /// [`with_idle_timeout`](crate::RedisSessionLayer::with_idle_timeout) after its last use.
    pub fn set_permanent(&self, permanent: bool) {
        if self.is_permanent() != permanent {
            self.0
                .state()
                .changes
                .set_permanent(permanent.then(unix_secs));
        }
    }

    /// Whether the session outlives the browser.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        let state = self.0.state();
        state.changes.metadata(&state.base).permanent.is_some()
    }

    /// The id under which the session is stored; `None` before it is saved for the first time, and once it has ended.
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        match self.0.state().status {
            Status::Persisted(id) => Some(id),
            Status::New | Status::Rotated | Status::Gone => None,
        }
    }

    /// Saves now what was changed so far, instead of after the handler.
    ///
    /// For handlers that go on after their response: streams, Server-Sent Events, WebSockets. Such a handler begins the session
    /// before it responds, for afterwards the browser can no longer be told an id.
    ///
    /// It waits for nothing else, so it may be called as often as needed. After an error the changes are still there, and can
    /// be saved again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ended`] if the session was logged out, rotated away or expired: the changes are dropped.
    /// [`ErrorKind::HeadersSent`] if the browser would have to be told of a new id, but the response's head is sent.
    /// [`ErrorKind::Unavailable`] and [`ErrorKind::Rejected`] from the store, [`ErrorKind::Conflict`] if other requests were
    /// faster each time, [`ErrorKind::TooLarge`], and [`ErrorKind::Decode`] from a replayed [`update`](Self::update).
    pub async fn save(&self) -> Result<(), SessionError> {
        match commit(&self.0).await? {
            CommitOutcome::Unchanged | CommitOutcome::Stored => Ok(()),
            CommitOutcome::Dropped => Err(SessionError::new(
                ErrorKind::Ended,
                "the session was logged out, rotated away or expired while this request ran, so its changes were dropped: end \
                 the stream, and let the browser come again",
            )),
        }
    }

    pub(crate) fn new(context: Arc<Context>, status: Status, base: Record) -> Self {
        Self(Arc::new(SessionCell::new(context, status, base)))
    }

    pub(crate) fn inner(&self) -> &Arc<SessionCell> {
        &self.0
    }
}

/// Shows neither id, keys nor values.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

fn check_key(key: &str) -> Result<(), SessionError> {
    if !key.starts_with(RESERVED) {
        return Ok(());
    }
    Err(SessionError::new(
        ErrorKind::ReservedKey,
        "session keys that begin with `_` are reserved for this crate: name it otherwise",
    ))
}

pub(crate) fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, SessionError> {
    serde_json::from_slice(value).map_err(|error| SessionError::decode::<T>(key, &error))
}

fn encode<T: Serialize>(key: &str, value: &T) -> Result<Bytes, SessionError> {
    record::encode(value).map_err(|error| SessionError::encode(key, &error))
}
