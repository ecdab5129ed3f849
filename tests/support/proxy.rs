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

/// A network between the app and its server, good or bad as a test says.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What becomes of what passes, on all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Passes,
    /// Each piece of a reply comes this much later.
    Delays(Duration),
    /// A reply's bytes come one by one, this far apart.
    Drips(Duration),
    /// Nothing passes, either way, until the manner changes; then all of it does.
    Stands,
    /// Connections are accepted, and what is sent is thrown away.
    Swallows,
    /// Commands are carried out, and their replies thrown away.
    SwallowsReplies,
}

struct Shared {
    server: u16,
    state: watch::Sender<State>,
    accepted: AtomicU64,
    /// Bytes of commands that came, whether they were passed on or not.
    asked: AtomicUsize,
    /// Bytes of replies that were passed on.
    replied: AtomicUsize,
    /// After so many bytes of replies, whichever connection they are on, it is cut; and then after so many more.
    until_cut: Mutex<VecDeque<usize>>,
}

/// Connections are numbered, and those below a number fare worse than the manner says.
#[derive(Clone, Copy)]
struct State {
    manner: Manner,
    frozen_below: u64,
    half_closed_below: u64,
    severed_below: u64,
}

impl Proxy {
    pub async fn before(server: u16) -> Self {
        // Another process may take the port between our finding it free and our taking it.
        let listener = loop {
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", free_port())).await {
                break listener;
            }
        };
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            server,
            state: watch::Sender::new(State {
                manner: Manner::Passes,
                frozen_below: 0,
                half_closed_below: 0,
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

    pub fn set(&self, manner: Manner) {
        self.shared.state.send_modify(|state| state.manner = manner);
    }

    /// Cuts the connection on which the byte after the next `bytes` of replies would come.
    pub fn cut_after(&self, bytes: usize) {
        self.cut_after_each([bytes]);
    }

    /// The same several times, each counted from the last.
    pub fn cut_after_each(&self, bytes: impl Into<VecDeque<usize>>) {
        *self.shared.until_cut.lock().expect("no panic") = bytes.into();
    }

    /// Takes the cuts back that have not come yet; whether there were some.
    pub fn spare(&self) -> bool {
        let mut until_cut = self.shared.until_cut.lock().expect("no panic");
        let were_some = !until_cut.is_empty();
        until_cut.clear();
        were_some
    }

    /// The connections of now stay open, and nothing comes through any more, as after a router forgot them. New ones are fine.
    pub fn freeze_open(&self) {
        let below = self.accepted();
        self.shared
            .state
            .send_modify(|state| state.frozen_below = below);
    }

    /// On the connections of now the server's side says that it will say no more, and goes on listening.
    pub fn half_close_open(&self) {
        let below = self.accepted();
        self.shared
            .state
            .send_modify(|state| state.half_closed_below = below);
    }

    pub fn sever_open(&self) {
        let below = self.accepted();
        self.shared
            .state
            .send_modify(|state| state.severed_below = below);
    }

    /// How many connections there were.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many bytes of commands came, whether they are through or not.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// How many bytes of replies came through.
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
        let manner = moving(&mut state, number).await;
        if manner != Manner::Swallows && to.write_all(&buffer[..length]).await.is_err() {
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
                // What else the server says is for nobody, but the commands still pass.
                while let Ok(1..) = from.read(&mut buffer).await {}
                return;
            }
        };
        let piece = &buffer[..length];
        let is_over = match moving(&mut state, number).await {
            Manner::Passes | Manner::Stands => reply(piece, &mut to, shared).await,
            Manner::Delays(delay) => {
                tokio::time::sleep(delay).await;
                reply(piece, &mut to, shared).await
            }
            Manner::Drips(pause) => {
                let mut is_over = false;
                for byte in piece.chunks(1) {
                    tokio::time::sleep(pause).await;
                    is_over = is_over || reply(byte, &mut to, shared).await;
                }
                is_over
            }
            Manner::Swallows | Manner::SwallowsReplies => false,
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

/// The manner, once it is one in which things move.
async fn moving(state: &mut watch::Receiver<State>, number: u64) -> Manner {
    let moves = |state: &State| state.manner != Manner::Stands && number >= state.frozen_below;
    let manner = state.wait_for(moves).await.map(|state| state.manner);
    match manner {
        Ok(manner) => manner,
        // The proxy is gone, and its connections end with it.
        Err(_) => std::future::pending().await,
    }
}
