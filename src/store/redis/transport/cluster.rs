//! A cluster: which node has a key's slot, and what to do when the slot has moved.
//!
//! 1. Every node has a connection of its own, which fails fast and recovers by itself. A node that hangs does not affect the slots of
//!    the others.
//! 2. A redirection (MOVED, ASK) is followed at once. MOVED and any failure cause the topology to be fetched again, in the background, by
//!    one task at a time. Nodes that failed are asked last.
//! 3. No command is sent again after its connection broke. Only the commit knows whether that is safe.
//!
//! Deliberately not `redis::cluster_async`, because of the third rule: it sends a write again without saying so, and a counter
//! could then count twice. It also blocks all slots while it looks for one node.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use redis::{ConnectionInfo, RedisError, ServerErrorKind, Value};
use tokio::sync::Notify;

use super::{
    cluster_state::ClusterState,
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
            let answer = self.attempt(&address, redirect, command, acks).await;
            let Err(CommandError::Server(error)) = &answer else {
                return answer.map_err(|error| self.name_address(&address, error));
            };
            redirect = match error.kind() {
                redis::ErrorKind::Server(ServerErrorKind::Moved) => {
                    self.refresh();
                    Redirect::None
                }
                redis::ErrorKind::Server(ServerErrorKind::Ask) => Redirect::Ask,
                _ => return answer,
            };
            #[cfg(feature = "local-cache")]
            self.redirected(key, redirect == Redirect::None);
            redirections += 1;
            if redirections > MAX_REDIRECTIONS {
                return Err(CommandError::NotSent(error::too_many_redirections()));
            }
            let Some(next) = self.redirection(error, &address) else {
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

    /// Sends a command to one node.
    async fn attempt(
        self: &Arc<Self>,
        address: &Address,
        redirect: Redirect,
        command: &mut Command,
        acks: Option<ReplicaAcks>,
    ) -> Result<(Value, usize), CommandError> {
        // Also if the request gives up.
        let mut failure = FailureOnDrop(Some((self, address)));
        let node = self.node(address);
        let answer = match (acks, redirect) {
            (Some(acks), _) => {
                let asking = redirect == Redirect::Ask;
                node.send_and_wait(command, acks, asking).await
            }
            (None, Redirect::None) => without_acks(node.connections().requests.send(command).await),
            (None, Redirect::Ask) => without_acks(node.send_asking(command).await),
        };
        let has_failed = match &answer {
            Ok(_) => false,
            Err(CommandError::Server(error)) => matches!(
                error.kind(),
                redis::ErrorKind::Server(
                    ServerErrorKind::ClusterDown | ServerErrorKind::MasterDown
                )
            ),
            Err(_) => true,
        };
        if !has_failed {
            failure.cancel();
        }
        answer
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
                let topology = state.topology.as_ref();
                if let Some(address) = topology.and_then(|topology| topology.master(slot)) {
                    return Ok(address.clone());
                }
            }
            if waited || !self.refresh() {
                let error = self.state().error.clone();
                return Err(error.unwrap_or_else(error::no_slot));
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

/// When it is dropped, the node has failed a command, unless this is cancelled.
struct FailureOnDrop<'a>(Option<(&'a Arc<Cluster>, &'a Address)>);

impl FailureOnDrop<'_> {
    fn cancel(&mut self) {
        self.0 = None;
    }
}

impl Drop for FailureOnDrop<'_> {
    fn drop(&mut self) {
        if let Some((cluster, address)) = self.0 {
            cluster.state().record_failure(address);
            cluster.refresh();
        }
    }
}

/// A refresh. However it ends, by a panic or with its runtime too, the next one can begin.
struct Refresh(Arc<Cluster>);

impl Refresh {
    async fn run(self) {
        let cluster = &self.0;
        let seeds: Vec<Address> = cluster.seeds.iter().map(Address::of).collect();
        let candidates = cluster.state().candidates(&seeds);
        let map = cluster.settings.address_map.as_ref();
        let node = |address: &Address| cluster.node(address);
        let answer = topology_search::first_topology(candidates, node, map);
        let limit = cluster.settings.timeout;
        let answer = tokio::time::timeout(limit, answer).await;
        let answer = answer.unwrap_or_else(|_| Err(error::connect_timed_out(limit)));
        let mut state = cluster.state();
        match answer {
            Ok(topology) => {
                #[cfg(feature = "local-cache")]
                cluster.topology_read(state.topology.as_ref() != Some(&topology));
                state.set_topology(topology);
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

fn without_acks(reply: Result<Value, CommandError>) -> Result<(Value, usize), CommandError> {
    reply.map(|reply| (reply, 0))
}

#[cfg(test)]
mod tests;
