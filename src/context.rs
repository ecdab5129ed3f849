//! What the requests of one layer share.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

#[cfg(feature = "encryption")]
use crate::encryption::not_encrypted;
use crate::{
    config::Config,
    error::{ErrorKind, SessionError},
    failure_log::FailureLog,
    id::SessionId,
    record::{Decoded, Record},
    stats::{Counters, Event, Timed},
    store::{Store, UserIndexKey},
    trace,
    unreadable::UnreadableKeys,
};
#[cfg(feature = "migration")]
use crate::{
    expiry,
    format::{Sharing, not_decodable, not_encodable},
    random::random_bytes,
};

/// Lock stripes, at 40 bytes each. Two sessions that share one queue behind each other, so there are many.
const COMMIT_LOCKS: usize = 256;

#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) shared: Arc<Shared>,
}

/// What a layer shares with its clones, whatever options they set.
pub(crate) struct Shared {
    pub(crate) counters: Arc<Counters>,
    pub(crate) unreadable_keys: UnreadableKeys,
    pub(crate) failures: Arc<FailureLog>,
    /// Commits that continue after their client has disconnected.
    pub(crate) detached_commits: TaskTracker,
    commit_locks: [Mutex<()>; COMMIT_LOCKS],
}

impl Context {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            config: Config::default(),
            shared: Arc::new(Shared {
                counters: store.counters(),
                unreadable_keys: UnreadableKeys::default(),
                failures: Arc::default(),
                detached_commits: TaskTracker::new(),
                commit_locks: std::array::from_fn(|_| Mutex::default()),
            }),
            store,
        }
    }

    /// The Redis key of a session.
    pub(crate) fn key(&self, id: SessionId) -> String {
        if self.config.hashed_keys {
            id.hashed_key(&self.config.prefix)
        } else {
            id.key(&self.config.prefix)
        }
    }

    /// What the store is to hold under a session's key instead of the record's JSON; `None`: the JSON itself. `previous` is what it holds now.
    pub(crate) fn seal(
        &self,
        id: SessionId,
        record: &Record,
        previous: Option<&Bytes>,
    ) -> Result<Option<Bytes>, SessionError> {
        #[cfg(feature = "migration")]
        if let Some(sharing) = &self.config.cookie.sharing {
            let max_age = expiry::max_age(&self.config, record.metadata);
            return self.encode(sharing, record.bytes(), previous, max_age);
        }
        let _ = previous;
        self.encrypt(id, record.bytes())
    }

    /// The same for the tombstone of a rotated session.
    pub(crate) fn seal_tombstone(
        &self,
        id: SessionId,
        json: &Bytes,
    ) -> Result<Option<Bytes>, SessionError> {
        #[cfg(feature = "migration")]
        if let Some(sharing) = &self.config.cookie.sharing {
            return self.encode(sharing, json, None, None);
        }
        self.encrypt(id, json)
    }

    fn encrypt(&self, id: SessionId, json: &Bytes) -> Result<Option<Bytes>, SessionError> {
        #[cfg(feature = "encryption")]
        if let Some(encryption) = &self.config.encryption {
            return encryption.seal(&self.key(id), json).map(Some);
        }
        let _ = (id, json);
        Ok(None)
    }

    #[cfg(feature = "migration")]
    fn encode(
        &self,
        sharing: &Sharing,
        json: &Bytes,
        previous: Option<&Bytes>,
        max_age: Option<Duration>,
    ) -> Result<Option<Bytes>, SessionError> {
        let json = std::str::from_utf8(json).expect("JSON");
        let cookie = self.config.cookie.attributes();
        let encoded = sharing.encode(json, previous.map(|bytes| &bytes[..]), max_age, cookie);
        match encoded {
            Ok(stored) => Ok(Some(stored.into())),
            Err(error) => Err(not_encodable(&error)),
        }
    }

    /// The meaning of what the store holds under a session's key.
    pub(crate) fn decode(&self, key: &str, stored: &Bytes) -> Result<Decoded, SessionError> {
        #[cfg(feature = "migration")]
        if let Some(sharing) = &self.config.cookie.sharing {
            let json = sharing
                .decode(stored)
                .map_err(|error| not_decodable(&error))?;
            let mut decoded = Record::decode(&json.into())?;
            match &mut decoded {
                Decoded::Session(record) => {
                    record.is_shared = true;
                    record.set_sealed(stored.clone());
                }
                Decoded::Tombstone { readable, .. } => {
                    let record = readable.iter_mut().map(|(_, record)| record);
                    record.for_each(|record| record.is_shared = true);
                }
                Decoded::Empty => {}
            }
            return Ok(decoded);
        }
        #[cfg(feature = "encryption")]
        if let Some(encryption) = &self.config.encryption {
            let opened = encryption.open(key, stored)?;
            if opened.is_none() && self.config.encryption_required {
                return Err(not_encrypted());
            }
            let json = opened.as_ref().map_or(stored, |opened| &opened.json);
            let mut decoded = Record::decode(json)?;
            if let Decoded::Session(record) = &mut decoded {
                record.is_outdated = !opened.as_ref().is_some_and(|opened| opened.by_first_key);
                if opened.is_some() {
                    record.set_sealed(stored.clone());
                }
            }
            return Ok(decoded);
        }
        let _ = key;
        Record::decode(stored)
    }

    /// Whether another framework changed the version `own` of this crate to `stored`, so that `own` was stored before.
    pub(crate) fn is_built_on(&self, stored: &[u8], own: &[u8]) -> bool {
        #[cfg(feature = "migration")]
        if let Some(sharing) = &self.config.cookie.sharing {
            let revision = sharing.revision(stored);
            return revision.is_some() && revision == sharing.revision(own);
        }
        let _ = (stored, own);
        false
    }

    /// The part of a session's key after the prefix.
    pub(crate) fn key_suffix(&self, id: SessionId) -> String {
        self.key(id).split_off(self.config.prefix.len())
    }

    pub(crate) fn session_key(&self, suffix: &str) -> String {
        [&self.config.prefix, suffix].concat()
    }

    pub(crate) fn user_index_key(&self, user: &str) -> UserIndexKey {
        UserIndexKey::new(&self.config.prefix, user)
    }

    /// A record for a session that is not stored yet.
    pub(crate) fn new_record(&self) -> Record {
        #[cfg(feature = "migration")]
        let is_shared = self.config.cookie.sharing.is_some();
        #[cfg(not(feature = "migration"))]
        let is_shared = false;
        Record::empty(is_shared)
    }

    pub(crate) fn generate_id(&self) -> Result<SessionId, SessionError> {
        #[cfg(feature = "migration")]
        if let Some(sharing) = &self.config.cookie.sharing {
            let id = sharing.new_id(random_bytes()?);
            return id.ok_or_else(SessionError::id_taken);
        }
        let Some(generate) = &self.config.id_generator else {
            return SessionId::random();
        };
        let id = generate();
        if id.is_nil() {
            Err(SessionError::id_taken())
        } else {
            Ok(id)
        }
    }

    /// The value under `key` is not a session.
    pub(crate) fn note_unreadable(&self, key: &str, error: &SessionError) {
        self.shared.unreadable_keys.add(key);
        self.count(Event::LoadUnreadable);
        if self.config.discard_unreadable {
            let event = "a visitor has an empty session, since the stored one cannot be read";
            self.shared.failures.report(event, error);
        }
    }

    /// The lock for commits to a session that conflict within this process.
    pub(crate) fn commit_lock(&self, id: SessionId) -> &Mutex<()> {
        &self.shared.commit_locks[id.bucket(COMMIT_LOCKS)]
    }

    /// Runs a load within `deadline`, with its span, its time and its failure.
    pub(crate) async fn observe_load<T>(
        &self,
        deadline: Duration,
        load: impl Future<Output = Result<T, SessionError>> + Unpin,
    ) -> Result<T, SessionError> {
        let begun = Instant::now();
        let work = self.store.with_deadline(deadline, load);
        let loaded = if trace::is_enabled() {
            Box::pin(trace::in_span(trace::load_span(), work)).await
        } else {
            work.await
        };
        self.shared.counters.time(Timed::Load, begun);
        loaded.inspect_err(|error| {
            if error.kind() != ErrorKind::InvalidData {
                self.count(Event::LoadFailed);
            }
            let event = "a session could not be loaded";
            self.shared.failures.report(event, error);
        })
    }

    pub(crate) fn count(&self, event: Event) {
        self.shared.counters.count(event);
    }
}
