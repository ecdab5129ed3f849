use std::time::Duration;

use super::{eventually, server::Server};

/// The name of the master.
pub const NAME: &str = "sessions";

/// A master, a replica, and three sentinels that watch them.
pub struct Sentinels {
    pub servers: [Server; 2],
    pub sentinels: Vec<Server>,
}

impl Sentinels {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With further lines in the configuration of both servers.
    pub async fn start_with(lines: &[&str]) -> Self {
        Self::start_at("127.0.0.1", lines, &[], &[]).await
    }

    /// With the master's host as the sentinels know it, and with further lines in the configuration of both servers and, before and after
    /// that host is named, of the sentinels. Waits until each sentinel knows the replica and the other two, before which they could not
    /// agree on a failover.
    pub async fn start_at(host: &str, lines: &[&str], before: &[&str], after: &[&str]) -> Self {
        // In a file, where the servers persist the roles that the sentinels assign, so that a restart keeps them.
        let quick = [
            "save \"\"",
            "repl-diskless-sync-delay 0",
            "repl-ping-replica-period 1",
        ];
        let master = Server::start_configured(&[&quick[..], lines].concat()).await;
        let port = master.port().to_string();
        let of = format!("replicaof 127.0.0.1 {port}");
        let replica = [&quick[..], lines, &[of.as_str()]].concat();
        let replica = Server::start_configured(&replica).await;
        let (before, after) = (before.join("\n"), after.join("\n"));
        let configuration = format!(
            "{before}\n\
             sentinel monitor {NAME} {host} {port} 2\n\
             sentinel down-after-milliseconds {NAME} 500\n\
             sentinel failover-timeout {NAME} 3000\n\
             {after}\n"
        );
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(Server::start_sentinel(&configuration).await);
        }
        let started = Self {
            servers: [master, replica],
            sentinels,
        };
        eventually(Duration::from_secs(30), async || {
            for sentinel in &started.sentinels {
                let line = sentinel.information("master0").await.unwrap_or_default();
                if !line.ends_with("slaves=1,sentinels=3") {
                    return false;
                }
            }
            started.replicas_are_in_step().await
        })
        .await;
        started
    }

    /// The addresses of the sentinels.
    pub fn addresses(&self) -> Vec<redis::ConnectionAddr> {
        let ports = self.sentinels.iter().map(Server::port);
        ports
            .map(|port| redis::ConnectionAddr::Tcp("127.0.0.1".to_owned(), port))
            .collect()
    }

    /// The index of the master; `None` while the sentinels disagree.
    pub async fn master(&self) -> Option<usize> {
        let mut named = None;
        for sentinel in &self.sentinels {
            let command = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
            let (_, port): (String, u16) = sentinel.try_command(&command).await.ok()?;
            let server = self.servers.iter().position(|server| server.port() == port);
            if named.is_some() && named != server {
                return None;
            }
            named = server;
        }
        named
    }

    /// Whether the other server replicates the master and is in sync, on disk too if it persists.
    pub async fn replicas_are_in_step(&self) -> bool {
        let Some(master) = self.master().await else {
            return false;
        };
        for (server, role, name, value) in [
            (master, "master", "connected_slaves", "1"),
            (1 - master, "slave", "master_link_status", "up"),
        ] {
            let server = &self.servers[server];
            for (name, value) in [
                ("role", role),
                (name, value),
                ("loading", "0"),
                ("aof_rewrite_in_progress", "0"),
                ("aof_rewrite_scheduled", "0"),
            ] {
                if server.information(name).await.as_deref() != Some(value) {
                    return false;
                }
            }
        }
        true
    }
}
