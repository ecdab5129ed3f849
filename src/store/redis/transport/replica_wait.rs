//! Writes that wait for replicas, over a connection of their own, since WAIT holds up everything behind it.
//!
//! WAIT is about all that its connection wrote before. So the writes that are done while one WAIT is on its way share the next one, and
//! nobody waits for more than two. It is a task's, not a request's: one that reaches its deadline would leave it to hold up the others.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use redis::{Pipeline, Value};
use tokio::sync::Notify;

use super::{
    connect::ConnectOptions,
    connection::Connection,
    error::{self, CommandError},
};
use crate::config::ReplicaAcks;

/// While replicas are known to be away, nobody waits for the whole time, but for this part of it: long enough to notice their return.
const DEGRADED_DIVISOR: u32 = 8;

pub(super) struct ReplicaWait {
    /// Opened when it is first used.
    pub(super) connection: Arc<Connection>,
    /// Counts the writes whose replies are here.
    written: AtomicU64,
    waits: Mutex<Waits>,
    wait_ended: Notify,
}

#[derive(Default)]
struct Waits {
    running: bool,
    last: Option<Confirmed>,
}

/// What a WAIT said.
#[derive(Clone, Copy)]
struct Confirmed {
    /// Of the connection; nothing is said about what went over another one.
    generation: u64,
    /// The writes up to this one are meant.
    written: u64,
    /// `None`: it gave no answer.
    replicas: Option<usize>,
}

impl ReplicaWait {
    pub(super) fn new(source: ConnectOptions) -> Self {
        Self {
            connection: Connection::new(source),
            written: AtomicU64::new(0),
            waits: Mutex::default(),
            wait_ended: Notify::new(),
        }
    }

    /// The reply, and how many replicas have the write.
    pub(super) async fn send(
        self: &Arc<Self>,
        commands: &Pipeline,
        acks: ReplicaAcks,
    ) -> Result<(Value, usize), CommandError> {
        let (reply, generation) = self.connection.send_together(commands).await?;
        let number = self.written.fetch_add(1, Relaxed) + 1;
        loop {
            let mut ended = std::pin::pin!(self.wait_ended.notified());
            // From here on no end of a WAIT is missed.
            ended.as_mut().enable();
            {
                let mut waits = self.waits();
                if let Some(last) = waits.last.filter(|last| last.written >= number) {
                    let replicas = last.replicas.filter(|_| last.generation == generation);
                    let lost = || CommandError::ConnectionLost(error::replaced());
                    return replicas.map(|count| (reply, count)).ok_or_else(lost);
                }
                if !waits.running {
                    waits.running = true;
                    let are_away = waits
                        .last
                        .is_some_and(|last| last.replicas.is_none_or(|n| n < acks.replicas));
                    let timeout = match are_away {
                        true => acks.timeout / DEGRADED_DIVISOR,
                        false => acks.timeout,
                    };
                    tokio::spawn(WaitTask(self.clone()).run(acks.replicas, timeout));
                }
            }
            ended.await;
        }
    }

    fn waits(&self) -> std::sync::MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A WAIT that is on its way. However it ends, the next one may begin.
struct WaitTask(Arc<ReplicaWait>);

impl WaitTask {
    async fn run(self, replicas: usize, timeout: Duration) {
        let written = self.0.written.load(Relaxed);
        let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let mut wait = Pipeline::with_capacity(1);
        // With zero it would wait for ever.
        wait.cmd("WAIT").arg(replicas).arg(timeout.max(1));
        let sent = self.0.connection.send_together(&wait).await;
        let (replicas, generation) = match sent {
            Ok((Value::Int(count), generation)) => (usize::try_from(count).ok(), generation),
            _ => (None, 0),
        };
        self.0.waits().last = Some(Confirmed {
            generation,
            written,
            replicas,
        });
    }
}

impl Drop for WaitTask {
    fn drop(&mut self) {
        self.0.waits().running = false;
        self.0.wait_ended.notify_waiters();
    }
}
