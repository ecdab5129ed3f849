//! The commands of each kind of request.

use redis::{
    AsyncConnectionConfig, ProtocolVersion, PushInfo, PushKind, aio::MultiplexedConnection,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{Node, SOON};
use crate::support::{browser::Browser, eventually, server::Server};

const REQUESTS: usize = 50;

#[tokio::test]
async fn a_load_costs_no_command_and_a_save_one() {
    let server = Server::start().await;
    let node = Node::new(server.client()).await;
    let browser = Browser::new();
    node.body(&browser, "/").await;
    node.warm(&browser).await;
    // Load the scripts.
    node.body(&browser, "/").await;
    node.body(&browser, "/cycle").await;
    let other = Browser::new();
    node.body(&other, "/").await;
    node.body(&other, "/destroy").await;
    node.warm(&browser).await;
    // A server that reports a script's write to its own client makes the next request read the session again.
    let commands: &[&str] = match reports_own_scripts(&server).await {
        true => &["PTTL", "GETEX", "EVALSHA"],
        false => &["EVALSHA"],
    };
    let monitor = server.monitor().await;

    for path in ["/visits", "/look", "/only-if", "/untouched", "/kept/none"] {
        for _ in 0..REQUESTS {
            node.body(&browser, path).await;
        }
        assert_eq!(names(&monitor.drain().await), [] as [&str; 0], "{path}");
    }
    for (number, path) in ["/", "/cycle"]
        .into_iter()
        .cycle()
        .take(2 * REQUESTS)
        .enumerate()
    {
        node.body(&browser, path).await;
        let names = names(&monitor.drain().await).join(" ");
        // The first save finds a cached session in any case.
        let expected = if number == 0 {
            "EVALSHA".to_owned()
        } else {
            commands.join(" ")
        };
        assert_eq!(names, expected, "{path}");
    }
    for path in ["/visits", "/only-if", "/cycle", "/destroy"] {
        node.body(&Browser::new(), path).await;
        assert_eq!(names(&monitor.drain().await), [] as [&str; 0], "anonymous");
    }
    let other = Browser::new();
    node.body(&other, "/").await;
    assert_eq!(names(&monitor.drain().await), ["EVALSHA"], "a login");
    assert_eq!(node.body(&other, "/visits").await, "1");
    assert_eq!(names(&monitor.drain().await), [] as [&str; 0]);
    node.body(&other, "/destroy").await;
    assert_eq!(names(&monitor.drain().await), ["EVALSHA"]);
}

#[tokio::test]
async fn a_change_on_one_node_is_seen_on_the_other() {
    let server = Server::start().await;
    let (a, b) = (
        Node::new(server.client()).await,
        Node::new(server.client()).await,
    );
    let browser = Browser::new();
    a.body(&browser, "/").await;
    for visits in 2..30 {
        a.warm(&browser).await;
        b.warm(&browser).await;
        let (here, there) = match visits % 2 {
            0 => (&a, &b),
            _ => (&b, &a),
        };
        assert_eq!(here.body(&browser, "/").await, visits.to_string());
        // Its own entry is the new version, at once.
        assert_eq!(here.body(&browser, "/visits").await, visits.to_string());
        eventually(SOON, || async {
            there.body(&browser, "/visits").await == visits.to_string()
        })
        .await;
    }
    assert!(a.stats().invalidations > 0 && b.stats().invalidations > 0);

    a.warm(&browser).await;
    b.warm(&browser).await;
    let fork = browser.fork(&a.url("/"));
    a.body(&browser, "/destroy").await;
    assert_eq!(
        a.body(&fork, "/visits").await,
        "0",
        "at once where it ended"
    );
    eventually(SOON, || async { b.body(&fork, "/visits").await == "0" }).await;
}

fn names(commands: &[Vec<String>]) -> Vec<&str> {
    commands.iter().map(|words| &*words[0]).collect()
}

/// Whether the server reports what a script wrote to the client that called it, despite NOLOOP: Redis 6.2.5, not 6.2.14, 7.0.15 or Valkey
/// (redis/redis#11052).
async fn reports_own_scripts(server: &Server) -> bool {
    let (mut connection, mut pushes) = tracking(server).await;
    let script = "redis.call('GET', KEYS[1]) redis.call('SET', KEYS[1], 'own', 'PX', '1000')";
    let words = ["EVAL", script, "1", "probe"];
    redis::cmd(words[0])
        .arg(&words[1..])
        .query_async::<()>(&mut connection)
        .await
        .expect("a reply");
    // Behind the reply of PING, the reports of what was before it have come.
    redis::cmd("PING")
        .query_async::<()>(&mut connection)
        .await
        .expect("a reply");
    std::iter::from_fn(|| pushes.try_recv().ok()).any(|push| push.kind == PushKind::Invalidate)
}

async fn tracking(server: &Server) -> (MultiplexedConnection, UnboundedReceiver<PushInfo>) {
    let (sender, pushes) = unbounded_channel();
    let info = server.client().get_connection_info().clone();
    let settings = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3);
    let client = redis::Client::open(info.set_redis_settings(settings)).expect("an address");
    let config = AsyncConnectionConfig::new().set_push_sender(sender);
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .expect("a connection");
    let mut on = redis::cmd("CLIENT");
    on.arg("TRACKING").arg("ON").arg("NOLOOP");
    on.query_async::<()>(&mut connection)
        .await
        .expect("tracking");
    (connection, pushes)
}
