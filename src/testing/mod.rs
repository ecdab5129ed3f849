//! Support for the crate's unit tests, and the checks that the fuzz targets in `tests/fuzz/` call.

#[cfg(all(test, feature = "local-cache"))]
mod cached_rules;
#[cfg(test)]
mod change_rules;
#[cfg(test)]
mod commit_rules;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod deadline_rules;
#[cfg(test)]
pub(crate) mod fake_server;
pub mod fuzzing;
#[cfg(feature = "migration")]
pub mod fuzzing_shared;
#[cfg(test)]
mod interleavings;
#[cfg(all(test, feature = "local-cache"))]
mod link;
#[cfg(test)]
mod load_rules;
#[cfg(all(test, feature = "migration"))]
mod migration_rules;
#[cfg(test)]
mod redis_rules;
#[cfg(test)]
mod retry_rules;
#[cfg(test)]
mod server;
#[cfg(test)]
mod session_rules;
#[cfg(test)]
mod state_rules;
#[cfg(test)]
pub(crate) mod stepped;
#[cfg(all(test, feature = "local-cache"))]
mod tracked_rules;
#[cfg(test)]
mod user_rules;

/// Larger allocations, in bytes, take glibc's malloc longer: it keeps them in arenas with a lock for all threads, and not for each thread. The futures
/// that are boxed for each request are not larger.
#[cfg(test)]
pub(crate) const MAX_CACHED_ALLOCATION: usize = 1032;

/// The session of a request without a cookie, before it is loaded.
#[cfg(test)]
pub(crate) fn lazy_in_memory() -> crate::LazySession {
    use crate::{context::Context, request::RequestHead, store};

    let context = Context::new(store::Store::Memory(store::MemoryStore::default()));
    crate::LazySession::new(context.into(), RequestHead::default(), None)
}
