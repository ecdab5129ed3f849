use std::{
    fmt::{self, Write},
    str::FromStr,
};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{error::SessionError, random::random_bytes};

/// The secret that identifies a session: 128 random bits, kept in the browser's cookie.
///
/// Its only text form is a lower-case hyphenated UUID, such as `5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e`. All 128 bits are
/// random, as [ASVS 5.0, 7.2.3][asvs] requires; a version 4 UUID has only 122 random bits. With
/// `with_format` (feature `migration`), an id has the form that the other framework gives it.
///
/// The id alone authenticates a request. It therefore has no `Display`, and its `Debug` output is redacted.
///
/// ```
/// use axum_redis_sessions::SessionId;
///
/// let id = SessionId::random()?;
/// assert_eq!(id.expose_secret().len(), 36);
/// assert_eq!(format!("{id:?}"), "SessionId(redacted)");
/// # Ok::<(), axum_redis_sessions::SessionError>(())
/// ```
///
/// [asvs]: https://github.com/OWASP/ASVS/blob/master/5.0/en/0x16-V7-Session-Management.md
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId {
    length: u8,
    /// ASCII, and zeros behind it.
    text: [u8; MAX_LEN],
}

/// In bytes. The ids of some frameworks are longer than a UUID.
const MAX_LEN: usize = 64;

const NIL: &str = "00000000-0000-0000-0000-000000000000";

/// The error of a text that is not a [`SessionId`]. It does not contain the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseSessionIdError(());

impl SessionId {
    /// A new id from the operating system's random number generator.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::IdGeneration`](crate::ErrorKind::IdGeneration) if the operating system provides no random numbers. There is no weaker
    /// fallback.
    pub fn random() -> Result<Self, SessionError> {
        random_bytes().map(Self::from_bytes)
    }

    /// An id of these 128 bits, for [`with_id_generator`](crate::RedisSessionLayer::with_id_generator).
    ///
    /// They must come from a cryptographically secure random number generator, since an attacker who guesses an id takes over the session.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let mut text = [0; MAX_LEN];
        let uuid = Uuid::from_bytes(bytes);
        let length = uuid.hyphenated().encode_lower(&mut text).len();
        Self {
            length: length as u8,
            text,
        }
    }

    /// The id's text, as in the cookie and in the Redis key.
    ///
    /// Do not put it into logs, URLs or pages: it authenticates like the user's password.
    #[must_use]
    pub fn expose_secret(&self) -> String {
        self.as_str().to_owned()
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..usize::from(self.length)]).expect("ASCII")
    }

    /// Accepts only the canonical form. `Uuid` also accepts braces, `urn:uuid:`, upper case and missing hyphens, so that one session would have
    /// several valid cookies.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let id = Self::from_bytes(Uuid::try_parse_ascii(text).ok()?.into_bytes());
        (id.as_str().as_bytes() == text && !id.is_nil()).then_some(id)
    }

    /// An id of another framework, whose form was checked. `None` if it is empty, longer than 64 bytes, or has other characters than letters, digits
    /// and punctuation of ASCII.
    #[cfg(feature = "migration")]
    pub(crate) fn foreign(text: &str) -> Option<Self> {
        let is_text = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let mut id = Self {
            length: u8::try_from(text.len()).ok().filter(|_| is_text)?,
            text: [0; MAX_LEN],
        };
        id.text
            .get_mut(..text.len())?
            .copy_from_slice(text.as_bytes());
        Some(id)
    }

    /// The id whose bits differ from these where the mask's are 1. `None` for an id that is no UUID.
    #[cfg(feature = "migration")]
    pub(crate) fn masked(self, mask: [u8; 16]) -> Option<Self> {
        let bytes = Uuid::try_parse(self.as_str()).ok()?.into_bytes();
        Some(Self::from_bytes(std::array::from_fn(|index| {
            bytes[index] ^ mask[index]
        })))
    }

    /// All zeros, as from a broken generator (Fiber, GHSA-68rr-p4fp-j59v). Such an id is not accepted.
    pub(crate) fn is_nil(&self) -> bool {
        self.as_str() == NIL
    }

    /// The key in Redis: `prefix` and the id.
    pub(crate) fn key(&self, prefix: &str) -> String {
        [prefix, self.as_str()].concat()
    }

    /// The key in Redis: `prefix` and the SHA-256 of the id in hexadecimal, as from `printf %s ID | sha256sum`.
    ///
    /// Without salt and key stretching: they protect low-entropy secrets, and an id has 128 bits.
    pub(crate) fn hashed_key(&self, prefix: &str) -> String {
        let hash = Sha256::digest(self.as_str());
        let mut key = String::with_capacity(prefix.len() + 2 * hash.len());
        key.push_str(prefix);
        for byte in hash {
            write!(key, "{byte:02x}").expect("writing to a String does not fail");
        }
        key
    }

    /// Maps the id to one of `buckets`.
    pub(crate) fn bucket(&self, buckets: usize) -> usize {
        let text = self.as_str().bytes();
        let hash = text.fold(0_usize, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(byte.into())
        });
        hash % buckets
    }
}

/// The part of a session's key before the id or its hash; empty if the key has neither.
pub(crate) fn prefix_of(key: &str) -> &str {
    let before_suffix = |length: usize| {
        let (prefix, suffix) = key.split_at_checked(key.len().checked_sub(length)?)?;
        let is_id = |byte: u8| byte == b'-' || byte.is_ascii_hexdigit();
        suffix.bytes().all(is_id).then_some(prefix)
    };
    before_suffix(64)
        .or_else(|| before_suffix(36))
        .unwrap_or_default()
}

/// Parses the text of [`SessionId::expose_secret`].
impl FromStr for SessionId {
    type Err = ParseSessionIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text.as_bytes()).ok_or(ParseSessionIdError(()))
    }
}

impl fmt::Display for ParseSessionIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a session id, which is a lower-case hyphenated UUID: pass the text of SessionId::expose_secret")
    }
}

impl std::error::Error for ParseSessionIdError {}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response, StatusCode, header};
    use tower::{Layer, ServiceExt, service_fn};

    use super::*;
    use crate::{ErrorKind, LazySession, RedisSessionLayer, random::NO_RANDOM_NUMBERS};

    fn bytes(id: &SessionId) -> [u8; 16] {
        Uuid::try_parse(id.as_str()).expect("a UUID").into_bytes()
    }

    #[test]
    fn only_the_canonical_form_is_accepted() {
        let good = "5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e";
        assert_eq!(
            SessionId::parse(good.as_bytes()).map(|id| id.expose_secret()),
            Some(good.to_owned())
        );
        for (name, text) in [
            ("empty", ""),
            ("35 characters", &good[1..]),
            ("37 characters", "5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e0"),
            ("upper case", "5E0C1F0A-93A4-4F8E-A7D8-0C2F6F1B9A3E"),
            ("no hyphens", "5e0c1f0a93a44f8ea7d80c2f6f1b9a3e"),
            ("braces", "{5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e}"),
            ("urn", "urn:uuid:5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e"),
            ("nil", "00000000-0000-0000-0000-000000000000"),
            ("not hexadecimal", "5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3g"),
            ("hyphens elsewhere", "5e0c1f0a9-3a4-4f8e-a7d8-0c2f6f1b9a3e"),
            ("a space before", " 5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3"),
            ("a path", "../../x"),
            ("a glob", "*"),
            ("full-width digits", "5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a３"),
        ] {
            assert_eq!(SessionId::parse(text.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn a_hashed_key_shows_nothing_of_its_id() {
        let id = SessionId::parse(b"5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e").expect("an id");
        let hashed = id.hashed_key("session:");
        // From `printf %s ID | sha256sum`.
        assert_eq!(
            hashed,
            "session:e929f2db4e648ccbc64b435d5735015df20bea3248e768920e5e42cb10f5a5d7"
        );
        assert_eq!(prefix_of(&hashed), "session:");
        assert_eq!(prefix_of(&id.key("app:session:")), "app:session:");
        assert_eq!(prefix_of(&id.key("")), "");
        assert_eq!(prefix_of("elsewhere"), "");
    }

    #[test]
    fn all_128_bits_are_random() {
        let mut seen_one = [0_u8; 16];
        let mut seen_zero = [0_u8; 16];
        for _ in 0..256 {
            let id = SessionId::random().expect("random numbers");
            for (index, byte) in bytes(&id).iter().enumerate() {
                seen_one[index] |= byte;
                seen_zero[index] |= !byte;
            }
        }
        // Six bits of a version 4 UUID are constant. By chance one bit fails with a probability of 2^-255.
        assert_eq!((seen_one, seen_zero), ([0xff; 16], [0xff; 16]));
    }

    /// Each of the 128 bits is set in half of the ids. The tolerance of 3,000 is six standard deviations, which one run in four million
    /// exceeds by chance.
    #[test]
    fn no_bit_is_biased_over_a_million_ids() {
        const IDS: u32 = 1_000_000;
        let mut set = [0_u32; 128];
        for _ in 0..IDS {
            let id = u128::from_be_bytes(bytes(&SessionId::random().expect("random numbers")));
            for (bit, count) in set.iter_mut().enumerate() {
                *count += u32::from(id >> bit & 1 == 1);
            }
        }
        for (bit, count) in set.into_iter().enumerate() {
            assert!(count.abs_diff(IDS / 2) < 3_000, "bit {bit}: {count}");
        }
    }

    #[tokio::test]
    async fn without_random_numbers_there_is_an_error_and_no_weak_id() {
        let layer = RedisSessionLayer::in_memory();
        let service = layer.layer(service_fn(async |request: Request<()>| {
            let lazy = LazySession::from_extensions(request.extensions()).expect("the layer");
            let session = lazy.load().await.expect("a session");
            session.insert("a", 1).expect("a number");
            Ok::<_, std::convert::Infallible>(Response::new(String::new()))
        }));
        let answer = async || {
            let response = service.clone().oneshot(Request::new(())).await;
            let response = response.expect("infallible");
            let has_cookie = response.headers().contains_key(header::SET_COOKIE);
            (response.status(), has_cookie)
        };
        assert_eq!(answer().await, (StatusCode::OK, true));
        NO_RANDOM_NUMBERS.set(true);
        let error = SessionId::random().expect_err("no random numbers");
        assert_eq!(error.kind(), ErrorKind::IdGeneration);
        assert_eq!(
            answer().await,
            (StatusCode::INTERNAL_SERVER_ERROR, false),
            "neither cookie nor session"
        );
        NO_RANDOM_NUMBERS.set(false);
        assert_eq!(answer().await, (StatusCode::OK, true));
    }

    #[test]
    fn debug_shows_no_id() {
        let id = SessionId::random().expect("random numbers");
        assert!(!format!("{id:?}").contains(&id.expose_secret()[..8]));
    }
}
