//! Writes that wait for replicas, over a connection of their own, since WAIT blocks every command behind it.
//!
//! WAIT covers all earlier writes of its connection. So the writes that are answered while one WAIT is running share the next one, and
//! each write waits for at most two. A WAIT belongs to a task and not to a request: a request that reaches its deadline would leave the others
//! without a result.

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
    connection::Connection,
    error::{self, CommandError},
};
use crate::{config::ReplicaAcks, error::SessionError};

/// While replicas are known to be missing, WAIT has only this part of the time: long enough to notice their return.
const DEGRADED_DIVISOR: u32 = 8;

/// A WAIT that is answered this much later than the server promised makes the connection suspect.
const GRACE: Duration = Duration::from_millis(200);

pub(super) struct ReplicaWait {
    connection: Arc<Connection>,
    /// Counts the writes that were answered.
    written: AtomicU64,
    waits: Mutex<Waits>,
    wait_ended: Notify,
}

#[derive(Default)]
struct Waits {
    running: bool,
    last: Option<Confirmed>,
}

/// The result of a WAIT.
#[derive(Clone)]
struct Confirmed {
    /// The number of the connection. The result does not cover writes over another one.
    generation: u64,
    /// The writes up to this one are covered.
    written: u64,
    /// `None`: there was no reply.
    replicas: Option<Result<usize, SessionError>>,
}

impl ReplicaWait {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self {
            connection,
            written: AtomicU64::new(0),
            waits: Mutex::default(),
            wait_ended: Notify::new(),
        }
    }

    /// Returns the reply, and how many replicas have the write.
    pub(super) async fn send(
        self: &Arc<Self>,
        commands: Pipeline,
        acks: ReplicaAcks,
    ) -> Result<(Value, usize), CommandError> {
        let (reply, generation) = self.connection.send_pipeline(commands).await?;
        let number = self.written.fetch_add(1, Relaxed) + 1;
        loop {
            let mut ended = std::pin::pin!(self.wait_ended.notified());
            // From here on, no end of a WAIT is missed.
            ended.as_mut().enable();
            {
                let mut waits = self.waits();
                if let Some(last) = waits.last.as_ref().filter(|last| last.written >= number) {
                    return match &last.replicas {
                        Some(Ok(count)) if last.generation == generation => Ok((reply, *count)),
                        Some(Err(error)) => Err(CommandError::NotReplicated(error.clone())),
                        _ => Err(CommandError::ConnectionLost(error::replaced())),
                    };
                }
                if !waits.running {
                    waits.running = true;
                    let are_missing = waits.last.as_ref().is_some_and(
                        |last| !matches!(last.replicas, Some(Ok(count)) if count >= acks.replicas),
                    );
                    let timeout = match are_missing {
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

/// A running WAIT. However it ends, the next one can begin.
struct WaitTask(Arc<ReplicaWait>);

impl WaitTask {
    async fn run(self, replicas: usize, timeout: Duration) {
        let written = self.0.written.load(Relaxed);
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let mut wait = Pipeline::with_capacity(1);
        // With zero it would wait for ever.
        wait.cmd("WAIT").arg(replicas).arg(millis.max(1));
        let sent = self.0.connection.send_pipeline(wait);
        let (replicas, generation) = match tokio::time::timeout(timeout + GRACE, sent).await {
            Ok(Ok((Value::Int(count), generation))) => {
                (usize::try_from(count).ok().map(Ok), generation)
            }
            Ok(Err(CommandError::Server(error))) => (Some(Err(error::wait_rejected(&error))), 0),
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

#[cfg(test)]
mod tests;
