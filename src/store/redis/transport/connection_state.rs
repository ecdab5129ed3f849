//! The states of a connection, and the transitions between them.

#[cfg(feature = "local-cache")]
use std::sync::Arc;
use std::{
    mem,
    time::{Duration, Instant},
};

use redis::aio::MultiplexedConnection;
use tokio::task::AbortHandle;

#[cfg(feature = "local-cache")]
use super::tracking::TrackingGuard;
use super::{connect::Connected, unanswered::Unanswered, write_batch::SlotTaker};
#[cfg(feature = "local-cache")]
use crate::cache::Tracking;
use crate::{error::SessionError, stats::OpenConnection};

/// If an attempt to connect has not succeeded after this long, another one is made beside it.
const HEDGE_DELAY: Duration = Duration::from_millis(250);

/// An older failure says nothing about the server's state now.
const FAILURE_TTL: Duration = Duration::from_secs(1);

pub(super) enum ConnectionState {
    Disconnected {
        /// Why the last attempt failed, if it did.
        failure: Option<LastFailure>,
    },
    Connecting {
        attempts: Attempts,
        failure: Option<LastFailure>,
    },
    Connected {
        open: Open,
        /// The attempts to open the connection that will replace it.
        replacement: Attempts,
    },
}

pub(super) struct Open {
    connection: MultiplexedConnection,
    /// However the connection ends or is replaced, this is dropped with it.
    #[cfg(feature = "local-cache")]
    tracking: Option<TrackingGuard>,
    /// The number of the attempt that opened it. An error of an old connection must not close the new one.
    generation: u64,
    since: Instant,
    watch: ReplyWatch,
    slot_taker: Option<SlotTaker>,
    _counted: OpenConnection,
}

enum ReplyWatch {
    None,
    /// A task waits for the reply to an abandoned command.
    Watched {
        /// The newest command that was abandoned meanwhile.
        newest: Option<Unanswered>,
    },
}

pub(super) struct LastFailure {
    pub(super) at: Instant,
    pub(super) backoff: Duration,
    pub(super) error: SessionError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptKind {
    /// Has the whole connect timeout.
    Patient,
    /// Short, beside a patient one that may hang.
    Probe,
}

/// At most one of each kind.
#[derive(Default)]
pub(super) struct Attempts {
    patient: Option<Attempt>,
    probe: Option<Attempt>,
}

struct Attempt {
    number: u64,
    begun: Instant,
    /// `None` until it is spawned.
    task: Option<AbortHandle>,
}

impl Default for ConnectionState {
    fn default() -> Self {
        Self::Disconnected { failure: None }
    }
}

impl ConnectionState {
    /// The open connection, unless a command on it is unanswered for so long that another connection is being opened.
    pub(super) fn ready(&self) -> Option<(MultiplexedConnection, u64)> {
        match self {
            Self::Connected { open, replacement } => {
                let is_suspect = matches!(open.watch, ReplyWatch::Watched { .. });
                let is_ready = !is_suspect || replacement.is_empty();
                is_ready.then(|| (open.connection.clone(), open.generation))
            }
            Self::Disconnected { .. } | Self::Connecting { .. } => None,
        }
    }

    #[cfg(feature = "local-cache")]
    pub(super) fn tracking(&self) -> Option<&Arc<Tracking>> {
        match self {
            Self::Connected { open, .. } => open.tracking.as_ref().map(TrackingGuard::tracking),
            Self::Disconnected { .. } | Self::Connecting { .. } => None,
        }
    }

    pub(super) fn is_connecting(&self) -> bool {
        matches!(self, Self::Connecting { .. })
    }

    pub(super) fn is_open(&self, generation: u64) -> bool {
        matches!(self, Self::Connected { open, .. } if open.generation == generation)
    }

    #[cfg(any(test, feature = "cluster"))]
    pub(super) fn is_responsive(&self) -> bool {
        matches!(self, Self::Connected { open, .. } if matches!(open.watch, ReplyWatch::None))
    }

    pub(super) fn failure(&self) -> Option<&LastFailure> {
        match self {
            Self::Disconnected { failure } | Self::Connecting { failure, .. } => failure.as_ref(),
            Self::Connected { .. } => None,
        }
    }

    /// The attempt that should begin now, if any.
    pub(super) fn due_attempt(
        &mut self,
        connect_timeout: Duration,
        probe_timeout: Duration,
    ) -> Option<AttemptKind> {
        match self {
            Self::Disconnected { .. } => Some(AttemptKind::Patient),
            Self::Connecting { attempts, .. }
            | Self::Connected {
                replacement: attempts,
                ..
            } => attempts.due(connect_timeout, probe_timeout),
        }
    }

    /// Disconnected → Connecting, or one more attempt.
    pub(super) fn begin(&mut self, kind: AttemptKind, number: u64) {
        if let Self::Disconnected { failure } = self {
            *self = Self::Connecting {
                attempts: Attempts::default(),
                failure: failure.take(),
            };
        }
        if let Some(attempts) = self.attempts() {
            attempts.insert(kind, number);
        }
    }

    pub(super) fn set_task(&mut self, number: u64, task: AbortHandle) {
        if let Some(attempts) = self.attempts()
            && let Some(attempt) = attempts.find(number)
        {
            attempt.task = Some(task);
        }
    }

    /// Connecting or Connected → Connected, unless another attempt was faster. Returns whether this connection is used.
    pub(super) fn opened(
        &mut self,
        number: u64,
        connected: Connected,
        counted: OpenConnection,
    ) -> bool {
        let Some(attempts) = self.attempts() else {
            return false;
        };
        if !attempts.remove(number) {
            return false;
        }
        attempts.abort();
        *self = Self::Connected {
            open: Open {
                connection: connected.connection,
                #[cfg(feature = "local-cache")]
                tracking: connected.tracking,
                generation: number,
                since: Instant::now(),
                watch: ReplyWatch::None,
                slot_taker: None,
                _counted: counted,
            },
            replacement: Attempts::default(),
        };
        true
    }

    pub(super) fn set_slot_taker(&mut self, generation: u64, task: Option<SlotTaker>) {
        if let Some(open) = self.open_mut(generation) {
            open.slot_taker = task;
        }
    }

    pub(super) fn attempt_failed(&mut self, number: u64, error: LastFailure) {
        if let Self::Connecting { attempts, failure } = self
            && attempts.contains(number)
        {
            *failure = Some(error);
        }
        self.attempt_ended(number);
    }

    /// Connecting → Disconnected with the end of the last attempt.
    pub(super) fn attempt_ended(&mut self, number: u64) {
        if let Some(attempts) = self.attempts() {
            attempts.remove(number);
        }
        if let Self::Connecting { attempts, failure } = self
            && attempts.is_empty()
        {
            *self = Self::Disconnected {
                failure: failure.take(),
            };
        }
    }

    /// Connected → Disconnected, or Connecting if there are attempts to replace it.
    pub(super) fn close(&mut self, generation: u64) {
        if !self.is_open(generation) {
            return;
        }
        if let Self::Connected { replacement, .. } = self {
            let attempts = mem::take(replacement);
            *self = match attempts.is_empty() {
                true => Self::default(),
                false => Self::Connecting {
                    attempts,
                    failure: None,
                },
            };
        }
    }

    /// Closes the connection unless it is younger than `age`. Returns whether the next connection is another one.
    pub(super) fn close_unless_young(&mut self, generation: u64, age: Duration) -> bool {
        let open = self.open_mut(generation);
        if open.is_some_and(|open| open.since.elapsed() < age) {
            return false;
        }
        self.close(generation);
        true
    }

    /// The connection answered, so it is not replaced.
    pub(super) fn keep(&mut self, generation: u64) {
        if let Self::Connected { open, replacement } = self
            && open.generation == generation
        {
            replacement.abort();
        }
    }

    /// Returns the command if a task should wait for its reply.
    pub(super) fn watch_reply(
        &mut self,
        generation: u64,
        command: Unanswered,
    ) -> Option<Unanswered> {
        let open = self.open_mut(generation)?;
        if let ReplyWatch::Watched { newest } = &mut open.watch {
            *newest = Some(command);
            return None;
        }
        open.watch = ReplyWatch::Watched { newest: None };
        Some(command)
    }

    /// The next command to wait for. Without one, the watch ends.
    pub(super) fn next_unanswered(&mut self, generation: u64) -> Option<Unanswered> {
        let open = self.open_mut(generation)?;
        let ReplyWatch::Watched { newest } = &mut open.watch else {
            return None;
        };
        let next = newest.take();
        if next.is_none() {
            open.watch = ReplyWatch::None;
        }
        next
    }

    pub(super) fn end_watch(&mut self, generation: u64) {
        if let Some(open) = self.open_mut(generation) {
            open.watch = ReplyWatch::None;
        }
    }

    /// The connection of this number, if it is open.
    fn open_mut(&mut self, generation: u64) -> Option<&mut Open> {
        match self {
            Self::Connected { open, .. } if open.generation == generation => Some(open),
            _ => None,
        }
    }

    fn attempts(&mut self) -> Option<&mut Attempts> {
        match self {
            Self::Disconnected { .. } => None,
            Self::Connecting { attempts, .. }
            | Self::Connected {
                replacement: attempts,
                ..
            } => Some(attempts),
        }
    }
}

impl LastFailure {
    /// Whether a request fails with it at once, instead of waiting for the next attempt.
    pub(super) fn is_current(&self, is_connecting: bool) -> bool {
        let age = self.at.elapsed();
        match is_connecting {
            true => age < FAILURE_TTL,
            false => age < self.backoff,
        }
    }
}

impl Attempts {
    fn due(&mut self, connect_timeout: Duration, probe_timeout: Duration) -> Option<AttemptKind> {
        // An attempt in a runtime that is not running any more does not end by itself.
        let is_running =
            |attempt: &Attempt, limit: Duration| attempt.begun.elapsed() < limit + HEDGE_DELAY;
        let Some(patient) = &self.patient else {
            return Some(AttemptKind::Patient);
        };
        if !is_running(patient, connect_timeout) {
            return Some(AttemptKind::Patient);
        }
        let is_probed = self
            .probe
            .as_ref()
            .is_some_and(|probe| is_running(probe, probe_timeout));
        (!is_probed && patient.begun.elapsed() >= HEDGE_DELAY).then_some(AttemptKind::Probe)
    }

    fn insert(&mut self, kind: AttemptKind, number: u64) {
        let attempt = Attempt {
            number,
            begun: Instant::now(),
            task: None,
        };
        let place = match kind {
            AttemptKind::Patient => &mut self.patient,
            AttemptKind::Probe => &mut self.probe,
        };
        if let Some(overdue) = place.replace(attempt) {
            overdue.abort();
        }
    }

    fn contains(&self, number: u64) -> bool {
        let mut attempts = self.patient.iter().chain(&self.probe);
        attempts.any(|attempt| attempt.number == number)
    }

    fn find(&mut self, number: u64) -> Option<&mut Attempt> {
        let mut attempts = self.patient.iter_mut().chain(&mut self.probe);
        attempts.find(|attempt| attempt.number == number)
    }

    fn remove(&mut self, number: u64) -> bool {
        let was_there = self.contains(number);
        for attempt in [&mut self.patient, &mut self.probe] {
            attempt.take_if(|attempt| attempt.number == number);
        }
        was_there
    }

    fn abort(&mut self) {
        for attempt in [&mut self.patient, &mut self.probe] {
            if let Some(attempt) = attempt.take() {
                attempt.abort();
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.patient.is_none() && self.probe.is_none()
    }
}

impl Attempt {
    fn abort(self) {
        if let Some(task) = self.task {
            task.abort();
        }
    }
}
