//! What a session must hold after random steps.

use std::{collections::BTreeMap, fmt::Debug};

use serde_json::{Map, Value, json};

use crate::{
    process::Framework,
    site::{Side, Visitor},
};

const KEYS: [&str; 5] = ["cart", "theme", "Größe", "n", "visits"];
const USERS: [&str; 3] = ["1", "7", "42"];

/// A session, as its user sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub keys: Map<String, Value>,
    pub user: Option<String>,
}

#[derive(Clone, Debug)]
pub enum Step {
    Set(&'static str, Value),
    Remove(&'static str),
    LogIn(&'static str),
    LogOut,
    SetPermanent(bool),
    Read,
    /// A new id of ours.
    Cycle,
    Expire,
}

/// The steps of a test, which prints the seed when it begins.
pub struct Steps {
    state: u64,
    has_large_integers: bool,
}

impl Steps {
    /// `FRAMEWORKS_SEED` repeats a run.
    pub fn new(framework: Framework) -> Self {
        let given = std::env::var("FRAMEWORKS_SEED").ok();
        let seed = match given {
            Some(seed) => seed.parse().expect("a number"),
            None => std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0),
        };
        println!("{framework:?}: FRAMEWORKS_SEED={seed} repeats these steps");
        Self {
            state: seed,
            has_large_integers: framework.has_large_integers(),
        }
    }

    /// splitmix64.
    pub fn random(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }

    pub fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.random(items.len() as u64) as usize]
    }

    pub fn step(&mut self) -> Step {
        match self.random(20) {
            0..8 => Step::Set(self.one_of(&KEYS), self.value(2)),
            8..12 => Step::Remove(self.one_of(&KEYS)),
            12..14 => Step::LogIn(self.one_of(&USERS)),
            14 => Step::LogOut,
            15..17 => Step::SetPermanent(self.random(2) == 0),
            _ => Step::Read,
        }
    }

    /// Also those that only a shared session has.
    pub fn live_step(&mut self) -> (Side, Step) {
        let side = self.one_of(&[Side::Ours, Side::Theirs]);
        match self.random(12) {
            0 => (Side::Ours, Step::Cycle),
            1 if self.random(4) == 0 => (side, Step::Expire),
            _ => (side, self.step()),
        }
    }

    /// Of all JSON types, nested at most so deep.
    pub fn value(&mut self, depth: u32) -> Value {
        let kinds = if depth == 0 { 9 } else { 12 };
        match self.random(kinds) {
            0 => Value::Null,
            1 => json!(self.random(2) == 0),
            2 => json!(self.random(1000)),
            3 => json!(-(self.random(1 << 40) as i64)),
            // Never a whole number, which JavaScript writes as an integer.
            4 => json!(self.random(1 << 30) as f64 + 0.1),
            5 if self.has_large_integers => json!(u64::MAX - self.random(1000)),
            5 => json!((1_u64 << 53) - self.random(1000)),
            6 => json!("Zoë \u{1f980} \"/\\\n"),
            7 => json!(""),
            8 => json!("x".repeat(self.random(300) as usize)),
            9 => (0..self.random(4)).map(|_| self.value(depth - 1)).collect(),
            _ => {
                let keys = ["id", "ß", "", "a/b"];
                let count = self.random(4) as usize;
                let pairs = keys[..count].iter();
                let pairs: BTreeMap<_, _> = pairs
                    .map(|key| (key.to_string(), self.value(depth - 1)))
                    .collect();
                json!(pairs)
            }
        }
    }
}

impl Model {
    /// Takes the step on one side, and compares what that side shows.
    pub async fn take(
        &mut self,
        step: Step,
        side: Side,
        visitor: &Visitor<'_>,
        framework: Framework,
    ) {
        self.take_unseen(&step, side, visitor, framework).await;
        self.compare(side, visitor, &step).await;
    }

    pub async fn take_unseen(
        &mut self,
        step: &Step,
        side: Side,
        visitor: &Visitor<'_>,
        framework: Framework,
    ) {
        match step {
            Step::Set(key, value) => {
                visitor.set(side, key, value).await;
                self.keys.insert((*key).to_owned(), value.clone());
            }
            Step::Remove(key) => {
                visitor.remove(side, key).await;
                self.keys.remove(*key);
            }
            Step::LogIn(user) => {
                visitor.log_in(side, user).await;
                let is_another = self.user.as_deref().is_some_and(|before| before != *user);
                let clears = framework.login_ends_the_session_of_another();
                if side == Side::Theirs && is_another && clears {
                    self.keys.clear();
                }
                self.user = Some((*user).to_owned());
            }
            Step::LogOut => {
                visitor.log_out(side).await;
                *self = Self::default();
            }
            Step::SetPermanent(is_permanent) => visitor.set_permanent(side, *is_permanent).await,
            Step::Read => {}
            Step::Cycle => drop(visitor.post(side, "/cycle").await),
            Step::Expire => {
                visitor.site.expire().await;
                *self = Self::default();
            }
        }
    }

    pub async fn compare(&self, side: Side, visitor: &Visitor<'_>, after: &dyn Debug) {
        let seen = Self {
            keys: visitor.keys(side).await,
            user: visitor.user(side).await,
        };
        assert_eq!(seen, *self, "{side:?}, after {after:?}");
    }
}
