//! One read in flight for each key. Further requests for the key wait for its result, so that a page with many requests causes one read.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::tracking::Ticket;
use crate::{error::SessionError, record::Record};

/// What a read through the cache found.
#[derive(Clone)]
// A session is what almost every read finds.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Loaded {
    Session {
        record: Record,
        /// How long ago its TTL was set.
        unused: Duration,
    },
    /// Nothing, or a value that is not a live session.
    Other(Option<Bytes>),
}

type Outcome = OnceCell<Result<Loaded, SessionError>>;

#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<Box<str>, Present>>);

struct Present {
    ticket: Ticket,
    outcome: Arc<Outcome>,
}

/// A request's part in a read.
pub(crate) struct Flight<'a> {
    flights: &'a Flights,
    key: &'a str,
    ticket: Ticket,
    outcome: Arc<Outcome>,
}

impl Flights {
    /// Joins the read of `key` that is in flight, unless it `is_overtaken` by a change since it began. Otherwise this one begins.
    pub(super) fn join<'a>(
        &'a self,
        key: &'a str,
        ticket: Ticket,
        is_overtaken: impl FnOnce(&Ticket) -> bool,
    ) -> Flight<'a> {
        let mut present = self.present();
        if let Some(Present { ticket, outcome }) = present.get(key)
            && !is_overtaken(ticket)
        {
            return Flight {
                flights: self,
                key,
                ticket: ticket.clone(),
                outcome: outcome.clone(),
            };
        }
        let outcome = Arc::new(Outcome::new());
        let begun = Present {
            ticket: ticket.clone(),
            outcome: outcome.clone(),
        };
        present.insert(key.into(), begun);
        Flight {
            flights: self,
            key,
            ticket,
            outcome,
        }
    }

    fn present(&self) -> MutexGuard<'_, HashMap<Box<str>, Present>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight<'_> {
    /// The result of the read. If the request that began it gives up, the next one reads.
    pub(crate) async fn result<F>(
        &self,
        read: impl FnOnce(Ticket) -> F,
    ) -> Result<Loaded, SessionError>
    where
        F: Future<Output = Result<Loaded, SessionError>>,
    {
        let read = || read(self.ticket.clone());
        self.outcome.get_or_init(read).await.clone()
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.present();
        let is_this = |present: &Present| Arc::ptr_eq(&present.outcome, &self.outcome);
        if flights.get(self.key).is_some_and(is_this) {
            // One in the map, and one here.
            let is_last = Arc::strong_count(&self.outcome) == 2;
            if is_last || self.outcome.initialized() {
                flights.remove(self.key);
            }
        }
    }
}
