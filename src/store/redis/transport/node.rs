//! One server, or the master that Sentinel names.
//!
//! Each runtime has connections of its own. A connection only works while its runtime runs, so a process with several runtimes, such as a test
//! binary, must not share one. In each runtime there is one connection for the requests, and one for writes that wait for replicas.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use redis::{Cmd, Pipeline, Value};
use tokio::{
    runtime::{Handle, Id},
    task::AbortHandle,
};

use super::{
    connect::ConnectSettings, connection::Connection, endpoint::Endpoint, error::CommandError,
    replica_wait::ReplicaWait,
};
use crate::config::ReplicaAcks;

#[derive(Clone)]
pub(crate) struct Node(Arc<Shared>);

struct Shared {
    endpoint: Endpoint,
    settings: ConnectSettings,
    runtimes: Mutex<Vec<InRuntime>>,
}

struct InRuntime {
    id: Id,
    connections: Arc<Connections>,
    /// Ends with its runtime, and then removes this entry.
    guard: Option<AbortHandle>,
}

pub(super) struct Connections {
    pub(super) requests: Arc<Connection>,
    replica_wait: Arc<ReplicaWait>,
}

impl Node {
    pub(super) fn new(endpoint: Endpoint, settings: ConnectSettings) -> Self {
        Self(Arc::new(Shared {
            endpoint,
            settings,
            runtimes: Mutex::default(),
        }))
    }

    /// The same node with other settings, over connections of its own.
    pub(super) fn configured(&self, settings: ConnectSettings) -> Self {
        Self::new(self.0.endpoint.clone(), settings)
    }

    pub(super) fn settings(&self) -> &ConnectSettings {
        &self.0.settings
    }

    /// The connections of this runtime.
    pub(super) fn connections(&self) -> Arc<Connections> {
        let runtime = Handle::current();
        let id = runtime.id();
        {
            let runtimes = self.0.runtimes();
            if let Some(known) = runtimes.iter().find(|known| known.id == id) {
                return known.connections.clone();
            }
        }
        self.add(&runtime)
    }

    #[cold]
    fn add(&self, runtime: &Handle) -> Arc<Connections> {
        let Shared {
            endpoint, settings, ..
        } = &*self.0;
        let id = runtime.id();
        #[cfg_attr(not(feature = "local-cache"), expect(unused_mut))]
        let mut for_acks = settings.clone();
        #[cfg(feature = "local-cache")]
        {
            // It only writes, which the other connection hears of.
            for_acks.cache = None;
        }
        let second = Connection::new(endpoint.clone(), for_acks);
        let connections = Arc::new(Connections {
            requests: Connection::new(endpoint.clone(), settings.clone()),
            replica_wait: Arc::new(ReplicaWait::new(second)),
        });
        {
            let mut runtimes = self.0.runtimes();
            if let Some(known) = runtimes.iter().find(|known| known.id == id) {
                return known.connections.clone();
            }
            runtimes.push(InRuntime {
                id,
                connections: connections.clone(),
                guard: None,
            });
        }
        let guard = RuntimeGuard {
            node: Arc::downgrade(&self.0),
            id,
        };
        // Not under the lock: a runtime that is shutting down drops the guard at once.
        let guard = runtime.spawn(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        let mut runtimes = self.0.runtimes();
        match runtimes.iter_mut().find(|known| known.id == id) {
            Some(known) => known.guard = Some(guard.abort_handle()),
            None => guard.abort(),
        }
        connections
    }

    /// Sends `command` right behind ASKING, as the node that a slot is moving to expects it.
    #[cfg(feature = "cluster")]
    pub(super) async fn send_asking(&self, command: &Cmd) -> Result<Value, CommandError> {
        let commands = pipeline(command, true);
        let (reply, _) = self.connections().requests.send_pipeline(commands).await?;
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
        self.connections().replica_wait.send(commands, acks).await
    }
}

impl Shared {
    fn runtimes(&self) -> MutexGuard<'_, Vec<InRuntime>> {
        self.runtimes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InRuntime {
    fn drop(&mut self) {
        if let Some(guard) = &self.guard {
            guard.abort();
        }
    }
}

struct RuntimeGuard {
    node: Weak<Shared>,
    id: Id,
}

impl Drop for RuntimeGuard {
    fn drop(&mut self) {
        if let Some(node) = self.node.upgrade() {
            let mut runtimes = node.runtimes();
            let place = runtimes.iter().position(|known| known.id == self.id);
            let ended = place.map(|place| runtimes.swap_remove(place));
            drop(runtimes);
            drop(ended);
        }
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

#[cfg(test)]
mod tests;
