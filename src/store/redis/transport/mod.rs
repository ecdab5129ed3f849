//! How commands reach Redis: one server, the master that Sentinel names, or a cluster.

pub(crate) mod authentication;
#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "cluster")]
mod cluster_state;
#[cfg(all(feature = "cluster", feature = "local-cache"))]
mod cluster_tracking;
pub(super) mod command_pool;
pub(crate) mod connect;
mod connection;
mod connection_state;
#[cfg(test)]
mod connection_state_tests;
#[cfg(feature = "local-cache")]
mod connection_tracking;
mod connection_watch;
pub(crate) mod endpoint;
pub(super) mod error;
mod error_text;
mod node;
mod replica_wait;
#[cfg(feature = "sentinel")]
pub(crate) mod sentinel;
#[cfg(feature = "cluster")]
mod topology;
#[cfg(feature = "cluster")]
mod topology_search;
#[cfg(feature = "local-cache")]
mod tracking;
mod unanswered;
mod write_batch;

use std::{sync::Arc, time::Duration};

use redis::Value;

use self::{
    command_pool::Command,
    connect::{Capabilities, ConnectSettings},
    endpoint::Endpoint,
    error::CommandError,
    node::Node,
};
#[cfg(feature = "local-cache")]
use crate::cache::Tracking;
use crate::{config::ReplicaAcks, error::SessionError, stats::Counters};

#[derive(Clone)]
pub(crate) enum Transport {
    Node(Node),
    #[cfg(feature = "cluster")]
    Cluster(Arc<cluster::Cluster>),
}

impl Transport {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self::Node(Node::new(endpoint, ConnectSettings::default()))
    }

    /// `seeds` are the nodes that are asked first; there must be one.
    #[cfg(feature = "cluster")]
    pub(crate) fn cluster(seeds: Vec<redis::ConnectionInfo>) -> Self {
        let cluster = cluster::Cluster::new(seeds, ConnectSettings::default());
        Self::Cluster(Arc::new(cluster))
    }

    /// The same servers with other settings, over connections of its own.
    pub(crate) fn configured(&self, configure: impl FnOnce(&mut ConnectSettings)) -> Self {
        let mut settings = self.settings().clone();
        settings.capabilities = Default::default();
        configure(&mut settings);
        match self {
            Self::Node(node) => Self::Node(node.configured(settings)),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => {
                let cluster = cluster::Cluster::new(cluster.seeds().to_vec(), settings);
                Self::Cluster(Arc::new(cluster))
            }
        }
    }

    /// Whether two keys are mostly in different slots, so that a script cannot access both.
    pub(crate) fn is_cluster(&self) -> bool {
        match self {
            Self::Node(_) => false,
            #[cfg(feature = "cluster")]
            Self::Cluster(_) => true,
        }
    }

    /// The error of a request that reached its deadline, if that is because there is no connection.
    pub(crate) fn late_error(&self, deadline: Duration) -> Option<SessionError> {
        match self {
            Self::Node(node) => node
                .connections()
                .requests
                .is_connecting()
                .then(|| error::still_connecting(deadline)),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.late_error(deadline),
        }
    }

    pub(crate) fn capabilities(&self) -> &Capabilities {
        &self.settings().capabilities
    }

    /// `key` decides which node of a cluster gets the command.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(unused_variables, reason = "one server has all keys")
    )]
    pub(super) async fn send(
        &self,
        key: &str,
        command: &mut Command,
    ) -> Result<Value, CommandError> {
        match self {
            Self::Node(node) => node.connections().requests.send(command).await,
            // Boxed, so that it does not enlarge the futures of apps without a cluster.
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => {
                let sent = Box::pin(cluster.send(key, command, None)).await;
                sent.map(|(reply, _)| reply)
            }
        }
    }

    /// Returns the reply, and how many replicas have the write.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(unused_variables, reason = "one server has all keys")
    )]
    pub(super) async fn send_and_wait(
        &self,
        key: &str,
        command: &mut Command,
        acks: ReplicaAcks,
    ) -> Result<(Value, usize), CommandError> {
        match self {
            Self::Node(node) => node.send_and_wait(command, acks, false).await,
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.send(key, command, Some(acks)).await,
        }
    }

    pub(super) fn counters(&self) -> Arc<Counters> {
        self.settings().counters.clone()
    }

    /// Of `candidates`, one for each server that has keys such as theirs.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(unused_variables, reason = "one server has all keys")
    )]
    pub(super) async fn one_per_server<T>(
        &self,
        candidates: impl Iterator<Item = T>,
        key_of: impl Fn(&T) -> String,
    ) -> Result<Vec<T>, SessionError> {
        match self {
            Self::Node(_) => Ok(candidates.take(1).collect()),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.one_per_master(candidates, key_of).await,
        }
    }

    /// The tracking of the connection that commands for `key` are sent over. `None`: it is not open, or the server reports no changes.
    #[cfg(feature = "local-cache")]
    #[cfg_attr(
        not(feature = "cluster"),
        expect(unused_variables, reason = "one server has all keys")
    )]
    pub(super) fn tracking(&self, key: &str) -> Option<Arc<Tracking>> {
        match self {
            Self::Node(node) => node.connections().requests.tracking(),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.tracking(key),
        }
    }

    fn settings(&self) -> &ConnectSettings {
        match self {
            Self::Node(node) => node.settings(),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.settings(),
        }
    }
}
