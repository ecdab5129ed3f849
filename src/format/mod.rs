//! The sessions of other frameworks, for [`with_migration_from`](crate::RedisSessionLayer::with_migration_from).
//!
//! A [`Format`] says which cookie another framework sets, which Redis key the cookie stands for, and how to read the value there. Built in are:
//!
//! | format | framework |
//! |---|---|
//! | [`Flask`] | Flask with Flask-Session, or with a session interface of its own on Redis |
//! | [`Express`] | Express with express-session and connect-redis |
//! | [`Django`] | Django's cache sessions on django-redis |
//! | [`TowerSessions`] | tower-sessions with tower-sessions-redis-store |
//! | [`ActixSession`] | actix-session with its Redis store |
//! | [`AxumSession`] | axum_session with axum_session_redispool |
//!
//! A [`Migration`] is a format with the settings of one app: the cookie's name, Domain and Path, the prefix of the keys, and where a session has
//! its user. [`docs::migrate`](crate::docs::migrate) shows a migration for each framework, step by step.

mod actix_session;
mod any;
mod axum_session;
mod codec;
mod contract;
mod cookie_value;
mod django;
mod express;
mod flask;
mod json;
mod live;
mod migration;
pub(crate) mod msgpack;
mod object;
pub(crate) mod pickle;
mod pickle_writer;
mod plain;
mod pointer;
mod sharing;
mod tower_sessions;

pub use self::{
    actix_session::ActixSession,
    any::Serialization,
    axum_session::AxumSession,
    contract::{Format, FormatError},
    django::Django,
    express::Express,
    flask::Flask,
    live::{CookieAttributes, LiveFormat, OWN_KEY, Version},
    migration::Migration,
    sharing::Sharing,
    tower_sessions::TowerSessions,
};
pub(crate) use self::{
    migration::OldCookie,
    pointer::{follow, is_pointer, pointer},
    sharing::{not_decodable, not_encodable},
};

#[cfg(test)]
mod live_tests;
#[cfg(test)]
mod peer_tests;
#[cfg(test)]
mod tests;
