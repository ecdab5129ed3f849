//! Writes that wait for replicas, over a connection of their own, since WAIT holds up everything behind it.
//!
//! WAIT is about all that its connection wrote before. So the writes that are done while one WAIT is on its way share the next one, and
//! with a replica away nobody waits for more than two.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use redis::{Pipeline, Value};
use tokio::sync::Mutex;

use super::{
    connect::Source,
    connection::Connection,
    failure::{self, Failure},
    redis::ReplicaAcks,
};

pub(super) struct Confirming {
    /// Opened when it is first used.
    pub(super) connection: Arc<Connection>,
    /// Counts the writes whose replies are here.
    written: AtomicU64,
    /// What the last WAIT said. Whoever holds the lock asks for the next.
    confirmed: Mutex<Confirmed>,
}

#[derive(Default)]
struct Confirmed {
    /// WAIT says nothing about what went over another connection.
    generation: u64,
    /// The writes up to this one are meant.
    written: u64,
    replicas: usize,
}

impl Confirming {
    pub(super) fn new(source: Source) -> Self {
        Self {
            connection: Connection::new(source),
            written: AtomicU64::new(0),
            confirmed: Mutex::default(),
        }
    }

    /// The reply, and how many replicas have the write.
    pub(super) async fn send(
        &self,
        commands: &Pipeline,
        acks: ReplicaAcks,
    ) -> Result<(Value, usize), Failure> {
        let (reply, generation) = self.connection.send_together(commands).await?;
        let number = self.written.fetch_add(1, Relaxed) + 1;
        let mut confirmed = self.confirmed.lock().await;
        if confirmed.generation != generation || confirmed.written < number {
            let written = self.written.load(Relaxed);
            let timeout = u64::try_from(acks.timeout.as_millis()).unwrap_or(u64::MAX);
            let mut wait = Pipeline::with_capacity(1);
            wait.cmd("WAIT").arg(acks.replicas).arg(timeout.max(1));
            let (count, same) = self.connection.send_together(&wait).await?;
            if same != generation {
                return Err(Failure::Lost(failure::replaced()));
            }
            let Value::Int(count) = count else {
                return Err(Failure::Unexpected(failure::unexpected()));
            };
            *confirmed = Confirmed {
                generation,
                written,
                replicas: usize::try_from(count).unwrap_or(0),
            };
        }
        Ok((reply, confirmed.replicas))
    }
}
