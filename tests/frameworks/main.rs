//! Sessions of the real frameworks, behind one address with an app of this crate, for one browser.
//!
//! `tests/run.sh frameworks` installs Flask, Django and Express in `target/frameworks`; `apps/` has an app of each.

#![cfg(all(feature = "axum", feature = "migration"))]
// A test binary has no API.
#![allow(unreachable_pub)]

mod live;
mod model;
mod moving;
mod ours;
mod process;
mod site;
mod strangler;
#[path = "../support/mod.rs"]
mod support;
