//! Commands, and their way over a connection, in room that is used again.
//!
//! redis-rs' future takes 1.1 kB, more than glibc's `malloc` keeps at hand for a thread, and a command takes two buffers. To get them anew
//! each time was measured to be a fiftieth of a small save.

use std::{
    cell::RefCell,
    mem,
    ops::{Deref, DerefMut},
    pin::Pin,
    task::{Context, Poll, ready},
    thread::LocalKey,
};

use redis::{Cmd, RedisResult, Value, aio::MultiplexedConnection};
use tokio_util::sync::ReusableBoxFuture;

/// A thread keeps the room of so many for the next ones, which is a third of a megabyte at most.
const MAX_SPARE: usize = 64;

/// But not of a command that is larger than this.
const MAX_SPARE_SIZE: usize = 4096;

/// The future of one command, with all that it needs.
type PooledFuture = ReusableBoxFuture<'static, (RedisResult<Value>, Cmd)>;

thread_local! {
    static COMMAND_POOL: RefCell<Vec<Cmd>> = const { RefCell::new(Vec::new()) };
    static FUTURE_POOL: RefCell<Vec<PooledFuture>> = const { RefCell::new(Vec::new()) };
}

/// A command that is encoded into what an earlier one left.
pub(crate) struct Command {
    command: Cmd,
    size: usize,
}

impl Command {
    /// For so many parts, `verb` included, of altogether so many bytes.
    pub(crate) fn new(verb: &str, parts: usize, size: usize) -> Self {
        let spare = (size <= MAX_SPARE_SIZE)
            .then(|| take(&COMMAND_POOL))
            .flatten();
        let mut command = spare.unwrap_or_else(|| Cmd::with_capacity(parts, size));
        command.arg(verb);
        Self { command, size }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }
}

/// With room for the options that follow: `PX`, a time, `NX`.
pub(crate) fn command(verb: &str, arguments: &[&[u8]]) -> Command {
    let size = verb.len() + size_of(arguments) + 24;
    let mut command = Command::new(verb, arguments.len() + 4, size);
    command.arg(arguments);
    command
}

/// Bytes, all together.
pub(crate) fn size_of(parts: &[impl AsRef<[u8]>]) -> usize {
    parts.iter().map(|part| part.as_ref().len()).sum()
}

impl Deref for Command {
    type Target = Cmd;

    fn deref(&self) -> &Cmd {
        &self.command
    }
}

impl DerefMut for Command {
    fn deref_mut(&mut self) -> &mut Cmd {
        &mut self.command
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        if self.size > MAX_SPARE_SIZE {
            return;
        }
        let mut command = mem::take(&mut self.command);
        command.clear();
        give_back(&COMMAND_POOL, command);
    }
}

/// A command on its way; the reply. Dropped before it is there, this leaves nothing to the next one.
pub(crate) struct InFlight<'a> {
    way: Option<PooledFuture>,
    command: &'a mut Command,
}

impl<'a> InFlight<'a> {
    pub(crate) fn new(mut connection: MultiplexedConnection, command: &'a mut Command) -> Self {
        let sent = mem::take(&mut command.command);
        let work = async move {
            let reply = connection.send_packed_command(&sent).await;
            (reply, sent)
        };
        let way = match take(&FUTURE_POOL) {
            Some(mut spare) => {
                spare.set(work);
                spare
            }
            None => ReusableBoxFuture::new(work),
        };
        let way = Some(way);
        Self { way, command }
    }
}

impl Future for InFlight<'_> {
    type Output = RedisResult<Value>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let way = self.way.as_mut().expect("not polled again once answered");
        let (reply, sent) = ready!(way.poll(task));
        self.command.command = sent;
        if let Some(way) = self.way.take() {
            give_back(&FUTURE_POOL, way);
        }
        Poll::Ready(reply)
    }
}

/// A thread that ends has none left.
fn take<T>(spare: &'static LocalKey<RefCell<Vec<T>>>) -> Option<T> {
    spare.try_with(|spare| spare.borrow_mut().pop()).ok()?
}

fn give_back<T>(spare: &'static LocalKey<RefCell<Vec<T>>>, room: T) {
    let _ = spare.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < MAX_SPARE {
            spare.push(room);
        }
    });
}
