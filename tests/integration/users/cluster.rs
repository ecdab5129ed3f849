//! A user's sessions in a cluster: each session and the index are in different slots.

use std::time::Duration;

use axum::http::StatusCode;
use axum_redis_sessions::{RedisSessionLayer, SessionLimit};

use super::{Device, app, devices, of, sorted_devices};
use crate::support::cluster::Cluster;

fn layer(cluster: &Cluster) -> RedisSessionLayer {
    let layer = RedisSessionLayer::cluster(cluster.urls()).expect("addresses");
    layer.with_deadline(Duration::from_secs(20))
}

#[tokio::test]
async fn a_revoke_on_one_node_is_effective_on_all_nodes() {
    let cluster = Cluster::start().await;
    let layers = [layer(&cluster), layer(&cluster)];
    let apps = layers.each_ref().map(app);
    let sessions = layers[1].users();
    for round in 0..100 {
        // The indexes are in different slots.
        let user = format!("user-{round}");
        let phone = Device::of(&apps[0], &user, "phone").await;
        let laptop = Device::of(&apps[1], &user, "laptop").await;
        // In a cluster a rotation is two commands, and the index entry a third.
        phone.text("/rotate").await;
        assert_eq!(sorted_devices(&sessions, &user).await, ["laptop", "phone"]);
        let handle = phone.text("/handle").await.parse().expect("a handle");
        assert!(of(&sessions, &user).revoke(&handle).await.expect("ended"));
        for app in &apps {
            let seen = phone.get_at(app, "/look").await.1;
            assert_eq!(seen, "nobody on nothing", "round {round}");
        }
        assert_eq!(devices(&sessions, &user).await, ["laptop"]);
        assert_eq!(of(&sessions, &user).revoke_all().await.expect("ended"), 1);
        for app in &apps {
            let seen = laptop.get_at(app, "/look").await.1;
            assert_eq!(seen, "nobody on nothing", "round {round}");
        }
    }
}

#[tokio::test]
async fn the_session_limit_holds_in_a_cluster() {
    let cluster = Cluster::start().await;
    let refuse = layer(&cluster).with_sessions_per_user(2, SessionLimit::Reject);
    let refusing = app(&refuse);
    let one = Device::of(&refusing, "zoe", "one").await;
    Device::of(&refusing, "zoe", "two").await;
    let three = Device::new(&refusing);
    assert_eq!(three.log_in("zoe", "three").await, StatusCode::FORBIDDEN);
    assert_eq!(one.log_in("zoe", "one").await, StatusCode::OK);

    let ending = app(&layer(&cluster).with_sessions_per_user(2, SessionLimit::RevokeOldest));
    super::next_second().await;
    Device::of(&ending, "zoe", "four").await;
    let left = sorted_devices(&refuse.users(), "zoe").await;
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.contains(&"four".to_owned()), "{left:?}");
}
