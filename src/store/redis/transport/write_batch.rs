//! Commands of concurrent requests share a system call.
//!
//! A task of redis-rs writes the commands that are queued. Tokio's multi-threaded runtime polls a task that was just woken before those that
//! wait for longer (its LIFO slot). So this task would run after each single command, and the requests that are ready to send one would each
//! cost a system call of their own, and Redis another one. A second task that is woken right after it takes that slot. Then the writing task
//! runs behind the requests that are ready, and writes their commands at once.
//!
//! With 64 connections to the app, this saves 0.4 system calls of 1.6 in a request that writes, 7 % of the app's CPU time and 17 % of Redis'
//! (`benches/peers`). With few commands on their way it would cost more than it saves, since it wakes another thread of the runtime.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::Poll,
};

use futures_util::task::AtomicWaker;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::AbortHandle,
};

/// From this many commands on their way, the next ones are batched. Measured: none is saved with 8 connections to the app.
const MIN_IN_FLIGHT: usize = 16;

#[derive(Default)]
pub(super) struct WriteBatch {
    in_flight: AtomicUsize,
    /// Whether the writing task waits behind the requests that are ready.
    is_open: AtomicBool,
    slot_taker: AtomicWaker,
}

/// Ends the task with its connection.
pub(super) struct SlotTaker(AbortHandle);

impl WriteBatch {
    /// The current task queued a command, and so woke the writing task.
    pub(super) fn queued(&self) {
        let before = self.in_flight.fetch_add(1, Relaxed);
        if before >= MIN_IN_FLIGHT && !self.is_open.swap(true, SeqCst) {
            self.slot_taker.wake();
        }
    }

    /// No request waits for this command any more.
    pub(super) fn ended(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    #[cfg(test)]
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(SeqCst)
    }

    /// Begins the task for a new connection. On a single thread there is none: Tokio has no such slot there.
    pub(super) fn begin(self: &Arc<Self>) -> Option<SlotTaker> {
        let runtime = Handle::current();
        if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
            return None;
        }
        let batch = self.clone();
        let mut is_behind_writer = false;
        let task = runtime.spawn(std::future::poll_fn(move |task| {
            batch.slot_taker.register(task.waker());
            if is_behind_writer {
                is_behind_writer = false;
                batch.is_open.store(false, SeqCst);
            } else if batch.is_open.load(SeqCst) {
                // A task that wakes itself goes to the end of the queue.
                is_behind_writer = true;
                task.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        }));
        Some(SlotTaker(task.abort_handle()))
    }
}

impl Drop for SlotTaker {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tokio::sync::{Barrier, mpsc};

    use super::*;

    /// How often a task that writes is polled for the commands of as many tasks, on one thread, in several waves.
    fn writes(waves: &'static [usize]) -> usize {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .expect("a runtime");
        let tasks = runtime.handle().clone();
        let counted = runtime.spawn(async move {
            let batch = Arc::<WriteBatch>::default();
            let _slot_taker = batch.begin();
            let written = Arc::new(AtomicUsize::new(0));
            let (commands, mut queue) = mpsc::unbounded_channel();
            let count = written.clone();
            let writer = tasks.spawn(async move {
                let (mut writes, mut received) = (0, Vec::new());
                while queue.recv_many(&mut received, usize::MAX).await > 0 {
                    count.store(received.len(), SeqCst);
                    writes += 1;
                }
                writes
            });
            let mut sent = 0;
            for count in waves {
                let all_ready = Arc::new(Barrier::new(*count));
                for number in 0..*count {
                    let (batch, commands) = (batch.clone(), commands.clone());
                    let all_ready = all_ready.clone();
                    tasks.spawn(async move {
                        all_ready.wait().await;
                        let _ = commands.send(number);
                        batch.queued();
                    });
                }
                sent += count;
                wait_until(|| written.load(SeqCst) == sent && !batch.is_open.load(SeqCst)).await;
            }
            drop(commands);
            writer.await.expect("no panic")
        });
        runtime.block_on(counted).expect("no panic")
    }

    async fn wait_until(is_done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_done() {
            assert!(Instant::now() < deadline, "after 30 s");
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn commands_of_requests_that_are_ready_are_written_together() {
        let writes = writes(&[200, 200]);
        // One by one until enough are on their way.
        let expected = MIN_IN_FLIGHT..MIN_IN_FLIGHT + 10;
        assert!(expected.contains(&writes), "{writes}");
    }

    #[test]
    fn few_commands_are_written_at_once() {
        assert_eq!(writes(&[MIN_IN_FLIGHT]), MIN_IN_FLIGHT);
        assert_eq!(writes(&[MIN_IN_FLIGHT + 2]), MIN_IN_FLIGHT + 1);
    }

    #[test]
    fn a_command_that_has_ended_does_not_count() {
        let batch = WriteBatch::default();
        for _ in 0..MIN_IN_FLIGHT * 3 {
            batch.queued();
            batch.ended();
        }
        assert!(!batch.is_open.load(SeqCst));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn the_task_ends_with_its_connection() {
        let batch = Arc::<WriteBatch>::default();
        drop(batch.begin().expect("not on a single thread"));
        wait_until(|| Arc::strong_count(&batch) == 1).await;
    }

    #[tokio::test]
    async fn a_single_thread_has_no_such_task() {
        assert!(Arc::<WriteBatch>::default().begin().is_none());
    }
}
