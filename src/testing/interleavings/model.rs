//! What should be, by the documented rules alone.

use std::collections::BTreeMap;

use super::{
    Event, Map, Mix, Op, applied, is_cycle,
    world::{Finished, Seen, SetCookie, World},
};
use crate::testing::stepped::{Grant, Protocol};

/// What a request found as it loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Session,
    Tombstone,
    Nothing,
}

pub(super) struct Model {
    mix: Mix,
    first: String,
    live: BTreeMap<String, Map>,
    /// By id, with what a request that finds one may read.
    tombstones: BTreeMap<String, Map>,
    /// By request, once it loaded.
    found: BTreeMap<usize, (String, Found)>,
    /// By request, what a read finds.
    readable: BTreeMap<usize, Map>,
    sent_with: BTreeMap<usize, Option<String>>,
    expired: bool,
    crashed: bool,
    faulted: bool,
    logins: usize,
    /// Sessions that began because a request found nothing under its id.
    begun: usize,
    updates: u64,
    unsure_updates: u64,
    /// With several presented ids: a logout, and the login's id.
    logged_out: bool,
    logged_in: Option<String>,
}

impl Model {
    pub(super) fn new(mix: Mix, first: &str) -> Self {
        let base = Map::from([("base".to_owned(), 1)]);
        Self {
            mix,
            first: first.to_owned(),
            live: BTreeMap::from([(first.to_owned(), base)]),
            tombstones: BTreeMap::new(),
            found: BTreeMap::new(),
            readable: BTreeMap::new(),
            sent_with: (0..3)
                .map(|request| (request, Some(first.to_owned())))
                .collect(),
            expired: false,
            crashed: false,
            faulted: false,
            logins: 0,
            begun: 0,
            updates: 0,
            unsure_updates: 0,
            logged_out: false,
            logged_in: None,
        }
    }

    /// Takes note of one event, and checks what came of it.
    pub(super) fn follow(
        &mut self,
        event: Event,
        seen: &Seen,
        world: &World,
    ) -> Result<(), String> {
        if self.mix.shadow.is_some() {
            return self.follow_shadowed(seen);
        }
        match event {
            Event::Step(request, grant) => {
                self.faulted |= grant != Grant::Pass;
                // A request's first step is its load.
                let loads = grant != Grant::DropBefore && !self.found.contains_key(&request);
                if let Some(id) = self.sent_with[&request].clone().filter(|_| loads) {
                    let found = self.find(&id);
                    let readable = self.live.get(&id).or(self.tombstones.get(&id));
                    self.readable
                        .insert(request, readable.cloned().unwrap_or_default());
                    self.found.insert(request, (id, found));
                }
            }
            Event::Send(request) => {
                self.sent_with.insert(request, world.jar.clone());
            }
            Event::Deliver(_) => {}
            Event::Expire => {
                self.expired = true;
                self.live.remove(&self.first);
                self.tombstones.remove(&self.first);
            }
            Event::Crash(_) => self.crashed = true,
        }
        for finished in &seen.finished {
            self.finish(finished, world)?;
        }
        // Halfway through a rotation in two steps both keys are there.
        let whole_steps = !matches!(
            self.mix.protocol,
            Protocol::TwoStepRotation | Protocol::RetireBeforeCreate
        );
        let exact = whole_steps && !self.crashed && !self.faulted;
        if exact { self.compare(world) } else { Ok(()) }
    }

    pub(super) fn check_end(&self, world: &World) -> Result<(), String> {
        let (live, tombstones) = world.stored();
        if self.mix.shadow.is_some() {
            return self.check_end_shadowed(world, &live);
        }
        if self.crashed {
            // Under the old id or the new one, never neither.
            let kept = live.values().any(|map| map.contains_key("base"));
            let gone = self.mix.ops.contains(&Op::Destroy);
            return if kept || gone {
                Ok(())
            } else {
                Err("a crash lost the session".into())
            };
        }
        if self.faulted {
            return self.check_after_fault(world, &live);
        }
        self.compare(world)?;
        if let Some(id) = &world.jar {
            let expected = live.contains_key(id) || (self.expired && *id == self.first);
            if !expected {
                let what = if tombstones.contains(id) {
                    "a tombstone's id"
                } else {
                    "a dead id"
                };
                return Err(format!("the browser ends with {what}"));
            }
        }
        let unheld = live
            .keys()
            .filter(|id| Some(*id) != world.jar.as_ref())
            .count();
        let allowed = self.logins.saturating_sub(1)
            + self.begun
            + usize::from(world.jar.is_none() && self.logins > 0);
        if unheld > allowed {
            return Err(format!(
                "{unheld} live sessions that the browser does not hold, {allowed} allowed"
            ));
        }
        Ok(())
    }

    fn finish(&mut self, finished: &Finished, world: &World) -> Result<(), String> {
        let Finished {
            request,
            status,
            cookie,
            stored,
            dropped,
            read,
        } = finished;
        let op = match self.mix.ops[*request] {
            // A logout is done whatever the status.
            Op::FailedDestroy => Op::Destroy,
            op => op,
        };
        let fail = |what: &str| Err(format!("request {request} ({op:?}): {what}"));
        if op.fails() {
            return if cookie.is_some() || *stored || *dropped {
                fail("a failed request had an effect")
            } else {
                Ok(())
            };
        }
        let logged_out = self.mix.ops[*request] == Op::FailedDestroy;
        if *status != 200 && !logged_out {
            self.unsure_updates += u64::from(op == Op::Update);
            return if cookie.is_none() {
                Ok(())
            } else {
                fail("an error with a cookie")
            };
        }
        if *dropped && cookie.is_some() {
            return fail("a dropped save sent a cookie");
        }
        if matches!(op, Op::LogIn(_) | Op::Cycle) && *cookie == Some(SetCookie::Remove) {
            return fail("a login removed a cookie");
        }
        if *stored && op == Op::Update {
            self.updates += 1;
        }
        let (id, found) = self
            .found
            .get(request)
            .cloned()
            .unwrap_or((String::new(), Found::Nothing));
        if found == Found::Tombstone && !matches!(op, Op::LogIn(_)) && (cookie.is_some() || *stored)
        {
            return fail("a late request on a tombstone had an effect");
        }
        if self.faulted || self.crashed {
            return Ok(());
        }
        if op == Op::Read && self.mix.protocol != Protocol::RetireBeforeCreate {
            let expected = self.readable.get(request).cloned().unwrap_or_default();
            if read.as_ref() != Some(&expected) {
                return fail(&format!("read {read:?}, where {expected:?} should be"));
            }
        }
        let now = self.find(&id);
        match (found, op) {
            (_, Op::Read) => {}
            (Found::Session, Op::Destroy) => {
                if !stored {
                    return fail("a logout did nothing");
                }
                let expected = (now != Found::Tombstone).then_some(SetCookie::Remove);
                if *cookie != expected {
                    return fail("a logout's cookie");
                }
                self.live.remove(&id);
            }
            (Found::Session, _) if *dropped => {
                let alive = now == Found::Session || (now == Found::Tombstone && is_cycle(op));
                if alive {
                    return fail("dropped, though its session is there");
                }
            }
            (Found::Session, Op::LogIn(_) | Op::Cycle) => {
                let Some(SetCookie::Issue(new)) = cookie else {
                    return fail("a login without a cookie");
                };
                self.logins += 1;
                let map = match now {
                    Found::Session => {
                        let map = self.live.remove(&id).expect("found");
                        // What a user's session held is not readable by its former id.
                        let readable = match self.mix.with_user {
                            true => Map::new(),
                            false => map.clone(),
                        };
                        self.tombstones.insert(id.clone(), readable);
                        map
                    }
                    // Another login was first: this one goes on from what it had seen.
                    Found::Tombstone => {
                        let map = world.stored().0.remove(new).unwrap_or_default();
                        if !map.contains_key("base") {
                            return fail("a second login lost the data");
                        }
                        map
                    }
                    Found::Nothing => return fail("a login revived a session that had ended"),
                };
                self.live.insert(new.clone(), applied(map, op));
            }
            (Found::Session, _) => {
                let Some(map) = self.live.get_mut(&id) else {
                    return fail("saved into a session that had ended");
                };
                let next = applied(map.clone(), op);
                if *stored != (next != *map) {
                    return fail("saved without a change, or changed without a save");
                }
                *map = next;
                if map.is_empty() {
                    self.live.remove(&id);
                    if *cookie != Some(SetCookie::Remove) {
                        return fail("a session became empty and its cookie stayed");
                    }
                } else if cookie.is_some() {
                    return fail("a plain save sent a cookie");
                }
            }
            (Found::Tombstone | Found::Nothing, _) => {
                // A login with a rotated id takes along what it may still read.
                let readable = self
                    .tombstones
                    .get(&id)
                    .filter(|_| is_cycle(op) && op != Op::Cycle);
                let map = applied(readable.cloned().unwrap_or_default(), op);
                let begins = !map.is_empty() && (found == Found::Nothing || is_cycle(op));
                match cookie {
                    Some(SetCookie::Issue(new)) if begins => {
                        self.live.insert(new.clone(), map);
                        if is_cycle(op) {
                            self.logins += 1;
                        } else {
                            self.begun += 1;
                        }
                    }
                    None if !begins => {}
                    _ => return fail("found no session, and the wrong thing came of it"),
                }
            }
        }
        Ok(())
    }

    /// The store holds what it should, to the letter.
    fn compare(&self, world: &World) -> Result<(), String> {
        let (live, mut tombstones) = world.stored();
        let expected: Vec<String> = self.tombstones.keys().cloned().collect();
        tombstones.sort();
        if live != self.live || tombstones != expected {
            return Err(format!(
                "the store holds {live:?} and tombstones {tombstones:?}, where {:?} and {expected:?} should be",
                self.live
            ));
        }
        Ok(())
    }

    /// After a broken connection: nothing that was acknowledged is lost, and nothing counts twice.
    fn check_after_fault(&self, world: &World, live: &BTreeMap<String, Map>) -> Result<(), String> {
        let counted = live
            .values()
            .filter_map(|map| map.get("n"))
            .copied()
            .max()
            .unwrap_or(0);
        let only_updates = self
            .mix
            .ops
            .iter()
            .all(|op| matches!(op, Op::Update | Op::Read | Op::Insert(..)));
        if only_updates && !(self.updates..=self.updates + self.unsure_updates).contains(&counted) {
            return Err(format!(
                "{counted} counted, {} acknowledged, {} unsure",
                self.updates, self.unsure_updates
            ));
        }
        if let Some(id) = &world.jar {
            let lost = !live.contains_key(id) && self.logins > 0;
            if lost {
                return Err("the browser holds a dead id after a login".into());
            }
        }
        let revived = self.mix.ops.contains(&Op::Destroy)
            && !self.mix.ops.iter().any(|op| is_cycle(*op))
            && live.values().any(|map| map.contains_key("base"));
        if revived {
            Err("a session that was logged out is alive".into())
        } else {
            Ok(())
        }
    }

    /// Notes what became of a request that presented several ids.
    fn follow_shadowed(&mut self, seen: &Seen) -> Result<(), String> {
        for finished in &seen.finished {
            let op = self.mix.ops[finished.request];
            let issued = match &finished.cookie {
                Some(SetCookie::Issue(id)) => Some(id.clone()),
                Some(SetCookie::Remove) | None => None,
            };
            match op {
                Op::Destroy | Op::FailedDestroy => self.logged_out = true,
                Op::LogIn(_) if !finished.dropped => {
                    self.logged_in = Some(issued.ok_or("a login without a cookie")?);
                }
                Op::Insert(..) if issued.is_some() && self.mix.ops.contains(&Op::LogIn(42)) => {
                    return Err("a late request began a session beside a login".into());
                }
                _ if op.fails() && (finished.stored || finished.cookie.is_some()) => {
                    return Err("a failed request had an effect".into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A logout ends each presented session, and a login leaves a cookie that wins.
    fn check_end_shadowed(
        &self,
        world: &World,
        live: &BTreeMap<String, Map>,
    ) -> Result<(), String> {
        let presented: Vec<&String> = world.shadow.iter().chain(Some(&self.first)).collect();
        if self.logged_out || self.logged_in.is_some() {
            let left = presented.iter().filter(|id| live.contains_key(**id));
            let left = left.count();
            if left > 0 {
                return Err(format!("{left} presented sessions are left"));
            }
        }
        if let (Some(id), false) = (&self.logged_in, self.logged_out) {
            let user = live.get(id).and_then(|map| map.get("user"));
            if user.is_none() || world.jar.as_ref() != Some(id) {
                return Err("the login does not stick".into());
            }
        }
        Ok(())
    }

    fn find(&self, id: &str) -> Found {
        if self.live.contains_key(id) {
            Found::Session
        } else if self.tombstones.contains_key(id) {
            Found::Tombstone
        } else {
            Found::Nothing
        }
    }
}
