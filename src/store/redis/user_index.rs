//! The index of a user's sessions as a sorted set.

use std::time::Duration;

use ::redis::Value;
use bytes::Bytes;

use super::{
    Durability, RedisStore,
    commands::millis,
    transport::command_pool::{Command, command, size_of},
    unexpected_reply, value,
};
use crate::store::{
    outcome::Fault,
    user_index::{AddOptions, Cursor, IndexEntry, UserIndexKey},
};

impl RedisStore {
    pub(crate) async fn add_to_index(
        &self,
        index: &UserIndexKey,
        entry: &IndexEntry,
        lifetime: Duration,
        options: AddOptions<'_>,
    ) -> Result<bool, Fault> {
        let added_at = entry.added_at.to_string();
        let lifetime = millis(lifetime).to_string();
        let Some(scripts) = &self.scripts else {
            return self.add_in_steps(index, entry, &lifetime, options).await;
        };
        let replaces = options.replaces.unwrap_or_default();
        let max = options.max.map(|max| max.to_string());
        let mut arguments = vec![
            entry.name.as_bytes(),
            added_at.as_bytes(),
            lifetime.as_bytes(),
            replaces.as_bytes(),
        ];
        arguments.extend(max.as_ref().map(String::as_bytes));
        let add = scripts.add_to_index.command(&[&index.key], &arguments);
        match self.execute_on_index(index, add).await? {
            Value::Int(added) => Ok(added == 1),
            _ => Err(unexpected_reply()),
        }
    }

    /// Without scripts, two logins at the same time can both be under the limit.
    async fn add_in_steps(
        &self,
        index: &UserIndexKey,
        entry: &IndexEntry,
        lifetime: &str,
        options: AddOptions<'_>,
    ) -> Result<bool, Fault> {
        let key = index.key.as_bytes();
        if let Some(max) = options.max {
            let mut is_known = false;
            let names = [Some(entry.name.as_str()), options.replaces];
            for name in names.into_iter().flatten() {
                let score = command("ZSCORE", &[key, name.as_bytes()]);
                is_known |= self.execute_on_index(index, score).await? != Value::Nil;
            }
            if !is_known && self.index_len(index).await? >= max {
                return Ok(false);
            }
        }
        let added_at = entry.added_at.to_string();
        let add = command("ZADD", &[key, added_at.as_bytes(), entry.name.as_bytes()]);
        self.execute_on_index(index, add).await?;
        let ttl = self
            .execute_on_index(index, command("PTTL", &[key]))
            .await?;
        let is_shorter = |ttl: i64| lifetime.parse().is_ok_and(|lifetime: i64| ttl < lifetime);
        if matches!(ttl, Value::Int(ttl) if is_shorter(ttl)) {
            let expire = command("PEXPIRE", &[key, lifetime.as_bytes()]);
            self.execute_on_index(index, expire).await?;
        }
        Ok(true)
    }

    pub(crate) async fn remove_from_index(
        &self,
        index: &UserIndexKey,
        names: &[String],
    ) -> Result<(), Fault> {
        if names.is_empty() {
            return Ok(());
        }
        let size = 4 + index.key.len() + size_of(names);
        let mut remove = Command::new("ZREM", 2 + names.len(), size);
        remove.arg(&index.key).arg(names);
        self.execute_on_index(index, remove).await.map(drop)
    }

    pub(crate) async fn index_len(&self, index: &UserIndexKey) -> Result<usize, Fault> {
        let count = command("ZCARD", &[index.key.as_bytes()]);
        match self.execute_on_index(index, count).await? {
            Value::Int(count) => Ok(usize::try_from(count).unwrap_or(0)),
            _ => Err(unexpected_reply()),
        }
    }

    pub(crate) async fn index_page(
        &self,
        index: &UserIndexKey,
        cursor: Cursor,
        count: usize,
    ) -> Result<Vec<IndexEntry>, Fault> {
        let mut range = command("ZRANGE", &[index.key.as_bytes()]);
        range.arg(cursor.added_at).arg("+inf").arg("BYSCORE");
        range.arg("LIMIT").arg(cursor.seen).arg(count);
        range.arg("WITHSCORES");
        let reply = self.execute_on_index(index, range).await?;
        let pairs: Vec<(String, f64)> =
            ::redis::from_redis_value(reply).map_err(|_| unexpected_reply())?;
        let entries = pairs.into_iter().map(|(name, added_at)| IndexEntry {
            name,
            // Whole microseconds, less than 2⁵³.
            added_at: added_at as u64,
        });
        Ok(entries.collect())
    }

    /// Waits for replicas only if every write does.
    async fn execute_on_index(
        &self,
        index: &UserIndexKey,
        mut command: Command,
    ) -> Result<Value, Fault> {
        let reply = self
            .execute(&index.key, &mut command, Durability::Normal)
            .await;
        reply.map_err(|error| error.into_fault(index.prefix()))
    }

    pub(crate) async fn value(&self, key: &str) -> Result<Option<Bytes>, Fault> {
        let mut get = command("GET", &[key.as_bytes()]);
        value(self.read(key, &mut get).await?)
    }

    pub(crate) async fn peek(&self, key: &str) -> Result<Option<(Bytes, Duration)>, Fault> {
        let mut ttl = command("PTTL", &[key.as_bytes()]);
        let both = futures_util::future::try_join(self.value(key), self.read(key, &mut ttl));
        match both.await? {
            (None, _) | (_, Value::Int(-2)) => Ok(None),
            (Some(value), Value::Int(ttl)) => {
                // Negative: no TTL, which the next use of the session sets.
                let ttl = u64::try_from(ttl).map_or(Duration::MAX, Duration::from_millis);
                Ok(Some((value, ttl)))
            }
            _ => Err(unexpected_reply()),
        }
    }
}
