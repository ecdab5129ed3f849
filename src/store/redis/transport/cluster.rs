//! A cluster: which node has a key's slot, and what to do when the slot has moved.
//!
//! 1. Every node has a connection of its own, which fails fast and recovers by itself. A node that hangs does not affect the slots of
//!    the others.
//! 2. A redirection (MOVED, ASK) is followed at once. Any other failure causes the topology to be fetched again, in the background, by
//!    one task at a time.
//! 3. No command is sent again after its connection broke. Only the commit knows whether that is safe.
//!
//! Deliberately not `redis::cluster_async`, because of the third rule: it sends a write again without saying so, and a counter
//! could then count twice. It also blocks all slots while it looks for one node.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use redis::{ConnectionInfo, RedisError, ServerErrorKind, Value};
use tokio::sync::Notify;

use super::{
    command_pool::Command,
    connect::{self, ConnectSettings},
    endpoint::Endpoint,
    error::{self, CommandError},
    node::Node,
    topology::{self, Address, Topology, slot_of},
    topology_search,
};
use crate::{config::ReplicaAcks, error::SessionError};

/// How many redirections of one command are followed.
const MAX_REDIRECTIONS: u32 = 5;
/// The topology is fetched at most this often.
const INTERVAL: Duration = Duration::from_millis(100);
/// With 100 masters of like size, one of them is missed once in 10⁶⁸ times.
const MAX_CANDIDATES: usize = 16_384;
/// A refresh that takes longer is not waited for.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) struct Cluster {
    /// The nodes that are asked first. The settings of the first one are used for all nodes that they name.
    seeds: Vec<ConnectionInfo>,
    settings: ConnectSettings,
    state: Mutex<ClusterState>,
    refreshed: Notify,
}

#[derive(Default)]
pub(super) struct ClusterState {
    pub(super) topology: Option<Topology>,
    nodes: HashMap<Address, Node>,
    /// Since when.
    refreshing: Option<Instant>,
    refreshed: Option<Instant>,
    /// Why the last refresh failed, if it did.
    error: Option<SessionError>,
}

/// How a command is sent to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Redirect {
    /// The node has the slot.
    None,
    /// The slot is moving to the node.
    Ask,
}

impl Cluster {
    pub(super) fn new(seeds: Vec<ConnectionInfo>, settings: ConnectSettings) -> Self {
        Self {
            seeds,
            settings,
            state: Mutex::default(),
            refreshed: Notify::new(),
        }
    }

    pub(super) fn seeds(&self) -> &[ConnectionInfo] {
        &self.seeds
    }

    pub(super) fn settings(&self) -> &ConnectSettings {
        &self.settings
    }

    /// Sends a command to the node that has the key, and to the one that this redirects to. With `acks`, the second value is how many
    /// replicas have the write.
    pub(super) async fn send(
        self: &Arc<Self>,
        key: &str,
        command: &mut Command,
        acks: Option<ReplicaAcks>,
    ) -> Result<(Value, usize), CommandError> {
        let slot = slot_of(key.as_bytes());
        let mut address = self.master(slot).await.map_err(CommandError::NotSent)?;
        let mut redirect = Redirect::None;
        let mut redirections = 0;
        loop {
            // If the command fails, or its request gives up, the topology may be out of date.
            let mut refresh = RefreshOnDrop(Some(self));
            let node = self.node(&address);
            let answer = match (acks, redirect) {
                (Some(acks), _) => {
                    let asking = redirect == Redirect::Ask;
                    node.send_and_wait(command, acks, asking).await
                }
                (None, Redirect::None) => {
                    without_acks(node.connections().requests.send(command).await)
                }
                (None, Redirect::Ask) => without_acks(node.send_asking(command).await),
            };
            let Err(CommandError::Server(error)) = &answer else {
                if answer.is_ok() {
                    refresh.cancel();
                }
                return answer.map_err(|error| self.name_address(&address, error));
            };
            match error.kind() {
                redis::ErrorKind::Server(ServerErrorKind::Moved) => redirect = Redirect::None,
                redis::ErrorKind::Server(ServerErrorKind::Ask) => {
                    refresh.cancel();
                    redirect = Redirect::Ask;
                }
                redis::ErrorKind::Server(
                    ServerErrorKind::ClusterDown | ServerErrorKind::MasterDown,
                ) => return answer,
                _ => {
                    refresh.cancel();
                    return answer;
                }
            }
            #[cfg(feature = "local-cache")]
            self.redirected(key, redirect == Redirect::None);
            redirections += 1;
            let Some(next) = self
                .redirection(error, &address)
                .filter(|_| redirections <= MAX_REDIRECTIONS)
            else {
                return answer;
            };
            if redirect == Redirect::None
                && let Some(topology) = &mut self.state().topology
            {
                topology.reassign_slot(slot, next.clone());
            }
            address = next;
        }
    }

    /// The node that has the slot, according to the topology.
    async fn master(self: &Arc<Self>, slot: u16) -> Result<Address, SessionError> {
        let mut waited = false;
        loop {
            let mut refreshed = std::pin::pin!(self.refreshed.notified());
            // From here on, no end of a refresh is missed.
            refreshed.as_mut().enable();
            {
                let state = self.state();
                match &state.topology {
                    Some(topology) => match topology.master(slot) {
                        Some(address) => return Ok(address.clone()),
                        None if waited => return Err(error::no_slot()),
                        None => {}
                    },
                    None => {
                        if let Some(error) = &state.error
                            && (waited || state.is_fresh())
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

    /// Of `candidates`, one for each master, unless its slots are so few that none of them falls there.
    pub(super) async fn one_per_master<T>(
        self: &Arc<Self>,
        candidates: impl Iterator<Item = T>,
        key_of: impl Fn(&T) -> String,
    ) -> Result<Vec<T>, SessionError> {
        let mut masters: Vec<Address> = Vec::new();
        let mut found = Vec::new();
        for candidate in candidates.take(MAX_CANDIDATES) {
            let slot = slot_of(key_of(&candidate).as_bytes());
            // Waits until the topology is known, and then for nothing.
            let master = self.master(slot).await?;
            if !masters.contains(&master) {
                masters.push(master);
                found.push(candidate);
                let state = self.state();
                let all = state.topology.as_ref().map_or(0, Topology::master_count);
                if found.len() >= all {
                    break;
                }
            }
        }
        Ok(found)
    }

    pub(super) fn node(&self, address: &Address) -> Node {
        let mut state = self.state();
        if let Some(node) = state.nodes.get(address) {
            return node.clone();
        }
        let endpoint = Endpoint::server(self.info(address));
        let node = Node::new(endpoint, self.settings.clone());
        state.nodes.insert(address.clone(), node.clone());
        node
    }

    /// A seed has its own settings, any other node those of the first seed.
    fn info(&self, address: &Address) -> ConnectionInfo {
        let own = self.seeds.iter().find(|seed| Address::of(seed) == *address);
        if let Some(own) = own {
            return own.clone();
        }
        let first = self.seeds[0].clone();
        let addr = connect::with_host(first.addr(), address.host.clone(), address.port);
        first.set_addr(addr)
    }

    /// Fetches the topology in the background, unless that is being done or was just done. Returns whether a result will come.
    fn refresh(self: &Arc<Self>) -> bool {
        let mut state = self.state();
        // One in a runtime that is not running any more does not end by itself.
        if state
            .refreshing
            .is_some_and(|since| since.elapsed() < REFRESH_TIMEOUT)
        {
            return true;
        }
        if state.is_fresh() {
            return false;
        }
        state.refreshing = Some(Instant::now());
        drop(state);
        let refresh = Refresh(self.clone());
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(refresh.run());
                true
            }
            Err(_) => false,
        }
    }

    /// The node that MOVED or ASK names. Without a host, it is on the host of the node that answered.
    fn redirection(&self, error: &RedisError, from: &Address) -> Option<Address> {
        let (node, _) = error.redirect_node()?;
        let (host, port) = node.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = if topology::is_unknown(host) {
            &from.host
        } else {
            host
        };
        let port = port.parse().ok()?;
        Some(Address::mapped(
            host,
            port,
            self.settings.address_map.as_ref(),
        ))
    }

    /// An error of a node that the app did not name itself says how the cluster announced it.
    fn name_address(&self, address: &Address, error: CommandError) -> CommandError {
        match error {
            CommandError::NotSent(error) if !self.is_seed(address) => {
                let Address { host, port } = address;
                CommandError::NotSent(error::announced_node(host, *port, &error))
            }
            error => error,
        }
    }

    pub(super) fn late_error(&self, deadline: Duration) -> Option<SessionError> {
        let nodes: Vec<(Address, Node)> = {
            let state = self.state();
            let nodes = state.nodes.iter();
            nodes
                .map(|(address, node)| (address.clone(), node.clone()))
                .collect()
        };
        let mut connecting = nodes
            .iter()
            .filter(|(_, node)| node.connections().requests.is_connecting());
        let (address, _) = connecting.next()?;
        let error = error::still_connecting(deadline);
        Some(match self.is_seed(address) {
            true => error,
            false => error::announced_node(&address.host, address.port, &error),
        })
    }

    fn is_seed(&self, address: &Address) -> bool {
        self.seeds.iter().any(|seed| Address::of(seed) == *address)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, ClusterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClusterState {
    fn is_fresh(&self) -> bool {
        self.refreshed.is_some_and(|at| at.elapsed() < INTERVAL)
    }
}

/// Refreshes the topology when it is dropped, unless it is cancelled.
struct RefreshOnDrop<'a>(Option<&'a Arc<Cluster>>);

impl RefreshOnDrop<'_> {
    fn cancel(&mut self) {
        self.0 = None;
    }
}

impl Drop for RefreshOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(cluster) = self.0 {
            cluster.refresh();
        }
    }
}

/// A refresh. However it ends, by a panic or with its runtime too, the next one can begin.
struct Refresh(Arc<Cluster>);

impl Refresh {
    async fn run(self) {
        let cluster = &self.0;
        let map = cluster.settings.address_map.as_ref();
        let node = |address: &Address| cluster.node(address);
        let answer = topology_search::first_topology(cluster.candidates(), node, map);
        let limit = cluster.settings.timeout;
        let answer = tokio::time::timeout(limit, answer).await;
        let answer = answer.unwrap_or_else(|_| Err(error::connect_timed_out(limit)));
        let mut state = cluster.state();
        match answer {
            Ok(topology) => {
                // A request that holds a removed node goes on with it.
                state.nodes.retain(|address, _| topology.has(address));
                #[cfg(feature = "local-cache")]
                cluster.topology_read(state.topology.as_ref() != Some(&topology));
                state.topology = Some(topology);
                state.error = None;
            }
            Err(error) => state.error = Some(error),
        }
    }
}

impl Drop for Refresh {
    fn drop(&mut self) {
        {
            let mut state = self.0.state();
            state.refreshing = None;
            state.refreshed = Some(Instant::now());
        }
        self.0.refreshed.notify_waiters();
    }
}

impl Cluster {
    /// The nodes to ask for the topology: the responsive ones, then the others of the last topology, then the seeds.
    fn candidates(&self) -> Vec<Address> {
        let state = self.state();
        let mut candidates: Vec<Address> = Vec::new();
        let known = state.topology.iter().flat_map(Topology::addresses);
        let mut known: Vec<&Address> = known.collect();
        known.sort_by_key(|address| {
            !state
                .nodes
                .get(address)
                .is_some_and(|node| node.connections().requests.is_responsive())
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

fn without_acks(reply: Result<Value, CommandError>) -> Result<(Value, usize), CommandError> {
    reply.map(|reply| (reply, 0))
}
