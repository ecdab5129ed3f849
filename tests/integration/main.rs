//! The tests that need axum, one module per topic. `tests/run.sh` runs them on Redis and on Valkey.

#![cfg(feature = "axum")]
// A test binary has no API.
#![allow(unreachable_pub)]

#[path = "../support/client.rs"]
mod client;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/visits.rs"]
mod visits;

mod access;
mod addresses;
mod caching;
mod cancelled;
#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "cluster")]
mod cluster_redirects;
mod commands;
mod connecting;
mod cookies;
mod credentials;
#[cfg(feature = "encryption")]
mod encryption;
mod faults;
mod flash;
mod foreign_data;
mod guards;
mod header_transport;
mod host_names;
mod http;
mod layer_order;
mod lifetimes;
mod live;
#[cfg(feature = "local-cache")]
mod local_cache;
mod login;
mod logout_of_failed;
mod long_lived;
mod managed;
#[cfg(feature = "migration")]
mod migration;
#[cfg(feature = "migration")]
mod migration_edges;
mod model;
mod observed;
mod outage;
mod outside_requests;
mod presented_cookies;
mod proxies;
mod races;
mod ready;
mod renewal;
mod replaced_responses;
mod replicas;
mod responses;
mod rotation_grace;
mod save_rule;
#[cfg(feature = "sentinel")]
mod sentinel;
#[cfg(feature = "sentinel")]
mod sentinel_faults;
mod server_states;
mod session;
mod several_layers;
mod signing;
mod streaming;
mod unreadable;
mod unresponsive;
mod updates;
mod users;
mod values;
