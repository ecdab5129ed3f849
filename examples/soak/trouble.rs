//! What happens to the servers.

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
pub(crate) enum Trouble {
    KillMaster,
    StopMaster,
    KillReplica,
    StopReplica,
    PlannedFailover,
    KillSentinel,
    CloseConnections,
    ForgetScripts,
}

impl Trouble {
    pub(crate) fn any(dice: &mut Dice) -> Self {
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
            Self::ForgetScripts,
        ][dice.below(10)]
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
            Self::ForgetScripts => "scripts forgotten",
        }
    }

    /// Whether the sentinels fail over depends on how long it takes: half a second is what they wait.
    pub(crate) async fn make(self, sentinels: &mut Sentinels, dice: &mut Dice) {
        let master = sentinels.master().await.expect("agreed before");
        match self {
            Self::KillMaster => Self::kill(sentinels, master, dice).await,
            Self::KillReplica => Self::kill(sentinels, 1 - master, dice).await,
            Self::StopMaster => Self::stop(sentinels, master, dice).await,
            Self::StopReplica => Self::stop(sentinels, 1 - master, dice).await,
            Self::PlannedFailover => {
                let command = ["SENTINEL", "FAILOVER", NAME];
                // Refused while they are about one already.
                let sentinel = &sentinels.sentinels[dice.below(3)];
                let _ = sentinel.try_command::<String>(&command).await;
                dice.pause(1000, 3000).await;
            }
            Self::KillSentinel => {
                let sentinel = &mut sentinels.sentinels[dice.below(3)];
                sentinel.kill();
                dice.pause(100, 2000).await;
                sentinel.restart().await;
            }
            Self::CloseConnections => {
                let command = ["CLIENT", "KILL", "TYPE", "normal"];
                let _: i64 = sentinels.servers[master].command(&command).await;
            }
            Self::ForgetScripts => {
                let command = ["SCRIPT", "FLUSH"];
                let _: String = sentinels.servers[master].command(&command).await;
            }
        }
    }

    async fn kill(sentinels: &mut Sentinels, server: usize, dice: &mut Dice) {
        sentinels.servers[server].kill();
        dice.pause(50, 4000).await;
        sentinels.servers[server].restart().await;
    }

    async fn stop(sentinels: &mut Sentinels, server: usize, dice: &mut Dice) {
        sentinels.servers[server].stop();
        dice.pause(50, 4000).await;
        sentinels.servers[server].resume();
    }
}

/// Waits until the sentinels agree on a master, and the replica has all that it has.
pub(crate) async fn end_of(sentinels: &Sentinels) {
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

/// Good enough for trouble: xorshift, begun with what the standard library seeds its maps with.
pub(crate) struct Dice(u64);

impl Dice {
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
