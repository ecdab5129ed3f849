//! Asks the nodes of a cluster for its topology.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};

use super::{
    command_pool::command,
    connect::AddressMap,
    error,
    node::Node,
    topology::{Address, Topology},
};
use crate::error::SessionError;

/// The next node is asked this much later, unless the one before failed sooner. An answer of the one before is still welcome: over long
/// round trips, connecting alone takes longer.
const STAGGER: Duration = Duration::from_millis(125);

/// The first topology that one of these nodes tells, or the last failure. They are asked in this order.
pub(super) async fn first_topology(
    addresses: Vec<Address>,
    node: impl Fn(&Address) -> Node,
    map: Option<&AddressMap>,
) -> Result<Topology, SessionError> {
    let mut addresses = addresses.into_iter();
    let mut asked = FuturesUnordered::new();
    let mut failure = None;
    loop {
        let answer = match addresses.next() {
            Some(address) => {
                let node = node(&address);
                asked.push(async move { ask(&node, &address, map).await });
                tokio::time::timeout(STAGGER, asked.next()).await.ok()
            }
            None => Some(asked.next().await),
        };
        match answer {
            Some(Some(Ok(topology))) => return Ok(topology),
            Some(Some(Err(error))) => failure = Some(error),
            // All have failed.
            Some(None) => return Err(failure.unwrap_or_else(error::no_slot)),
            None => {}
        }
    }
}

async fn ask(
    node: &Node,
    address: &Address,
    map: Option<&AddressMap>,
) -> Result<Topology, SessionError> {
    let mut command = command("CLUSTER", &[b"SLOTS"]);
    let reply = node.connections().requests.send(&mut command).await;
    let reply = reply.map_err(error::no_topology)?;
    Topology::parse(&reply, address, map)
}
