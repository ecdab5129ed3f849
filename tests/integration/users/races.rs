//! A user's sessions revoked, listed and changed concurrently on two nodes that share one Redis.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::Router;
use axum_redis_sessions::RedisSessionLayer;
use tokio::sync::Barrier;

use super::{Device, app, of, sorted_devices};
use crate::support::server::Server;

const NOBODY: &str = "nobody on nothing";

struct Nodes {
    server: Server,
    layers: [RedisSessionLayer; 2],
    apps: [Router; 2],
}

impl Nodes {
    async fn start() -> Self {
        let server = Server::start().await;
        // These tests are about exactness; a busy machine must not cause an error.
        let layers = [(); 2].map(|()| {
            RedisSessionLayer::new(server.client()).with_deadline(Duration::from_secs(20))
        });
        let apps = layers.each_ref().map(app);
        Self {
            server,
            layers,
            apps,
        }
    }

    /// The number of keys with a session of a user.
    async fn live(&self) -> usize {
        let mut live = 0;
        for key in self
            .server
            .command::<Vec<String>>(&["KEYS", "session:*-*-*"])
            .await
        {
            let stored: Option<String> = self.server.command(&["GET", &key]).await;
            live += usize::from(stored.is_some_and(|stored| stored.contains("\"_user\"")));
        }
        live
    }
}

#[tokio::test]
async fn a_revoke_on_one_node_is_effective_on_all_nodes() {
    let nodes = Nodes::start().await;
    for round in 0..100 {
        let device = Device::of(&nodes.apps[0], "zoe", "phone").await;
        // The other node knows it too.
        let (_, seen) = device.get_at(&nodes.apps[1], "/look").await;
        assert_eq!(seen, "zoe on phone");
        let sessions = nodes.layers[1].users();
        let handle = device.text("/handle").await.parse().expect("a handle");
        let ended = match round % 3 {
            0 => of(&sessions, "zoe").revoke(&handle).await.expect("ended"),
            1 => of(&sessions, "zoe").revoke_all().await.expect("ended") == 1,
            _ => {
                let other = Device::of(&nodes.apps[1], "zoe", "laptop").await;
                let ended = other.text("/log-out-elsewhere").await == "1";
                assert_eq!(other.look().await, "zoe on laptop");
                other.text("/log-out").await;
                ended
            }
        };
        assert!(ended, "round {round}");
        for app in &nodes.apps {
            assert_eq!(device.get_at(app, "/look").await.1, NOBODY, "round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_rotation_escapes_revoke_all() {
    let nodes = Nodes::start().await;
    let rotations = Arc::new(AtomicUsize::new(0));
    for round in 0..500 {
        let mut devices = Vec::new();
        for name in ["phone", "laptop"] {
            devices.push(Device::of(&nodes.apps[0], "zoe", name).await);
        }
        let start = Arc::new(Barrier::new(devices.len() + 1));
        let stop = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = devices
            .iter()
            .map(|device| {
                let (device, start) = (device.clone(), start.clone());
                let (stop, rotations) = (stop.clone(), rotations.clone());
                tokio::spawn(async move {
                    start.wait().await;
                    while !stop.load(SeqCst) {
                        device.text("/rotate").await;
                        rotations.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        start.wait().await;
        for _ in 0..round % 7 * 30 {
            tokio::task::yield_now().await;
        }
        of(&nodes.layers[1].users(), "zoe")
            .revoke_all()
            .await
            .expect("ended");
        // At this moment already, while requests continue.
        assert_eq!(nodes.live().await, 0, "round {round}");
        stop.store(true, SeqCst);
        for task in tasks {
            task.await.expect("no panic");
        }
        for device in &devices {
            assert_eq!(device.look().await, NOBODY, "round {round}");
        }
        nodes.server.command::<String>(&["FLUSHALL"]).await;
    }
    let rotations = rotations.load(SeqCst);
    assert!(
        rotations > 1000,
        "only {rotations} requests came during the revocations"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_during_a_list_are_never_missing_afterwards() {
    let nodes = Nodes::start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let sessions = nodes.layers[1].users();
    let looks = tokio::spawn({
        let (stop, sessions) = (stop.clone(), sessions.clone());
        async move {
            let mut looks = 0;
            while !stop.load(SeqCst) {
                of(&sessions, "zoe").list().await.expect("listed");
                looks += 1;
            }
            looks
        }
    });
    for _ in 0..200 {
        let device = Device::of(&nodes.apps[0], "zoe", "phone").await;
        assert_eq!(sorted_devices(&sessions, "zoe").await, ["phone"]);
        device.text("/rotate").await;
        assert_eq!(sorted_devices(&sessions, "zoe").await, ["phone"]);
        device.text("/log-out").await;
    }
    stop.store(true, SeqCst);
    assert!(
        looks.await.expect("no panic") > 50,
        "the list was hardly ever read"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_races_a_revoke_never_revives_the_session() {
    let nodes = Nodes::start().await;
    let sessions = nodes.layers[1].users();
    for round in 0..500 {
        let device = Device::of(&nodes.apps[0], "zoe", "phone").await;
        let (writer, other) = (device.clone(), sessions.clone());
        let write = tokio::spawn(async move { writer.get("/visit").await });
        let end = tokio::spawn(async move { of(&other, "zoe").revoke_all().await });
        assert!(write.await.expect("no panic").0.is_success());
        assert_eq!(end.await.expect("no panic").expect("ended"), 1);
        assert!(!device.look().await.starts_with("zoe"), "round {round}");
    }
    assert_eq!(nodes.live().await, 0);
}
