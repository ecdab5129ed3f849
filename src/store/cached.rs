//! Writes with a local cache. Its rules are in `cache/mod.rs`.
//!
//! Every write goes through a [`Modification`](crate::cache::Modification). What it stored is kept only if the same write read the key again, so
//! that the server reports the next change.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{Created, Fault, NewVersion, Outcome, Rotation, Store};
use crate::cache::{Cache, Ticket};

macro_rules! dispatch {
    ($self:ident, $store:ident => $operation:expr) => {
        match $self {
            Store::Redis($store) => $operation,
            Store::Memory(_) => unreachable!("sessions in memory have no cache"),
            #[cfg(test)]
            Store::Stepped($store) => $operation,
        }
    };
}

impl Store {
    pub(super) async fn create_cached(
        &self,
        cache: &Arc<Cache>,
        key: &str,
        value: &impl NewVersion,
        lifetime: Duration,
    ) -> Result<Created, Fault> {
        let modification = cache.modify(key);
        let ticket = self.ticket(key);
        let created = self.create_tracked(key, value.bytes(), lifetime);
        let (created, is_stored) = created.await?;
        if let (true, Some(ticket), Some(record)) = (is_stored, ticket, value.record()) {
            modification.install(ticket, record, lifetime);
        }
        Ok(created)
    }

    pub(super) async fn save_cached(
        &self,
        cache: &Arc<Cache>,
        key: &str,
        expected: &[u8],
        value: &impl NewVersion,
        lifetime: Duration,
    ) -> Result<Outcome, Fault> {
        let modification = cache.modify(key);
        let ticket = self.ticket(key);
        let saved = self.save_tracked(key, expected, value.bytes(), lifetime);
        let (outcome, is_stored) = match saved.await {
            Err(fault @ Fault::NotSent(_)) => {
                modification.cancel();
                return Err(fault);
            }
            saved => saved?,
        };
        if let (true, Some(ticket), Some(record)) = (is_stored, ticket, value.record()) {
            modification.install(ticket, record, lifetime);
        }
        Ok(outcome)
    }

    pub(super) async fn rotate_cached(
        &self,
        cache: &Arc<Cache>,
        rotation: &Rotation<'_>,
    ) -> Result<Outcome, Fault> {
        let _ended = cache.end(rotation.from);
        let modification = cache.modify(rotation.to);
        let ticket = self.ticket(rotation.to);
        let (outcome, is_stored) = self.rotate_tracked(rotation).await?;
        let is_stored = is_stored && outcome == Outcome::Saved;
        if let (true, Some(ticket), Some(record)) = (is_stored, ticket, rotation.record) {
            modification.install(ticket, record, rotation.lifetime);
        }
        Ok(outcome)
    }

    /// Taken before a command for `key` is sent. `None`: the server reports no changes, or there is no connection yet.
    pub(crate) fn ticket(&self, key: &str) -> Option<Ticket> {
        dispatch!(self, store => store.ticket(key))
    }

    /// The value under `key` and its TTL, if it has one; read so that the server reports the next change. The TTL is not changed.
    pub(crate) async fn fetch(
        &self,
        key: &str,
    ) -> Result<Option<(Bytes, Option<Duration>)>, Fault> {
        dispatch!(self, store => store.fetch(key).await)
    }

    /// Sets the TTL of `key`, and reads the value in the same write to the connection.
    pub(crate) async fn touch_and_fetch(
        &self,
        key: &str,
        ttl: Duration,
    ) -> Result<Option<Bytes>, Fault> {
        dispatch!(self, store => store.touch_and_fetch(key, ttl).await)
    }

    /// The boolean, here and below: the server will report the key's next change, and the key holds what was written.
    async fn create_tracked(
        &self,
        key: &str,
        value: &Bytes,
        ttl: Duration,
    ) -> Result<(Created, bool), Fault> {
        dispatch!(self, store => store.create_tracked(key, value, ttl).await)
    }

    async fn save_tracked(
        &self,
        key: &str,
        expected: &[u8],
        value: &Bytes,
        ttl: Duration,
    ) -> Result<(Outcome, bool), Fault> {
        dispatch!(self, store => store.save_tracked(key, expected, value, ttl).await)
    }

    async fn rotate_tracked(&self, rotation: &Rotation<'_>) -> Result<(Outcome, bool), Fault> {
        dispatch!(self, store => store.rotate_tracked(rotation).await)
    }
}
