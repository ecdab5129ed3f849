//! What becomes of the commands of one connection, and the wait for the replies to those that were given up.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::{Either, select};
use tokio::runtime::Handle;

use super::{
    connection::Connection,
    unanswered::{Sender, Unanswered},
};

/// A command that is not answered for this long makes the connection suspect. Redis answers within a millisecond.
const REPLY_TIMEOUT: Duration = Duration::from_millis(150);

/// How often a connection that does not answer is looked at again.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);

impl Sender for Connection {
    fn queued(&self) {
        self.write_batch.queued();
    }

    fn ended(&self) {
        self.write_batch.ended();
    }

    /// If this is the oldest unanswered command, a task waits for the reply.
    fn abandon(self: &Arc<Self>, generation: u64, command: Unanswered) {
        // Without a runtime, as at the end of the process, there is nothing to do.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let oldest = self.state().watch_reply(generation, command);
        if let Some(oldest) = oldest {
            let watch = UnansweredWatch {
                connection: self.clone(),
                generation,
                has_ended: false,
            };
            runtime.spawn(watch.run(oldest));
        }
    }
}

/// Waits for the reply to the oldest unanswered command. However it ends, the next one can begin.
struct UnansweredWatch {
    connection: Arc<Connection>,
    generation: u64,
    has_ended: bool,
}

impl UnansweredWatch {
    async fn run(mut self, mut oldest: Unanswered) {
        while self.is_answered(&mut oldest).await {
            let next = self.connection.state().next_unanswered(self.generation);
            let Some(next) = next else {
                self.has_ended = true;
                return;
            };
            oldest = next;
        }
    }

    /// Whether the reply came before the connection was replaced.
    async fn is_answered(&self, oldest: &mut Unanswered) -> bool {
        let connection = &self.connection;
        let late_at = (oldest.sent + REPLY_TIMEOUT).into();
        if tokio::time::timeout_at(late_at, &mut oldest.reply)
            .await
            .is_ok()
        {
            return true;
        }
        let give_up_at = Instant::now() + connection.settings.timeout;
        while connection.begin_replacement(self.generation) {
            if Instant::now() >= give_up_at {
                connection.close(self.generation);
                return false;
            }
            let tick = pin!(tokio::time::sleep(WATCH_INTERVAL));
            if let Either::Left(_) = select(&mut oldest.reply, tick).await {
                connection.state().keep(self.generation);
                return true;
            }
        }
        false
    }
}

impl Drop for UnansweredWatch {
    fn drop(&mut self) {
        if !self.has_ended {
            self.connection.state().end_watch(self.generation);
        }
    }
}
