//! Reports of changes on one connection.

use std::sync::Arc;

use super::{
    command_pool::command, connection::Connection, error::CommandError, tracking::heartbeat,
};
use crate::cache::Tracking;

impl Connection {
    /// The tracking of the open connection, if the server reports changes.
    pub(super) fn tracking(&self) -> Option<Arc<Tracking>> {
        self.state().tracking().cloned()
    }

    /// Asks the server for signs of life as long as this connection is in use, if it reports changes.
    pub(super) fn begin_heartbeat(self: &Arc<Self>, generation: u64) {
        let (Some(cache), Some(tracking)) = (self.settings.cache.clone(), self.tracking()) else {
            return;
        };
        let connection = Arc::downgrade(self);
        tokio::spawn(heartbeat(cache, tracking, move || {
            let connection = connection.upgrade()?;
            let is_open = connection.state().is_open(generation);
            is_open.then_some(async move {
                let answer = connection.send(&mut command("PING", &[])).await;
                matches!(answer, Ok(_) | Err(CommandError::Server(_)))
            })
        }));
    }
}
