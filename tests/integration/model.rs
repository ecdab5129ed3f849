//! Random concurrent requests of two browsers, compared with a model after each.

mod rules;

use std::collections::BTreeMap;

use axum::{
    Router,
    body::Body,
    extract::Extension,
    http::{Request, Response, header},
    routing::get,
};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionError};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use tokio::{sync::oneshot, task::JoinHandle};
use tower::ServiceExt;

use self::rules::{Contents, Cookie, Model, View};
use crate::support::server::Server;

/// Concurrent requests; the first three are tabs of one browser.
const SLOTS: usize = 4;
const BROWSERS: [usize; SLOTS] = [0, 0, 0, 1];
const KEYS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Op {
    Insert(usize, u64),
    Increment(usize),
    Remove(usize),
    Clear,
    Destroy,
    CycleId,
    SetPermanent(bool),
    Save,
}

#[derive(Clone, Debug)]
enum Transition {
    /// A request is sent, and loads its session.
    Start(usize, Vec<Op>),
    /// The handler continues, and the response reaches the browser.
    Finish(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..KEYS.len(), 0..3_u64).prop_map(|(key, value)| Op::Insert(key, value)),
        4 => (0..KEYS.len()).prop_map(Op::Increment),
        3 => (0..KEYS.len()).prop_map(Op::Remove),
        1 => Just(Op::Clear),
        1 => Just(Op::Destroy),
        2 => Just(Op::CycleId),
        1 => any::<bool>().prop_map(Op::SetPermanent),
        1 => Just(Op::Save),
    ]
}

fn transition() -> impl Strategy<Value = Transition> {
    prop_oneof![
        (0..SLOTS, vec(op(), 0..5)).prop_map(|(slot, ops)| Transition::Start(slot, ops)),
        (0..SLOTS).prop_map(Transition::Finish),
    ]
}

/// A request in progress, and the model's view of it.
struct UnderWay {
    task: JoinHandle<Response<Body>>,
    go: oneshot::Sender<()>,
    ops: Vec<Op>,
    view: View,
}

type Orders =
    std::sync::Arc<std::sync::Mutex<Option<(Vec<Op>, oneshot::Sender<()>, oneshot::Receiver<()>)>>>;

/// Loads the session, reports that, waits, and then performs the operations.
async fn handler(
    session: Session,
    Extension(orders): Extension<Orders>,
) -> Result<(), SessionError> {
    let (ops, loaded, go) = orders
        .lock()
        .expect("never poisoned")
        .take()
        .expect("orders");
    loaded.send(()).expect("a receiver");
    go.await.expect("a turn");
    for op in ops {
        match op {
            Op::Insert(key, value) => session.insert(KEYS[key], value)?,
            Op::Increment(key) => {
                session.update(KEYS[key], |n: Option<u64>| n.unwrap_or(0) + 1)?;
            }
            Op::Remove(key) => drop(session.remove(KEYS[key])),
            Op::Clear => session.clear(),
            Op::Destroy => session.destroy(),
            Op::CycleId => session.cycle_id(),
            Op::SetPermanent(permanent) => session.set_permanent(permanent),
            Op::Save => session.save().await?,
        }
    }
    Ok(())
}

async fn start(app: &Router, jar: Option<&String>, ops: Vec<Op>, view: View) -> UnderWay {
    let (loaded, has_loaded) = oneshot::channel();
    let (go, may_go) = oneshot::channel();
    let orders: Orders =
        std::sync::Arc::new(std::sync::Mutex::new(Some((ops.clone(), loaded, may_go))));
    let mut request = Request::builder().uri("/").extension(orders);
    if let Some(id) = jar {
        request = request.header(header::COOKIE, format!("__Host-session={id}"));
    }
    let request = request.body(Body::empty()).expect("a request");
    let task = tokio::spawn(app.clone().oneshot(request));
    let task = tokio::spawn(async move { task.await.expect("no panic").expect("infallible") });
    has_loaded.await.expect("loaded");
    UnderWay {
        task,
        go,
        ops,
        view,
    }
}

async fn finish(model: &mut Model, server: &Server, browser: usize, request: UnderWay) {
    let UnderWay {
        task,
        go,
        ops,
        mut view,
    } = request;
    go.send(()).expect("a handler that waits");
    let response = task.await.expect("no panic");

    let failed = ops.iter().any(|op| model.operate(&mut view, op).is_err());
    let _ = model.commit(&mut view);
    assert_eq!(
        response.status().as_u16(),
        if failed { 409 } else { 200 },
        "{ops:?}"
    );

    let line = response
        .headers()
        .get(header::SET_COOKIE)
        .map(|line| line.to_str().expect("text"));
    let id = line
        .and_then(|line| line.split([';', '=']).nth(1))
        .unwrap_or_default()
        .to_owned();
    match (&view.cookie, line) {
        (None, None) => {}
        (Some(Cookie::Remove), Some(line)) if line.starts_with("__Host-session=;") => {
            model.jars[browser] = None;
        }
        (Some(Cookie::Issue(expected, lasting)), Some(line)) if !id.is_empty() => {
            assert!(
                expected
                    .as_ref()
                    .is_none_or(|expected| *expected == id || expected == "new")
            );
            assert_eq!(line.contains("Max-Age=2678400"), *lasting, "{line}");
            model.jars[browser] = Some(id.clone());
        }
        (expected, line) => panic!("{expected:?}, but {line:?}, after {ops:?}"),
    }
    if let Some(contents) = model.live.remove("new") {
        // A session that was saved early and then rotated or destroyed has an id that no response told.
        let id = if id.is_empty() {
            unseen(model, server).await
        } else {
            id
        };
        model.live.insert(id, contents);
    }
    compare(model, server).await;
}

async fn unseen(model: &Model, server: &Server) -> String {
    let keys: Vec<String> = server.command(&["KEYS", "session:*"]).await;
    let mut ids = keys.iter().map(|key| key["session:".len()..].to_owned());
    ids.find(|id| !model.live.contains_key(id) && !model.tombstones.contains(id))
        .expect("one more")
}

async fn compare(model: &mut Model, server: &Server) {
    let (mut live, mut tombstones) = (BTreeMap::new(), Vec::new());
    for key in server.command::<Vec<String>>(&["KEYS", "session:*"]).await {
        let stored: String = server.command(&["GET", &key]).await;
        let stored: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&stored).expect("an object");
        let id = key["session:".len()..].to_owned();
        if stored.contains_key("_rotated") {
            tombstones.push(id);
            continue;
        }
        let map = stored.iter().filter(|(key, _)| !key.starts_with('_'));
        let map = map
            .map(|(key, value)| (key.clone(), value.as_u64().expect("a number")))
            .collect();
        live.insert(
            id,
            Contents {
                map,
                permanent: stored.contains_key("_permanent"),
            },
        );
    }
    // A rotation of a session created in the same request leaves a tombstone for an id that no response told.
    for id in &mut model.tombstones {
        if id == "new" {
            *id = tombstones
                .iter()
                .find(|stone| !live.contains_key(*stone))
                .cloned()
                .unwrap_or_default();
        }
    }
    tombstones.sort();
    let mut expected = model.tombstones.clone();
    expected.sort();
    assert_eq!(live, model.live);
    assert_eq!(tombstones.len(), expected.len());
}

#[test]
fn random_concurrent_requests_agree_with_the_model() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = runtime.block_on(Server::start());
    let config = ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let sequence = vec(transition(), 1..40);
    let outcome = TestRunner::new(config).run(&sequence, |transitions| {
        runtime.block_on(async {
            server.command::<String>(&["FLUSHALL"]).await;
            let layer = RedisSessionLayer::new(server.client())
                .with_deadline(std::time::Duration::from_secs(20));
            let app = Router::new().route("/", get(handler)).layer(layer);
            let mut model = Model::default();
            let mut slots: [Option<UnderWay>; SLOTS] = std::array::from_fn(|_| None);
            let finish_all = (0..SLOTS).map(Transition::Finish);
            for transition in transitions.into_iter().chain(finish_all) {
                match transition {
                    Transition::Start(slot, ops) if slots[slot].is_none() => {
                        let jar = model.jars[BROWSERS[slot]].clone();
                        let view = model.view(jar.as_ref());
                        slots[slot] = Some(start(&app, jar.as_ref(), ops, view).await);
                    }
                    Transition::Finish(slot) => {
                        if let Some(request) = slots[slot].take() {
                            finish(&mut model, &server, BROWSERS[slot], request).await;
                        }
                    }
                    Transition::Start(..) => {}
                }
            }
        });
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
