//! The way to the servers, whichever they are: one server, the master that Sentinel names, or a cluster.

#[cfg(feature = "cluster")]
pub(crate) mod cluster;
pub(super) mod command_pool;
pub(crate) mod connect;
mod connection;
pub(crate) mod error;
mod replica_wait;
#[cfg(feature = "sentinel")]
pub(crate) mod sentinel;
#[cfg(feature = "cluster")]
mod topology;

use std::{sync::Arc, time::Duration};

use redis::{Cmd, Pipeline, Value};

use self::{
    command_pool::Command,
    connect::{ConnectOptions, PasswordProvider},
    connection::Connection,
    error::CommandError,
    replica_wait::ReplicaWait,
};
use crate::config::ReplicaAcks;

#[derive(Clone)]
pub(crate) enum Transport {
    Server(Node),
    #[cfg(feature = "cluster")]
    Cluster(Arc<cluster::Cluster>),
}

/// One server, or the master of the moment.
#[derive(Clone)]
pub(crate) struct Node {
    connection: Arc<Connection>,
    replica_wait: Arc<ReplicaWait>,
}

impl Transport {
    pub(crate) fn server(source: ConnectOptions) -> Self {
        Self::Server(Node::new(source))
    }

    pub(crate) fn with_password(self, password: PasswordProvider) -> Self {
        match self {
            Self::Server(server) => {
                Self::server(server.connection.source().with_password(password))
            }
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => Self::Cluster(Arc::new(cluster.with_password(password))),
        }
    }

    pub(crate) fn set_request_timeout(&self, request_timeout: Duration) {
        match self {
            Self::Server(server) => server.set_request_timeout(request_timeout),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.set_request_timeout(request_timeout),
        }
    }

    /// Whether two keys are mostly in two slots, so that no script may touch both.
    pub(crate) fn is_cluster(&self) -> bool {
        match self {
            Self::Server(_) => false,
            #[cfg(feature = "cluster")]
            Self::Cluster(_) => true,
        }
    }

    /// Whether `SET … IFEQ` is worth a try. That the server does not know it is found out once for each connection.
    pub(crate) fn supports_set_ifeq(&self) -> bool {
        match self {
            Self::Server(server) => server.connection.supports_set_ifeq(),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.supports_set_ifeq(),
        }
    }

    pub(crate) fn mark_set_ifeq_unsupported(&self) {
        match self {
            Self::Server(server) => server.connection.mark_set_ifeq_unsupported(),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.mark_set_ifeq_unsupported(),
        }
    }

    /// `key` decides which server of a cluster it is for.
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
            Self::Server(server) => server.connection.send(command).await,
            // Boxed, so that it does not enlarge the futures of those who have one server.
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => {
                let sent = Box::pin(cluster.send(key, command, None)).await;
                sent.map(|(reply, _)| reply)
            }
        }
    }

    /// The reply, and how many replicas have the write.
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
            Self::Server(server) => server.send_and_wait(command, acks, false).await,
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.send(key, command, Some(acks)).await,
        }
    }
}

impl Node {
    pub(crate) fn new(source: ConnectOptions) -> Self {
        Self {
            connection: Connection::new(source.clone()),
            replica_wait: Arc::new(ReplicaWait::new(source)),
        }
    }

    #[cfg(feature = "cluster")]
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub(crate) fn set_request_timeout(&self, request_timeout: Duration) {
        self.connection.set_request_timeout(request_timeout);
        self.replica_wait
            .connection
            .set_request_timeout(request_timeout);
    }

    /// `command` right behind ASKING, which a server that the slot is moving to wants to hear first.
    #[cfg(feature = "cluster")]
    pub(crate) async fn send_asking(&self, command: &Cmd) -> Result<Value, CommandError> {
        let commands = pipeline(command, true);
        let (reply, _) = self.connection.send_together(&commands).await?;
        Ok(reply)
    }

    /// `asking`: the slot is moving to this server.
    pub(crate) async fn send_and_wait(
        &self,
        command: &Cmd,
        acks: ReplicaAcks,
        asking: bool,
    ) -> Result<(Value, usize), CommandError> {
        self.replica_wait
            .send(&pipeline(command, asking), acks)
            .await
    }
}

fn pipeline(command: &Cmd, asking: bool) -> Pipeline {
    let mut commands = Pipeline::with_capacity(2);
    if asking {
        commands.cmd("ASKING");
    }
    commands.add_command(command.clone());
    commands
}
