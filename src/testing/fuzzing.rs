//! Properties of the parsers that hold for every input. The fuzz targets in `tests/fuzz/` call these functions, and tests here replay the
//! targets' corpus.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Value, value::RawValue};

use crate::{
    commit::{changes::Changes, metadata_changes::MetadataChange},
    config::{Config, CookieConfig},
    context::Context,
    cookie::{self, PresentedIds},
    expiry,
    id::SessionId,
    record::{Decoded, RESERVED, Record, revision, same_revision},
    signing::{Signature, Signer},
    store::{MemoryStore, Store},
};

/// Parses each line of `input` as a Cookie header, with and without signing, and compares the id with that of a simple reference parser.
pub fn cookie_header(input: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(header::COOKIE, value);
        }
    }
    let unsigned = Config::default();
    let mut signed = Config::default();
    signed.cookie.signer = Some(Signer::new([[2; 32], [1; 32]]));
    for config in [unsigned, signed] {
        let found = PresentedIds::from_headers(&headers, &config)
            .ids(&config)
            .next();
        let found = found.map(|(id, _)| id.expose_secret());
        let expected = headers
            .get_all(header::COOKIE)
            .iter()
            .flat_map(|header| header.as_bytes().split(|byte| *byte == b';'))
            .find_map(|pair| reference_parse(pair, &config.cookie));
        assert_eq!(found, expected);

        // The cookie issued for this id is parsed to the same id.
        let Some(found) = found else { continue };
        let id = SessionId::parse(found.as_bytes()).expect("found");
        let line = cookie::issue(&config.cookie, id, None);
        let pair = line.as_bytes().split(|byte| *byte == b';').next();
        let pair = HeaderValue::from_bytes(pair.expect("a pair")).expect("a header value");
        let headers = HeaderMap::from_iter([(header::COOKIE, pair)]);
        let again = PresentedIds::from_headers(&headers, &config);
        assert_eq!(again.ids(&config).next(), Some((id, Signature::Current)));
    }
}

/// The id in one pair of a Cookie header: the right name, the canonical form, and one of two signatures.
fn reference_parse(pair: &[u8], config: &CookieConfig) -> Option<String> {
    let pair = std::str::from_utf8(pair.trim_ascii_start()).ok()?;
    let (name, value) = pair.split_once('=')?;
    let (id, signature) = value.split_once('.').unwrap_or((value, ""));
    let is_id = id.len() == 36
        && id.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        })
        && id.bytes().any(|byte| byte != b'0' && byte != b'-');
    let is_signed = match config.signer {
        None => value == id,
        Some(_) => [[2; 32], [1; 32]]
            .iter()
            .any(|key| Signer::new([*key]).sign(name, id) == format!("{id}.{signature}")),
    };
    (name == "__Host-session" && is_id && is_signed).then(|| id.to_owned())
}

/// A stored value is accepted as a session exactly if serde_json reads it as an object with distinct keys. The session then has these keys
/// and values, and after changes its encoded form has those of a model with the same changes.
///
/// `input` is the stored value, a zero byte, and the changes.
pub fn stored_value(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == 0);
    let (stored, changes) = input.split_at(end.unwrap_or(input.len()));
    let stored = Bytes::copy_from_slice(stored);
    assert!(same_revision(&stored, &stored));

    let read = std::str::from_utf8(&stored)
        .ok()
        .and_then(|text| serde_json::from_str::<Pairs>(text).ok())
        .filter(Pairs::are_distinct);
    let record = match (Record::decode(&stored), &read) {
        (Err(error), _) => {
            assert_eq!(error.kind(), crate::ErrorKind::InvalidData);
            assert!(read.is_none() || has(&read, "_rotated") || has_invalid_user(&read));
            return;
        }
        (Ok(Decoded::Tombstone { .. }), _) => {
            assert!(read.is_none() || has(&read, "_rotated"));
            return;
        }
        (Ok(Decoded::Empty), Some(pairs)) => {
            assert!(pairs.0.iter().all(|(key, _)| key.starts_with(RESERVED)));
            return;
        }
        (Ok(Decoded::Session(record)), Some(_)) => record,
        (Ok(Decoded::Empty | Decoded::Session(_)), None) => panic!("accepted as a session"),
    };
    let mut model = read.expect("read").0;
    check(&record, &model);
    if let Ok(whole) = serde_json::from_slice::<Value>(&stored) {
        for key in record.keys() {
            let value = record.value(key).expect("there");
            let value: Value = serde_json::from_slice(&value).expect("a part of JSON");
            assert_eq!(value, whole[key]);
        }
    }
    let context = Context::new(Store::Memory(MemoryStore::default()));
    if let Some(lifetime) = expiry::ttl(&context.config, record.metadata) {
        assert!(!lifetime.is_zero());
        // Redis adds the present time in milliseconds, in signed 64-bit integers.
        assert!(lifetime.as_millis() < 1 << 62);
    }

    let changes = changes_of(changes, &record, &mut model);
    for changes in [
        &changes,
        &changes
            .replayed_on(&record)
            .expect("updates that do not fail"),
    ] {
        let encoded = changes.encode(&record).expect("random numbers");
        let visible = model.iter().filter(|(key, _)| !key.starts_with(RESERVED));
        // A session with a user is kept without a key.
        let is_empty = visible.count() == 0 && record.user.is_none();
        assert_eq!(encoded.is_empty, is_empty);
        check(&encoded.record, &model);
        match Record::decode(encoded.record.bytes()) {
            Ok(Decoded::Session(again)) => {
                assert_eq!(again.metadata, encoded.record.metadata);
                check(&again, &model);
            }
            Ok(Decoded::Empty) => assert!(encoded.is_empty),
            Ok(Decoded::Tombstone { .. }) => panic!("a tombstone"),
            Err(error) => panic!("{error}"),
        }
        let version = encoded.record.bytes();
        assert!(!same_revision(&stored, version) && !same_revision(version, &stored));
        assert!(revision(version).len() < version.len());
    }
}

/// A MessagePack session is refused, or becomes JSON that serde_json reads as an object.
#[cfg(feature = "migration")]
pub fn messagepack_session(input: &[u8]) {
    check_decoded(crate::format::msgpack::decode(input));
}

/// A pickled session is refused, or becomes JSON that serde_json reads as an object.
#[cfg(feature = "migration")]
pub fn pickled_session(input: &[u8]) {
    check_decoded(crate::format::pickle::decode(input));
}

/// What each format reads of a value is a JSON object, and each id of a cookie has no space and no control character.
#[cfg(feature = "migration")]
pub fn old_session(input: &[u8]) {
    use crate::format::{
        ActixSession, AxumSession, Django, Express, Flask, Format, Migration, TowerSessions,
    };
    let key = &[1; 64];
    let formats: [(&dyn Format, Migration); 8] = [
        (&Flask::new(), Flask::new().into()),
        (&Express::new([key]), Express::new([key]).into()),
        (&Django::new(), Django::new().into()),
        (&TowerSessions::plain(), TowerSessions::plain().into()),
        (
            &TowerSessions::signed(key),
            TowerSessions::signed(key).into(),
        ),
        (
            &ActixSession::private(key),
            ActixSession::private(key).into(),
        ),
        (&ActixSession::signed(key), ActixSession::signed(key).into()),
        (&AxumSession::new(), AxumSession::new().into()),
    ];
    for (format, migration) in formats {
        if let Ok(value) = std::str::from_utf8(input)
            && let Some(id) = format.id("id", value)
        {
            assert!(!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        let migration = migration.with_user_at("/a~1b/0");
        if let Ok(taken) = migration.take(input, "key") {
            let metadata = crate::record::Metadata::default();
            let encoded = taken.encode(metadata).expect("random numbers");
            match Record::decode(encoded.record.bytes()) {
                Ok(Decoded::Session(record)) => {
                    assert_eq!(record.moved_from.as_deref(), Some("key"));
                }
                Ok(Decoded::Empty) => assert!(encoded.is_empty),
                Ok(Decoded::Tombstone { .. }) => panic!("a tombstone"),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Each value can be read by itself, as `Session::get` does. The object around it may be one level too deep for serde_json.
#[cfg(feature = "migration")]
fn check_decoded(decoded: Result<String, crate::format::FormatError>) {
    if let Ok(json) = decoded {
        let Pairs(pairs) = serde_json::from_str(&json).expect("an object");
        for (_, value) in pairs {
            serde_json::from_str::<Value>(value.get()).expect("JSON");
        }
    }
}

/// Makes the changes of `script` to the model, and returns the same changes for the session.
fn changes_of(script: &[u8], base: &Record, model: &mut Vec<(String, Box<RawValue>)>) -> Changes {
    const VALUES: [&str; 4] = ["1", "[{}]", "\"\\ud800\"", "{\"a\" : 1e400}"];
    let mut names: Vec<String> = base.keys().map(str::to_owned).collect();
    names.extend(["", "a", "é\"\\\u{1}\u{2028}"].map(str::to_owned));
    let mut changes = Changes::default();
    for step in script.get(1..).unwrap_or_default().chunks(2) {
        let name = &names[usize::from(step.get(1).copied().unwrap_or(0)) % names.len()];
        let text = VALUES[usize::from(step[0] >> 4) % VALUES.len()];
        let value = RawValue::from_string(text.to_owned()).expect("JSON");
        let mut put = |value: Option<Box<RawValue>>| {
            let place = model.iter().position(|(key, _)| key == name);
            match (place, value) {
                (Some(at), Some(value)) => model[at].1 = value,
                (Some(at), None) => drop(model.remove(at)),
                (None, Some(value)) => model.push((name.clone(), value)),
                (None, None) => {}
            }
        };
        match step[0] % 5 {
            0 => {
                changes.assign(name, Some(Bytes::from_static(text.as_bytes())));
                put(Some(value));
            }
            1 => {
                changes.assign(name, None);
                put(None);
            }
            2 => {
                let bytes = Bytes::from_static(text.as_bytes());
                let step = bytes.clone();
                changes.update(
                    name,
                    Arc::new(move |_, _| Ok(Some(step.clone()))),
                    Some(bytes),
                );
                put(Some(value));
            }
            3 => changes.set_metadata(MetadataChange::IdleTimeout(1 + u64::from(step[0]))),
            _ => {
                changes.clear();
                model.retain(|(key, _)| key.starts_with(RESERVED));
            }
        }
    }
    changes
}

/// The record has exactly these pairs, in any order, with the same text of each value.
fn check(record: &Record, pairs: &[(String, Box<RawValue>)]) {
    let mut keys: Vec<&str> = record.keys().collect();
    let visible = pairs.iter().map(|(key, _)| key.as_str());
    let mut expected: Vec<&str> = visible.filter(|key| !key.starts_with(RESERVED)).collect();
    keys.sort_unstable();
    expected.sort_unstable();
    assert_eq!(keys, expected);
    for (key, value) in pairs {
        // The crate's own keys are not in the map; reserved keys of other writers are kept.
        if !key.starts_with(RESERVED) || record.contains(key) {
            assert!(record.contains(key));
            assert_eq!(
                record.value(key).expect("there"),
                value.get().as_bytes(),
                "{key}"
            );
        }
    }
}

/// An object as serde_json reads it, including duplicate keys.
struct Pairs(Vec<(String, Box<RawValue>)>);

impl Pairs {
    fn are_distinct(&self) -> bool {
        let mut keys: Vec<&String> = self.0.iter().map(|(key, _)| key).collect();
        keys.sort_unstable();
        keys.windows(2).all(|pair| pair[0] != pair[1])
    }
}

fn has(pairs: &Option<Pairs>, key: &str) -> bool {
    let mut all = pairs.iter().flat_map(|pairs| &pairs.0);
    all.any(|(other, _)| other == key)
}

/// A `_user` that is not a string makes the whole value invalid.
fn has_invalid_user(pairs: &Option<Pairs>) -> bool {
    let mut all = pairs.iter().flat_map(|pairs| &pairs.0);
    all.any(|(key, value)| key == "_user" && serde_json::from_str::<String>(value.get()).is_err())
}

impl<'de> serde::Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Pairs;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// All combinations of three pieces, as a stored value, as a key and as a value.
    #[test]
    fn every_short_text_is_decoded_as_by_serde_json() {
        const PIECES: [&str; 25] = [
            "{", "}", "[", "]", "\"", ":", ",", "\\", "\\\"", "\\u00e9", "\\ud800", "\u{1}", "é",
            "_rev", "x", " ", "\n", "-", "0", "12", ".", "e", "true", "null", "\"k\"",
        ];
        for first in PIECES {
            for second in PIECES {
                for third in PIECES {
                    let text = [first, second, third].concat();
                    stored_value(text.as_bytes());
                    stored_value(format!("{{{text}:1}}").as_bytes());
                    stored_value(format!("{{\"a\":{text}}}").as_bytes());
                    stored_value(format!("{{\"a\":{text},\"b\":0}}").as_bytes());
                }
            }
        }
    }

    /// `src/testing/corpus/` holds the seeds, the inputs that increased coverage, and those that failed.
    fn replay(target: &str, check: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/testing/corpus");
        let files = fs::read_dir(corpus.join(target)).expect("a corpus");
        let mut replayed = 0;
        for file in files {
            let path = file.expect("a file").path();
            let input = fs::read(&path).expect("bytes");
            // Shown if the test fails.
            println!("{}", path.display());
            check(&input);
            replayed += 1;
        }
        assert!(replayed > 10, "{replayed}");
    }

    #[test]
    fn the_corpus_of_cookie_headers_passes() {
        replay("cookie_header", cookie_header);
    }

    #[test]
    fn the_corpus_of_stored_values_passes() {
        replay("stored_value", stored_value);
    }

    #[test]
    #[cfg(feature = "migration")]
    fn the_corpora_of_old_sessions_pass() {
        replay("messagepack_session", messagepack_session);
        replay("pickled_session", pickled_session);
        replay("old_session", old_session);
    }
}
