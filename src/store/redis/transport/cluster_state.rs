//! What is known of a cluster: its topology, the connections to its nodes, and which nodes failed.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{
    node::Node,
    topology::{Address, Topology},
};
use crate::error::SessionError;

/// The topology is fetched at most this often.
const INTERVAL: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct ClusterState {
    pub(super) topology: Option<Topology>,
    pub(super) nodes: HashMap<Address, Node>,
    /// The nodes that failed a command, the one that failed last at the end. A master that is cut off from the others still answers, and
    /// tells the slots as they were.
    failed: Vec<Address>,
    /// Since when.
    pub(super) refreshing: Option<Instant>,
    pub(super) refreshed: Option<Instant>,
    /// Why the last refresh failed, if it did.
    pub(super) error: Option<SessionError>,
}

impl ClusterState {
    pub(super) fn is_fresh(&self) -> bool {
        self.refreshed.is_some_and(|at| at.elapsed() < INTERVAL)
    }

    pub(super) fn record_failure(&mut self, node: &Address) {
        self.failed.retain(|failed| failed != node);
        self.failed.push(node.clone());
    }

    pub(super) fn set_topology(&mut self, topology: Topology) {
        // A request that holds a removed node goes on with it.
        self.nodes.retain(|address, _| topology.has(address));
        self.failed.retain(|address| topology.has(address));
        self.topology = Some(topology);
        self.error = None;
    }

    /// The nodes to ask for the topology: those of the last topology that have not failed, the responsive ones first; then those that
    /// failed, the last one at the end; then the seeds.
    pub(super) fn candidates(&self, seeds: &[Address]) -> Vec<Address> {
        let known = self.topology.iter().flat_map(Topology::addresses);
        let mut known: Vec<&Address> = known.collect();
        known.sort_by_key(|address| {
            let failed = self.failed.iter().position(|failed| failed == *address);
            (failed, !self.is_responsive(address))
        });
        let mut candidates: Vec<Address> = Vec::new();
        for address in known.into_iter().chain(seeds) {
            if !candidates.contains(address) {
                candidates.push(address.clone());
            }
        }
        candidates
    }

    fn is_responsive(&self, node: &Address) -> bool {
        let node = self.nodes.get(node);
        node.is_some_and(|node| node.connections().requests.is_responsive())
    }
}
