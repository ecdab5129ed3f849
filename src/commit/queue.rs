//! Turns among the commits of this process that write to one session.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

use crate::{
    context::Context,
    error::{ErrorKind, SessionError},
    random::random_unit,
};

/// Writes for one commit. Since the commits of one process queue after a conflict, only other nodes can use these up.
pub(super) const MAX_ATTEMPTS: u32 = 64;
/// An immediate retry has the best chance, since it builds on the newest version. After this many in a row something keeps step
/// with it, and a pause of random length breaks the step.
const ATTEMPTS_BEFORE_PAUSE: u32 = 8;
const MAX_PAUSE: Duration = Duration::from_millis(1);

/// A commit's place in the queue of its session. Commits that meet no conflict do not queue.
#[derive(Default)]
pub(super) struct CommitQueue<'a> {
    turn: Option<MutexGuard<'a, ()>>,
}

impl<'a> CommitQueue<'a> {
    /// Waits for a turn if other commits of the session, whose lock this is, queue already.
    pub(super) async fn enter(&mut self, lock: &'a Mutex<()>) {
        if self.turn.is_none() && lock.try_lock().is_err() {
            self.wait_for_turn(lock).await;
        }
    }

    /// Waits after a conflict: for a turn, and from time to time for a moment.
    pub(super) async fn wait(&mut self, context: &Context, lock: &'a Mutex<()>, attempt: u32) {
        if self.turn.is_none() {
            self.wait_for_turn(lock).await;
        } else if attempt.is_multiple_of(ATTEMPTS_BEFORE_PAUSE) {
            let pause = MAX_PAUSE.mul_f64(random_unit());
            Box::pin(context.store.pause(pause)).await;
        }
    }

    /// Boxed, as below, so that what is rare does not enlarge the future of every commit.
    async fn wait_for_turn(&mut self, lock: &'a Mutex<()>) {
        self.turn = Some(Box::pin(lock.lock()).await);
    }
}

pub(super) fn attempts_exhausted() -> SessionError {
    SessionError::new(
        ErrorKind::Conflict,
        format!(
            "other requests changed this session before each of {MAX_ATTEMPTS} attempts to save it, so nothing was saved: try \
             again, and write less often to one session"
        ),
    )
}
