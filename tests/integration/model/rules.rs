//! What each operation must do, on a plain map.

use std::collections::BTreeMap;

use super::{KEYS, Op};

/// A session as the model sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    pub map: BTreeMap<String, u64>,
    pub permanent: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    New,
    Persisted(String),
    Rotated,
    Gone,
}

pub struct View {
    pub status: Status,
    pub base: Contents,
    pub done: Vec<Op>,
    pub cycle: bool,
    pub cookie: Option<Cookie>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Cookie {
    /// The id, if it is known before the response, and whether there is a Max-Age.
    Issue(Option<String>, bool),
    Remove,
}

#[derive(Default)]
pub struct Model {
    pub live: BTreeMap<String, Contents>,
    pub tombstones: Vec<String>,
    pub jars: [Option<String>; 2],
}

impl Model {
    pub fn view(&self, jar: Option<&String>) -> View {
        let (status, base) = match jar {
            Some(id) if self.live.contains_key(id) => {
                (Status::Persisted(id.clone()), self.live[id].clone())
            }
            Some(id) if self.tombstones.contains(id) => (Status::Rotated, Contents::default()),
            _ => (Status::New, Contents::default()),
        };
        View {
            status,
            base,
            done: Vec::new(),
            cycle: false,
            cookie: None,
        }
    }

    /// One operation of a handler. On `Err` the handler gets an error and returns.
    pub fn operate(&mut self, view: &mut View, op: &Op) -> Result<(), ()> {
        let seen = view.seen();
        match op {
            Op::Remove(key) if !seen.map.contains_key(KEYS[*key]) => {}
            Op::SetPermanent(permanent) if seen.permanent == *permanent => {}
            Op::Insert(..) | Op::Increment(_) | Op::Remove(_) | Op::Clear | Op::SetPermanent(_) => {
                view.done.push(op.clone());
            }
            Op::CycleId => view.cycle = true,
            Op::Destroy => {
                view.done.clear();
                view.cycle = false;
                view.cookie = None;
                view.base = Contents::default();
                if let Status::Persisted(id) = &view.status {
                    // Done at the next commit.
                    view.done.push(Op::Destroy);
                    view.status = Status::Persisted(id.clone());
                }
            }
            Op::Save => return self.commit(view),
        }
        Ok(())
    }

    /// `Err` if the session has ended.
    pub fn commit(&mut self, view: &mut View) -> Result<(), ()> {
        if view
            .done
            .first()
            .is_some_and(|op| matches!(op, Op::Destroy))
        {
            view.done.remove(0);
            let Status::Persisted(id) = view.status.clone() else {
                unreachable!("only a stored session is destroyed")
            };
            view.status = if self.tombstones.contains(&id) {
                Status::Rotated
            } else {
                self.live.remove(&id);
                view.cookie = Some(Cookie::Remove);
                Status::New
            };
        }
        if view.status == Status::Rotated && view.cycle {
            view.status = Status::New;
        }
        let changed = view.seen() != view.base;
        match view.status.clone() {
            Status::New => self.create(view),
            Status::Persisted(_) if !changed && !view.cycle => view.done.clear(),
            Status::Persisted(id) => match self.live.get(&id).cloned() {
                Some(current) => {
                    view.base = current.clone();
                    let next = view.seen();
                    if next.map.is_empty() {
                        self.live.remove(&id);
                        view.apply(Status::New, Contents::default(), Some(Cookie::Remove));
                    } else if view.cycle {
                        self.live.remove(&id);
                        self.tombstones.push(id);
                        self.create(view);
                    } else {
                        let cookie = (next.permanent != current.permanent)
                            .then_some(Cookie::Issue(Some(id.clone()), next.permanent));
                        self.live.insert(id.clone(), next.clone());
                        let cookie = cookie.or(view.cookie.take());
                        view.apply(Status::Persisted(id), next, cookie);
                    }
                }
                None if self.tombstones.contains(&id) && view.cycle => {
                    view.status = Status::New;
                    self.create(view);
                }
                None => {
                    let status = if self.tombstones.contains(&id) {
                        Status::Rotated
                    } else {
                        Status::Gone
                    };
                    view.apply(status, Contents::default(), None);
                    return Err(());
                }
            },
            status @ (Status::Rotated | Status::Gone) => {
                let lost = !view.done.is_empty() || view.cycle;
                view.apply(status, Contents::default(), None);
                return if lost { Err(()) } else { Ok(()) };
            }
        }
        Ok(())
    }

    /// A new id is called `new` until the response tells it.
    fn create(&mut self, view: &mut View) {
        let next = view.seen();
        if next.map.is_empty() {
            return;
        }
        self.live.insert("new".to_owned(), next.clone());
        let permanent = next.permanent;
        view.apply(
            Status::Persisted("new".to_owned()),
            next,
            Some(Cookie::Issue(None, permanent)),
        );
    }
}

impl View {
    fn seen(&self) -> Contents {
        let mut seen = self.base.clone();
        for op in &self.done {
            match op {
                Op::Insert(key, value) => drop(seen.map.insert(KEYS[*key].to_owned(), *value)),
                Op::Increment(key) => *seen.map.entry(KEYS[*key].to_owned()).or_default() += 1,
                Op::Remove(key) => drop(seen.map.remove(KEYS[*key])),
                Op::Clear => seen.map.clear(),
                Op::SetPermanent(permanent) => seen.permanent = *permanent,
                Op::Destroy | Op::CycleId | Op::Save => {}
            }
        }
        seen
    }

    fn apply(&mut self, status: Status, base: Contents, cookie: Option<Cookie>) {
        *self = Self {
            status,
            base,
            done: Vec::new(),
            cycle: false,
            cookie,
        };
    }
}
