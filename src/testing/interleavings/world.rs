//! The requests, the store and the browser.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use http::{Request, Response, StatusCode, header};
use tower::{Layer, ServiceExt, service_fn};

use super::{Event, Map, Mix, Op, Shadow};
use crate::{
    LazySession, RedisSessionLayer, Session, SessionError, Stats,
    record::{Decoded, Record},
    store::Store,
    testing::stepped::{Grant, SteppedStore},
};

const PREFIX: &str = "session:";

pub(super) type Pending = Pin<Box<dyn Future<Output = Result<Response<String>, Infallible>>>>;

enum Stage {
    NotSent,
    Running(Pending),
    Responded,
    Delivered,
    Crashed,
}

/// What one event brought about, as far as anybody outside can tell.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) finished: Vec<Finished>,
}

/// A response, before it reached the browser.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    pub(super) request: usize,
    pub(super) status: u16,
    pub(super) cookie: Option<SetCookie>,
    /// Whether it counted itself as saved, or as dropped.
    pub(super) stored: bool,
    pub(super) dropped: bool,
    /// What a read found.
    pub(super) read: Option<Map>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SetCookie {
    Issue(String),
    Remove,
}

pub(super) struct World {
    mix: Mix,
    store: SteppedStore,
    layer: RedisSessionLayer,
    stages: Vec<Stage>,
    responses: BTreeMap<usize, Finished>,
    /// The id that the browser holds.
    pub(super) jar: Option<String>,
    first: String,
    /// The id that the browser presents in front of that.
    pub(super) shadow: Option<String>,
    expired: bool,
    crashed: bool,
    faulted: bool,
}

impl World {
    /// One stored session, whose cookie the browser has.
    pub(super) fn new(mix: Mix) -> Self {
        let store = SteppedStore::new(mix.protocol);
        let mut layer = RedisSessionLayer::with_store(Store::Stepped(store.clone()));
        if mix.saves_failures {
            layer = layer.with_save_rule(|_| true);
        }
        let mut world = Self {
            mix,
            store,
            layer,
            stages: Vec::new(),
            responses: BTreeMap::new(),
            jar: None,
            first: String::new(),
            shadow: None,
            expired: false,
            crashed: false,
            faulted: false,
        };
        let id = world.begin("base", mix.with_user);
        world.shadow = match mix.shadow {
            None => None,
            Some(Shadow::Unknown) => Some("5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e".to_owned()),
            Some(Shadow::Live) => Some(world.begin("shadow", false)),
        };
        world.first.clone_from(&id);
        world.jar = Some(id);
        world.store.close_gate();
        world.stages = mix.ops.iter().map(|_| Stage::NotSent).collect();
        world
    }

    /// A session with one key.
    fn begin(&self, key: &'static str, with_user: bool) -> String {
        let mut request = self.request_with(Op::Insert(key, 1), with_user);
        let Poll::Ready(Ok(response)) = poll(&mut request) else {
            panic!("the first requests are not stopped by anything");
        };
        match set_cookie(&response) {
            Some(SetCookie::Issue(id)) => id,
            _ => panic!("the first requests begin a session"),
        }
    }

    pub(super) fn session(&self) -> &str {
        &self.first
    }

    pub(super) fn send(&mut self, request: usize) -> Result<(), String> {
        self.stages[request] = Stage::Running(self.request(self.mix.ops[request]));
        let seen = self.poll_all()?;
        assert!(
            seen.finished.is_empty() || self.jar.is_none(),
            "with a cookie a request stops before its load"
        );
        Ok(())
    }

    /// What can happen next.
    pub(super) fn options(&self) -> Vec<Event> {
        let mut options = Vec::new();
        for (request, stage) in self.stages.iter().enumerate() {
            match stage {
                Stage::NotSent => options.push(Event::Send(request)),
                Stage::Running(_) if self.store.is_waiting(request) => {
                    options.push(Event::Step(request, Grant::Pass));
                    if self.mix.fault && !self.faulted {
                        options.push(Event::Step(request, Grant::DropAfter));
                        options.push(Event::Step(request, Grant::DropBefore));
                    }
                    if self.mix.crash && !self.crashed && request == 0 {
                        options.push(Event::Crash(request));
                    }
                }
                Stage::Responded => options.push(Event::Deliver(request)),
                Stage::Running(_) | Stage::Delivered | Stage::Crashed => {}
            }
        }
        // All requests were sent before, so only the order of the responses matters, and not when they arrive.
        let has_steps = options.iter().any(|event| matches!(event, Event::Step(..)));
        if self.mix.shadow.is_some() && has_steps {
            options.retain(|event| matches!(event, Event::Step(..)));
        }
        if self.mix.expiry && !self.expired && !options.is_empty() {
            options.push(Event::Expire);
        }
        options
    }

    pub(super) fn send_with_retry(&mut self, event: Event) -> Result<Seen, String> {
        match event {
            Event::Step(request, grant) => {
                self.faulted |= grant != Grant::Pass;
                self.store.grant(request, grant);
            }
            Event::Send(request) => {
                self.stages[request] = Stage::Running(self.request(self.mix.ops[request]));
            }
            Event::Deliver(request) => {
                self.stages[request] = Stage::Delivered;
                match &self.responses[&request].cookie {
                    Some(SetCookie::Issue(id)) => self.jar = Some(id.clone()),
                    Some(SetCookie::Remove) => self.jar = None,
                    None => {}
                }
            }
            Event::Expire => {
                self.expired = true;
                self.store
                    .memory()
                    .erase(&format!("{PREFIX}{}", self.first));
            }
            Event::Crash(request) => {
                self.crashed = true;
                self.store.forget(request);
                self.stages[request] = Stage::Crashed;
            }
        }
        self.poll_all()
    }

    /// The live sessions, and the tombstones, by id.
    pub(super) fn stored(&self) -> (BTreeMap<String, Map>, Vec<String>) {
        let (mut live, mut tombstones) = (BTreeMap::new(), Vec::new());
        for (key, bytes) in self.store.memory().dump() {
            let id = key.strip_prefix(PREFIX).expect("our prefix").to_owned();
            match Record::decode(&bytes).expect("a record of ours") {
                Decoded::Session(record) => drop(live.insert(id, numbers(&record))),
                Decoded::Tombstone { .. } => tombstones.push(id),
                Decoded::Empty => panic!("an empty session is never stored"),
            }
        }
        (live, tombstones)
    }

    /// Polls whoever is not held up by the store, until nobody gets any further.
    fn poll_all(&mut self) -> Result<Seen, String> {
        let mut seen = Seen::default();
        let mut still = 0;
        while still < 2 {
            still += 1;
            for request in 0..self.stages.len() {
                let before = self.layer.stats();
                let Stage::Running(pending) = &mut self.stages[request] else {
                    continue;
                };
                self.store.enter(request);
                let Poll::Ready(Ok(response)) = poll(pending) else {
                    continue;
                };
                still = 0;
                self.stages[request] = Stage::Responded;
                let finished = finished(request, &response, before, self.layer.stats());
                let is_expected = match finished.status {
                    200 => true,
                    500 => self.mix.ops[request].fails(),
                    status => status == 503 && self.mix.fault,
                };
                if !is_expected {
                    return Err(format!("request {request} failed: {}", response.body()));
                }
                self.responses.insert(request, finished.clone());
                seen.finished.push(finished);
            }
        }
        Ok(seen)
    }

    fn request(&self, op: Op) -> Pending {
        self.request_with(op, false)
    }

    fn request_with(&self, op: Op, with_user: bool) -> Pending {
        let mut request = Request::new(());
        for id in self.shadow.iter().chain(&self.jar) {
            let cookie = format!("__Host-session={id}")
                .parse()
                .expect("a header value");
            request.headers_mut().append(header::COOKIE, cookie);
        }
        let service = self
            .layer
            .layer(service_fn(move |request| handle(op, with_user, request)));
        Box::pin(service.oneshot(request))
    }
}

pub(super) async fn handle(
    op: Op,
    with_user: bool,
    request: Request<()>,
) -> Result<Response<String>, Infallible> {
    let handled = async {
        let session = LazySession::from_extensions(request.extensions())?
            .load()
            .await?;
        if with_user {
            session.set_user("zoe")?;
        }
        perform(op, &session)
    };
    Ok(match handled.await {
        Ok(body) => {
            let mut response = Response::new(body);
            if op.fails() {
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            }
            response
        }
        Err(error) => error.to_response(),
    })
}

/// Does the operation. The text is what a read finds.
pub(super) fn perform(op: Op, session: &Session) -> Result<String, SessionError> {
    match op {
        Op::Read => {
            let mut map = Map::new();
            for key in session.keys() {
                map.extend(session.get(&key)?.map(|value: u64| (key, value)));
            }
            return Ok(serde_json::to_string(&map).expect("numbers"));
        }
        Op::Insert(key, value) | Op::FailedInsert(key, value) => session.insert(key, value)?,
        Op::Update => drop(session.update("n", |n: Option<u64>| n.unwrap_or(0) + 1)?),
        Op::Remove(key) => drop(session.remove(key)),
        Op::Replace(key, value) => {
            session.clear();
            session.insert(key, value)?;
        }
        Op::Destroy | Op::FailedDestroy => session.destroy(),
        Op::LogIn(user) | Op::FailedLogIn(user) => {
            session.cycle_id();
            session.insert("user", user)?;
        }
        Op::Cycle => session.cycle_id(),
    }
    Ok(String::new())
}

/// The values of a stored session.
pub(super) fn numbers(record: &Record) -> Map {
    let value = |key| {
        let value = record.value(key).expect("there");
        serde_json::from_slice(&value).expect("a number")
    };
    let keys = record.keys();
    keys.map(|key| (key.to_owned(), value(key))).collect()
}

fn finished(request: usize, response: &Response<String>, before: Stats, after: Stats) -> Finished {
    Finished {
        request,
        status: response.status().as_u16(),
        cookie: set_cookie(response),
        stored: after.commits > before.commits,
        dropped: after.discarded > before.discarded,
        read: serde_json::from_str(response.body()).ok(),
    }
}

pub(super) fn set_cookie(response: &Response<String>) -> Option<SetCookie> {
    let line = response
        .headers()
        .get(header::SET_COOKIE)?
        .to_str()
        .expect("text");
    let value = line
        .split(';')
        .next()
        .and_then(|pair| pair.split_once('='))
        .expect("a pair")
        .1;
    Some(if value.is_empty() {
        SetCookie::Remove
    } else {
        SetCookie::Issue(value.to_owned())
    })
}

pub(super) fn poll(pending: &mut Pending) -> Poll<Result<Response<String>, Infallible>> {
    /// Nobody need be woken: everybody is polled after each event.
    struct Idle;
    impl Wake for Idle {
        fn wake(self: Arc<Self>) {}
    }
    let waker = Waker::from(Arc::new(Idle));
    pending.as_mut().poll(&mut Context::from_waker(&waker))
}
