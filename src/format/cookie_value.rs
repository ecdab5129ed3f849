//! What frameworks do to an id before it becomes a cookie's value.

use std::fmt;

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Nonce, Tag};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The form of a cookie of the crate `cookie`, which tower-sessions and actix-session use.
#[derive(Clone)]
pub(super) enum CookieForm {
    Plain,
    Signed(Hmac<Sha256>),
    Private(Box<Aes256Gcm>),
}

/// The signed and the encrypted form need the 64 bytes of a `cookie::Key`: 32 to sign, 32 to encrypt.
const KEY_HALF: usize = 32;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
/// 32 bytes in base64.
const SIGNATURE_LEN: usize = 44;

impl CookieForm {
    pub(super) fn signed(key: &[u8; 2 * KEY_HALF]) -> Self {
        Self::Signed(hmac(&key[..KEY_HALF]))
    }

    pub(super) fn private(key: &[u8; 2 * KEY_HALF]) -> Self {
        let cipher = Aes256Gcm::new_from_slice(&key[KEY_HALF..]).expect("both have 32 bytes");
        Self::Private(Box::new(cipher))
    }

    /// The text that was signed or encrypted for a cookie of this name.
    pub(super) fn open(&self, cookie_name: &str, cookie_value: &str) -> Option<String> {
        let value = percent_decoded(cookie_value)?;
        match self {
            Self::Plain => Some(value),
            Self::Signed(key) => {
                let (signature, text) = value.split_at_checked(SIGNATURE_LEN)?;
                let signature = STANDARD.decode(signature).ok()?;
                verifies(key, text, &signature).then(|| text.to_owned())
            }
            Self::Private(cipher) => {
                let sealed = STANDARD.decode(value).ok()?;
                let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>()?;
                let (ciphertext, tag) = rest.split_last_chunk::<TAG_LEN>()?;
                let mut text = ciphertext.to_vec();
                let opened = cipher.decrypt_inout_detached(
                    &Nonce::from(*nonce),
                    cookie_name.as_bytes(),
                    text.as_mut_slice().into(),
                    &Tag::from(*tag),
                );
                opened.ok()?;
                String::from_utf8(text).ok()
            }
        }
    }
}

/// Shows no key.
impl fmt::Debug for CookieForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "Plain",
            Self::Signed(_) => "Signed",
            Self::Private(_) => "Private",
        })
    }
}

/// `s:<id>.<signature>` of npm's cookie-signature, percent-encoded or not.
pub(super) fn open_express(keys: &[Hmac<Sha256>], cookie_value: &str) -> Option<String> {
    let value = percent_decoded(cookie_value)?;
    let (id, signature) = value.strip_prefix("s:")?.rsplit_once('.')?;
    let signature = STANDARD_NO_PAD.decode(signature).ok()?;
    let is_valid = |key| verifies(key, id, &signature);
    keys.iter().any(is_valid).then(|| id.to_owned())
}

pub(super) fn hmac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

/// In constant time.
fn verifies(key: &Hmac<Sha256>, text: &str, signature: &[u8]) -> bool {
    let mut code = key.clone();
    code.update(text.as_bytes());
    code.verify_slice(signature).is_ok()
}

/// The value without percent-encoding; `None` if an escape is malformed or the result is not UTF-8.
pub(super) fn percent_decoded(value: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [byte, behind @ ..] = rest {
        rest = behind;
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let (digits, behind) = behind.split_at_checked(2)?;
        // `from_str_radix` would also take a sign.
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let digits = std::str::from_utf8(digits).ok()?;
        decoded.push(u8::from_str_radix(digits, 16).ok()?);
        rest = behind;
    }
    String::from_utf8(decoded).ok()
}
