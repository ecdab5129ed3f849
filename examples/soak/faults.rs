//! Faults of the servers.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    time::Duration,
};

use crate::support::{
    eventually,
    sentinels::{NAME, Sentinels},
};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    KillMaster,
    StopMaster,
    KillReplica,
    StopReplica,
    PlannedFailover,
    KillSentinel,
    CloseConnections,
    FlushScripts,
}

impl Fault {
    pub(crate) fn random(rng: &mut Rng) -> Self {
        [
            Self::KillMaster,
            Self::KillMaster,
            Self::StopMaster,
            Self::StopMaster,
            Self::KillReplica,
            Self::StopReplica,
            Self::PlannedFailover,
            Self::KillSentinel,
            Self::CloseConnections,
            Self::FlushScripts,
        ][rng.below(10)]
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KillMaster => "master killed",
            Self::StopMaster => "master stopped",
            Self::KillReplica => "replica killed",
            Self::StopReplica => "replica stopped",
            Self::PlannedFailover => "planned failover",
            Self::KillSentinel => "sentinel killed",
            Self::CloseConnections => "connections closed",
            Self::FlushScripts => "scripts flushed",
        }
    }

    /// A fault of more than half a second makes the sentinels fail over.
    pub(crate) async fn inject(self, sentinels: &mut Sentinels, rng: &mut Rng) {
        let master = sentinels.master().await.expect("the sentinels agree");
        match self {
            Self::KillMaster => Self::kill(sentinels, master, rng).await,
            Self::KillReplica => Self::kill(sentinels, 1 - master, rng).await,
            Self::StopMaster => Self::stop(sentinels, master, rng).await,
            Self::StopReplica => Self::stop(sentinels, 1 - master, rng).await,
            Self::PlannedFailover => {
                let command = ["SENTINEL", "FAILOVER", NAME];
                // Rejected while a failover is in progress.
                let sentinel = &sentinels.sentinels[rng.below(3)];
                let _ = sentinel.try_command::<String>(&command).await;
                rng.pause(1000, 3000).await;
            }
            Self::KillSentinel => {
                let sentinel = &mut sentinels.sentinels[rng.below(3)];
                sentinel.kill();
                rng.pause(100, 2000).await;
                sentinel.restart().await;
            }
            Self::CloseConnections => {
                let command = ["CLIENT", "KILL", "TYPE", "normal"];
                let _: i64 = sentinels.servers[master].command(&command).await;
            }
            Self::FlushScripts => {
                let command = ["SCRIPT", "FLUSH"];
                let _: String = sentinels.servers[master].command(&command).await;
            }
        }
    }

    async fn kill(sentinels: &mut Sentinels, server: usize, rng: &mut Rng) {
        sentinels.servers[server].kill();
        rng.pause(50, 4000).await;
        sentinels.servers[server].restart().await;
    }

    async fn stop(sentinels: &mut Sentinels, server: usize, rng: &mut Rng) {
        sentinels.servers[server].stop();
        rng.pause(50, 4000).await;
        sentinels.servers[server].resume();
    }
}

/// Waits until the sentinels agree on a master and the replica has all of its data.
pub(crate) async fn wait_for_recovery(sentinels: &Sentinels) {
    let mut times_in_a_row = 0;
    while times_in_a_row < 5 {
        eventually(Duration::from_secs(90), async || {
            sentinels.replicas_are_in_step().await
        })
        .await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        times_in_a_row = if sentinels.replicas_are_in_step().await {
            times_in_a_row + 1
        } else {
            0
        };
    }
}

/// Xorshift, seeded by the standard library's hasher. Not for cryptography.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new() -> Self {
        Self(RandomState::new().build_hasher().finish() | 1)
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
