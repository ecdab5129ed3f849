//! What a server with client tracking sends to the nodes, for the interleavings. A node's replies and the reports of changes are one stream;
//! the node's connection handles it item by item, and a request goes on some time after its reply was handled.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;

use super::stepped::{Access, SteppedStore};
use crate::{
    cache::{Broken, Cache, Ticket, Tracking},
    store::{Created, Fault, MemoryStore, Outcome, Rotation},
};

/// One node's connection.
pub(crate) struct Link {
    node: usize,
    pub(super) server: Arc<Mutex<Server>>,
    /// `None`: a node without a cache, whose replies come at once.
    pub(super) cache: Option<Arc<Cache>>,
    tracking: Mutex<Option<Arc<Tracking>>>,
}

pub(crate) struct Server {
    /// Every request passes, to set the stage.
    pub(super) is_open: bool,
    /// The key whose versions are recorded, and these.
    pub(super) key: String,
    pub(super) versions: Vec<Option<Bytes>>,
    pub(super) nodes: Vec<NodeSide>,
}

#[derive(Default)]
pub(crate) struct NodeSide {
    tracked: BTreeSet<String>,
    stream: VecDeque<Sent>,
    /// By request.
    replies: BTreeMap<usize, Reply>,
    /// The newest version that the node has heard of.
    pub(super) told: usize,
    /// It has heard of the key over the present connection.
    pub(super) has_read: bool,
}

enum Sent {
    Report { key: String, version: usize },
    Reply(usize),
}

struct Reply {
    version: usize,
    stage: Stage,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Sent,
    /// By the connection; the request does not know it yet.
    Handled,
    Resumed,
    Lost,
}

impl Server {
    pub(super) fn new(nodes: usize) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            is_open: true,
            key: String::new(),
            versions: Vec::new(),
            nodes: (0..nodes).map(|_| NodeSide::default()).collect(),
        }))
    }

    fn version(&self) -> usize {
        self.versions.len().saturating_sub(1)
    }

    /// Reports a change of `key` to the nodes that track it. The node that made it is not told, and does not track it any more.
    fn report(&mut self, by: Option<usize>, key: &str) {
        let version = self.version();
        for (number, node) in self.nodes.iter_mut().enumerate() {
            if node.tracked.remove(key) && by != Some(number) {
                let key = key.to_owned();
                node.stream.push_back(Sent::Report { key, version });
            }
        }
    }

    pub(super) fn expire(&mut self) {
        self.versions.push(None);
        let key = self.key.clone();
        self.report(None, &key);
    }
}

impl Link {
    pub(super) fn new(node: usize, server: &Arc<Mutex<Server>>, cache: Option<Cache>) -> Self {
        let link = Self {
            node,
            server: server.clone(),
            cache: cache.map(Arc::new),
            tracking: Mutex::default(),
        };
        link.connect();
        link
    }

    fn connect(&self) {
        if let Some(cache) = &self.cache {
            let tracking = cache.tracking();
            tracking.begin(std::time::Instant::now());
            *self.tracking.lock().expect("no panic") = Some(tracking);
        }
    }

    /// The connection shows a sign of life.
    pub(super) fn confirm(&self) {
        if let (Some(cache), Some(tracking)) =
            (&self.cache, &*self.tracking.lock().expect("no panic"))
        {
            tracking.confirm(cache.now());
        }
    }

    /// The connection ends, and another one begins.
    pub(super) fn disconnect(&self) {
        {
            let mut server = self.server();
            let node = &mut server.nodes[self.node];
            node.tracked.clear();
            node.stream.clear();
            node.has_read = false;
            for reply in node.replies.values_mut() {
                if reply.stage == Stage::Sent {
                    reply.stage = Stage::Lost;
                }
            }
        }
        let cache = self.cache.as_ref().expect("a node with a cache");
        if !cache.options().test.is_broken(Broken::KeepAtDisconnect) {
            let ended = self.tracking.lock().expect("no panic").take();
            ended.expect("connected").end();
            self.connect();
        }
    }

    /// What the node has been told. If nothing is on its way, a sign of life would prove that it has been told everything. A request that has not
    /// gone on yet has not acknowledged its write.
    pub(super) fn told(&self) -> usize {
        let server = self.server();
        let node = &server.nodes[self.node];
        match node.stream.is_empty() && node.replies.is_empty() {
            true => server.version(),
            false => node.told,
        }
    }

    /// Whether a report is on its way.
    pub(super) fn has_report(&self) -> bool {
        let server = self.server();
        let mut stream = server.nodes[self.node].stream.iter();
        stream.any(|sent| matches!(sent, Sent::Report { .. }))
    }

    pub(super) fn has_sent(&self) -> bool {
        !self.server().nodes[self.node].stream.is_empty()
    }

    /// The connection handles all up to the next report.
    pub(super) fn handle_report(&self) {
        let is_reply = |sent: &Sent| matches!(sent, Sent::Reply(_));
        while self.server().nodes[self.node]
            .stream
            .front()
            .is_some_and(is_reply)
        {
            self.handle_next();
        }
        self.handle_next();
    }

    /// The connection handles the next item of the stream.
    pub(super) fn handle_next(&self) {
        let mut server = self.server();
        let node = &mut server.nodes[self.node];
        match node.stream.pop_front() {
            Some(Sent::Report { key, version }) => {
                let cache = self.cache.as_ref().expect("a node with a cache");
                cache.invalidate_reported(&key);
                node.told = node.told.max(version);
            }
            Some(Sent::Reply(request)) => {
                let reply = node.replies.get_mut(&request).expect("sent");
                reply.stage = Stage::Handled;
            }
            None => {}
        }
    }

    pub(super) fn awaits_reply(&self, request: usize) -> bool {
        let server = self.server();
        let reply = server.nodes[self.node].replies.get(&request);
        reply.is_some_and(|reply| reply.stage != Stage::Resumed)
    }

    /// The request goes on, once its reply is handled.
    pub(super) fn resume(&self, request: usize) {
        while self.server().nodes[self.node].replies[&request].stage == Stage::Sent {
            self.handle_next();
        }
        let mut server = self.server();
        let node = &mut server.nodes[self.node];
        let reply = node.replies.get_mut(&request).expect("sent");
        if reply.stage == Stage::Handled {
            reply.stage = Stage::Resumed;
            node.told = node.told.max(reply.version);
        }
    }

    /// The result of `work` once the reply is there; `None` if the connection broke before.
    pub(super) async fn execute<T>(
        &self,
        request: usize,
        memory: &MemoryStore,
        access: Access<'_>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let before: BTreeMap<_, _> = memory.dump().into_iter().collect();
        let result = work.await;
        let after: BTreeMap<_, _> = memory.dump().into_iter().collect();
        if self.note(request, access, &before, &after) {
            return Some(result);
        }
        let is_lost = poll_fn(|_| {
            let mut server = self.server();
            let replies = &mut server.nodes[self.node].replies;
            let stage = &replies[&request].stage;
            let is_lost = *stage == Stage::Lost;
            if is_lost || *stage == Stage::Resumed {
                replies.remove(&request);
                return Poll::Ready(is_lost);
            }
            Poll::Pending
        });
        (!is_lost.await).then_some(result)
    }

    /// What the server does after a command. Returns whether the reply comes at once.
    fn note(
        &self,
        request: usize,
        access: Access<'_>,
        before: &BTreeMap<String, Bytes>,
        after: &BTreeMap<String, Bytes>,
    ) -> bool {
        let mut server = self.server();
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for key in keys {
            let is_touched = matches!(access, Access::Touch(touched) | Access::TouchAndRead(touched) if touched == key);
            let is_changed = before.get(key) != after.get(key);
            if is_changed && *key == server.key {
                server.versions.push(after.get(key).cloned());
            }
            if is_changed || is_touched && after.contains_key(key) {
                server.report(Some(self.node), key);
            }
        }
        let Some(cache) = &self.cache else {
            return true;
        };
        let version = server.version();
        let (key, is_open) = (server.key.clone(), server.is_open);
        let node = &mut server.nodes[self.node];
        let is_untracked = cache.options().test.is_broken(Broken::UntrackedWrite);
        match access {
            Access::WriteAndRead(_) if is_untracked => {}
            Access::Read(read) | Access::TouchAndRead(read) | Access::WriteAndRead(read) => {
                node.tracked.insert(read.to_owned());
                node.has_read |= read == key;
            }
            Access::Touch(_) | Access::Write => {}
        }
        if !is_open {
            let stage = Stage::Sent;
            node.replies.insert(request, Reply { version, stage });
            node.stream.push_back(Sent::Reply(request));
        }
        is_open
    }

    pub(super) fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().expect("no panic")
    }
}

/// What the cache asks of a store.
impl SteppedStore {
    pub(crate) fn cache(&self) -> Option<&Arc<Cache>> {
        self.link()?.cache.as_ref()
    }

    pub(crate) fn ticket(&self, key: &str) -> Option<Ticket> {
        let link = self.link()?;
        let tracking = || link.tracking.lock().expect("no panic").clone();
        link.cache.as_ref()?.ticket(key, tracking)
    }

    pub(crate) async fn fetch(
        &self,
        key: &str,
    ) -> Result<Option<(Bytes, Option<Duration>)>, Fault> {
        let fetch = async {
            let found = self.memory().peek(key).await?;
            Ok(found.map(|(value, ttl)| (value, Some(ttl))))
        };
        self.scheduled(Access::Read(key), fetch).await
    }

    pub(crate) async fn touch_and_fetch(
        &self,
        key: &str,
        lifetime: Duration,
    ) -> Result<Option<Bytes>, Fault> {
        let touch = self.memory().load(key, lifetime);
        self.scheduled(Access::TouchAndRead(key), touch).await
    }

    pub(crate) async fn create_tracked(
        &self,
        key: &str,
        value: &Bytes,
        lifetime: Duration,
    ) -> Result<(Created, bool), Fault> {
        let create = self.memory().create(key, value, lifetime);
        let created = self.scheduled(Access::WriteAndRead(key), create).await?;
        let is_stored = created == Created::Created;
        Ok((created, is_stored))
    }

    pub(crate) async fn save_tracked(
        &self,
        key: &str,
        expected: &[u8],
        value: &Bytes,
        lifetime: Duration,
    ) -> Result<(Outcome, bool), Fault> {
        let save = self.memory().save(key, expected, value, lifetime);
        let outcome = self.scheduled(Access::WriteAndRead(key), save).await?;
        let is_stored = outcome == Outcome::Saved;
        Ok((outcome, is_stored))
    }

    pub(crate) async fn rotate_tracked(
        &self,
        rotation: &Rotation<'_>,
    ) -> Result<(Outcome, bool), Fault> {
        let rotate = self.memory().rotate(rotation);
        let access = Access::WriteAndRead(rotation.to);
        let outcome = self.scheduled(access, rotate).await?;
        let is_stored = outcome == Outcome::Saved;
        Ok((outcome, is_stored))
    }
}
