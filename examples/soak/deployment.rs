//! The servers under test, each behind a proxy that only the layer uses.

use std::{str::FromStr, sync::Arc};

use axum_redis_sessions::RedisSessionLayer;

use crate::{
    faults::Rng,
    support::{
        cluster::Cluster,
        command_proxy::{CommandProxy, Verdict},
        proxy::Proxy,
        sentinels::{NAME, Sentinels},
        server::Server,
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A master, a replica, and three sentinels.
    Sentinel,
    /// Three masters with a replica each.
    Cluster,
}

pub(crate) struct Deployment {
    servers: Servers,
    /// In the order of the servers.
    proxies: Vec<Proxy>,
    sentinel_proxies: Vec<CommandProxy>,
}

enum Servers {
    Sentinel(Box<Sentinels>),
    Cluster(Cluster),
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "sentinel" => Ok(Self::Sentinel),
            "cluster" => Ok(Self::Cluster),
            _ => Err(()),
        }
    }
}

impl Deployment {
    pub(crate) async fn start(kind: Kind) -> Self {
        let servers = match kind {
            Kind::Sentinel => {
                let always = ["appendonly yes", "appendfsync always"];
                Servers::Sentinel(Box::new(Sentinels::start_with(&always).await))
            }
            Kind::Cluster => {
                let always = ["--appendonly", "yes", "--appendfsync", "always"];
                Servers::Cluster(Cluster::start_with(&always).await)
            }
        };
        let mut started = Self {
            servers,
            proxies: Vec::new(),
            sentinel_proxies: Vec::new(),
        };
        for server in started
            .servers()
            .iter()
            .map(Server::port)
            .collect::<Vec<_>>()
        {
            started.proxies.push(Proxy::before(server).await);
        }
        // The sentinels name the servers. The layer is told the proxies instead.
        let ports = started.servers().iter().map(Server::port);
        let proxies = started.proxies.iter().map(Proxy::port);
        let ports = ports.zip(proxies);
        let ports =
            ports.map(|(port, proxy)| (format!("\r\n{port}\r\n"), format!("\r\n{proxy}\r\n")));
        let ports: Arc<Vec<_>> = Arc::new(ports.collect());
        for sentinel in started
            .sentinels()
            .iter()
            .map(Server::port)
            .collect::<Vec<_>>()
        {
            let ports = ports.clone();
            let rule = move |_: &[String]| Verdict::Rewrite(ports.clone());
            started
                .sentinel_proxies
                .push(CommandProxy::before(sentinel, rule).await);
        }
        started
    }

    pub(crate) fn layer(&self) -> RedisSessionLayer {
        let layer = match &self.servers {
            Servers::Sentinel(_) => {
                let sentinels = self.sentinel_proxies.iter().map(CommandProxy::url);
                RedisSessionLayer::sentinel(NAME, sentinels, "redis://master/")
            }
            Servers::Cluster(cluster) => {
                let ports = cluster.nodes.iter().map(Server::port);
                let ports: Vec<(u16, u16)> =
                    ports.zip(self.proxies.iter().map(Proxy::port)).collect();
                let proxy = move |host: &str, port| {
                    let known = ports.iter().find(|(server, _)| *server == port);
                    (host.to_owned(), known.map_or(port, |(_, proxy)| *proxy))
                };
                let seeds = self.proxies.iter().map(Proxy::url);
                RedisSessionLayer::cluster(seeds).map(|layer| layer.with_cluster_address_map(proxy))
            }
        };
        layer.expect("valid addresses")
    }

    pub(crate) fn servers(&self) -> &[Server] {
        match &self.servers {
            Servers::Sentinel(sentinels) => &sentinels.servers,
            Servers::Cluster(cluster) => &cluster.nodes,
        }
    }

    pub(crate) fn server(&mut self, number: usize) -> &mut Server {
        match &mut self.servers {
            Servers::Sentinel(sentinels) => &mut sentinels.servers[number],
            Servers::Cluster(cluster) => &mut cluster.nodes[number],
        }
    }

    /// None in a cluster. The layer asks the first one first.
    pub(crate) fn sentinels(&self) -> &[Server] {
        match &self.servers {
            Servers::Sentinel(sentinels) => &sentinels.sentinels,
            Servers::Cluster(_) => &[],
        }
    }

    pub(crate) fn sentinel(&mut self, number: usize) -> Option<&mut Server> {
        match &mut self.servers {
            Servers::Sentinel(sentinels) => sentinels.sentinels.get_mut(number),
            Servers::Cluster(_) => None,
        }
    }

    pub(crate) fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// A master and its replica.
    pub(crate) async fn pair(&self, rng: &mut Rng) -> (usize, usize) {
        match &self.servers {
            Servers::Sentinel(sentinels) => {
                let master = sentinels.master().await.expect("the sentinels agree");
                (master, 1 - master)
            }
            Servers::Cluster(cluster) => {
                let first = rng.below(3);
                let role = cluster.nodes[first].information("role").await;
                match role.as_deref() {
                    Some("master") => (first, first + 3),
                    _ => (first + 3, first),
                }
            }
        }
    }

    /// Rejected while a failover is in progress.
    pub(crate) async fn fail_over(&self, rng: &mut Rng) {
        let (_, replica) = self.pair(rng).await;
        let _ = match &self.servers {
            Servers::Sentinel(sentinels) => {
                let command = ["SENTINEL", "FAILOVER", NAME];
                let sentinel = &sentinels.sentinels[rng.below(3)];
                sentinel.try_command::<String>(&command).await
            }
            Servers::Cluster(cluster) => {
                let command = ["CLUSTER", "FAILOVER"];
                cluster.nodes[replica].try_command(&command).await
            }
        };
    }

    /// Whether all servers agree on the masters, and the replicas have all of the data.
    pub(crate) async fn has_recovered(&self) -> bool {
        match &self.servers {
            Servers::Sentinel(sentinels) => sentinels.replicas_are_in_step().await,
            Servers::Cluster(cluster) => cluster.is_complete().await,
        }
    }
}
