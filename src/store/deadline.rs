//! The deadline of an operation.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{task::yield_now, time::Sleep};

/// How often the runtime polls its sockets before an operation that is late fails. Reading a reply takes two turns, connecting takes more.
const EXTRA_TURNS: usize = 16;

pin_project! {
    /// The output of `work`, or `None` after the deadline.
    ///
    /// If handlers block the runtime, a timer can fire before the runtime has looked whether the reply is there. So after the deadline
    /// the runtime polls its sockets before the operation fails, which takes microseconds in a runtime that is not blocked.
    pub(super) struct WithDeadline<F> {
        #[pin]
        work: F,
        #[pin]
        timer: Sleep,
        extra_turns: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    }
}

pub(super) fn with_deadline<F: Future>(deadline: Duration, work: F) -> WithDeadline<F> {
    WithDeadline {
        work,
        timer: tokio::time::sleep(deadline),
        extra_turns: None,
    }
}

impl<F: Future> Future for WithDeadline<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.work.poll(task) {
            return Poll::Ready(Some(output));
        }
        if this.extra_turns.is_none() {
            ready!(this.timer.poll(task));
        }
        let extra_turns = this.extra_turns.get_or_insert_with(|| {
            Box::pin(async {
                for _ in 0..EXTRA_TURNS {
                    yield_now().await;
                }
            })
        });
        ready!(extra_turns.as_mut().poll(task));
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use futures_util::FutureExt;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[tokio::test]
    async fn a_reply_that_came_while_the_runtime_was_blocked_is_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let mut client = TcpStream::connect(address).await.expect("connected");
        let (mut server, _) = listener.accept().await.expect("accepted");
        for _ in 0..20 {
            let (answer, answered) = tokio::sync::oneshot::channel();
            // As the task of a connection does, which reads replies for requests.
            let mut reader = client;
            let read = tokio::spawn(async move {
                let byte = reader.read_u8().await.expect("a byte");
                let _ = answer.send(byte);
                reader
            });
            tokio::task::yield_now().await;
            let mut work = Box::pin(with_deadline(Duration::from_millis(5), answered));
            assert!((&mut work).now_or_never().is_none());
            server.write_u8(7).await.expect("written");
            std::thread::sleep(Duration::from_millis(20));
            assert!(matches!(work.await, Some(Ok(7))));
            client = read.await.expect("no panic");
        }
    }

    #[tokio::test]
    async fn what_does_not_complete_ends_at_the_deadline() {
        let begun = Instant::now();
        let never = std::future::pending::<()>();
        let deadline = Duration::from_millis(20);
        assert!(with_deadline(deadline, never).await.is_none());
        assert!(begun.elapsed() >= deadline);
    }
}
