//! What only readiness checks and counters ask.

use std::sync::Arc;

use ::redis::Value;

use super::{RedisStore, transport::command_pool::command, unexpected_reply};
use crate::{error::SessionError, stats::Counters, store::outcome::Fault};

impl RedisStore {
    pub(crate) fn counters(&self) -> Arc<Counters> {
        self.transport.counters()
    }

    /// By EVAL: a script that the server knows already is called by EVALSHA.
    pub(crate) async fn check_scripts(&self, key: &str) -> Result<(), Fault> {
        if self.scripts.is_none() {
            return Ok(());
        }
        let mut eval = command("EVAL", &[b"return 1", b"1", key.as_bytes()]);
        match self.read(key, &mut eval).await? {
            Value::Int(1) => Ok(()),
            _ => Err(unexpected_reply()),
        }
    }

    pub(crate) async fn one_per_server<T>(
        &self,
        candidates: impl Iterator<Item = T>,
        key_of: impl Fn(&T) -> String,
    ) -> Result<Vec<T>, SessionError> {
        self.transport.one_per_server(candidates, key_of).await
    }
}
