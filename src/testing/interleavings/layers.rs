//! Two layers with different cookies, one inside the other, on one store: what a request does with one session has no effect on the other.
//!
//! Each order of the steps of two requests, which both use both sessions, must leave each session as some order without the other session
//! leaves it.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    task::Poll,
};

use http::{Request, Response, header};
use tower::{Layer, ServiceExt, service_fn};

use super::{
    Map, Op,
    world::{Pending, numbers, perform, poll},
};
use crate::{
    LazySession, RedisSessionLayer, SessionError,
    record::{Decoded, Record},
    store::Store,
    testing::stepped::{Grant, Protocol, SteppedStore},
};

/// A layer, and what the two requests do with its session.
#[derive(Clone, Copy)]
struct Area {
    cookie: &'static str,
    prefix: &'static str,
    ops: [Op; 2],
}

/// What became of one area, without its ids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Outcome {
    /// By request: no cookie, a removal, or an id with what is stored under it.
    cookies: Vec<Option<Option<Map>>>,
    live: BTreeSet<Map>,
    tombstones: usize,
}

fn site(ops: [Op; 2]) -> Area {
    Area {
        cookie: "__Host-session",
        prefix: "session:",
        ops,
    }
}

fn admin(ops: [Op; 2]) -> Area {
    Area {
        cookie: "__Host-admin",
        prefix: "admin:",
        ops,
    }
}

#[test]
fn two_layers_on_one_store_are_two_sessions() {
    let log_in = Op::LogIn(42);
    let insert = Op::Insert("a", 1);
    for (of_site, of_admin) in [
        ([insert, Op::Update], [log_in, Op::Destroy]),
        ([log_in, insert], [Op::Update, Op::Update]),
        ([Op::Destroy, insert], [insert, log_in]),
        ([Op::Remove("base"), Op::Update], [log_in, log_in]),
        ([Op::Destroy, Op::Read], [Op::Destroy, Op::Update]),
    ] {
        let areas = [site(of_site), admin(of_admin)];
        check(&areas).unwrap_or_else(|violation| panic!("{violation}"));
    }
    // With one cookie name, the inner layer does not act.
    let same = [
        site([insert, Op::Update]),
        Area {
            prefix: "admin:",
            ..site([log_in, Op::Destroy])
        },
    ];
    let violation = check(&same).expect_err("a mutant that lives");
    assert!(violation.contains("not as it is alone"), "{violation}");
}

fn check(areas: &[Area; 2]) -> Result<(), String> {
    let alone: Vec<_> = areas.iter().map(|area| explore(&[*area])).collect();
    let together = explore(areas);
    for outcome in &together {
        for (at, area) in areas.iter().enumerate() {
            if !alone[at].contains(&outcome[at..=at]) {
                return Err(format!(
                    "{} is not as it is alone: {:?} of {:?}",
                    area.cookie, outcome[at], area.ops
                ));
            }
        }
    }
    Ok(())
}

/// All outcomes, each with one entry for each area.
fn explore(areas: &[Area]) -> BTreeSet<Vec<Outcome>> {
    let mut outcomes = BTreeSet::new();
    let mut choices: Vec<(usize, usize)> = Vec::new();
    let mut orders = 0;
    loop {
        orders += 1;
        let mut depth = 0;
        let outcome = run(areas, |options| {
            if depth == choices.len() {
                choices.push((0, options));
            }
            depth += 1;
            choices[depth - 1].0
        });
        outcomes.insert(outcome);
        while let Some((chosen, of)) = choices.pop() {
            if chosen + 1 < of {
                choices.push((chosen + 1, of));
                break;
            }
        }
        if choices.is_empty() {
            println!("{orders} orders, {} outcomes", outcomes.len());
            return outcomes;
        }
    }
}

fn run(areas: &[Area], mut choose: impl FnMut(usize) -> usize) -> Vec<Outcome> {
    let store = SteppedStore::new(Protocol::OneStepRotation);
    let layers: Vec<_> = areas
        .iter()
        .map(|area| {
            RedisSessionLayer::with_store(Store::Stepped(store.clone()))
                .with_cookie_name(area.cookie)
                .with_prefix(area.prefix)
        })
        .collect();
    let begin = areas
        .iter()
        .map(|area| (area.cookie, Op::Insert("base", 1)));
    let Poll::Ready(Ok(begun)) = poll(&mut send(&layers, begin.collect(), "")) else {
        panic!("the first request is not stopped by anything");
    };
    let jar: Vec<_> = cookies(&begun)
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let jar = jar.join("; ");
    store.close_gate();
    let mut running: Vec<_> = (0..2)
        .map(|request| {
            let ops = areas.iter().map(|area| (area.cookie, area.ops[request]));
            Some(send(&layers, ops.collect(), &jar))
        })
        .collect();
    let mut responses = [const { None }; 2];
    loop {
        for request in 0..2 {
            store.enter(request);
            if let Some(pending) = &mut running[request]
                && let Poll::Ready(Ok(response)) = poll(pending)
            {
                responses[request] = Some(response);
                running[request] = None;
            }
        }
        let waiting: Vec<_> = (0..2)
            .filter(|request| store.is_waiting(*request))
            .collect();
        if waiting.is_empty() {
            break;
        }
        store.grant(waiting[choose(waiting.len())], Grant::Pass);
    }
    let responses = responses.map(|response| response.expect("both ended"));
    areas
        .iter()
        .map(|area| outcome(area, &store, &responses))
        .collect()
}

/// A request that does each operation with the session of that cookie.
fn send(layers: &[RedisSessionLayer], ops: Vec<(&'static str, Op)>, jar: &str) -> Pending {
    let mut request = Request::new(());
    let cookie = jar.parse().expect("a header value");
    request.headers_mut().insert(header::COOKIE, cookie);
    let handler = service_fn(move |request: Request<()>| {
        let ops = ops.clone();
        async move {
            let handled = async {
                let lazy = LazySession::from_extensions(request.extensions())?;
                for (cookie, op) in ops {
                    let lazy = lazy.by_cookie_name(cookie).expect("a layer");
                    perform(op, &lazy.load().await?)?;
                }
                Ok::<_, SessionError>(Response::new(String::new()))
            };
            let handled = handled.await.unwrap_or_else(|error| error.to_response());
            Ok::<_, Infallible>(handled)
        }
    });
    match layers {
        [outer, inner] => Box::pin(outer.layer(inner.layer(handler)).oneshot(request)),
        [layer] => Box::pin(layer.layer(handler).oneshot(request)),
        _ => unreachable!("one area or two"),
    }
}

fn outcome(area: &Area, store: &SteppedStore, responses: &[Response<String>; 2]) -> Outcome {
    let (mut live, mut tombstones) = (BTreeMap::new(), 0);
    for (key, bytes) in store.memory().dump() {
        let Some(id) = key.strip_prefix(area.prefix) else {
            continue;
        };
        match Record::decode(&bytes).expect("a record of ours") {
            Decoded::Session(record) => drop(live.insert(id.to_owned(), numbers(&record))),
            Decoded::Tombstone { .. } => tombstones += 1,
            Decoded::Empty => panic!("an empty session is never stored"),
        }
    }
    let set = responses.iter().map(|response| {
        assert_eq!(response.status(), 200, "{}", response.body());
        let mut set = cookies(response).into_iter();
        let (_, id) = set.find(|(name, _)| name == area.cookie)?;
        Some(live.get(&id).cloned())
    });
    Outcome {
        cookies: set.collect(),
        live: live.values().cloned().collect(),
        tombstones,
    }
}

/// The names and values of the cookies that a response sets. A removal has an empty value.
fn cookies(response: &Response<String>) -> Vec<(String, String)> {
    let lines = response.headers().get_all(header::SET_COOKIE).iter();
    let pairs = lines.map(|line| {
        let pair = line.to_str().expect("text").split(';').next();
        let (name, value) = pair.and_then(|pair| pair.split_once('=')).expect("a pair");
        (name.to_owned(), value.to_owned())
    });
    pairs.collect()
}
