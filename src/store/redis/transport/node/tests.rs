use tokio::{runtime::Runtime, task::yield_now};

use super::*;
use crate::testing::fake_server::info;

fn node() -> Node {
    Node::new(Endpoint::server(info(1)), ConnectSettings::default())
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.build().expect("a runtime")
}

#[test]
fn each_runtime_has_connections_of_its_own_as_long_as_it_runs() {
    let node = node();
    let (first, second) = (runtime(), runtime());
    let connections = |runtime: &Runtime| runtime.block_on(async { node.connections() });
    let (of_first, of_second) = (connections(&first), connections(&second));
    assert!(!Arc::ptr_eq(&of_first, &of_second));
    assert!(Arc::ptr_eq(&of_first, &connections(&first)));
    assert!(Arc::ptr_eq(&of_second, &connections(&second)));
    drop(first);
    let left: Vec<Id> = node.0.runtimes().iter().map(|known| known.id).collect();
    assert_eq!(left, [second.handle().id()]);
    drop(second);
    assert!(node.0.runtimes().is_empty());
}

#[tokio::test]
async fn a_node_that_is_dropped_leaves_no_task() {
    let tasks = Handle::current().metrics();
    let before = tasks.num_alive_tasks();
    let node = node();
    node.connections();
    assert_eq!(tasks.num_alive_tasks(), before + 1);
    drop(node);
    yield_now().await;
    assert_eq!(tasks.num_alive_tasks(), before);
}
