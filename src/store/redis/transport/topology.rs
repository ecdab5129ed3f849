//! Which node of a cluster has which slots.

use std::collections::HashSet;

use redis::{ConnectionAddr, ConnectionInfo, Value};

use super::{connect::AddressMap, error};
use crate::error::SessionError;

const SLOTS: u16 = 16_384;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    pub(super) fn of(info: &ConnectionInfo) -> Self {
        let (host, port) = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                (host.clone(), *port)
            }
            // A cluster has no Unix sockets. Connecting to this address fails with an error.
            _ => (String::new(), 0),
        };
        Self { host, port }
    }

    /// The address under which this process reaches a node that announced this one.
    pub(super) fn mapped(host: &str, port: u16, map: Option<&AddressMap>) -> Self {
        let (host, port) = match map {
            Some(map) => map(host, port),
            None => (host.to_owned(), port),
        };
        Self { host, port }
    }
}

/// The ranges of slots, each with its master, and the addresses of all nodes.
#[derive(PartialEq)]
pub(super) struct Topology {
    ranges: Vec<SlotRange>,
    addresses: Vec<Address>,
}

#[derive(PartialEq)]
struct SlotRange {
    first: u16,
    last: u16,
    master: Address,
}

impl Topology {
    /// Reads a reply to CLUSTER SLOTS. `asked` is the node that sent it.
    pub(super) fn parse(
        reply: &Value,
        asked: &Address,
        map: Option<&AddressMap>,
    ) -> Result<Self, SessionError> {
        let mut topology = Self {
            ranges: Vec::new(),
            addresses: Vec::new(),
        };
        let Value::Array(ranges) = reply else {
            return Err(error::unexpected_reply());
        };
        for range in ranges {
            let Value::Array(parts) = range else {
                return Err(error::unexpected_reply());
            };
            let [Value::Int(first), Value::Int(last), nodes @ ..] = parts.as_slice() else {
                return Err(error::unexpected_reply());
            };
            let nodes: Vec<Address> = nodes
                .iter()
                .filter_map(|node| address(node, asked, map))
                .collect();
            let (Ok(first), Ok(last), Some(master)) =
                (u16::try_from(*first), u16::try_from(*last), nodes.first())
            else {
                return Err(error::unexpected_reply());
            };
            topology.ranges.push(SlotRange {
                first,
                last,
                master: master.clone(),
            });
            for node in nodes {
                if !topology.addresses.contains(&node) {
                    topology.addresses.push(node);
                }
            }
        }
        if topology.ranges.is_empty() {
            return Err(error::no_slot());
        }
        topology.ranges.sort_by_key(|range| range.first);
        Ok(topology)
    }

    pub(super) fn master(&self, slot: u16) -> Option<&Address> {
        let range = &self.ranges[self.position(slot)?];
        Some(&range.master)
    }

    pub(super) fn master_count(&self) -> usize {
        let masters: HashSet<&Address> = self.ranges.iter().map(|range| &range.master).collect();
        masters.len()
    }

    /// A node said that another one has the slot.
    pub(super) fn reassign_slot(&mut self, slot: u16, master: Address) {
        if !self.has(&master) {
            self.addresses.push(master.clone());
        }
        let range = SlotRange {
            first: slot,
            last: slot,
            master,
        };
        let Some(position) = self.position(slot) else {
            self.ranges.push(range);
            self.ranges.sort_by_key(|range| range.first);
            return;
        };
        let old = &self.ranges[position];
        if old.master == range.master {
            return;
        }
        let part = |first: u16, last: u16| SlotRange {
            first,
            last,
            master: old.master.clone(),
        };
        let mut parts = Vec::with_capacity(3);
        if old.first < slot {
            parts.push(part(old.first, slot - 1));
        }
        let after = (slot < old.last).then(|| part(slot + 1, old.last));
        parts.push(range);
        parts.extend(after);
        self.ranges.splice(position..=position, parts);
    }

    pub(super) fn has(&self, address: &Address) -> bool {
        self.addresses.contains(address)
    }

    pub(super) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    fn position(&self, slot: u16) -> Option<usize> {
        let after = self.ranges.partition_point(|range| range.first <= slot);
        let position = after.checked_sub(1)?;
        (slot <= self.ranges[position].last).then_some(position)
    }
}

/// Reads `[host, port, …]`. A node that does not know its own host was asked at the right one.
fn address(node: &Value, asked: &Address, map: Option<&AddressMap>) -> Option<Address> {
    let Value::Array(parts) = node else {
        return None;
    };
    let [host, Value::Int(port), ..] = parts.as_slice() else {
        return None;
    };
    let host = match host {
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        _ => "",
    };
    let host = if is_unknown(host) { &asked.host } else { host };
    Some(Address::mapped(host, u16::try_from(*port).ok()?, map))
}

/// Whether a node does not know the host, or announces the one that it was asked at.
pub(super) fn is_unknown(host: &str) -> bool {
    matches!(host, "" | "?")
}

/// Redis Cluster specification, "Key distribution model" and "Hash tags".
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let tag = || {
        let open = key.iter().position(|byte| *byte == b'{')? + 1;
        let length = key[open..].iter().position(|byte| *byte == b'}')?;
        (length > 0).then(|| &key[open..open + length])
    };
    crc16::State::<crc16::XMODEM>::calculate(tag().unwrap_or(key)) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Address {
        Address {
            host: "h".to_owned(),
            port,
        }
    }

    fn reply(ranges: &[(i64, i64, &[i64])]) -> Value {
        let node = |port: &i64| {
            Value::Array(vec![
                Value::BulkString(b"h".to_vec()),
                Value::Int(*port),
                Value::BulkString(b"id".to_vec()),
            ])
        };
        Value::Array(
            ranges
                .iter()
                .map(|(first, last, ports)| {
                    let mut parts = vec![Value::Int(*first), Value::Int(*last)];
                    parts.extend(ports.iter().map(node));
                    Value::Array(parts)
                })
                .collect(),
        )
    }

    #[test]
    fn a_slot_has_the_master_of_its_run() {
        let reply = reply(&[(8192, 16_383, &[2, 4]), (0, 100, &[1, 3])]);
        let topology = Topology::parse(&reply, &at(9), None).expect("a topology");
        for (slot, port) in [
            (0, Some(1)),
            (100, Some(1)),
            (101, None),
            (8191, None),
            (8192, Some(2)),
            (16_383, Some(2)),
        ] {
            assert_eq!(topology.master(slot), port.map(at).as_ref(), "{slot}");
        }
        assert_eq!(topology.addresses().len(), 4);
    }

    #[test]
    fn a_slot_that_moved_is_taken_out_of_its_run() {
        let reply = reply(&[(0, 10, &[1]), (12, 20, &[2])]);
        for slot in [0, 5, 10, 11, 12, 20] {
            let mut topology = Topology::parse(&reply, &at(9), None).expect("a topology");
            assert!(!topology.has(&at(7)));
            assert_eq!(topology.master_count(), 2);
            topology.reassign_slot(slot, at(7));
            assert_eq!(topology.master_count(), 3);
            for other in 0..=20 {
                let before = match other {
                    0..=10 => Some(at(1)),
                    11 => None,
                    _ => Some(at(2)),
                };
                let expected = if other == slot { Some(at(7)) } else { before };
                assert_eq!(topology.master(other), expected.as_ref(), "{slot}, {other}");
            }
            assert!(topology.has(&at(7)));
        }
    }

    #[test]
    fn a_node_is_at_the_host_that_is_announced() {
        for host in [
            Value::BulkString(b"elsewhere".to_vec()),
            Value::SimpleString("elsewhere".to_owned()),
        ] {
            let node = Value::Array(vec![host, Value::Int(1)]);
            let run = Value::Array(vec![Value::Int(0), Value::Int(16_383), node]);
            let topology = Topology::parse(&Value::Array(vec![run]), &at(9), None);
            let expected = Address {
                host: "elsewhere".to_owned(),
                port: 1,
            };
            let topology = topology.expect("a topology");
            assert_eq!(topology.master(3), Some(&expected));
        }
    }

    #[test]
    fn the_address_of_a_seed_is_that_of_its_url() {
        let client = redis::Client::open("redis://h:7/").expect("an address");
        assert_eq!(Address::of(client.get_connection_info()), at(7));
    }

    #[test]
    fn a_host_that_a_server_does_not_know_is_the_one_it_was_asked_at() {
        for host in [
            Value::Nil,
            Value::BulkString(Vec::new()),
            Value::BulkString(b"?".to_vec()),
        ] {
            let node = Value::Array(vec![host, Value::Int(1)]);
            let run = Value::Array(vec![Value::Int(0), Value::Int(16_383), node]);
            let topology = Topology::parse(&Value::Array(vec![run]), &at(9), None);
            assert_eq!(topology.expect("a topology").master(3), Some(&at(1)));
        }
    }

    #[test]
    fn what_is_no_topology_is_an_error() {
        for (name, reply) in [
            ("nothing", Value::Nil),
            ("no slots at all", Value::Array(vec![])),
            ("a run without a server", reply(&[(0, 1, &[])])),
            ("a run of text", Value::Array(vec![Value::Okay])),
        ] {
            assert!(Topology::parse(&reply, &at(9), None).is_err(), "{name}");
        }
    }

    #[test]
    fn the_slot_is_that_of_the_specification() {
        // From `CLUSTER KEYSLOT` of a server.
        for (key, slot) in [
            ("123456789", 0x31c3),
            ("{123456789}x", 0x31c3),
            ("a{}b", slot_of(b"a{}b")),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_ne!(slot_of(b"a{}b"), slot_of(b""));
    }
}
