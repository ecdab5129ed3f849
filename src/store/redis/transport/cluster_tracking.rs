//! Reports of changes in a cluster: each master reports those of its own keys.

use std::sync::Arc;

use super::{cluster::Cluster, topology::slot_of};
use crate::cache::Tracking;

impl Cluster {
    /// The tracking of the connection to the master that has the key.
    pub(super) fn tracking(&self, key: &str) -> Option<Arc<Tracking>> {
        let slot = slot_of(key.as_bytes());
        let address = self.state().topology.as_ref()?.master(slot)?.clone();
        self.node(&address).connections().requests.tracking()
    }

    /// A reply will come from another node than the one that a ticket was taken for. If its slot `has_moved`, others have too.
    pub(super) fn redirected(&self, key: &str, has_moved: bool) {
        if let Some(cache) = &self.settings().cache {
            cache.invalidate_redirected(key);
            if has_moved {
                cache.topology_changed();
            }
        }
    }

    /// The topology was read. If it `has_changed`, keys have other masters now.
    pub(super) fn topology_read(&self, has_changed: bool) {
        if let Some(cache) = self.settings().cache.as_ref().filter(|_| has_changed) {
            cache.topology_changed();
        }
    }
}
