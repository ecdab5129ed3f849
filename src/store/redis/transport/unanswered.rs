//! A command on its way. If its request gives up, the connection still learns whether the reply comes.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

/// What learns of commands that were given up.
pub(super) trait Abandoned {
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
    C: Abandoned,
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
    C: Abandoned,
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
    C: Abandoned,
{
    type Output = (F::Output, F);

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.sent.is_none() {
            this.sent = Some(Instant::now());
        }
        let reply = this.reply.as_mut().expect("not polled after completion");
        let output = ready!(Pin::new(reply).poll(task));
        let reply = this.reply.take().expect("just polled");
        Poll::Ready((output, reply))
    }
}

impl<F, C> Drop for InFlight<'_, F, C>
where
    F: Future<Output: Send> + Send + Unpin + 'static,
    C: Abandoned,
{
    fn drop(&mut self) {
        if let (Some(reply), Some(sent)) = (self.reply.take(), self.sent) {
            let reply = Box::pin(async move {
                reply.await;
            });
            let command = Unanswered { sent, reply };
            self.connection.abandon(self.generation, command);
        }
    }
}
