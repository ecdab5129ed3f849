//! Changes by this process, which the server does not report to it.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

#[cfg(test)]
use super::Broken;
use super::{Cache, DropCause, Ticket};
use crate::record::Record;

/// A change of a key by this process that is on its way. Unless its result is installed, the key's entry is removed at its end, also
/// if its request gives up.
pub(crate) struct Modification<'a> {
    cache: &'a Cache,
    key: &'a str,
    /// The generation before the change.
    generation: u64,
    is_done: bool,
}

impl Cache {
    /// Begins a change of `key` by this process.
    pub(crate) fn modify<'a>(&'a self, key: &'a str) -> Modification<'a> {
        Modification {
            cache: self,
            key,
            generation: self.generation(key).load(SeqCst),
            is_done: false,
        }
    }

    /// Begins to end the session under `key`, which is removed at once.
    pub(crate) fn end<'a>(&'a self, key: &'a str) -> Modification<'a> {
        self.remove(key, DropCause::Modified);
        self.modify(key)
    }
}

impl Modification<'_> {
    /// The store holds `record` now, and the server will report its next change. `ticket` was taken before the write was sent. If anything
    /// else happened to the key, the entry is removed instead.
    pub(crate) fn install(mut self, ticket: Ticket, record: &Record, ttl: Duration) {
        let next = self.generation + 1;
        let generation = self.cache.generation(self.key);
        let is_alone = ticket.generation == self.generation
            && generation
                .compare_exchange(self.generation, next, SeqCst, SeqCst)
                .is_ok();
        #[cfg(test)]
        if self.cache.options.test.is_broken(Broken::UnfencedWrite) {
            self.is_done = true;
            let next = generation.load(SeqCst);
            return self.cache.install_if(self.key, ticket, next, record, ttl);
        }
        if !is_alone {
            return;
        }
        self.is_done = true;
        self.cache.install_if(self.key, ticket, next, record, ttl);
    }

    /// The command was not sent.
    pub(crate) fn cancel(mut self) {
        self.is_done = true;
    }
}

impl Drop for Modification<'_> {
    fn drop(&mut self) {
        #[cfg(test)]
        if self.cache.options.test.is_broken(Broken::SilentEnd) {
            return;
        }
        if !self.is_done {
            self.cache.invalidate(self.key, DropCause::Modified);
        }
    }
}
