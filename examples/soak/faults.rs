//! Faults of the servers and of the network between them and the layer.

use std::time::Duration;

use crate::{
    deployment::{Deployment, Kind},
    support::{eventually, server::Server},
};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    KillMaster,
    StopMaster,
    KillReplica,
    StopReplica,
    PlannedFailover,
    CloseConnections,
    FlushScripts,
    /// Open connections pass nothing any more.
    FreezeConnections,
    /// All connections are closed, and opening the next ones takes longer than the deadline.
    SlowConnecting,
    KillSentinel,
    /// The first sentinel hangs, and then the master is killed.
    FirstSentinelHangs,
}

const EVERYWHERE: [Fault; 9] = [
    Fault::KillMaster,
    Fault::StopMaster,
    Fault::KillReplica,
    Fault::StopReplica,
    Fault::PlannedFailover,
    Fault::CloseConnections,
    Fault::FlushScripts,
    Fault::FreezeConnections,
    Fault::SlowConnecting,
];

impl Fault {
    /// Each fault once, in a random order.
    pub(crate) fn shuffled(kind: Kind, rng: &mut Rng) -> Vec<Self> {
        let mut faults = EVERYWHERE.to_vec();
        if kind == Kind::Sentinel {
            faults.extend([Self::KillSentinel, Self::FirstSentinelHangs]);
        }
        for left in (1..faults.len()).rev() {
            faults.swap(left, rng.below(left + 1));
        }
        faults
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KillMaster => "master killed",
            Self::StopMaster => "master stopped",
            Self::KillReplica => "replica killed",
            Self::StopReplica => "replica stopped",
            Self::PlannedFailover => "planned failover",
            Self::CloseConnections => "connections closed",
            Self::FlushScripts => "scripts flushed",
            Self::FreezeConnections => "connections frozen",
            Self::SlowConnecting => "slow connecting",
            Self::KillSentinel => "sentinel killed",
            Self::FirstSentinelHangs => "first sentinel hangs, master killed",
        }
    }

    /// A fault of more than half a second makes the sentinels fail over, in a cluster of more than a second.
    pub(crate) async fn inject(self, deployment: &mut Deployment, rng: &mut Rng) {
        let (master, replica) = deployment.pair(rng).await;
        match self {
            Self::KillMaster => kill(deployment.server(master), 4000, rng).await,
            Self::KillReplica => kill(deployment.server(replica), 4000, rng).await,
            Self::StopMaster => stop(deployment.server(master), rng).await,
            Self::StopReplica => stop(deployment.server(replica), rng).await,
            Self::PlannedFailover => {
                deployment.fail_over(rng).await;
                rng.pause(1000, 3000).await;
            }
            Self::CloseConnections => {
                let command = ["CLIENT", "KILL", "TYPE", "normal"];
                let _: i64 = deployment.server(master).command(&command).await;
            }
            Self::FlushScripts => {
                let command = ["SCRIPT", "FLUSH"];
                let _: String = deployment.server(master).command(&command).await;
            }
            Self::FreezeConnections => {
                for proxy in deployment.proxies() {
                    proxy.freeze_open();
                }
                rng.pause(500, 1500).await;
            }
            Self::SlowConnecting => {
                let takes = u64::try_from(600 + rng.below(900)).expect("short");
                for proxy in deployment.proxies() {
                    proxy.delay_connecting(Duration::from_millis(takes));
                    proxy.sever_open();
                }
                rng.pause(2000, 4000).await;
                for proxy in deployment.proxies() {
                    proxy.delay_connecting(Duration::ZERO);
                }
            }
            Self::KillSentinel => {
                let number = rng.below(3);
                let sentinel = deployment.sentinel(number).expect("a sentinel");
                kill(sentinel, 2000, rng).await;
            }
            Self::FirstSentinelHangs => {
                deployment.sentinels()[0].stop();
                kill(deployment.server(master), 4000, rng).await;
                deployment.sentinels()[0].resume();
            }
        }
    }
}

async fn kill(server: &mut Server, longest: usize, rng: &mut Rng) {
    server.kill();
    rng.pause(50, longest).await;
    server.restart().await;
}

async fn stop(server: &Server, rng: &mut Rng) {
    server.stop();
    rng.pause(50, 4000).await;
    server.resume();
}

/// Waits until the servers agree on the masters and the replicas have all of their data.
pub(crate) async fn wait_for_recovery(deployment: &Deployment) {
    let mut times_in_a_row = 0;
    while times_in_a_row < 5 {
        eventually(Duration::from_secs(90), async || {
            deployment.has_recovered().await
        })
        .await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        times_in_a_row = if deployment.has_recovered().await {
            times_in_a_row + 1
        } else {
            0
        };
    }
}

/// Xorshift. Not for cryptography.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        // Small seeds differ in the low bits only.
        let mut rng = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..10 {
            rng.below(2);
        }
        rng
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % limit
    }

    pub(crate) async fn pause(&mut self, from: usize, to: usize) {
        let millis = from + self.below(to - from);
        let millis = u64::try_from(millis).expect("short");
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}
