//! Sessions that go from another framework's form to this crate's and back.

use std::time::Duration;

use super::{live::Version, tests::unhex, *};
use crate::record::{Decoded, Record};

const COOKIE: CookieAttributes<'static> = CookieAttributes {
    path: "/",
    domain: None,
    http_only: true,
    secure: true,
    same_site: "lax",
};

fn read(sharing: &Sharing, stored: &[u8]) -> String {
    let json = sharing.decode(stored).expect("readable");
    // It is what this crate reads.
    Record::decode(&json.clone().into()).expect("a session");
    json
}

fn write(sharing: &Sharing, json: &str, previous: Option<&[u8]>) -> Vec<u8> {
    let max_age = json
        .contains("\"_permanent\"")
        .then_some(Duration::from_secs(3600));
    sharing
        .encode(json, previous, max_age, COOKIE)
        .expect("writable")
}

/// MessagePack of what JSON cannot express, or does not tell apart: a map with the keys `n` (2⁶⁴-1), `bin`, `ext`, `nan`, `f32`, `at` (timestamp), 7 (an
/// integer), and `s`.
const EXOTIC: &str = concat!(
    "88",
    "a16ecfffffffffffffffff",
    "a362696ec403010203",
    "a3657874d705aabbccddeeff0011",
    "a36e616ecb7ff8000000000000",
    "a3663332ca3fc00000",
    "a26174d6ff6553f100",
    "0793a161c0c2",
    "a173d90178",
);

#[test]
fn what_is_not_touched_stays_byte_for_byte() {
    let flask = Sharing::from(Flask::new());
    let stored = unhex(EXOTIC);
    let json = read(&flask, &stored);
    assert_eq!(
        json,
        r#"{"n":18446744073709551615,"bin":[1,2,3],"f32":1.5,"at":"2023-11-14T22:13:20Z","7":["a",null,false],"s":"x"}"#
    );
    let changed = [&json[..json.len() - 1], r#","visits":3,"_created":5}"#].concat();
    let written = write(&flask, &changed, Some(&stored));
    // The map has two more entries; all of the others are there as they were.
    assert_eq!(written[0], 0x8a);
    assert_eq!(written[1..stored.len()], stored[1..]);
    assert_eq!(
        written[stored.len()..],
        unhex("a676697369747303ad5f6178756d5f73657373696f6e81a76372656174656405")
    );
    let json = read(&flask, &written);
    assert!(
        json.starts_with(r#"{"_created":5,"#) && json.ends_with(r#""visits":3}"#),
        "{json}"
    );
    // A removed key goes, and what JSON cannot express stays.
    let written = write(&flask, r#"{"s":"y","_user":"42"}"#, Some(&stored));
    assert_eq!(
        written,
        unhex(concat!(
            "84",
            "a3657874d705aabbccddeeff0011",
            "a36e616ecb7ff8000000000000",
            "a173a179",
            "ad5f6178756d5f73657373696f6e81a475736572a23432",
        ))
    );
}

#[test]
fn json_values_keep_their_text_and_keys_their_order() {
    let flask = Sharing::from(Flask::new());
    let stored = br#"{"b":1.50,"big":1180591620717411303424,"half":"\ud800","a":"Zo\u00eb","c":{"x": [1, 2]}}"#;
    let json = read(&flask, stored);
    assert_eq!(json.as_bytes(), stored);
    let json = json.replace(r#""a":"Zo\u00eb","#, r#""a":2,"z":3,"#);
    let written = write(&flask, &json, Some(stored));
    assert_eq!(
        String::from_utf8(written).expect("text"),
        r#"{"b":1.50,"big":1180591620717411303424,"half":"\ud800","a":2,"c":{"x": [1, 2]},"z":3,"_axum_session":{}}"#
    );
}

/// Python: `pickle.dumps({"t": (1, 2), "s": {3}, "f": frozenset([4]), "b": b"\x00", "y": bytearray(b"z"), "l": [1.5, None, True], "n": 2**100, 5: "five",
/// "again": None}, 5)`.
const PICKLE: &str = "80059571000000000000007d94288c0174944b014b0286948c0173948f94284b03908c016694284b0491948c016294430100948c0179949601000000000000007a948c016c945d9428473ff80000000000004e88658c016e948a0d000000000000000000000000104b058c0466697665948c05616761696e944e752e";

/// Python reads this as `{'t': (1, 2), 's': {3}, 'f': frozenset({4}), 'b': b'\x00', 'y': bytearray(b'z'), 'l': [1.5, None, True, {'k': -1}], 'n':
/// 1267650600228229401496703205376, 5: 'five', 'visits': 3, '_axum_session': {}}`.
const WRITTEN: &str = "80057d288c0174284b014b02748c01738f284b03908c0166284b04918c01628e0100000000000000008c01799601000000000000007a8c016c5d28473ff80000000000004e887d288c016b4affffffff75658c016e8a10000000000000000000000000100000004b058c04666976658c067669736974734b038c0d5f6178756d5f73657373696f6e7d2875752e";

#[test]
fn pickles_keep_their_types() {
    let flask = Sharing::from(Flask::new());
    let stored = unhex(PICKLE);
    let json = read(&flask, &stored);
    assert_eq!(
        json,
        r#"{"t":[1,2],"s":[3],"f":[4],"b":[0],"y":[122],"l":[1.5,null,true],"n":1267650600228229401496703205376,"5":"five","again":null}"#
    );
    let json = json.replace("null,true]", r#"null,true,{"k":-1}]"#);
    let json = json.replace(r#""again":null"#, r#""visits":3"#);
    let written = write(&flask, &json, Some(&stored));
    assert_eq!(hex(&written), WRITTEN);
    assert_eq!(read(&flask, &written), json);
}

/// `x = [1]; pickle.dumps({"x": x, "y": x, "name": "Zoë"}, 4)`: a value that occurs twice is written twice.
#[test]
fn what_a_pickle_names_twice_is_two_values() {
    let flask = Sharing::from(Flask::new());
    let stored = unhex(
        "80049522000000000000007d94288c0178945d944b01618c01799468028c046e616d65948c045a6fc3ab94752e",
    );
    let json = read(&flask, &stored);
    assert_eq!(json, r#"{"x":[1],"y":[1],"name":"Zoë"}"#);
    let changed = json.replacen("[1]", "[2]", 1);
    let written = write(&flask, &changed, Some(&stored));
    assert_eq!(read(&flask, &written), changed);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Keys of the other app with the names of this crate's own.
#[test]
fn taken_names_are_told_apart() {
    let flask = Sharing::from(Flask::new());
    let stored = br#"{"_user":{"id":1},"_rev":"x","_foreign:_user":2,"_user_id":"7","_axum_session":{"user":"42","rev":"0123456789abcdef"}}"#;
    let json = read(&flask, stored);
    assert_eq!(
        json,
        r#"{"_user":"42","_foreign:_user":{"id":1},"_foreign:_rev":"x","_foreign:_foreign:_user":2,"_user_id":"7"}"#
    );
    let written = write(&flask, &json, Some(stored));
    assert_eq!(
        String::from_utf8(written).expect("text"),
        r#"{"_user":{"id":1},"_rev":"x","_foreign:_user":2,"_user_id":"7","_axum_session":{"user":"42"}}"#
    );
    // Whatever lies under the own key.
    for own in ["1", "[]", "null", r#"{"user":[],"created":{}}"#] {
        let stored = format!(r#"{{"a":1,"_axum_session":{own}}}"#);
        let json = flask.decode(stored.as_bytes()).expect("readable");
        match Record::decode(&json.into()) {
            Ok(Decoded::Session(_)) => {}
            Ok(_) => panic!("{own}"),
            Err(error) => assert_eq!(error.kind(), crate::ErrorKind::InvalidData),
        }
    }
}

#[test]
fn the_user_is_where_the_other_app_has_it() {
    let passport = || Sharing::from(Express::new(["cat"])).with_user_at("/passport/user");
    let stored = br#"{"cookie":{"originalMaxAge":null},"passport":{"user":7,"x":1},"_axum_session":{"user":"7","created":5,"listed":6}}"#;
    let json = read(&passport(), stored);
    assert_eq!(
        json,
        r#"{"_created":5,"_listed":6,"_user":"7","passport":{"user":7,"x":1}}"#
    );
    // Somebody else logged in on the other side.
    let other = String::from_utf8(stored.to_vec())
        .expect("text")
        .replace("\"user\":7", "\"user\":8");
    assert_eq!(
        read(&passport(), other.as_bytes()),
        r#"{"_user":"8","passport":{"user":8,"x":1}}"#
    );
    for (sharing, user, expected) in [
        (passport(), Some("7"), r#"{"user":7,"x":1}"#),
        (passport(), Some("9"), r#"{"user":"9","x":1}"#),
        (
            passport().with_numeric_user(),
            Some("9"),
            r#"{"user":9,"x":1}"#,
        ),
        (
            passport().with_numeric_user(),
            Some("09"),
            r#"{"user":"09","x":1}"#,
        ),
        (passport(), None, r#"{"x":1}"#),
    ] {
        let user = user.map(|user| format!(r#""_user":"{user}","#));
        let json = format!(
            r#"{{{}"passport":{{"user":7,"x":1}}}}"#,
            user.unwrap_or_default()
        );
        let written = String::from_utf8(write(&sharing, &json, Some(stored))).expect("text");
        assert!(
            written.contains(&format!(r#""passport":{expected}"#)),
            "{written}"
        );
    }
    let written = write(&passport(), r#"{"_user":"1"}"#, None);
    let written = String::from_utf8(written).expect("text");
    assert!(written.contains(r#""passport":{"user":"1"}"#), "{written}");
    // Nobody is logged in: no key appears.
    let written = String::from_utf8(write(&passport(), r#"{"a":1}"#, None)).expect("text");
    assert!(!written.contains("passport"), "{written}");
}

#[test]
fn timeouts_are_those_of_the_other_app() {
    let express = Sharing::from(Express::new(["cat"]));
    let stored =
        br#"{"cookie":{"originalMaxAge":60000,"expires":"2020-01-01T00:00:00.000Z"},"a":1}"#;
    let json = read(&express, stored);
    assert_eq!(json, r#"{"_idle":60000,"_permanent":0,"a":1}"#);
    let written = String::from_utf8(write(&express, &json, Some(stored))).expect("text");
    assert_eq!(
        written,
        r#"{"cookie":{"originalMaxAge":60000,"expires":"2020-01-01T00:00:00.000Z"},"a":1,"_axum_session":{"permanent":0}}"#
    );
    let written = String::from_utf8(write(&express, r#"{"a":1}"#, Some(stored))).expect("text");
    assert!(written.contains(r#""originalMaxAge":null"#), "{written}");
    let written =
        String::from_utf8(write(&express, r#"{"_permanent":1,"a":1}"#, None)).expect("text");
    assert!(written.contains(r#""originalMaxAge":3600000"#), "{written}");

    let django = Sharing::from(Django::new().with_serialization(Serialization::Json));
    for (expiry, session) in [
        ("", r#"{"_permanent":0,"a":1}"#),
        (r#","_session_expiry":0"#, r#"{"a":1,"_session_expiry":0}"#),
        (
            r#","_session_expiry":300"#,
            r#"{"_idle":300000,"_permanent":0,"a":1,"_session_expiry":300}"#,
        ),
        (
            r#","_session_expiry":"2020-01-01T00:00:00+00:00""#,
            r#"{"_idle":0,"_permanent":0,"a":1,"_session_expiry":"2020-01-01T00:00:00+00:00"}"#,
        ),
    ] {
        let stored = format!(r#"{{"a":1{expiry}}}"#);
        let json = read(&django, stored.as_bytes());
        assert_eq!(json, session);
        let written = write(&django, &json, Some(stored.as_bytes()));
        assert_eq!(read(&django, &written), json);
    }
    let written = String::from_utf8(write(&django, r#"{"a":1}"#, None)).expect("text");
    assert_eq!(written, r#"{"a":1,"_axum_session":{},"_session_expiry":0}"#);
}

/// A former id: the other framework sees a session without any of the app's keys.
#[test]
fn a_tombstone_is_an_anonymous_session_to_the_other_framework() {
    let express = Sharing::from(Express::new(["cat"])).with_user_at("/passport/user");
    let far = "9999999999999";
    let json = format!(
        r#"{{"_rev":"0123456789abcdef","_rotated":{far},"_grace":1,"_user":"7","cart":[1]}}"#
    );
    let stored = express.encode(&json, None, None, COOKIE).expect("writable");
    let text = String::from_utf8(stored.clone()).expect("text");
    let keys = object_keys(&text);
    assert_eq!(keys, ["cookie", OWN_KEY]);
    let read = express.decode(&stored).expect("readable");
    assert_eq!(
        read,
        format!(r#"{{"_rotated":{far},"_grace":1,"_user":"7","cart":[1]}}"#)
    );
    // Until its end it stays one, whatever the other app does; then it is the session that the other app has made of it.
    let over = json.replace(far, "1");
    for (json, is_tombstone) in [(&json, true), (&over, false)] {
        let stored = express.encode(json, None, None, COOKIE).expect("writable");
        let text = String::from_utf8(stored).expect("text");
        let text = text.replacen('{', r#"{"seen":1,"#, 1);
        let decoded = express.decode(text.as_bytes()).expect("readable");
        assert_eq!(decoded.contains("_rotated"), is_tombstone, "{decoded}");
        assert_eq!(decoded.contains("seen"), !is_tombstone, "{decoded}");
    }
}

fn object_keys(text: &str) -> Vec<String> {
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).expect("an object");
    object.keys().cloned().collect()
}

#[test]
fn ids_and_cookies_are_those_of_the_framework() {
    let random: [u8; 32] = std::array::from_fn(|index| (index * 7 + 250) as u8);
    let other = [9; 32];
    for (format, cookie_name) in [
        (&Flask::new() as &dyn LiveFormat, "session"),
        (&Flask::new().with_signer(["secret", "former"]), "session"),
        (&Express::new(["secret", "former"]), "connect.sid"),
        (&Django::new(), "sessionid"),
    ] {
        let id = format.new_id(random);
        assert_ne!(id, format.new_id(other));
        let value = format.cookie_value(cookie_name, &id);
        assert_eq!(format.id(cookie_name, &value), Some(id));
        let is_octet = |byte: u8| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte);
        assert!(value.bytes().all(is_octet), "{value}");
    }
    // As express-session 1.19.0 signed it.
    let express = Express::new(["new cat", "keyboard cat"]);
    let id = "_vOcWhrI2gnfyU0sFFf6w_IoSH7_bcSG";
    assert_eq!(
        express.cookie_value("connect.sid", id),
        "s%3A_vOcWhrI2gnfyU0sFFf6w_IoSH7_bcSG.aR90sQWhZP0LebQmkpTIWCFRKV%2BR%2BfW9YDS2eeTgsaA"
    );
    // As Flask-Session 0.8.0 signed it.
    assert_eq!(
        Flask::new()
            .with_signer(["flask secret"])
            .cookie_value("session", "9j3sLXyosirOLkIbgwh6ZLgSQtrth9fxJVOc-bLLDVs"),
        "9j3sLXyosirOLkIbgwh6ZLgSQtrth9fxJVOc-bLLDVs.KQN6C0cE3vtzD2zJ5Cy1kxVe64E"
    );
}

#[test]
fn what_the_framework_does_not_have_is_refused_in_words() {
    for (sharing, json, reason) in [
        (
            Sharing::from(Flask::new()),
            r#"{"n":18446744073709551616}"#,
            "more than 64 bits",
        ),
        (
            Sharing::from(Django::new()),
            r#"{"n":340282366920938463463374607431768211456}"#,
            "more than 128 bits",
        ),
        (
            Sharing::from(Django::new()),
            r#"{"s":"\ud800"}"#,
            "surrogate",
        ),
        (
            Sharing::from(Express::new(["cat"])),
            r#"{"cookie":1}"#,
            "the key `cookie`",
        ),
    ] {
        let error = sharing.encode(json, None, None, COOKIE).expect_err(json);
        assert!(error.to_string().contains(reason), "{error}");
    }
}

fn version<'a>(json: &'a str, previous: Option<&'a [u8]>) -> Version<'a> {
    Version {
        json,
        previous,
        max_age: None,
        cookie: COOKIE,
    }
}

#[test]
fn each_form_is_written_as_it_was() {
    let json = r#"{"a":[1,-1,1.5,"x",null,true,{"b":{}}],"visits":3}"#;
    for form in [
        Serialization::Json,
        Serialization::MessagePack,
        Serialization::Pickle,
    ] {
        let flask = Flask::new().with_serialization(form);
        let first = flask.encode(&version(json, None)).expect("writable");
        assert_eq!(flask.decode(&first).expect("readable"), json, "{form:?}");
        // Another default does not change the form of what is there.
        for other in [
            Serialization::Json,
            Serialization::MessagePack,
            Serialization::Pickle,
        ] {
            let other = Flask::new().with_serialization(other);
            let again = other
                .encode(&version(json, Some(&first)))
                .expect("writable");
            assert_eq!(again, first, "{form:?}");
        }
    }
}
