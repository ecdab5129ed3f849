//! The sessions of a user: for each user one sorted set, whose members are the names of the user's sessions, by when each was last entered.
//!
//! A set may name sessions that have ended, as they end by themselves; who reads it looks at each. What matters is that no live session is
//! missing: a session is entered before it exists, and the set outlives all that are in it.

use std::time::{Duration, Instant};

use ::redis::Value;
use bytes::Bytes;

use super::{
    Fault, MemoryStore, RedisStore, Store,
    command_pool::{Command, command, size_of},
    redis::{Durability, millis, unexpected},
};

/// A session among those of its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// What follows the prefix in the session's key.
    pub(crate) name: String,
    /// Unix microseconds at which it was last entered.
    pub(crate) added_at: u64,
}

/// The key of the set of a user's sessions.
pub(crate) struct UserIndexKey {
    key: String,
    prefix: usize,
}

/// How far into a set somebody has looked. By time rather than by number: sessions that leave meanwhile, or are entered again and so move to
/// the end, hide no other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    pub(super) added_at: u64,
    /// How many that were entered at that very microsecond were seen and are still there.
    pub(super) seen: usize,
}

/// How a session is entered.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AddOptions<'a> {
    /// The name of the same session so far, whose place it takes.
    pub(crate) replaces: Option<&'a str>,
    /// Only if fewer than this many others are there.
    pub(crate) max: Option<usize>,
}

/// Where the limit is reached nothing is entered, unless the session is there already, under this name or its replaces one. The set then
/// lives for ARGV[3] milliseconds at least.
pub(super) const ENTER: &str = "\
if ARGV[5] and not redis.call('ZSCORE', KEYS[1], ARGV[1]) and not redis.call('ZSCORE', KEYS[1], ARGV[4]) \
and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[5]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1";

impl UserIndexKey {
    /// No session's key is one of these: what follows the prefix there are hexadecimal digits.
    pub(crate) fn new(prefix: &str, user: &str) -> Self {
        Self {
            key: [prefix, "user:", user].concat(),
            prefix: prefix.len(),
        }
    }

    /// All that an error may show of it.
    fn prefix(&self) -> &str {
        &self.key[..self.prefix]
    }
}

impl Cursor {
    /// Behind `page`, of which `gone` have left.
    pub(crate) fn after(self, page: &[IndexEntry], gone: &[String]) -> Self {
        let Some(IndexEntry { added_at, .. }) = page.last() else {
            return self;
        };
        let stay = page
            .iter()
            .filter(|other| other.added_at == *added_at && !gone.contains(&other.name));
        let before = if self.added_at == *added_at {
            self.seen
        } else {
            0
        };
        Self {
            added_at: *added_at,
            seen: before + stay.count(),
        }
    }
}

impl Store {
    /// Enters a session; `false`: there are too many.
    pub(crate) async fn enter(
        &self,
        set: &UserIndexKey,
        session: &IndexEntry,
        lifetime: Duration,
        entry: AddOptions<'_>,
    ) -> Result<bool, Fault> {
        match self {
            Self::Redis(store) => store.enter(set, session, lifetime, entry).await,
            Self::Memory(store) => Ok(store.enter(set, session, lifetime, entry)),
            #[cfg(test)]
            Self::Stepped(store) => Ok(store.memory().enter(set, session, lifetime, entry)),
        }
    }

    /// Takes sessions out.
    pub(crate) async fn leave(&self, set: &UserIndexKey, names: &[String]) -> Result<(), Fault> {
        match self {
            Self::Redis(store) => store.leave(set, names).await?,
            Self::Memory(store) => store.leave(set, names),
            #[cfg(test)]
            Self::Stepped(store) => store.memory().leave(set, names),
        }
        Ok(())
    }

    /// How many were entered and not taken out, dead or alive.
    pub(crate) async fn entered(&self, set: &UserIndexKey) -> Result<usize, Fault> {
        match self {
            Self::Redis(store) => store.entered(set).await,
            Self::Memory(store) => Ok(store.entered(set)),
            #[cfg(test)]
            Self::Stepped(store) => Ok(store.memory().entered(set)),
        }
    }

    /// At max `count` of them, from the cursor on, the one first that was entered the longest ago.
    pub(crate) async fn listed(
        &self,
        set: &UserIndexKey,
        cursor: Cursor,
        count: usize,
    ) -> Result<Vec<IndexEntry>, Fault> {
        match self {
            Self::Redis(store) => store.listed(set, cursor, count).await,
            Self::Memory(store) => Ok(store.listed(set, cursor, count)),
            #[cfg(test)]
            Self::Stepped(store) => Ok(store.memory().listed(set, cursor, count)),
        }
    }

    /// The value under `key`, without letting it live longer.
    pub(crate) async fn value(&self, key: &str) -> Result<Option<Bytes>, Fault> {
        match self {
            Self::Redis(store) => store.value(key).await,
            Self::Memory(store) => Ok(store.peek(key).map(|(value, _)| value)),
            #[cfg(test)]
            Self::Stepped(store) => Ok(store.memory().peek(key).map(|(value, _)| value)),
        }
    }

    /// The value under `key` and how long it is still to live, without letting it live longer.
    pub(crate) async fn peek(&self, key: &str) -> Result<Option<(Bytes, Duration)>, Fault> {
        match self {
            Self::Redis(store) => store.peek(key).await,
            Self::Memory(store) => Ok(store.peek(key)),
            #[cfg(test)]
            Self::Stepped(store) => Ok(store.memory().peek(key)),
        }
    }
}

impl RedisStore {
    async fn enter(
        &self,
        set: &UserIndexKey,
        session: &IndexEntry,
        lifetime: Duration,
        entry: AddOptions<'_>,
    ) -> Result<bool, Fault> {
        let entered = session.added_at.to_string();
        let lifetime = millis(lifetime).to_string();
        let Some(scripts) = self.scripts() else {
            return self.enter_in_steps(set, session, &lifetime, entry).await;
        };
        let replaces = entry.replaces.unwrap_or_default();
        let max = entry.max.map(|max| max.to_string());
        let mut arguments = vec![
            session.name.as_bytes(),
            entered.as_bytes(),
            lifetime.as_bytes(),
            replaces.as_bytes(),
        ];
        arguments.extend(max.as_ref().map(String::as_bytes));
        let reply = self
            .invoke(Durability::Normal, &scripts.enter, &[&set.key], &arguments)
            .await;
        match reply.map_err(|failure| failure.into_fault(set.prefix()))? {
            Value::Int(entered) => Ok(entered == 1),
            _ => Err(unexpected()),
        }
    }

    /// Without scripts, two logins at the same moment can both find room.
    async fn enter_in_steps(
        &self,
        set: &UserIndexKey,
        session: &IndexEntry,
        lifetime: &str,
        entry: AddOptions<'_>,
    ) -> Result<bool, Fault> {
        if let Some(max) = entry.max {
            let mut is_known = false;
            for name in [Some(session.name.as_str()), entry.replaces]
                .into_iter()
                .flatten()
            {
                let mut score = command("ZSCORE", &[set.key.as_bytes(), name.as_bytes()]);
                is_known |= self.ask(set, &mut score).await? != Value::Nil;
            }
            if !is_known && self.entered(set).await? >= max {
                return Ok(false);
            }
        }
        let entered = session.added_at.to_string();
        let add = [&set.key, &entered, &session.name].map(String::as_bytes);
        self.ask(set, &mut command("ZADD", &add)).await?;
        let left = self
            .ask(set, &mut command("PTTL", &[set.key.as_bytes()]))
            .await?;
        let is_short = |left: i64| lifetime.parse().is_ok_and(|lifetime: i64| left < lifetime);
        if matches!(left, Value::Int(left) if is_short(left)) {
            let mut expire = command("PEXPIRE", &[set.key.as_bytes(), lifetime.as_bytes()]);
            self.ask(set, &mut expire).await?;
        }
        Ok(true)
    }

    async fn leave(&self, set: &UserIndexKey, names: &[String]) -> Result<(), Fault> {
        if names.is_empty() {
            return Ok(());
        }
        let size = 4 + set.key.len() + size_of(names);
        let mut command = Command::new("ZREM", 2 + names.len(), size);
        command.arg(&set.key).arg(names);
        self.ask(set, &mut command).await.map(drop)
    }

    async fn entered(&self, set: &UserIndexKey) -> Result<usize, Fault> {
        match self
            .ask(set, &mut command("ZCARD", &[set.key.as_bytes()]))
            .await?
        {
            Value::Int(count) => Ok(usize::try_from(count).unwrap_or(0)),
            _ => Err(unexpected()),
        }
    }

    async fn listed(
        &self,
        set: &UserIndexKey,
        cursor: Cursor,
        count: usize,
    ) -> Result<Vec<IndexEntry>, Fault> {
        let mut command = command("ZRANGE", &[set.key.as_bytes()]);
        command.arg(cursor.added_at).arg("+inf").arg("BYSCORE");
        command.arg("LIMIT").arg(cursor.seen).arg(count);
        command.arg("WITHSCORES");
        let reply = self.ask(set, &mut command).await?;
        let pairs: Vec<(String, f64)> =
            ::redis::from_redis_value(reply).map_err(|_| unexpected())?;
        let listed = pairs.into_iter().map(|(name, entered)| IndexEntry {
            name,
            // Whole microseconds, below 2⁵³.
            added_at: entered as u64,
        });
        Ok(listed.collect())
    }

    /// A write to a set waits for replicas where every write does.
    async fn ask(&self, set: &UserIndexKey, command: &mut Command) -> Result<Value, Fault> {
        self.send_durable(Durability::Normal, &set.key, command)
            .await
            .map_err(|failure| failure.into_fault(set.prefix()))
    }

    async fn value(&self, key: &str) -> Result<Option<Bytes>, Fault> {
        match self
            .send(key, &mut command("GET", &[key.as_bytes()]))
            .await?
        {
            Value::Nil => Ok(None),
            Value::BulkString(value) => Ok(Some(value.into())),
            _ => Err(unexpected()),
        }
    }

    async fn peek(&self, key: &str) -> Result<Option<(Bytes, Duration)>, Fault> {
        let mut left = command("PTTL", &[key.as_bytes()]);
        let both = futures_util::future::try_join(self.value(key), self.send(key, &mut left));
        match both.await? {
            (None, _) | (_, Value::Int(-2)) => Ok(None),
            (Some(value), Value::Int(left)) => {
                // Below zero: for ever, until its next use repairs that.
                let left = u64::try_from(left).map_or(Duration::MAX, Duration::from_millis);
                Ok(Some((value, left)))
            }
            _ => Err(unexpected()),
        }
    }
}

/// A set of the embedded store.
pub(super) struct UserIndex {
    /// The one first that was entered the longest ago.
    listed: Vec<IndexEntry>,
    pub(super) expires: Instant,
}

impl MemoryStore {
    fn enter(
        &self,
        set: &UserIndexKey,
        session: &IndexEntry,
        lifetime: Duration,
        entry: AddOptions<'_>,
    ) -> bool {
        let mut keys = self.keys();
        let expires = Instant::now() + lifetime;
        let members = keys.users.entry(set.key.as_str().into());
        let members = members.or_insert_with(|| UserIndex {
            listed: Vec::new(),
            expires,
        });
        let listed = &mut members.listed;
        let is_known = |name: &str| listed.iter().any(|other| other.name == name);
        if entry.max.is_some_and(|max| listed.len() >= max)
            && !is_known(&session.name)
            && !entry.replaces.is_some_and(is_known)
        {
            return false;
        }
        listed.retain(|other| other.name != session.name);
        let place = listed.partition_point(|other| other.added_at <= session.added_at);
        listed.insert(place, session.clone());
        members.expires = members.expires.max(expires);
        true
    }

    fn leave(&self, set: &UserIndexKey, names: &[String]) {
        let mut keys = self.keys();
        if let Some(members) = keys.users.get_mut(&*set.key) {
            members
                .listed
                .retain(|session| !names.contains(&session.name));
            if members.listed.is_empty() {
                keys.users.remove(&*set.key);
            }
        }
    }

    fn entered(&self, set: &UserIndexKey) -> usize {
        let keys = self.keys();
        keys.users
            .get(&*set.key)
            .map_or(0, |members| members.listed.len())
    }

    fn listed(&self, set: &UserIndexKey, cursor: Cursor, count: usize) -> Vec<IndexEntry> {
        let keys = self.keys();
        let Some(members) = keys.users.get(&*set.key) else {
            return Vec::new();
        };
        let listed = &members.listed;
        let first = listed.partition_point(|other| other.added_at < cursor.added_at);
        let from_there = listed[first..].iter().skip(cursor.seen);
        from_there.take(count).cloned().collect()
    }

    fn peek(&self, key: &str) -> Option<(Bytes, Duration)> {
        let mut keys = self.keys();
        let value = keys.live(key)?;
        let left = value.expires.saturating_duration_since(Instant::now());
        Some((value.bytes.clone(), left))
    }
}
