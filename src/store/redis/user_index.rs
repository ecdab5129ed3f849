//! A user's index as one sorted set.

use std::time::Duration;

use ::redis::Value;
use bytes::Bytes;

use super::{
    Durability, RedisStore, millis,
    transport::command_pool::{Command, command, size_of},
    unexpected,
};
use crate::store::{
    outcome::Fault,
    user_index::{AddOptions, Cursor, IndexEntry, UserIndexKey},
};

impl RedisStore {
    pub(crate) async fn enter(
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

    pub(crate) async fn leave(&self, set: &UserIndexKey, names: &[String]) -> Result<(), Fault> {
        if names.is_empty() {
            return Ok(());
        }
        let size = 4 + set.key.len() + size_of(names);
        let mut command = Command::new("ZREM", 2 + names.len(), size);
        command.arg(&set.key).arg(names);
        self.ask(set, &mut command).await.map(drop)
    }

    pub(crate) async fn entered(&self, set: &UserIndexKey) -> Result<usize, Fault> {
        match self
            .ask(set, &mut command("ZCARD", &[set.key.as_bytes()]))
            .await?
        {
            Value::Int(count) => Ok(usize::try_from(count).unwrap_or(0)),
            _ => Err(unexpected()),
        }
    }

    pub(crate) async fn listed(
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

    pub(crate) async fn value(&self, key: &str) -> Result<Option<Bytes>, Fault> {
        match self
            .send(key, &mut command("GET", &[key.as_bytes()]))
            .await?
        {
            Value::Nil => Ok(None),
            Value::BulkString(value) => Ok(Some(value.into())),
            _ => Err(unexpected()),
        }
    }

    pub(crate) async fn peek(&self, key: &str) -> Result<Option<(Bytes, Duration)>, Fault> {
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
