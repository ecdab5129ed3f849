//! Sessions encrypted at rest.
//!
//! ```text
//! {"_rev":"9f86d081884c7d65" ‖ 0 ‖ 1 ‖ nonce (12 bytes) ‖ AES-256-GCM-SIV(rest of the JSON) ‖ tag (16 bytes)
//! ```
//!
//! The revision stays readable, because a save compares it in Redis. So does the mark of a tombstone. Both are authenticated, and so is the
//! Redis key: a value that was copied to the key of another session is not accepted.

use std::fmt;

use aes_gcm_siv::{AeadInOut, Aes256GcmSiv, KeyInit, Nonce, Tag};
use bytes::Bytes;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::{
    error::{ErrorKind, SessionError},
    random::random_bytes,
    record::clear_len,
};

/// JSON contains no byte 0, so no session in the clear has this mark. The second byte is the version of the form.
const MARK: &[u8] = &[0, 1];
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
/// The message from which each key is derived, so that a secret that also signs cookies is not the same key in both.
const PURPOSE: &[u8] = b"axum-redis-sessions: AES-256-GCM-SIV";

/// The keys that encrypt sessions. The first key encrypts; all keys decrypt.
#[derive(Clone)]
pub(crate) struct Encryption {
    keys: Vec<Aes256GcmSiv>,
    shortest: usize,
}

/// A decrypted value.
pub(crate) struct Opened {
    pub(crate) json: Bytes,
    pub(crate) by_first_key: bool,
}

impl Encryption {
    pub(crate) fn new(keys: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        let keys: Vec<Vec<u8>> = keys.into_iter().map(Into::into).collect();
        Self {
            shortest: keys.iter().map(Vec::len).min().unwrap_or(0),
            keys: keys.iter().map(|key| cipher(key)).collect(),
        }
    }

    /// The length of the shortest key, in bytes; 0 if there is none.
    pub(crate) fn shortest_key(&self) -> usize {
        self.shortest
    }

    /// The stored form of `json`, for this Redis key.
    pub(crate) fn seal(&self, key: &str, json: &[u8]) -> Result<Bytes, SessionError> {
        let cipher = self.keys.first().expect("checked when the layer was built");
        let (head, rest) = json.split_at(clear_len(json));
        // Not from a batch: a snapshot of a running machine would use its nonces twice.
        let nonce = random_bytes::<NONCE_LEN>()?;
        let mut sealed = Vec::with_capacity(json.len() + MARK.len() + NONCE_LEN + TAG_LEN);
        for part in [head, MARK, &nonce, rest] {
            sealed.extend_from_slice(part);
        }
        let start = sealed.len() - rest.len();
        let tag = cipher
            .encrypt_inout_detached(
                &Nonce::from(nonce),
                &associated_data(key, head),
                (&mut sealed[start..]).into(),
            )
            .expect("a session is shorter than 64 GiB");
        sealed.extend_from_slice(&tag);
        Ok(sealed.into())
    }

    /// The JSON of a stored value; `None` if it is in the clear.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidData`](crate::ErrorKind::InvalidData) for a value that none of the keys decrypts.
    pub(crate) fn open(&self, key: &str, stored: &[u8]) -> Result<Option<Opened>, SessionError> {
        let (head, rest) = stored.split_at(clear_len(stored));
        let Some(rest) = rest.strip_prefix(MARK) else {
            return Ok(None);
        };
        let parts = rest
            .split_first_chunk::<NONCE_LEN>()
            .and_then(|(nonce, rest)| Some((nonce, rest.split_last_chunk::<TAG_LEN>()?)));
        let Some((nonce, (ciphertext, tag))) = parts else {
            return Err(undecryptable());
        };
        let associated_data = associated_data(key, head);
        let mut json = Vec::with_capacity(head.len() + ciphertext.len());
        for (position, cipher) in self.keys.iter().enumerate() {
            json.clear();
            json.extend_from_slice(head);
            json.extend_from_slice(ciphertext);
            let opened = cipher.decrypt_inout_detached(
                &Nonce::from(*nonce),
                &associated_data,
                (&mut json[head.len()..]).into(),
                &Tag::from(*tag),
            );
            if opened.is_ok() {
                return Ok(Some(Opened {
                    json: json.into(),
                    by_first_key: position == 0,
                }));
            }
        }
        Err(undecryptable())
    }
}

fn cipher(key: &[u8]) -> Aes256GcmSiv {
    let mut derive = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    derive.update(PURPOSE);
    Aes256GcmSiv::new_from_slice(&derive.finalize().into_bytes()).expect("both have 32 bytes")
}

/// A Redis key may contain any byte, and the head does not contain 0.
fn associated_data(key: &str, head: &[u8]) -> Vec<u8> {
    [key.as_bytes(), &[0], head].concat()
}

pub(crate) fn not_encrypted() -> SessionError {
    SessionError::new(
        ErrorKind::InvalidData,
        "a stored session is not encrypted, and with_encryption_required refuses such sessions: remove that option until the sessions that \
         were stored before the keys have ended, or look for a program that writes under the same prefix",
    )
}

fn undecryptable() -> SessionError {
    SessionError::new(
        ErrorKind::InvalidData,
        "a stored session cannot be decrypted: add the key that encrypted it to with_encryption_keys; if none is missing, the value was \
         changed or copied in Redis",
    )
}

/// Shows no key.
impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryption")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "session:5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e";
    const SESSION: &str = r#"{"_rev":"9f86d081884c7d65","_created":1764000000,"visits":3}"#;
    const TOMBSTONE: &str =
        r#"{"_rev":"9f86d081884c7d65","_rotated":1764000060000,"_grace":1764000010000,"visits":3}"#;

    fn keys(bytes: &[u8]) -> Encryption {
        Encryption::new(bytes.iter().map(|byte| vec![*byte; 32]))
    }

    #[test]
    fn the_shortest_key_counts() {
        for (keys, expected) in [
            (vec![vec![1; 32], vec![2; 3], vec![3; 40]], 3),
            (vec![vec![1; 32]], 32),
            (Vec::new(), 0),
        ] {
            assert_eq!(Encryption::new(keys).shortest_key(), expected);
        }
    }

    fn opened(encryption: &Encryption, key: &str, stored: &[u8]) -> Option<String> {
        let opened = encryption.open(key, stored).ok()?.expect("encrypted");
        Some(String::from_utf8(opened.json.to_vec()).expect("text"))
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digits = text.as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16);
        digits
            .map(|pair| byte(pair).expect("hexadecimal"))
            .collect()
    }

    /// From OpenSSL (`AESGCMSIV` of Python's `cryptography`), with HMAC-SHA-256 of the purpose as key, the nonce 00 01 … 0b, and the Redis
    /// key, a zero byte and the head as associated data.
    #[test]
    fn the_form_is_that_of_openssl() {
        let nonce: Vec<u8> = (0..12).collect();
        for (json, head, sealed) in [
            (
                SESSION,
                r#"{"_rev":"9f86d081884c7d65""#,
                "336dcf0179405128212c4dad7e76c47346c8891df31c6f99fd3e6d9b608f2a680db3164b21693c70aee71fcbd785f8add808",
            ),
            (
                TOMBSTONE,
                r#"{"_rev":"9f86d081884c7d65","_rotated":1764000060000"#,
                "9b95573561f17da74d4f6d1fce78aeafdba7370e886867f182b5fdac0daba5d7f7fbab06de1081e0968546f7ec8c0edf61ca1d",
            ),
        ] {
            let stored = [head.as_bytes(), &[0, 1], &nonce, &unhex(sealed)].concat();
            assert_eq!(opened(&keys(b"1"), KEY, &stored).as_deref(), Some(json));
        }
    }

    #[test]
    fn what_was_sealed_is_opened_by_any_of_the_keys() {
        for json in [
            SESSION,
            TOMBSTONE,
            r#"{"_rev":"9f86d081884c7d65"}"#,
            r#"{"a":1}"#,
            "",
        ] {
            let sealed = keys(b"1").seal(KEY, json.as_bytes()).expect("sealed");
            assert_eq!(opened(&keys(b"1"), KEY, &sealed).as_deref(), Some(json));
            let by_former = keys(b"21").open(KEY, &sealed).expect("opened");
            assert!(!by_former.expect("encrypted").by_first_key);
            assert_eq!(opened(&keys(b"2"), KEY, &sealed), None);
            let again = keys(b"1").seal(KEY, json.as_bytes()).expect("sealed");
            assert_ne!(sealed, again, "a nonce is used once");
        }
    }

    #[test]
    fn a_changed_or_moved_value_is_refused() {
        let encryption = keys(b"1");
        for json in [SESSION, TOMBSTONE] {
            let sealed = encryption.seal(KEY, json.as_bytes()).expect("sealed");
            assert!(opened(&encryption, &KEY.replace("5e0c", "5e0d"), &sealed).is_none());
            let mark = sealed.iter().position(|byte| *byte == 0).expect("a mark");
            for index in (0..sealed.len()).filter(|index| ![mark, mark + 1].contains(index)) {
                for bit in 0..8 {
                    let mut changed = sealed.to_vec();
                    changed[index] ^= 1 << bit;
                    // Without its head or its mark, it is no encrypted value, and not JSON either.
                    if let Ok(Some(opened)) = encryption.open(KEY, &changed) {
                        panic!("bit {bit} of byte {index}: {} bytes", opened.json.len());
                    }
                }
            }
            for length in mark + 2..sealed.len() {
                assert!(encryption.open(KEY, &sealed[..length]).is_err(), "{length}");
            }
        }
    }

    #[test]
    fn json_is_in_the_clear() {
        for text in [
            SESSION,
            TOMBSTONE,
            "{}",
            "",
            "[1]",
            r#"{"a":"\u0000\u0001"}"#,
        ] {
            assert!(
                keys(b"1")
                    .open(KEY, text.as_bytes())
                    .expect("no error")
                    .is_none()
            );
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let text = format!(
            "{:?}",
            Encryption::new(["open sesame, open sesame, open!!"])
        );
        assert_eq!(text, "Encryption { keys: 1, .. }");
    }
}
