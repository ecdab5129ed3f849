//! Nodes with a local cache: a report of a change may be handled at any later step, and a connection may end at any step.
//!
//! What a node has been told is the newest version that a reply or a report has told it of; the newest of all, if nothing that was sent to it is
//! on its way. No later request of the node may get an older one, and none may be answered from what was read over an earlier connection.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering::SeqCst},
    task::Poll,
    time::Duration,
};

use http::{Request, header};
use tower::{Layer, ServiceExt, service_fn};

use super::{
    Map, Op,
    world::{Pending, SetCookie, handle, poll, set_cookie},
};
use crate::{
    LocalCache, RedisSessionLayer,
    cache::{Broken, Cache},
    record::{Decoded, Record},
    store::Store,
    testing::{
        link::{Link, Server},
        stepped::{Grant, Protocol, SteppedStore},
    },
};

/// Less than the age at which an entry is read again; a tenth of it is more than a busy machine pauses.
const LIFETIME: Duration = Duration::from_secs(50);

/// The node that is looked at. The other one may have a cache, too.
pub(super) const A: usize = 0;
pub(super) const B: usize = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// A request is sent.
    Send(usize),
    /// The server executes its next command.
    Execute(usize),
    /// It goes on with the reply.
    Resume(usize),
    /// A node's connection handles the next item that the server sent.
    Handle(usize),
    /// A's connection ends.
    Disconnect,
    /// The session expires.
    Expire,
}

#[derive(Clone, Copy)]
pub(super) struct Mix<'a> {
    /// Each with the node that gets it. All but the first may be sent late.
    pub(super) requests: &'a [(usize, Op)],
    /// A has the session in its cache at the start.
    pub(super) is_warm: bool,
    /// A tenth of the session's time has passed.
    pub(super) is_touch_due: bool,
    pub(super) b_has_cache: bool,
    pub(super) disconnects: bool,
    pub(super) expires: bool,
    pub(super) broken: Option<Broken>,
}

enum Stage {
    NotSent,
    Running {
        pending: Pending,
        /// What its node had been told when it was sent.
        told: usize,
    },
    Done,
}

struct World<'a> {
    mix: Mix<'a>,
    stores: [SteppedStore; 2],
    links: [Arc<Link>; 2],
    layers: [RedisSessionLayer; 2],
    stages: Vec<Stage>,
    id: String,
    skew: Arc<std::sync::atomic::AtomicU64>,
    was_disconnected: bool,
    has_expired: bool,
    stored: Vec<Op>,
}

impl<'a> World<'a> {
    fn new(mix: Mix<'a>) -> Self {
        let server = Server::new(2);
        let mut options = LocalCache::new()
            .max_bytes(64 * 1024)
            .max_staleness(LIFETIME / 2);
        options.test.broken = mix.broken;
        let skew = options.test.skew_secs.clone();
        let cache = |has: bool| has.then(|| Cache::new(options.clone()));
        let links = [
            Arc::new(Link::new(A, &server, cache(true))),
            Arc::new(Link::new(B, &server, cache(mix.b_has_cache))),
        ];
        let plain = SteppedStore::new(Protocol::OneStepRotation);
        let stores = links.clone().map(|link| plain.linked(link));
        let layers = stores.clone().map(|store| {
            RedisSessionLayer::with_store(Store::Stepped(store))
                .with_idle_timeout(LIFETIME)
                .with_rotation_grace(Duration::ZERO)
        });
        let mut world = Self {
            mix,
            stores,
            links,
            layers,
            stages: mix.requests.iter().map(|_| Stage::NotSent).collect(),
            id: String::new(),
            skew,
            was_disconnected: false,
            has_expired: false,
            stored: Vec::new(),
        };
        world.begin();
        world
    }

    /// The first request is sent at the start.
    fn start(&mut self) -> Result<(), String> {
        self.follow(Event::Send(0))
    }

    fn begin(&mut self) {
        let Poll::Ready(Ok(response)) = poll(&mut self.request(B, Op::Insert("base", 1))) else {
            panic!("the first request is not stopped by anything");
        };
        let Some(SetCookie::Issue(id)) = set_cookie(&response) else {
            panic!("the first request begins a session");
        };
        let key = format!("session:{id}");
        self.id = id;
        let (_, value) = self.stores[A].memory().dump().remove(0);
        {
            let mut server = self.links[A].server();
            server.versions = vec![Some(value.clone())];
            server.key.clone_from(&key);
        }
        if self.mix.is_warm {
            assert!(poll(&mut self.request(A, Op::Read)).is_ready());
        }
        if self.mix.is_touch_due {
            let left = LIFETIME / 2;
            self.stores[A].memory().overwrite(&key, &value, left);
        }
        self.links[A].server().is_open = false;
        self.stores[A].close_gate();
    }

    fn request(&self, node: usize, op: Op) -> Pending {
        let mut request = Request::new(());
        if !self.id.is_empty() {
            let cookie = format!("__Host-session={}", self.id);
            let cookie = cookie.parse().expect("a header value");
            request.headers_mut().insert(header::COOKIE, cookie);
        }
        let service =
            self.layers[node].layer(service_fn(move |request| handle(op, false, request)));
        Box::pin(service.oneshot(request))
    }

    fn options(&self) -> Vec<Event> {
        let mut options = Vec::new();
        for (request, stage) in self.stages.iter().enumerate() {
            let node = self.mix.requests[request].0;
            match stage {
                Stage::NotSent => options.push(Event::Send(request)),
                Stage::Running { .. } if self.stores[node].is_waiting(request) => {
                    options.push(Event::Execute(request));
                }
                Stage::Running { .. } if self.links[node].awaits_reply(request) => {
                    options.push(Event::Resume(request));
                }
                Stage::Running { .. } | Stage::Done => {}
            }
        }
        if options.is_empty() {
            return options;
        }
        for (node, link) in self.links.iter().enumerate() {
            // What was handled of the replies matters where the connection ends.
            if link.has_report() || self.mix.disconnects && link.has_sent() {
                options.push(Event::Handle(node));
            }
        }
        if self.mix.disconnects && !self.was_disconnected {
            options.push(Event::Disconnect);
        }
        if self.mix.expires && !self.has_expired {
            options.push(Event::Expire);
        }
        options
    }

    fn follow(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Send(request) => {
                let (node, op) = self.mix.requests[request];
                let told = self.links[node].told();
                let pending = self.request(node, op);
                self.stages[request] = Stage::Running { pending, told };
            }
            Event::Execute(request) => {
                let node = self.mix.requests[request].0;
                self.stores[node].grant(request, Grant::Pass);
            }
            Event::Resume(request) => self.links[self.mix.requests[request].0].resume(request),
            Event::Handle(node) if self.mix.disconnects => self.links[node].handle_next(),
            Event::Handle(node) => self.links[node].handle_report(),
            Event::Disconnect => {
                self.was_disconnected = true;
                self.links[A].disconnect();
            }
            Event::Expire => {
                self.has_expired = true;
                let key = format!("session:{}", self.id);
                self.stores[A].memory().erase(&key);
                self.skew.fetch_add(LIFETIME.as_secs(), SeqCst);
                let mut server = self.links[A].server();
                server.expire();
                drop(server);
                // The nodes' clocks tell them.
                self.links.iter().for_each(|link| link.confirm());
                let mut server = self.links[A].server();
                let version = server.versions.len() - 1;
                for node in &mut server.nodes {
                    node.told = version;
                }
            }
        }
        self.poll_all(event)
    }

    fn poll_all(&mut self, event: Event) -> Result<(), String> {
        // A joined read goes on with the request that began it.
        let mut still = 0;
        while still < 2 {
            still += 1;
            for request in 0..self.stages.len() {
                let Stage::Running { pending, told } = &mut self.stages[request] else {
                    continue;
                };
                let told = *told;
                let (node, op) = self.mix.requests[request];
                self.stores[node].enter(request);
                let before = self.layers[node].stats().commits;
                let Poll::Ready(Ok(response)) = poll(pending) else {
                    continue;
                };
                still = 0;
                self.stages[request] = Stage::Done;
                let status = response.status().as_u16();
                if status == 503 && self.mix.disconnects {
                    continue;
                }
                if status != 200 {
                    return Err(format!("request {request} failed: {}", response.body()));
                }
                if op == Op::Read {
                    let read: Map = serde_json::from_str(response.body()).expect("a map");
                    let is_hit = event == Event::Send(request);
                    self.check_read(node, told, &read, is_hit)?;
                } else if self.layers[node].stats().commits > before {
                    self.stored.push(op);
                }
            }
        }
        Ok(())
    }

    fn check_read(&self, node: usize, told: usize, read: &Map, is_hit: bool) -> Result<(), String> {
        let server = self.links[node].server();
        let mut newer = server.versions[told..].iter();
        if !newer.any(|version| map_of(version.as_ref()) == *read) {
            return Err(format!(
                "node {node} was told of version {told} and read {read:?} of {}",
                server.versions.len()
            ));
        }
        if is_hit && !server.nodes[node].has_read {
            return Err("served past an ended connection".into());
        }
        Ok(())
    }

    /// No acknowledged change is lost.
    fn check_end(&self) -> Result<(), String> {
        let server = self.links[A].server();
        let last = map_of(server.versions.last().expect("one").as_ref());
        let has = |op: Op| self.stored.contains(&op);
        if has(Op::Destroy) || has(Op::Cycle) || self.has_expired {
            return match last.is_empty() {
                true => Ok(()),
                false => Err("an ended session is alive".into()),
            };
        }
        let updates = self.stored.iter().filter(|op| **op == Op::Update).count() as u64;
        let counted = last.get("n").copied().unwrap_or(0);
        if counted != updates && !self.was_disconnected {
            return Err(format!("{updates} updates, and {counted} are stored"));
        }
        let inserts: BTreeSet<_> = self
            .stored
            .iter()
            .filter_map(|op| match op {
                Op::Insert(key, value) => Some(((*key).to_owned(), *value)),
                _ => None,
            })
            .collect();
        for (key, value) in inserts {
            if last.get(&key) != Some(&value) {
                return Err(format!("the insert of {key} is lost"));
            }
        }
        Ok(())
    }
}

fn map_of(version: Option<&bytes::Bytes>) -> Map {
    let Some(Ok(Decoded::Session(record))) = version.map(Record::decode) else {
        return Map::new();
    };
    let value = |key: &str| {
        let value = record.value(key).expect("there");
        serde_json::from_slice(&value).expect("a number")
    };
    let keys = record.keys();
    keys.map(|key| (key.to_owned(), value(key))).collect()
}

pub(super) fn explore(mix: Mix<'_>) -> Result<usize, String> {
    super::explore_with(|choose| {
        let mut world = World::new(mix);
        let mut events = Vec::new();
        world.start()?;
        loop {
            let options = world.options();
            if options.is_empty() {
                break;
            }
            let event = options[choose(options.len())];
            events.push(event);
            let followed = world.follow(event);
            followed.map_err(|violation| format!("{violation}\n{:?}\n{events:?}", mix.requests))?;
        }
        let ended = world.check_end();
        ended.map_err(|violation| format!("{violation}\n{:?}\n{events:?}", mix.requests))
    })
}

pub(super) fn mix<'a>(requests: &'a [(usize, Op)]) -> Mix<'a> {
    Mix {
        requests,
        is_warm: false,
        is_touch_due: false,
        b_has_cache: false,
        disconnects: false,
        expires: false,
        broken: None,
    }
}
