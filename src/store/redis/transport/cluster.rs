//! A cluster: which server has a key's slot, and what to do when it has moved.
//!
//! 1. Every node has a connection of its own, which fails fast and heals by itself. One that hangs holds up nobody else's slots.
//! 2. A redirection is followed at once. Whatever else goes wrong makes the topology be asked for again, in the background, by one
//!    task at a time.
//! 3. Nothing is sent again on a broken connection: whether that is safe, the commit knows.
//!
//! Deliberately not `redis::cluster_async`, for the third rule's sake: it sends a write again without saying so, and a counter
//! could then count twice. It also holds up all slots while it looks for one server.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use redis::{
    ConnectionAddr, ConnectionInfo, RedisError, ServerErrorKind, Value, cluster::ClusterClient,
};
use tokio::sync::Notify;

use super::topology::{Address, Topology, slot_of};
use super::{
    Node,
    command_pool::{Command, command},
    connect::{ConnectOptions, Endpoint, PasswordProvider},
    error::{self, CommandError},
};
use crate::{config::ReplicaAcks, error::SessionError};

/// Slots that move chase each other no further than this.
const MAX_REDIRECTIONS: u32 = 5;
/// The topology is asked for at most this often.
const INTERVAL: Duration = Duration::from_millis(100);
/// One node has this long to tell it, before the next one is asked.
const PATIENCE: Duration = Duration::from_millis(125);

pub(crate) struct Cluster {
    /// Whom to ask first. The others are reached with the first one's settings.
    seeds: Vec<ConnectionInfo>,
    password: Option<PasswordProvider>,
    map: Mutex<ClusterState>,
    refreshed: Notify,
    set_ifeq_unsupported: AtomicBool,
    /// In milliseconds.
    request_timeout: AtomicU64,
}

#[derive(Default)]
struct ClusterState {
    topology: Option<Topology>,
    nodes: HashMap<Address, Node>,
    refreshing: bool,
    refreshed: Option<Instant>,
    /// Why the last refresh failed, if it did.
    error: Option<SessionError>,
}

/// Which way a command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Redirect {
    Usual,
    /// To a node that does not have the slot yet.
    Asking,
}

impl Cluster {
    pub(crate) fn new(client: &ClusterClient) -> Self {
        Self::with_seeds(super::topology::seeds(client), None)
    }

    fn with_seeds(seeds: Vec<ConnectionInfo>, password: Option<PasswordProvider>) -> Self {
        Self {
            seeds,
            password,
            map: Mutex::default(),
            refreshed: Notify::new(),
            set_ifeq_unsupported: AtomicBool::new(false),
            request_timeout: AtomicU64::new(500),
        }
    }

    pub(crate) fn with_password(&self, password: PasswordProvider) -> Self {
        Self::with_seeds(self.seeds.clone(), Some(password))
    }

    pub(crate) fn set_request_timeout(&self, request_timeout: Duration) {
        let millis = u64::try_from(request_timeout.as_millis()).unwrap_or(u64::MAX);
        self.request_timeout.store(millis, Relaxed);
        for server in self.map().nodes.values() {
            server.set_request_timeout(request_timeout);
        }
    }

    pub(crate) fn supports_set_ifeq(&self) -> bool {
        !self.set_ifeq_unsupported.load(Relaxed)
    }

    pub(crate) fn mark_set_ifeq_unsupported(&self) {
        self.set_ifeq_unsupported.store(true, Relaxed);
    }

    /// Asks the server that has the key, and the one that it names instead. With `acks`, also how many replicas have the write.
    pub(super) async fn send(
        self: &Arc<Self>,
        key: &str,
        command: &mut Command,
        acks: Option<ReplicaAcks>,
    ) -> Result<(Value, usize), CommandError> {
        let slot = slot_of(key.as_bytes());
        let mut address = self.master(slot).await.map_err(CommandError::NotSent)?;
        let mut way = Redirect::Usual;
        let mut redirections = 0;
        loop {
            // Dropped at the deadline, or failed: who knows whether this is still the one to ask.
            let doubt = RefreshOnDrop(self);
            let server = self.node(&address);
            let answer = match (acks, way) {
                (Some(acks), _) => {
                    let asking = way == Redirect::Asking;
                    server.send_and_wait(command, acks, asking).await
                }
                (None, Redirect::Usual) => server.connection().send(command).await.map(unconfirmed),
                (None, Redirect::Asking) => server.send_asking(command).await.map(unconfirmed),
            };
            let Err(CommandError::Server(error)) = &answer else {
                if answer.is_ok() {
                    mem::forget(doubt);
                }
                return answer;
            };
            match error.kind() {
                redis::ErrorKind::Server(ServerErrorKind::Moved) => way = Redirect::Usual,
                redis::ErrorKind::Server(ServerErrorKind::Ask) => {
                    mem::forget(doubt);
                    way = Redirect::Asking;
                }
                redis::ErrorKind::Server(
                    ServerErrorKind::ClusterDown | ServerErrorKind::MasterDown,
                ) => return answer,
                _ => {
                    mem::forget(doubt);
                    return answer;
                }
            }
            redirections += 1;
            let Some(next) =
                redirection(error, &address).filter(|_| redirections <= MAX_REDIRECTIONS)
            else {
                return answer;
            };
            if way == Redirect::Usual
                && let Some(topology) = &mut self.map().topology
            {
                topology.reassign_slot(slot, next.clone());
            }
            address = next;
        }
    }

    /// The server that has the slot, as far as we know.
    async fn master(self: &Arc<Self>, slot: u16) -> Result<Address, SessionError> {
        let mut waited = false;
        loop {
            let mut refreshed = std::pin::pin!(self.refreshed.notified());
            // From here on no end of a refresh is missed.
            refreshed.as_mut().enable();
            {
                let map = self.map();
                match &map.topology {
                    Some(topology) => match topology.master(slot) {
                        Some(address) => return Ok(address.clone()),
                        None if waited => return Err(error::no_slot()),
                        None => {}
                    },
                    None => {
                        if let Some(error) = &map.error
                            && (waited || map.is_fresh())
                        {
                            return Err(error.clone());
                        }
                    }
                }
            }
            if !self.refresh() {
                return Err(error::no_slot());
            }
            refreshed.await;
            waited = true;
        }
    }

    fn node(&self, address: &Address) -> Node {
        let mut map = self.map();
        if let Some(server) = map.nodes.get(address) {
            return server.clone();
        }
        let mut source = ConnectOptions::new(Endpoint::one(self.info(address)));
        if let Some(password) = &self.password {
            source = source.with_password(password.clone());
        }
        let server = Node::new(source);
        server.set_request_timeout(self.request_timeout());
        map.nodes.insert(address.clone(), server.clone());
        server
    }

    fn info(&self, address: &Address) -> ConnectionInfo {
        let own = self.seeds.iter().find(|seed| Address::of(seed) == *address);
        let (Some(info), None) = (self.seeds.first(), own) else {
            return own.expect("a cluster has a seed").clone();
        };
        let Address { host, port } = address.clone();
        let address = match info.addr() {
            ConnectionAddr::TcpTls {
                insecure,
                tls_params,
                ..
            } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        info.clone().set_addr(address)
    }

    /// Asks for the topology in the background, unless somebody does or just did; whether an answer is on its way.
    fn refresh(self: &Arc<Self>) -> bool {
        let mut map = self.map();
        if map.refreshing {
            return true;
        }
        if map.is_fresh() {
            return false;
        }
        map.refreshing = true;
        drop(map);
        let refresh = Refresh(self.clone());
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(refresh.run());
                true
            }
            Err(_) => false,
        }
    }

    fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout.load(Relaxed))
    }

    fn map(&self) -> MutexGuard<'_, ClusterState> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClusterState {
    fn is_fresh(&self) -> bool {
        self.refreshed.is_some_and(|at| at.elapsed() < INTERVAL)
    }
}

/// RefreshOnDrop about the topology, unless it is forgotten.
struct RefreshOnDrop<'a>(&'a Arc<Cluster>);

impl Drop for RefreshOnDrop<'_> {
    fn drop(&mut self) {
        self.0.refresh();
    }
}

/// A refresh. However it ends, a panic and the end of its runtime included, the next one may begin.
struct Refresh(Arc<Cluster>);

impl Refresh {
    async fn run(self) {
        let cluster = &self.0;
        let mut error = None;
        for address in cluster.candidates() {
            let server = cluster.node(&address);
            let asked = async {
                let mut command = command("CLUSTER", &[b"SLOTS"]);
                server.connection().send(&mut command).await
            };
            let answer = match tokio::time::timeout(PATIENCE, asked).await {
                Ok(Ok(reply)) => Topology::parse(&reply, &address),
                Ok(Err(failure)) => Err(failure.into_error()),
                Err(_) => Err(error::connect_timed_out(PATIENCE)),
            };
            match answer {
                Ok(topology) => {
                    let mut map = cluster.map();
                    // Requests that hold a node which left go on with it.
                    map.nodes.retain(|address, _| topology.has(address));
                    map.topology = Some(topology);
                    map.error = None;
                    return;
                }
                Err(why) => error = Some(why),
            }
        }
        cluster.map().error = error;
    }
}

impl Drop for Refresh {
    fn drop(&mut self) {
        {
            let mut map = self.0.map();
            map.refreshing = false;
            map.refreshed = Some(Instant::now());
        }
        self.0.refreshed.notify_waiters();
    }
}

impl Cluster {
    /// Whom to ask for the topology: those that are connected, then the others that are known, then the seeds.
    fn candidates(&self) -> Vec<Address> {
        let map = self.map();
        let mut candidates: Vec<Address> = Vec::new();
        let known = map.topology.iter().flat_map(Topology::addresses);
        let mut known: Vec<&Address> = known.collect();
        known.sort_by_key(|address| {
            !map.nodes
                .get(address)
                .is_some_and(|server| server.connection().answers())
        });
        let seeds: Vec<Address> = self.seeds.iter().map(Address::of).collect();
        for address in known.into_iter().chain(&seeds) {
            if !candidates.contains(address) {
                candidates.push(address.clone());
            }
        }
        candidates
    }
}

/// Nobody was asked to confirm it.
fn unconfirmed(reply: Value) -> (Value, usize) {
    (reply, 0)
}

/// Where MOVED and ASK point. Without a host it is the one that said so.
fn redirection(error: &RedisError, from: &Address) -> Option<Address> {
    let (node, _) = error.redirect_node()?;
    let (host, port) = node.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(Address {
        host: if host.is_empty() { &from.host } else { host }.to_owned(),
        port: port.parse().ok()?,
    })
}
