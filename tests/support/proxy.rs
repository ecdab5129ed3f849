use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

use super::server::free_port;

/// A TCP proxy between the app and its server, with faults on demand.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What happens to the bytes of all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Forward,
    /// Each chunk of a reply is delayed by this much, and the beginning of each connection: the time of a round trip.
    Delay(Duration),
    /// Each byte of a reply is delayed by this much.
    Trickle(Duration),
    /// Bytes are held in both directions until the mode changes, and then passed on.
    Stall,
    /// Connections are accepted and commands discarded.
    Discard,
    /// Commands are passed on and replies discarded.
    DiscardReplies,
}

struct Shared {
    server: u16,
    state: watch::Sender<State>,
    accepted: AtomicU64,
    /// Bytes of commands received, whether passed on or not.
    asked: AtomicUsize,
    /// Bytes of replies passed on.
    replied: AtomicUsize,
    /// A connection is cut after so many bytes of replies on all connections, and again after so many more.
    until_cut: Mutex<VecDeque<usize>>,
}

/// Connections are numbered; those below these numbers have a fault of their own.
#[derive(Clone, Copy)]
struct State {
    mode: Mode,
    connecting_takes: Duration,
    frozen_below: u64,
    half_closed_below: u64,
    reset_below: u64,
    severed_below: u64,
}

impl Proxy {
    pub async fn before(server: u16) -> Self {
        // Another process may take the port before we do.
        let listener = loop {
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", free_port())).await {
                break listener;
            }
        };
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            server,
            state: watch::Sender::new(State {
                mode: Mode::Forward,
                connecting_takes: Duration::ZERO,
                frozen_below: 0,
                half_closed_below: 0,
                reset_below: 0,
                severed_below: 0,
            }),
            accepted: AtomicU64::new(0),
            asked: AtomicUsize::new(0),
            replied: AtomicUsize::new(0),
            until_cut: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Self { port, shared, task }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn client(&self) -> redis::Client {
        redis::Client::open(self.url()).expect("an address")
    }

    pub fn set(&self, mode: Mode) {
        self.shared.state.send_modify(|state| state.mode = mode);
    }

    /// New connections pass nothing for this long.
    pub fn delay_connecting(&self, by: Duration) {
        self.shared
            .state
            .send_modify(|state| state.connecting_takes = by);
    }

    /// Cuts the connection before the byte that follows the next `bytes` of replies.
    pub fn cut_after(&self, bytes: usize) {
        self.cut_after_each([bytes]);
    }

    /// The same several times, each counted from the last.
    pub fn cut_after_each(&self, bytes: impl Into<VecDeque<usize>>) {
        *self.shared.until_cut.lock().expect("no panic") = bytes.into();
    }

    /// Cancels the remaining cuts; returns whether there were any.
    pub fn cancel_cuts(&self) -> bool {
        let mut until_cut = self.shared.until_cut.lock().expect("no panic");
        let were_some = !until_cut.is_empty();
        until_cut.clear();
        were_some
    }

    /// Open connections pass nothing any more, as if a router had dropped their state. New ones work.
    pub fn freeze_open(&self) {
        let below = self.accepted();
        self.shared
            .state
            .send_modify(|state| state.frozen_below = below);
    }

    /// Half-closes open connections: the server's side sends FIN and still reads.
    pub fn half_close_open(&self) {
        let below = self.accepted();
        self.shared
            .state
            .send_modify(|state| state.half_closed_below = below);
    }

    /// Open connections answer the next command with RST, as a router does that has forgotten them.
    pub fn reset_open(&self) {
        let below = self.accepted();
        self.shared
            .state
            .send_modify(|state| state.reset_below = below);
    }

    pub fn sever_open(&self) {
        let below = self.accepted();
        self.shared
            .state
            .send_modify(|state| state.severed_below = below);
    }

    /// The number of accepted connections.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Bytes of commands received, whether passed on or not.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// Bytes of replies passed on.
    pub fn replied(&self) -> usize {
        self.shared.replied.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.sever_open();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(relay(client, shared.clone(), number));
    }
}

async fn relay(client: TcpStream, shared: Arc<Shared>, number: u64) {
    let state = *shared.state.borrow();
    tokio::time::sleep(state.connecting_takes).await;
    if let Mode::Delay(round_trip) = state.mode {
        tokio::time::sleep(round_trip).await;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", shared.server)).await else {
        return;
    };
    client.set_nodelay(true).expect("set");
    server.set_nodelay(true).expect("set");
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut state = shared.state.subscribe();
    tokio::select! {
        () = pass_commands(from_client, to_server, &shared, number) => {}
        () = pass_replies(from_server, to_client, &shared, number) => {}
        () = until(&mut state, |state| number < state.severed_below) => {}
    }
}

/// Until either end closes.
async fn pass_commands(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    number: u64,
) {
    let mut state = shared.state.subscribe();
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        shared.asked.fetch_add(length, Ordering::SeqCst);
        if number < state.borrow().reset_below {
            from.as_ref().set_zero_linger().expect("set");
            return;
        }
        let mode = moving(&mut state, number).await;
        if mode != Mode::Discard && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// Until either end closes, or a cut.
async fn pass_replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    number: u64,
) {
    let mut state = shared.state.subscribe();
    let mut closing = shared.state.subscribe();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = tokio::select! {
            read = from.read(&mut buffer) => match read {
                Ok(length @ 1..) => length,
                _ => return,
            },
            () = until(&mut closing, |state| number < state.half_closed_below) => {
                let _ = to.shutdown().await;
                // Further replies are discarded, but commands still pass.
                while let Ok(1..) = from.read(&mut buffer).await {}
                return;
            }
        };
        let piece = &buffer[..length];
        let is_over = match moving(&mut state, number).await {
            Mode::Forward | Mode::Stall => reply(piece, &mut to, shared).await,
            Mode::Delay(delay) => {
                tokio::time::sleep(delay).await;
                reply(piece, &mut to, shared).await
            }
            Mode::Trickle(pause) => {
                let mut is_over = false;
                for byte in piece.chunks(1) {
                    tokio::time::sleep(pause).await;
                    is_over = is_over || reply(byte, &mut to, shared).await;
                }
                is_over
            }
            Mode::Discard | Mode::DiscardReplies => false,
        };
        if is_over {
            return;
        }
    }
}

/// Whether the connection is over.
async fn reply(piece: &[u8], to: &mut OwnedWriteHalf, shared: &Shared) -> bool {
    let (passes, cut) = {
        let mut until_cut = shared.until_cut.lock().expect("no panic");
        match until_cut.front_mut() {
            Some(left) if *left < piece.len() => {
                let passes = *left;
                until_cut.pop_front();
                (passes, true)
            }
            Some(left) => {
                *left -= piece.len();
                (piece.len(), false)
            }
            None => (piece.len(), false),
        }
    };
    shared.replied.fetch_add(passes, Ordering::SeqCst);
    to.write_all(&piece[..passes]).await.is_err() || cut
}

async fn until(state: &mut watch::Receiver<State>, holds: impl FnMut(&State) -> bool) {
    if state.wait_for(holds).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The mode, once it is not `Stall`.
async fn moving(state: &mut watch::Receiver<State>, number: u64) -> Mode {
    let moves = |state: &State| state.mode != Mode::Stall && number >= state.frozen_below;
    let mode = state.wait_for(moves).await.map(|state| state.mode);
    match mode {
        Ok(mode) => mode,
        // The proxy was dropped; its connections end with it.
        Err(_) => std::future::pending().await,
    }
}
