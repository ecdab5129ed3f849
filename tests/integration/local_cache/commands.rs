//! The commands of each kind of request.

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
    let monitor = server.monitor().await;

    for path in ["/visits", "/look", "/only-if", "/untouched", "/kept/none"] {
        for _ in 0..REQUESTS {
            node.body(&browser, path).await;
        }
        assert_eq!(names(&monitor.drain().await), [] as [&str; 0], "{path}");
    }
    for (path, expected) in [("/", ["EVALSHA"]), ("/cycle", ["EVALSHA"])] {
        for _ in 0..REQUESTS {
            node.body(&browser, path).await;
            assert_eq!(names(&monitor.drain().await), expected, "{path}");
        }
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
