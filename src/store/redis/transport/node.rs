//! One server, or the master that Sentinel names: the connection of the requests, and one for writes that wait for replicas.

use std::sync::Arc;

use redis::{Cmd, Pipeline, Value};

use super::{
    connect::ConnectSettings, connection::Connection, endpoint::Endpoint, error::CommandError,
    replica_wait::ReplicaWait,
};
use crate::config::ReplicaAcks;

#[derive(Clone)]
pub(crate) struct Node {
    pub(super) connection: Arc<Connection>,
    replica_wait: Arc<ReplicaWait>,
}

impl Node {
    pub(super) fn new(endpoint: Endpoint, settings: ConnectSettings) -> Self {
        let second = Connection::new(endpoint.clone(), settings.clone());
        Self {
            connection: Connection::new(endpoint, settings),
            replica_wait: Arc::new(ReplicaWait::new(second)),
        }
    }

    /// Sends `command` right behind ASKING, as the node that a slot is moving to expects it.
    #[cfg(feature = "cluster")]
    pub(super) async fn send_asking(&self, command: &Cmd) -> Result<Value, CommandError> {
        let commands = pipeline(command, true);
        let (reply, _) = self.connection.send_pipeline(commands).await?;
        Ok(reply)
    }

    /// Returns the reply, and how many replicas have the write. `asking`: the slot is moving to this node.
    pub(super) async fn send_and_wait(
        &self,
        command: &Cmd,
        acks: ReplicaAcks,
        asking: bool,
    ) -> Result<(Value, usize), CommandError> {
        let commands = pipeline(command, asking);
        self.replica_wait.send(commands, acks).await
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
