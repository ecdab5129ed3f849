//! Every order in which the steps of three requests of one browser can happen, on the real request path.
//!
//! The store stops before each of its steps; a scheduler decides who goes next, and when a response reaches the browser. All
//! orders are gone through by running again from the start with the next choice. After each, what the store and the browser hold
//! is compared with a model that knows only the rules in [`Session`]'s documentation.

#[cfg(feature = "local-cache")]
mod cache;
#[cfg(feature = "local-cache")]
mod cache_tests;
mod clones;
#[cfg(feature = "migration")]
mod foreign;
mod layers;
mod model;
mod tests;
mod world;

use std::collections::BTreeMap;

use self::{model::Model, world::World};
use crate::testing::stepped::{Grant, Protocol};

/// What a request does with the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Read,
    /// `insert(key, number)`.
    Insert(&'static str, u64),
    /// Adds one under `n`.
    Update,
    Remove(&'static str),
    /// `clear`, then `insert(key, number)`.
    Replace(&'static str, u64),
    Destroy,
    /// `cycle_id`, and `user` is inserted.
    LogIn(u64),
    /// `cycle_id` alone.
    Cycle,
    /// As `Insert`, and then the response is 500.
    FailedInsert(&'static str, u64),
    /// As `LogIn`, and then the response is 500.
    FailedLogIn(u64),
    /// As `Destroy`, and then the response is 500.
    FailedDestroy,
}

impl Op {
    fn fails(self) -> bool {
        matches!(
            self,
            Self::FailedInsert(..) | Self::FailedLogIn(_) | Self::FailedDestroy
        )
    }
}

/// What the browser presents in front of the session's cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shadow {
    Unknown,
    /// Another session.
    Live,
}

pub(super) type Map = BTreeMap<String, u64>;

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A request's next store step.
    Step(usize, Grant),
    /// A response reaches the browser.
    Deliver(usize),
    /// A request is sent, with the cookie that the browser has by then.
    Send(usize),
    /// The first session expires.
    Expire,
    /// The node that serves the request dies.
    Crash(usize),
}

/// What to explore.
#[derive(Clone, Copy)]
pub(super) struct Mix {
    pub(super) ops: [Op; 3],
    pub(super) protocol: Protocol,
    /// The last request is sent at any moment, rather than at the start with the others.
    pub(super) late: bool,
    pub(super) expiry: bool,
    /// The first request's node may die.
    pub(super) crash: bool,
    /// One connection may break.
    pub(super) fault: bool,
    /// The session has a user from the start.
    pub(super) with_user: bool,
    pub(super) shadow: Option<Shadow>,
    /// A mutant: a request that fails saves its changes.
    pub(super) saves_failures: bool,
}

impl Mix {
    pub(super) fn new(ops: [Op; 3]) -> Self {
        Self {
            ops,
            protocol: Protocol::OneStepRotation,
            late: false,
            expiry: false,
            crash: false,
            fault: false,
            with_user: false,
            shadow: None,
            saves_failures: false,
        }
    }
}

/// Goes through every order. The number of orders, or the first that breaks a rule.
pub(super) fn explore(mix: Mix) -> Result<usize, String> {
    explore_with(|choose| {
        let mut events = Vec::new();
        let choose = |options: &[Event]| {
            let event = options[choose(options.len())];
            events.push(event);
            event
        };
        run(mix, choose).map_err(|violation| {
            format!(
                "{violation}\nops {:?}, {:?}\nevents {events:?}",
                mix.ops, mix.protocol
            )
        })
    })
}

/// Runs once for each sequence of choices. `run` asks for a choice with the number of options.
fn explore_with(
    mut run: impl FnMut(&mut dyn FnMut(usize) -> usize) -> Result<(), String>,
) -> Result<usize, String> {
    let mut choices: Vec<(usize, usize)> = Vec::new();
    let mut orders = 0;
    loop {
        let mut depth = 0;
        run(&mut |options| {
            if depth == choices.len() {
                choices.push((0, options));
            }
            let (chosen, of) = choices[depth];
            assert_eq!(of, options, "the same choices lead to the same place");
            depth += 1;
            chosen
        })?;
        orders += 1;
        // The next order: the last choice that has another option left.
        while let Some((chosen, of)) = choices.pop() {
            if chosen + 1 < of {
                choices.push((chosen + 1, of));
                break;
            }
        }
        if choices.is_empty() {
            return Ok(orders);
        }
    }
}

fn run(mix: Mix, mut choose: impl FnMut(&[Event]) -> Event) -> Result<(), String> {
    let mut world = World::new(mix);
    let mut model = Model::new(mix, world.session());
    for request in 0..mix.ops.len() {
        if !(mix.late && request == 2) {
            world.send(request)?;
        }
    }
    loop {
        let options = world.options();
        if options.is_empty() {
            break;
        }
        let event = choose(&options);
        let seen = world.send_with_retry(event)?;
        model.follow(event, &seen, &world)?;
    }
    model.check_end(&world)
}

/// Whether it asks for a new id.
pub(super) fn is_cycle(op: Op) -> bool {
    matches!(op, Op::LogIn(_) | Op::Cycle)
}

/// The map after the operation.
pub(super) fn applied(mut map: Map, op: Op) -> Map {
    match op {
        Op::Read | Op::Destroy | Op::Cycle => {}
        Op::FailedInsert(..) | Op::FailedLogIn(_) | Op::FailedDestroy => {}
        Op::Insert(key, value) => drop(map.insert(key.to_owned(), value)),
        Op::Update => *map.entry("n".to_owned()).or_default() += 1,
        Op::Remove(key) => drop(map.remove(key)),
        Op::Replace(key, value) => map = Map::from([(key.to_owned(), value)]),
        Op::LogIn(user) => drop(map.insert("user".to_owned(), user)),
    }
    map
}
