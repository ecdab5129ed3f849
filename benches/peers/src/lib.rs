//! Shared parts of the benchmarks: the apps, a private Redis server, and an HTTP client.
//!
//! Every app is a separate binary, so its memory can be measured alone. Apps run on Tokio's multi-threaded runtime, as with
//! `#[tokio::main]`; `RUNTIME=current_thread` in the environment of a benchmark runs them on one thread. All apps have the same routes:
//!
//! | route | |
//! |---|---|
//! | `/bare` | outside the session layer |
//! | `/untouched` | inside the session layer; does not use the session |
//! | `/read` | returns the number stored under `n`, or 0 |
//! | `/write` | increments `n` |
//! | `/login` | changes the session id and stores a user id |
//! | `/seed/{shape}/{size}` | creates a session of about `size` bytes (see [`Shape`]) |

pub mod apps;
pub mod callgrind;
pub mod client;
pub mod cluster;
pub mod load;
pub mod measure;
pub mod process;
pub mod redis_info;
pub mod report;
pub mod results;
pub mod scenario;

use std::{env, fmt};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The session cookie's name in every app.
pub const COOKIE: &str = "__Host-session";

/// The environment variable that selects the runtime of the apps, and the value for one thread.
pub const RUNTIME: &str = "RUNTIME";
pub const CURRENT_THREAD: &str = "current_thread";

/// What a session holds beside the counter `n`.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Many short strings, each under its own key. Expensive to parse.
    Fields,
    /// A user id, three roles and one long string. Cheap to parse.
    Text,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fields => "fields",
            Self::Text => "text",
        })
    }
}

/// A number from the environment.
pub fn setting(name: &str, default: u64) -> u64 {
    env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// The contents of a session of about `size` bytes.
pub fn contents(shape: Shape, size: usize) -> Vec<(String, Value)> {
    let mut contents = vec![("n".to_owned(), json!(1))];
    match shape {
        Shape::Fields => {
            contents.extend(fields(size).map(|(key, value)| (key, value.into())));
        }
        Shape::Text => {
            // The other keys, and the metadata of this crate's sessions.
            let rest = 140;
            contents.extend([
                ("user".to_owned(), json!(41)),
                ("roles".to_owned(), json!(["reader", "editor", "admin"])),
                (
                    "text".to_owned(),
                    "x".repeat(size.saturating_sub(rest)).into(),
                ),
            ]);
        }
    }
    contents
}

/// Short fields, as in most sessions; longer ones in large sessions.
pub fn fields(size: usize) -> impl Iterator<Item = (String, String)> {
    let length = if size > 1000 { 90 } else { 20 };
    // What JSON adds to a field; the metadata of this crate's sessions, and `n`.
    let (field, rest) = (length + 16, 70);
    (0..size.saturating_sub(rest) / field)
        .map(move |number| (format!("field-{number:04}"), "x".repeat(length)))
}
