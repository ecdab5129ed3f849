//! Two requests of this crate and one of another framework that stores what it read, without comparing, and keeps this crate's revision.
//!
//! The other framework may overwrite whatever it likes, so the last value says little. Instead, each step of this crate is looked at: what it
//! stores must be what lay there, with its own change. Then only the other framework can lose something.

use std::{task::Poll, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use serde_json::{Map, Value};
use tower::{Layer, ServiceExt, service_fn};

use super::{
    Op, explore_with,
    world::{Pending, SetCookie, handle, poll, set_cookie},
};
use crate::{
    RedisSessionLayer,
    format::{Flask, OWN_KEY, Serialization},
    store::Store,
    testing::stepped::{Grant, Protocol, SteppedStore},
};

type Session = Map<String, Value>;

/// What can happen next.
#[derive(Clone, Copy, Debug)]
enum Event {
    Ours(usize, Grant),
    Theirs,
}

/// The other framework's request.
enum Theirs {
    Begin,
    Read(Option<(String, Bytes)>),
    Done,
}

struct World {
    store: SteppedStore,
    layer: RedisSessionLayer,
    ops: [Op; 2],
    requests: [Option<Pending>; 2],
    /// The writes of each request that changed something.
    effects: [usize; 2],
    theirs: Theirs,
    /// The key of the session that all begin with.
    first: String,
    faulted: bool,
}

impl World {
    fn new(ops: [Op; 2], protocol: Protocol) -> Self {
        let store = SteppedStore::new(protocol);
        let flask = Flask::new().with_serialization(Serialization::Json);
        let layer = RedisSessionLayer::with_store(Store::Stepped(store.clone())).with_format(flask);
        let mut world = Self {
            store,
            layer,
            ops,
            requests: [None, None],
            effects: [0, 0],
            theirs: Theirs::Begin,
            first: String::new(),
            faulted: false,
        };
        let mut begin = world.request(Op::Insert("base", 1), None);
        let Poll::Ready(Ok(response)) = poll(&mut begin) else {
            panic!("the first request is not stopped by anything");
        };
        let Some(SetCookie::Issue(id)) = set_cookie(&response) else {
            panic!("the first request begins a session");
        };
        world.first = format!("session:{id}");
        let mut second = world.request(Op::Insert("more", 1), Some(&id));
        assert!(poll(&mut second).is_ready());
        world.store.close_gate();
        world.requests = ops.map(|op| Some(world.request(op, Some(&id))));
        world
    }

    fn request(&self, op: Op, id: Option<&str>) -> Pending {
        let mut request = Request::new(());
        if let Some(id) = id {
            let cookie = HeaderValue::try_from(format!("session={id}")).expect("text");
            request.headers_mut().insert(header::COOKIE, cookie);
        }
        let handler = service_fn(move |request| handle(op, false, request));
        Box::pin(self.layer.layer(handler).oneshot(request))
    }

    fn poll_all(&mut self) {
        for (index, request) in self.requests.iter_mut().enumerate() {
            if let Some(pending) = request {
                self.store.enter(index);
                if let Poll::Ready(Ok(response)) = poll(pending) {
                    // An update whose reply was lost is not repeated if that might count twice.
                    let may_fail = self.faulted && self.ops[index] == Op::Update;
                    let is_expected = response.status().is_success() || may_fail;
                    assert!(is_expected, "{}", response.body());
                    *request = None;
                }
            }
        }
    }

    fn options(&self) -> Vec<Event> {
        let mut options = Vec::new();
        for index in 0..2 {
            if self.store.is_waiting(index) {
                options.push(Event::Ours(index, Grant::Pass));
                if index == 0 && !self.faulted {
                    options.push(Event::Ours(index, Grant::DropAfter));
                }
            }
        }
        if !matches!(self.theirs, Theirs::Done) {
            options.push(Event::Theirs);
        }
        options
    }

    fn stored(&self, key: &str) -> Option<Bytes> {
        let dump = self.store.memory().dump();
        let found = dump.into_iter().find(|(other, _)| other == key);
        found.map(|(_, bytes)| bytes)
    }

    /// The other framework reads, or stores what it has read with a key of its own.
    fn step_theirs(&mut self) {
        self.theirs = match std::mem::replace(&mut self.theirs, Theirs::Done) {
            Theirs::Begin => {
                let key = self.first.clone();
                Theirs::Read(self.stored(&key).map(|stored| (key, stored)))
            }
            Theirs::Read(Some((key, stored))) => {
                let mut session = parse(&stored);
                session.insert("theirs".to_owned(), 1.into());
                let stored = serde_json::to_vec(&session).expect("JSON");
                let memory = self.store.memory();
                memory.overwrite(&key, &stored.into(), Duration::from_secs(60));
                Theirs::Done
            }
            Theirs::Read(None) | Theirs::Done => Theirs::Done,
        };
    }

    /// What a step of this crate changed must be its own change of what was there.
    fn step_ours(&mut self, index: usize, grant: Grant) -> Result<(), String> {
        let before = self.store.memory().dump();
        self.faulted |= grant != Grant::Pass;
        self.store.grant(index, grant);
        self.poll_all();
        let after = self.store.memory().dump();
        if before == after {
            return Ok(());
        }
        self.effects[index] += 1;
        let former = before
            .iter()
            .find(|(key, _)| *key == self.first)
            .map(|(_, bytes)| parse(bytes));
        if former.is_none() && after.iter().any(|(key, _)| *key == self.first) {
            return Err("a session that had ended was written".to_owned());
        }
        let had_ended = former.is_none();
        let former = former.unwrap_or_default();
        let op = self.ops[index];
        for (key, bytes) in after.iter().filter(|entry| !before.contains(entry)) {
            let session = app_keys(parse(bytes));
            let expected = if *key == self.first && op == Op::Cycle {
                // The tombstone.
                Session::new()
            } else if *key == self.first || op == Op::Cycle {
                applied(app_keys(former.clone()), op)
            } else {
                // A request that found none begins another one, with nothing of the first.
                applied(Session::new(), op)
            };
            if session != expected {
                return Err(format!("{op:?} stored {session:?} over {former:?}"));
            }
        }
        let ends = after.iter().all(|(key, _)| *key != self.first);
        if !had_ended && ends != (op == Op::Destroy) {
            return Err(format!("{op:?} ended the session: {ends}"));
        }
        Ok(())
    }
}

fn parse(bytes: &[u8]) -> Session {
    serde_json::from_slice(bytes).expect("an object")
}

fn app_keys(mut session: Session) -> Session {
    session.remove(OWN_KEY);
    session
}

fn applied(mut session: Session, op: Op) -> Session {
    match op {
        Op::Insert(key, value) => drop(session.insert(key.to_owned(), value.into())),
        Op::Update => {
            let n = session.get("n").and_then(Value::as_u64).unwrap_or(0);
            session.insert("n".to_owned(), (n + 1).into());
        }
        Op::Remove(key) => drop(session.remove(key)),
        _ => {}
    }
    session
}

fn explore(ops: [Op; 2], protocol: Protocol) -> Result<usize, String> {
    explore_with(|choose| {
        let mut world = World::new(ops, protocol);
        let mut events = Vec::new();
        world.poll_all();
        loop {
            let options = world.options();
            if options.is_empty() {
                break;
            }
            let event = options[choose(options.len())];
            events.push(event);
            match event {
                Event::Theirs => world.step_theirs(),
                Event::Ours(index, grant) => world
                    .step_ours(index, grant)
                    .map_err(|error| format!("{error}\nops {ops:?}, events {events:?}"))?,
            }
        }
        for (op, effects) in ops.iter().zip(world.effects) {
            let limit = match op {
                Op::Read => 0,
                // Repeated if the reply was lost and the other framework wrote then.
                _ if world.faulted && *op != Op::Update => 2,
                _ => 1,
            };
            if effects > limit {
                return Err(format!("{op:?} took effect {effects} times: {events:?}"));
            }
        }
        Ok(())
    })
}

#[test]
fn no_write_loses_what_another_framework_stored() {
    let (insert, remove) = (Op::Insert("a", 5), Op::Remove("base"));
    let mut orders = 0;
    // Not two of `Cycle`: the second begins a session of its own, as a repeated login does.
    for ops in [
        [Op::Read, Op::Update],
        [Op::Update, Op::Update],
        [Op::Update, insert],
        [insert, remove],
        [Op::Update, Op::Cycle],
        [Op::Cycle, insert],
        [Op::Update, Op::Destroy],
        [Op::Destroy, insert],
    ] {
        let explored = explore(ops, Protocol::OneStepRotation);
        orders += explored.unwrap_or_else(|violation| panic!("{violation}"));
    }
    println!("{orders} orders");
    assert!(orders > 2_000, "{orders}");
}

#[test]
fn a_save_that_does_not_look_is_found_out() {
    let explored = explore([Op::Update, Op::Insert("a", 5)], Protocol::PlainSetex);
    assert!(explored.is_err(), "{explored:?}");
}
