// Link targets for rustdoc. The files' own targets, at their ends, are for reading them in the repository; the first definition counts.
#![doc = include_str!("docs/links.md")]
#![doc = include_str!("docs/guide.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod body;
#[cfg(feature = "local-cache")]
mod cache;
mod clock;
mod commit;
mod config;
mod context;
mod cookie;
mod credentials;
#[cfg(feature = "encryption")]
mod encryption;
mod error;
mod expiry;
#[cfg(feature = "axum")]
mod extract;
mod failure_log;
mod flash;
#[cfg(feature = "migration")]
#[cfg_attr(docsrs, doc(cfg(feature = "migration")))]
pub mod format;
#[cfg(feature = "axum")]
mod guard;
mod health;
mod id;
mod layer;
mod next_path;
mod plain_http;
mod random;
mod record;
mod request;
mod response;
mod service;
mod session;
mod sessions;
mod signing;
mod stats;
mod store;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod testing;
mod trace;
mod unreadable;
mod users;

/// The client, so that an app need not match its version.
pub use redis;

#[cfg(feature = "local-cache")]
#[cfg_attr(docsrs, doc(cfg(feature = "local-cache")))]
pub use crate::cache::{CacheStats, LocalCache};
pub use crate::{
    body::ErrorBody,
    config::{SameSite, SessionLimit},
    credentials::Credentials,
    error::{ConfigError, ErrorKind, SessionError},
    flash::{FlashLevel, FlashMessage},
    id::{ParseSessionIdError, SessionId},
    layer::{RedisSessionLayer, Timeouts},
    next_path::NextPath,
    service::{ResponseFuture, SessionService},
    session::{Session, lazy::LazySession},
    sessions::Sessions,
    stats::Stats,
    users::{ParseSessionHandleError, SessionHandle, UserSession, UserSessions, Users},
};
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use crate::{
    extract::{FlashMessages, Latest},
    guard::{LoggedIn, LoginRejection, RecentLogin},
};

/// Longer texts: deployment, migration, sharing with other frameworks, which Redis, comparison, cookbook, security, reliability, performance, design and changelog. Their code is
/// compiled with the crate.
pub mod docs {
    #[doc = include_str!("docs/links.md")]
    #[doc = include_str!("docs/deployment.md")]
    pub mod deployment {}

    // Its code needs the feature.
    #[cfg_attr(
        not(feature = "migration"),
        doc = "Documented with the feature `migration`."
    )]
    #[cfg_attr(feature = "migration", doc = include_str!("docs/links.md"))]
    #[cfg_attr(feature = "migration", doc = "[`Format`]: crate::format::Format")]
    #[cfg_attr(feature = "migration", doc = "[`migrated`]: crate::Stats::migrated\n")]
    #[cfg_attr(feature = "migration", doc = include_str!("docs/migrate.md"))]
    pub mod migrate {}

    #[cfg_attr(
        not(feature = "migration"),
        doc = "Documented with the feature `migration`."
    )]
    #[cfg_attr(feature = "migration", doc = include_str!("docs/links.md"))]
    #[cfg_attr(feature = "migration", doc = include_str!("docs/share.md"))]
    pub mod share {}

    #[doc = include_str!("docs/links.md")]
    #[doc = include_str!("docs/which_redis.md")]
    pub mod which_redis {}

    #[doc = include_str!("docs/links.md")]
    #[doc = include_str!("docs/compare.md")]
    pub mod compare {}

    #[doc = include_str!("docs/links.md")]
    #[doc = include_str!("docs/cookbook.md")]
    pub mod cookbook {}

    #[doc = include_str!("docs/links.md")]
    #[doc = include_str!("docs/security.md")]
    pub mod security {}

    #[doc = include_str!("docs/links.md")]
    #[doc = include_str!("docs/reliability.md")]
    pub mod reliability {}

    // The charts as data, since a page of rustdoc has no files beside it.
    #[doc = include_str!("docs/links.md")]
    #[doc = include_str!("docs/charts/links.md")]
    #[doc = include_str!("docs/performance.md")]
    pub mod performance {}

    #[doc = include_str!("docs/links.md")]
    #[doc = include_str!("docs/local_cache.md")]
    pub mod local_cache {}

    #[doc = include_str!("docs/links.md")]
    #[doc = include_str!("docs/design.md")]
    pub mod design {}

    #[doc = include_str!("docs/links.md")]
    #[doc = include_str!("docs/changelog.md")]
    pub mod changelog {}
}

/// The code of README.md, compiled as the documentation is.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../README.md")]
mod readme {}
