//! What the benchmarks stand on: the apps, a private Redis, and a client.
//!
//! Every app is a binary of its own, so that its memory is its own, and runs on one thread. All have the same routes:
//!
//! | route | |
//! |---|---|
//! | `/bare` | no session layer above it |
//! | `/untouched` | below the layer, and does not look at the session |
//! | `/read` | answers with the number under `n`, or 0 |
//! | `/write` | counts `n` up |
//! | `/login` | gives the session a new id and puts a user into it |
//! | `/seed/{size}` | begins a session of about so many bytes |

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

use std::env;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The cookie's name, in every app.
pub const COOKIE: &str = "__Host-session";

/// A number from the environment.
pub fn setting(name: &str, default: u64) -> u64 {
    env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// What is in a session of about `size` bytes beside `n`: short fields, as in most sessions; longer ones in large sessions.
pub fn fields(size: usize) -> impl Iterator<Item = (String, String)> {
    let length = if size > 1000 { 90 } else { 20 };
    // What JSON adds to a field, and what a session of this crate has beside its fields.
    let (field, beside) = (length + 16, 70);
    (0..size.saturating_sub(beside) / field)
        .map(move |number| (format!("field-{number:04}"), "x".repeat(length)))
}
