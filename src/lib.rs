// The charts as data, since a page of rustdoc has no files beside it.
#![doc = include_str!("docs/charts/links.md")]
#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod clock;
mod commit;
mod config;
mod context;
mod cookie;
mod error;
mod expiry;
#[cfg(feature = "axum")]
mod extract;
mod id;
mod layer;
mod random;
mod record;
mod response;
mod service;
mod session;
mod signing;
mod stats;
mod store;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod testing;
mod users;

/// The client, so that an app need not match its version.
pub use redis;

pub use crate::{
    config::{SameSite, SessionLimit},
    error::{ConfigError, ErrorKind, SessionError},
    id::SessionId,
    layer::{RedisSessionLayer, Timeouts},
    service::{ResponseFuture, SessionService},
    session::{Session, lazy::LazySession},
    stats::CommitStats,
    users::{ParseSessionHandleError, SessionHandle, UserSession, UserSessions, Users},
};

/// Longer texts: how it works, and what changed. Their code is compiled with the crate.
pub mod docs {
    #[doc = include_str!("docs/design.md")]
    pub mod design {}

    #[doc = include_str!("docs/reliability.md")]
    pub mod reliability {}
    #[doc = include_str!("docs/security.md")]
    pub mod security {}
    #[doc = include_str!("docs/charts/links.md")]
    #[doc = include_str!("docs/performance.md")]
    pub mod performance {}

    #[doc = include_str!("docs/changelog.md")]
    pub mod changelog {}
}
