//! Signed cookies: an id that this app did not issue is rejected without a request to Redis.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The minimum length of a key in bytes: the length of the hash (RFC 2104, section 3), which is above the 128 bits of ASVS 5.0, 11.2.3.
pub(crate) const MIN_KEY: usize = 32;
/// The length of a signature: a dot and 32 bytes in base64 without padding.
pub(crate) const LENGTH: usize = 1 + 43;

/// The keys that sign cookies. The first key signs; all keys verify.
#[derive(Clone)]
pub(crate) struct Signer {
    keys: Vec<Hmac<Sha256>>,
    shortest: usize,
}

/// The key of a valid signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signature {
    /// The key that signs now.
    Current,
    /// An earlier key, so the cookie has to be signed again.
    Former,
}

impl Signer {
    pub(crate) fn new(keys: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        let keys: Vec<Vec<u8>> = keys.into_iter().map(Into::into).collect();
        Self {
            shortest: keys.iter().map(Vec::len).min().unwrap_or(0),
            keys: keys
                .iter()
                .map(|key| Hmac::new_from_slice(key).expect("HMAC takes a key of any length"))
                .collect(),
        }
    }

    /// The length of the shortest key, in bytes; 0 if there is none.
    pub(crate) fn shortest_key(&self) -> usize {
        self.shortest
    }

    /// `id` and its signature, for the cookie `name`.
    pub(crate) fn sign(&self, name: &str, id: &str) -> String {
        let key = self.keys.first().expect("checked when the layer was built");
        let code = with_message(key, name, id.as_bytes())
            .finalize()
            .into_bytes();
        format!("{id}.{}", URL_SAFE_NO_PAD.encode(code))
    }

    /// The id in the value of the cookie `name`; `None` without a valid signature.
    pub(crate) fn verify<'a>(&self, name: &str, value: &'a [u8]) -> Option<(&'a [u8], Signature)> {
        let (id, signature) = value.split_at_checked(value.len().checked_sub(LENGTH)?)?;
        let signature = URL_SAFE_NO_PAD.decode(signature.strip_prefix(b".")?).ok()?;
        // `verify_slice` compares in constant time.
        let position = self
            .keys
            .iter()
            .position(|key| with_message(key, name, id).verify_slice(&signature).is_ok())?;
        Some(match position {
            0 => (id, Signature::Current),
            _ => (id, Signature::Former),
        })
    }
}

/// The signed message includes the cookie's name, so that a value is not valid in another cookie. A name contains no `=`.
fn with_message(key: &Hmac<Sha256>, name: &str, id: &[u8]) -> Hmac<Sha256> {
    let mut code = key.clone();
    code.update(name.as_bytes());
    code.update(b"=");
    code.update(id);
    code
}

/// Shows no key.
impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e";

    fn key(byte: u8) -> Vec<u8> {
        vec![byte; MIN_KEY]
    }

    /// From `printf 'sid=5e0c…' | openssl dgst -sha256 -hmac 11111111111111111111111111111111 -binary | basenc --base64url`.
    #[test]
    fn a_signature_is_hmac_sha_256_of_the_name_and_the_id() {
        assert_eq!(
            Signer::new([key(b'1')]).sign("sid", ID),
            format!("{ID}.7X4AKjuwQHtyrqF7Pmbe_iTJZayVnn6QiWtI3IL_9fM")
        );
    }

    #[test]
    fn only_a_signature_by_one_of_the_keys_is_valid() {
        let old = Signer::new([key(1)]);
        let both = Signer::new([key(2), key(1)]);
        let other = Signer::new([key(3)]);
        let good = both.sign("sid", ID);
        let verify = |signer: &Signer, name: &str, value: &str| {
            let verified = signer.verify(name, value.as_bytes());
            verified.map(|(id, signature)| {
                assert_eq!(id, ID.as_bytes());
                signature
            })
        };
        assert_eq!(verify(&both, "sid", &good), Some(Signature::Current));
        let former = old.sign("sid", ID);
        assert_eq!(verify(&both, "sid", &former), Some(Signature::Former));
        let changed = |from: &str, to: &str| good.replacen(from, to, 1);
        for (name, value) in [
            ("by another key", other.sign("sid", ID)),
            ("without the dot", old.sign("sid", ID).replace('.', "")),
            ("unsigned", ID.to_owned()),
            ("a signature alone", good[ID.len()..].to_owned()),
            ("another id", changed("5e0c", "5e0d")),
            ("cut short", good[..good.len() - 1].to_owned()),
            ("longer", format!("{good}A")),
            ("padded", format!("{good}=")),
            ("two dots", changed(".", "..")),
            ("empty", String::new()),
            ("not base64", format!("{ID}.{}", "*".repeat(LENGTH - 1))),
        ] {
            assert_eq!(verify(&both, "sid", &value), None, "{name}");
        }
        assert_eq!(verify(&both, "other", &good), None, "of another cookie");
        assert_eq!(
            verify(&old, "sid", &good),
            None,
            "by a key that this signer lacks"
        );
    }

    #[test]
    fn debug_shows_no_key() {
        let text = format!(
            "{:?}",
            Signer::new([b"open sesame, open sesame, open!!".to_vec()])
        );
        assert_eq!(text, "Signer { keys: 1, .. }");
    }
}
