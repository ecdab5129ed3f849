//! The sessions of a user: for each user one sorted set, whose members are the names of the user's sessions, by when each was last entered.
//!
//! A set may name sessions that have ended, as they end by themselves; who reads it looks at each. What matters is that no live session is
//! missing: a session is entered before it exists, and the set outlives all that are in it.

use std::time::Duration;

use ::redis::{Cmd, Value};
use bytes::Bytes;

use super::{
    Fault, MemoryStore, RedisStore, Store,
    redis::{Weight, command, millis, unexpected},
};

/// A session among those of its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// What follows the prefix in the session's key.
    pub(crate) name: String,
    /// Unix microseconds at which it was last entered.
    pub(crate) entered: u64,
}

/// How a session is entered.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry<'a> {
    /// The name of the same session so far, whose place it takes.
    pub(crate) former: Option<&'a str>,
    /// Only if fewer than this many others are there.
    pub(crate) most: Option<usize>,
}

/// Where the limit is reached nothing is entered, unless the session is there already, under this name or its former one. The set then
/// lives for ARGV[3] milliseconds at least.
pub(super) const ENTER: &str = "\
if ARGV[5] and not redis.call('ZSCORE', KEYS[1], ARGV[1]) and not redis.call('ZSCORE', KEYS[1], ARGV[4]) \
and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[5]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1";

impl Store {
    /// Enters a session; `false`: there are too many.
    pub(crate) async fn enter(
        &self,
        set: &str,
        session: &Listed,
        lifetime: Duration,
        entry: Entry<'_>,
    ) -> Result<bool, Fault> {
        match self {
            Self::Redis(store) => store.enter(set, session, lifetime, entry).await,
            Self::Memory(store) => Ok(store.enter(set, session, entry)),
            #[cfg(test)]
            Self::Stepped(store) => Ok(store.memory().enter(set, session, entry)),
        }
    }

    /// Takes sessions out.
    pub(crate) async fn leave(&self, set: &str, names: &[String]) -> Result<(), Fault> {
        match self {
            Self::Redis(store) => store.leave(set, names).await?,
            Self::Memory(store) => store.leave(set, names),
            #[cfg(test)]
            Self::Stepped(store) => store.memory().leave(set, names),
        }
        Ok(())
    }

    /// At most `count` of them, from the `first` on, the one first that was entered the longest ago.
    pub(crate) async fn listed(
        &self,
        set: &str,
        first: usize,
        count: usize,
    ) -> Result<Vec<Listed>, Fault> {
        match self {
            Self::Redis(store) => store.listed(set, first, count).await,
            Self::Memory(store) => Ok(store.listed(set, first, count)),
            #[cfg(test)]
            Self::Stepped(store) => Ok(store.memory().listed(set, first, count)),
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
        set: &str,
        session: &Listed,
        lifetime: Duration,
        entry: Entry<'_>,
    ) -> Result<bool, Fault> {
        let entered = session.entered.to_string();
        let lifetime = millis(lifetime).to_string();
        let Some(scripts) = self.scripts() else {
            return self.enter_in_steps(set, session, &lifetime, entry).await;
        };
        let former = entry.former.unwrap_or_default();
        let most = entry.most.map(|most| most.to_string());
        let mut arguments = vec![
            session.name.as_bytes(),
            entered.as_bytes(),
            lifetime.as_bytes(),
            former.as_bytes(),
        ];
        arguments.extend(most.as_ref().map(String::as_bytes));
        match self
            .run(Weight::Usual, &scripts.enter, &[set], &arguments)
            .await?
        {
            Value::Int(entered) => Ok(entered == 1),
            _ => Err(unexpected()),
        }
    }

    /// Without scripts, two logins at the same moment can both find room.
    async fn enter_in_steps(
        &self,
        set: &str,
        session: &Listed,
        lifetime: &str,
        entry: Entry<'_>,
    ) -> Result<bool, Fault> {
        if let Some(most) = entry.most {
            let mut is_known = false;
            for name in [Some(session.name.as_str()), entry.former]
                .into_iter()
                .flatten()
            {
                let mut score = command("ZSCORE", &[set.as_bytes()]);
                score.arg(name);
                is_known |= self.send(set, &score).await? != Value::Nil;
            }
            let count = command("ZCARD", &[set.as_bytes()]);
            let Value::Int(count) = self.send(set, &count).await? else {
                return Err(unexpected());
            };
            if !is_known && usize::try_from(count).unwrap_or(0) >= most {
                return Ok(false);
            }
        }
        let mut add = command("ZADD", &[set.as_bytes()]);
        add.arg(session.entered).arg(&session.name);
        self.write(Weight::Usual, set, &add).await?;
        let left = self.send(set, &command("PTTL", &[set.as_bytes()])).await?;
        let is_short = |left: i64| lifetime.parse().is_ok_and(|lifetime: i64| left < lifetime);
        if matches!(left, Value::Int(left) if is_short(left)) {
            let mut expire = command("PEXPIRE", &[set.as_bytes()]);
            expire.arg(lifetime);
            self.send(set, &expire).await?;
        }
        Ok(true)
    }

    async fn leave(&self, set: &str, names: &[String]) -> Result<(), Fault> {
        if names.is_empty() {
            return Ok(());
        }
        let mut command = Cmd::with_capacity(
            2 + names.len(),
            set.len() + names.iter().map(String::len).sum::<usize>() + 4,
        );
        command.arg("ZREM").arg(set).arg(names);
        self.write(Weight::Usual, set, &command).await.map(drop)
    }

    async fn listed(&self, set: &str, first: usize, count: usize) -> Result<Vec<Listed>, Fault> {
        let mut command = command("ZRANGE", &[set.as_bytes()]);
        command.arg(first).arg(first + count - 1).arg("WITHSCORES");
        let reply = self.send(set, &command).await?;
        let pairs: Vec<(String, f64)> =
            ::redis::from_redis_value(reply).map_err(|_| unexpected())?;
        let listed = pairs.into_iter().map(|(name, entered)| Listed {
            name,
            // Whole microseconds, below 2⁵³.
            entered: entered as u64,
        });
        Ok(listed.collect())
    }

    async fn value(&self, key: &str) -> Result<Option<Bytes>, Fault> {
        match self.send(key, &command("GET", &[key.as_bytes()])).await? {
            Value::Nil => Ok(None),
            Value::BulkString(value) => Ok(Some(value.into())),
            _ => Err(unexpected()),
        }
    }

    async fn peek(&self, key: &str) -> Result<Option<(Bytes, Duration)>, Fault> {
        let left = command("PTTL", &[key.as_bytes()]);
        let both = futures_util::future::try_join(self.value(key), self.send(key, &left));
        match both.await? {
            (None, _) | (_, Value::Int(-2)) => Ok(None),
            (Some(value), Value::Int(left)) => {
                let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
                Ok(Some((value, left)))
            }
            _ => Err(unexpected()),
        }
    }
}

impl MemoryStore {
    fn enter(&self, set: &str, session: &Listed, entry: Entry<'_>) -> bool {
        let mut keys = self.keys();
        let listed = keys.users.entry(set.into()).or_default();
        let is_known = |name: &str| listed.iter().any(|other| other.name == name);
        if entry.most.is_some_and(|most| listed.len() >= most)
            && !is_known(&session.name)
            && !entry.former.is_some_and(is_known)
        {
            return false;
        }
        listed.retain(|other| other.name != session.name);
        let place = listed.partition_point(|other| other.entered <= session.entered);
        listed.insert(place, session.clone());
        true
    }

    fn leave(&self, set: &str, names: &[String]) {
        let mut keys = self.keys();
        if let Some(listed) = keys.users.get_mut(set) {
            listed.retain(|session| !names.contains(&session.name));
            if listed.is_empty() {
                keys.users.remove(set);
            }
        }
    }

    fn listed(&self, set: &str, first: usize, count: usize) -> Vec<Listed> {
        let keys = self.keys();
        let listed = keys.users.get(set).into_iter().flatten();
        listed.skip(first).take(count).cloned().collect()
    }

    fn peek(&self, key: &str) -> Option<(Bytes, Duration)> {
        let mut keys = self.keys();
        let value = keys.live(key)?;
        let left = value
            .expires
            .saturating_duration_since(std::time::Instant::now());
        Some((value.bytes.clone(), left))
    }
}
