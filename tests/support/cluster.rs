use std::{ops::RangeFrom, time::Duration};

use futures_util::future::join_all;

use super::{eventually, server::Server};

const SLOTS: u16 = 16_384;

/// Three masters with a third of the slots each, and a replica of each.
pub struct Cluster {
    /// The three initial masters, and then their replicas in the same order.
    pub nodes: Vec<Server>,
}

impl Cluster {
    /// Waits until all six nodes agree and the replicas are in sync.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With further arguments for each node.
    pub async fn start_with(arguments: &[&str]) -> Self {
        let options = [
            ["--cluster-enabled", "yes"],
            ["--cluster-node-timeout", "1000"],
            // The slots of the other masters are served while one is away.
            ["--cluster-require-full-coverage", "no"],
            ["--repl-diskless-sync-delay", "0"],
            ["--repl-ping-replica-period", "1"],
        ]
        .concat();
        let options = [&options, arguments].concat();
        let nodes = join_all((0..6).map(|_| Server::start_with(&options))).await;
        let cluster = Self { nodes };
        let thirds = [0, SLOTS / 3, 2 * (SLOTS / 3), SLOTS];
        for (master, range) in thirds.windows(2).enumerate() {
            let mut words = vec!["CLUSTER".to_owned(), "ADDSLOTS".to_owned()];
            words.extend((range[0]..range[1]).map(|slot| slot.to_string()));
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            cluster.nodes[master].command::<String>(&words).await;
        }
        // Distinct epochs settle conflicts about slots.
        for (node, epoch) in cluster.nodes.iter().zip(1..) {
            let epoch: u16 = epoch;
            let words = ["CLUSTER", "SET-CONFIG-EPOCH", &epoch.to_string()];
            node.command::<String>(&words).await;
        }
        let first = cluster.nodes[0].port().to_string();
        for node in &cluster.nodes[1..] {
            let words = ["CLUSTER", "MEET", "127.0.0.1", first.as_str()];
            node.command::<String>(&words).await;
        }
        for (master, replica) in cluster.nodes[..3].iter().zip(&cluster.nodes[3..]) {
            let id: String = master.command(&["CLUSTER", "MYID"]).await;
            let words = ["CLUSTER", "REPLICATE", &id];
            // Until the replica knows the master.
            eventually(Duration::from_secs(30), async || {
                replica.try_command::<String>(&words).await.is_ok()
            })
            .await;
        }
        eventually(Duration::from_secs(30), async || {
            cluster.is_complete().await
        })
        .await;
        cluster
    }

    /// The seed nodes.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Server::url).collect()
    }

    pub async fn slot(&self, key: &str) -> u16 {
        self.nodes[0].command(&["CLUSTER", "KEYSLOT", key]).await
    }

    /// The master of `slot`, according to itself.
    pub async fn owner(&self, slot: u16) -> Option<usize> {
        for (number, node) in self.nodes.iter().enumerate() {
            let Ok(nodes) = node.try_command::<String>(&["CLUSTER", "NODES"]).await else {
                continue;
            };
            let own = nodes.lines().find(|line| line.contains("myself"));
            if own.is_some_and(|line| line.contains("master") && has_slot(line, slot)) {
                return Some(number);
            }
        }
        None
    }

    /// Whether all nodes that answer say that this node is a master with slots. Only then do they redirect to it.
    pub async fn agrees_on_master(&self, node: usize) -> bool {
        let address = format!("127.0.0.1:{}@", self.nodes[node].port());
        for other in &self.nodes {
            // A stopped node does not answer.
            let words = ["CLUSTER", "NODES"];
            let nodes = other.try_command::<String>(&words);
            let nodes = tokio::time::timeout(Duration::from_millis(500), nodes).await;
            let Ok(Ok(nodes)) = nodes else {
                continue;
            };
            let line = nodes.lines().find(|line| line.contains(&address));
            if !line.is_some_and(|line| line.contains("master") && line.contains('-')) {
                return false;
            }
        }
        true
    }

    /// Whether this holds for the list of nodes that each of these nodes has.
    pub async fn everywhere(&self, of: RangeFrom<usize>, holds: impl Fn(&str) -> bool) -> bool {
        for node in &self.nodes[of] {
            if !holds(&node.command::<String>(&["CLUSTER", "NODES"]).await) {
                return false;
            }
        }
        true
    }

    /// Whether all six nodes are up, each slot has a master, and the replicas are in sync.
    pub async fn is_complete(&self) -> bool {
        for node in &self.nodes {
            let state = node.try_command::<String>(&["CLUSTER", "INFO"]).await;
            let nodes = node.try_command::<String>(&["CLUSTER", "NODES"]).await;
            let (Ok(state), Ok(nodes)) = (state, nodes) else {
                return false;
            };
            let is_up = state.contains("cluster_state:ok")
                && nodes.lines().count() == 6
                && nodes.matches(" slave ").count() + nodes.matches("myself,slave").count() == 3
                && !nodes.contains("fail");
            let is_in_step =
                node.information("master_link_status").await != Some("down".to_owned());
            if !is_up || !is_in_step {
                return false;
            }
        }
        true
    }

    /// Moves a slot as `redis-cli --cluster reshard` does, so that clients get ASK and MOVED.
    pub async fn move_slot(&self, slot: u16, from: usize, to: usize) {
        // Otherwise `to` could keep its epoch, and lose the slot again to a message that `from` had sent before, with a higher one.
        eventually(Duration::from_secs(30), async || {
            self.epochs_are_known().await
        })
        .await;
        let number = slot.to_string();
        let [from_id, to_id] = [self.id(from).await, self.id(to).await];
        let set = async |node: usize, words: &[&str]| {
            let words = [&["CLUSTER", "SETSLOT", &number], words].concat();
            self.nodes[node].command::<String>(&words).await;
        };
        set(to, &["IMPORTING", &from_id]).await;
        set(from, &["MIGRATING", &to_id]).await;
        let port = self.nodes[to].port().to_string();
        loop {
            let words = ["CLUSTER", "GETKEYSINSLOT", &number, "3"];
            let keys: Vec<String> = self.nodes[from].command(&words).await;
            if keys.is_empty() {
                break;
            }
            for key in keys {
                let words = ["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"];
                // `NOKEY` if the session has ended meanwhile.
                self.nodes[from].command::<String>(&words).await;
            }
        }
        for node in [to, from, 3 - to - from] {
            self.set_owner(slot, node, to).await;
        }
    }

    /// Tells one node that a master has the slot. If the node has it itself, it must have no key there.
    pub async fn set_owner(&self, slot: u16, node: usize, owner: usize) {
        let [slot, owner] = [slot.to_string(), self.id(owner).await];
        let words = ["CLUSTER", "SETSLOT", &slot, "NODE", &owner];
        self.nodes[node].command::<String>(&words).await;
    }

    /// Whether the nodes agree on each master's configuration epoch.
    async fn epochs_are_known(&self) -> bool {
        let mut known = Vec::new();
        for node in &self.nodes[..3] {
            let nodes: String = node.command(&["CLUSTER", "NODES"]).await;
            let mut epochs: Vec<(String, String)> = nodes
                .lines()
                .filter(|line| line.contains("master"))
                .map(|line| {
                    let words: Vec<&str> = line.split(' ').collect();
                    (words[0].to_owned(), words[6].to_owned())
                })
                .collect();
            epochs.sort();
            known.push(epochs);
        }
        known.windows(2).all(|pair| pair[0] == pair[1])
    }

    async fn id(&self, node: usize) -> String {
        self.nodes[node].command(&["CLUSTER", "MYID"]).await
    }
}

/// Whether a line of CLUSTER NODES, `… connected 0-5460 5463`, includes `slot`.
fn has_slot(line: &str, slot: u16) -> bool {
    line.split(' ').skip(8).any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&slot),
            _ => false,
        }
    })
}
