//! A command on its way. If its request gives up, the connection still learns whether the reply comes.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

/// What learns what becomes of its commands.
pub(super) trait Sender {
    /// The current task queued a command.
    fn queued(&self);

    /// The command was answered or given up.
    fn ended(&self);

    /// The command was given up, and may still be answered.
    fn abandon(self: &Arc<Self>, generation: u64, command: Unanswered);
}

/// A command whose reply nobody waits for any more.
pub(super) struct Unanswered {
    pub(super) sent: Instant,
    pub(super) reply: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// The reply, together with the future that it came from, whose memory can be used again.
pub(super) struct InFlight<'a, F, C>
where
    F: Future<Output: Send> + Send + Unpin + 'static,
    C: Sender,
{
    /// `None` once it is answered.
    reply: Option<F>,
    connection: &'a Arc<C>,
    generation: u64,
    /// `None` before the first poll: the command is not sent.
    sent: Option<Instant>,
}

impl<'a, F, C> InFlight<'a, F, C>
where
    F: Future<Output: Send> + Send + Unpin + 'static,
    C: Sender,
{
    pub(super) fn new(reply: F, connection: &'a Arc<C>, generation: u64) -> Self {
        Self {
            reply: Some(reply),
            connection,
            generation,
            sent: None,
        }
    }
}

impl<F, C> Future for InFlight<'_, F, C>
where
    F: Future<Output: Send> + Send + Unpin + 'static,
    C: Sender,
{
    type Output = (F::Output, F);

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let is_first_poll = this.sent.is_none();
        if is_first_poll {
            this.sent = Some(Instant::now());
        }
        let reply = this.reply.as_mut().expect("not polled after completion");
        let output = Pin::new(reply).poll(task);
        if is_first_poll {
            this.connection.queued();
        }
        let output = ready!(output);
        let reply = this.reply.take().expect("just polled");
        Poll::Ready((output, reply))
    }
}

impl<F, C> Drop for InFlight<'_, F, C>
where
    F: Future<Output: Send> + Send + Unpin + 'static,
    C: Sender,
{
    fn drop(&mut self) {
        if self.sent.is_some() {
            self.connection.ended();
        }
        if let (Some(reply), Some(sent)) = (self.reply.take(), self.sent) {
            let reply = Box::pin(async move {
                reply.await;
            });
            let command = Unanswered { sent, reply };
            self.connection.abandon(self.generation, command);
        }
    }
}
