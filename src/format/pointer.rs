//! The value that takes the place of an old session in Redis and leads its cookie to the new one.
//!
//! ```text
//! {"_rev":"9f86d081884c7d65","_rotated":1764000000000,"_moved_to":"<the new id ⊕ HMAC-SHA-256(the old cookie's value, key and revision)>","cookie":{}}
//! ```
//!
//! The new id authenticates, so it must not be readable in Redis, least of all with hashed keys or signed old cookies. It is masked by the old
//! cookie's value: a browser that has the old cookie finds the new session, and a reader of Redis does not.

use bytes::Bytes;
use hmac::Mac;

use super::{cookie_value::hmac, migration::OldCookie};
use crate::{
    error::SessionError,
    id::SessionId,
    record::{self, Decoded, Record, is_tombstone, revision},
};

const PURPOSE: &[u8] = b"axum-redis-sessions: moved to";

/// The pointer to the session `id`, valid until this Unix time in milliseconds.
pub(crate) fn pointer(old: &OldCookie, id: SessionId, until: u64) -> Result<Bytes, SessionError> {
    record::pointer(until, |revision| {
        let masked = id.masked(mask(old, revision));
        masked.expect("an id of this crate").expose_secret()
    })
}

/// The id of the new session, if `stored` is the pointer to it.
pub(crate) fn follow(old: &OldCookie, stored: &Bytes) -> Option<SessionId> {
    let to = SessionId::parse(moved_to(stored)?.as_bytes())?;
    to.masked(mask(old, revision(stored)))
}

/// Whether `stored` is a pointer to any session.
pub(crate) fn is_pointer(stored: &Bytes) -> bool {
    moved_to(stored).is_some()
}

fn moved_to(stored: &Bytes) -> Option<Box<str>> {
    match is_tombstone(stored).then(|| Record::decode(stored))? {
        Ok(Decoded::Tombstone { moved_to, .. }) => moved_to,
        Ok(Decoded::Session(_) | Decoded::Empty) | Err(_) => None,
    }
}

fn mask(old: &OldCookie, revision: &[u8]) -> [u8; 16] {
    let mut code = hmac(old.value.as_bytes());
    for part in [PURPOSE, old.key.as_bytes(), &[0], revision] {
        code.update(part);
    }
    let code = code.finalize().into_bytes();
    std::array::from_fn(|index| code[index])
}
