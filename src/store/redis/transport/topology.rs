//! Which server has which slots.

use std::cell::RefCell;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisResult, Value};

use super::error;
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
            // No cluster listens on a socket of a file system; whoever names one hears that it cannot be reached.
            _ => (String::new(), 0),
        };
        Self { host, port }
    }
}

/// The slots, each run of them with its master, and all the servers that there are.
pub(super) struct Topology {
    ranges: Vec<SlotRange>,
    addresses: Vec<Address>,
}

struct SlotRange {
    first: u16,
    last: u16,
    master: Address,
}

impl Topology {
    /// Reads the reply to CLUSTER SLOTS of the server at `asked`.
    pub(super) fn parse(reply: &Value, asked: &Address) -> Result<Self, SessionError> {
        let mut topology = Self {
            ranges: Vec::new(),
            addresses: Vec::new(),
        };
        let Value::Array(ranges) = reply else {
            return Err(error::unexpected());
        };
        for run in ranges {
            let Value::Array(parts) = run else {
                return Err(error::unexpected());
            };
            let [Value::Int(first), Value::Int(last), nodes @ ..] = parts.as_slice() else {
                return Err(error::unexpected());
            };
            let nodes: Vec<Address> = nodes
                .iter()
                .filter_map(|node| address(node, asked))
                .collect();
            let (Ok(first), Ok(last), Some(master)) =
                (u16::try_from(*first), u16::try_from(*last), nodes.first())
            else {
                return Err(error::unexpected());
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
        topology.ranges.sort_by_key(|run| run.first);
        Ok(topology)
    }

    pub(super) fn master(&self, slot: u16) -> Option<&Address> {
        let run = &self.ranges[self.position(slot)?];
        Some(&run.master)
    }

    /// A server said that another one has the slot.
    pub(super) fn reassign_slot(&mut self, slot: u16, master: Address) {
        if !self.has(&master) {
            self.addresses.push(master.clone());
        }
        let run = SlotRange {
            first: slot,
            last: slot,
            master,
        };
        let Some(position) = self.position(slot) else {
            self.ranges.push(run);
            self.ranges.sort_by_key(|run| run.first);
            return;
        };
        let old = &self.ranges[position];
        if old.master == run.master {
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
        parts.push(run);
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
        let after = self.ranges.partition_point(|run| run.first <= slot);
        let position = after.checked_sub(1)?;
        (slot <= self.ranges[position].last).then_some(position)
    }
}

/// `[host, port, …]`. A host that the server does not know of itself is the one that it was asked at.
fn address(node: &Value, asked: &Address) -> Option<Address> {
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
    Some(Address {
        host: match host {
            "" | "?" => asked.host.clone(),
            host => host.to_owned(),
        },
        port: u16::try_from(*port).ok()?,
    })
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

/// The servers that the client was built with, each with its address, credentials and certificates.
///
/// A `ClusterClient` keeps these to itself and only connects to them. So it is asked to, by a connection that notes down where it
/// should lead and never does; nothing goes over the network. `the_clients_own_settings_are_found` guards that this works with the
/// version of redis-rs at hand.
pub(super) fn seeds(client: &redis::cluster::ClusterClient) -> Vec<ConnectionInfo> {
    NOTED.with_borrow_mut(Vec::clear);
    let refused = client.get_generic_connection::<Note>();
    debug_assert!(refused.is_err(), "a note is no connection");
    NOTED.take()
}

thread_local! {
    static NOTED: RefCell<Vec<ConnectionInfo>> = const { RefCell::new(Vec::new()) };
}

/// A connection that is never there.
enum Note {}

impl redis::cluster::Connect for Note {
    fn connect<T: IntoConnectionInfo>(
        info: T,
        _: Option<std::time::Duration>,
    ) -> RedisResult<Self> {
        let info = info.into_connection_info()?;
        NOTED.with_borrow_mut(|noted| noted.push(info));
        Err((redis::ErrorKind::Client, "a note is no connection").into())
    }

    fn send_packed_command(&mut self, _: &[u8]) -> RedisResult<()> {
        match *self {}
    }

    fn set_write_timeout(&self, _: Option<std::time::Duration>) -> RedisResult<()> {
        match *self {}
    }

    fn set_read_timeout(&self, _: Option<std::time::Duration>) -> RedisResult<()> {
        match *self {}
    }

    fn recv_response(&mut self) -> RedisResult<Value> {
        match *self {}
    }
}

impl redis::ConnectionLike for Note {
    fn req_packed_command(&mut self, _: &[u8]) -> RedisResult<Value> {
        match *self {}
    }

    fn req_packed_commands(&mut self, _: &[u8], _: usize, _: usize) -> RedisResult<Vec<Value>> {
        match *self {}
    }

    fn get_db(&self) -> i64 {
        match *self {}
    }

    fn check_connection(&mut self) -> bool {
        match *self {}
    }

    fn is_open(&self) -> bool {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use redis::cluster::ClusterClient;

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
        let topology = Topology::parse(&reply, &at(9)).expect("a topology");
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
            let mut topology = Topology::parse(&reply, &at(9)).expect("a topology");
            topology.reassign_slot(slot, at(7));
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
    fn a_host_that_a_server_does_not_know_is_the_one_it_was_asked_at() {
        for host in [
            Value::Nil,
            Value::BulkString(Vec::new()),
            Value::BulkString(b"?".to_vec()),
        ] {
            let node = Value::Array(vec![host, Value::Int(1)]);
            let run = Value::Array(vec![Value::Int(0), Value::Int(16_383), node]);
            let topology = Topology::parse(&Value::Array(vec![run]), &at(9));
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
            assert!(Topology::parse(&reply, &at(9)).is_err(), "{name}");
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

    #[test]
    fn the_clients_own_settings_are_found() {
        let client = ClusterClient::builder(["redis://a:1", "redis://b:2"])
            .username("app")
            .password("swordfish")
            .build()
            .expect("a client");
        let seeds = seeds(&client);
        let addresses: Vec<Address> = seeds.iter().map(Address::of).collect();
        assert_eq!(
            addresses
                .iter()
                .map(|address| address.port)
                .collect::<Vec<_>>(),
            [1, 2]
        );
        for seed in &seeds {
            assert_eq!(seed.redis_settings().username(), Some("app"));
            assert_eq!(seed.redis_settings().password(), Some("swordfish"));
        }
    }

    #[cfg(feature = "tls-rustls")]
    #[test]
    fn the_clients_certificates_are_found() {
        let client = ClusterClient::builder(["redis://a:1"])
            .tls(redis::TlsMode::Secure)
            .build()
            .expect("a client");
        let seeds = seeds(&client);
        assert!(matches!(
            seeds[0].addr(),
            ConnectionAddr::TcpTls {
                insecure: false,
                ..
            }
        ));
    }
}
