//! A private Redis Cluster without replicas.

use std::{
    env, fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Failure,
    process::{Process, free_port, start_redis_with},
};

pub struct Cluster {
    pub nodes: Vec<Process>,
    pub connections: Vec<redis::Connection>,
    pub urls: Vec<String>,
    directory: PathBuf,
}

const SLOTS: usize = 16_384;

impl Cluster {
    /// Starts the nodes and waits until every node reports `cluster_state:ok`.
    pub fn start(shards: usize) -> Result<Self, Failure> {
        let directory =
            env::temp_dir().join(format!("axum-redis-sessions-cluster-{}", free_port()?));
        fs::create_dir(&directory)?;
        let mut cluster = Self {
            nodes: Vec::new(),
            connections: Vec::new(),
            urls: Vec::new(),
            directory,
        };
        let mut first = None;
        for shard in 0..shards {
            let (port, bus) = (free_port()?, free_port()?);
            let (node, url) = start_redis_with(
                port,
                &[
                    "--dir",
                    &cluster.directory.display().to_string(),
                    "--cluster-enabled",
                    "yes",
                    "--cluster-config-file",
                    &format!("{port}.conf"),
                    "--cluster-port",
                    &bus.to_string(),
                ],
            )?;
            let mut connection = redis::Client::open(&*url)?.get_connection()?;
            redis::cmd("CLUSTER")
                .arg("ADDSLOTSRANGE")
                .arg(SLOTS * shard / shards)
                .arg(SLOTS * (shard + 1) / shards - 1)
                .query::<()>(&mut connection)?;
            let (first_port, first_bus) = *first.get_or_insert((port, bus));
            if shard > 0 {
                redis::cmd("CLUSTER")
                    .arg("MEET")
                    .arg("127.0.0.1")
                    .arg(first_port)
                    .arg(first_bus)
                    .query::<()>(&mut connection)?;
            }
            cluster.nodes.push(node);
            cluster.connections.push(connection);
            cluster.urls.push(url);
        }
        let started = Instant::now();
        let complete = format!("cluster_size:{shards}\r\n");
        for connection in &mut cluster.connections {
            loop {
                let info: String = redis::cmd("CLUSTER").arg("INFO").query(connection)?;
                if info.contains("cluster_state:ok") && info.contains(&complete) {
                    break;
                }
                if started.elapsed() > Duration::from_secs(30) {
                    return Err("the cluster is not complete after 30 seconds".into());
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(cluster)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.clear();
        drop(fs::remove_dir_all(&self.directory));
    }
}
