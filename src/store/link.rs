//! The way to the servers, whichever they are: one server, the master that Sentinel names, or a cluster.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, Pipeline, Value};

use super::{
    confirming::Confirming,
    connect::{Password, Source},
    connection::Connection,
    exchange::Command,
    failure::CommandError,
    redis::ReplicaAcks,
};

#[derive(Clone)]
pub(crate) enum Link {
    Server(Server),
    #[cfg(feature = "cluster")]
    Cluster(Arc<super::cluster::Cluster>),
}

/// One server, or the master of the moment.
#[derive(Clone)]
pub(crate) struct Server {
    connection: Arc<Connection>,
    confirming: Arc<Confirming>,
}

impl Link {
    pub(crate) fn server(source: Source) -> Self {
        Self::Server(Server::new(source))
    }

    pub(crate) fn with_password(self, password: Password) -> Self {
        match self {
            Self::Server(server) => {
                Self::server(server.connection.source().with_password(password))
            }
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => Self::Cluster(Arc::new(cluster.with_password(password))),
        }
    }

    pub(crate) fn set_patience(&self, patience: Duration) {
        match self {
            Self::Server(server) => server.set_patience(patience),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.set_patience(patience),
        }
    }

    /// Whether two keys are mostly in two slots, so that no script may touch both.
    pub(crate) fn is_in_slots(&self) -> bool {
        match self {
            Self::Server(_) => false,
            #[cfg(feature = "cluster")]
            Self::Cluster(_) => true,
        }
    }

    /// Whether `SET … IFEQ` is worth a try. That the server does not know it is found out once for each connection.
    pub(crate) fn may_know_conditional_set(&self) -> bool {
        match self {
            Self::Server(server) => server.connection.may_know_conditional_set(),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.may_know_conditional_set(),
        }
    }

    pub(crate) fn note_no_conditional_set(&self) {
        match self {
            Self::Server(server) => server.connection.note_no_conditional_set(),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.note_no_conditional_set(),
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

impl Server {
    pub(crate) fn new(source: Source) -> Self {
        Self {
            connection: Connection::new(source.clone()),
            confirming: Arc::new(Confirming::new(source)),
        }
    }

    #[cfg(feature = "cluster")]
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub(crate) fn set_patience(&self, patience: Duration) {
        self.connection.set_patience(patience);
        self.confirming.connection.set_patience(patience);
    }

    /// `command` right behind ASKING, which a server that the slot is moving to wants to hear first.
    #[cfg(feature = "cluster")]
    pub(crate) async fn send_asking(&self, command: &Cmd) -> Result<Value, CommandError> {
        let commands = together(command, true);
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
        self.confirming.send(&together(command, asking), acks).await
    }
}

fn together(command: &Cmd, asking: bool) -> Pipeline {
    let mut commands = Pipeline::with_capacity(2);
    if asking {
        commands.cmd("ASKING");
    }
    commands.add_command(command.clone());
    commands
}
