//! Values that the frameworks themselves stored, and hostile ones.

use super::*;

pub(super) fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16);
    digits
        .map(|pair| byte(pair).expect("hexadecimal"))
        .collect()
}

fn decoded(format: &dyn Format, stored: &[u8]) -> String {
    format.decode(stored).expect("readable")
}

/// Flask 3.1.3 with Flask-Session 0.8.0.
#[test]
fn flask_session_is_read() {
    let flask = Flask::new();
    let id = "BTVKkDcA2ZjsLMC0BGr7vXgE6FomuHvWCJIG0JA2DEE";
    assert_eq!(flask.id("session", id).as_deref(), Some(id));
    let uuid = "5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e";
    assert_eq!(flask.id("session", uuid).as_deref(), Some(uuid));
    let json = r#"{"_permanent":true,"user_id":42,"name":"Zoë","roles":["admin"],"big":9223372036854775808}"#;
    assert_eq!(decoded(&flask, json.as_bytes()), json);
    let msgpack = unhex(
        "85aa5f7065726d616e656e74c3a7757365725f69642aa46e616d65a45a6fc3aba5726f6c657391a561646d696ea3626967cf8000000000000000",
    );
    assert_eq!(decoded(&flask, &msgpack), json);
}

#[test]
fn flask_signer_is_verified() {
    let cookie = "9j3sLXyosirOLkIbgwh6ZLgSQtrth9fxJVOc-bLLDVs.KQN6C0cE3vtzD2zJ5Cy1kxVe64E";
    let (id, signature) = cookie.split_once('.').expect("a signature");
    for keys in [vec!["flask secret"], vec!["newer", "flask secret"]] {
        let flask = Flask::new().with_signer(keys);
        assert_eq!(flask.id("session", cookie).as_deref(), Some(id));
    }
    let flask = Flask::new().with_signer(["flask secret"]);
    for value in [
        id.to_owned(),
        signature.to_owned(),
        format!("x{cookie}"),
        format!("{cookie}A"),
        cookie[..cookie.len() - 1].to_owned(),
        format!("{id}."),
        String::new(),
    ] {
        assert_eq!(flask.id("session", &value), None, "{value}");
    }
    let other = Flask::new().with_signer(["another"]);
    assert_eq!(other.id("session", cookie), None);
    assert_eq!(
        Flask::new().id("session", cookie),
        None,
        "a dot is not part of an id"
    );
}

/// express-session 1.19.0 with connect-redis 9.0.0.
#[test]
fn express_session_is_read() {
    let express = Express::new(["new cat", "keyboard cat"]);
    let cookie =
        "s%3A_vOcWhrI2gnfyU0sFFf6w_IoSH7_bcSG.aR90sQWhZP0LebQmkpTIWCFRKV%2BR%2BfW9YDS2eeTgsaA";
    let id = "_vOcWhrI2gnfyU0sFFf6w_IoSH7_bcSG";
    for value in [cookie.to_owned(), cookie.replace("%2B", "+")] {
        assert_eq!(express.id("connect.sid", &value).as_deref(), Some(id));
        let former = Express::new(["newest", "new cat"]);
        assert_eq!(former.id("connect.sid", &value).as_deref(), Some(id));
        assert_eq!(Express::new(["other"]).id("connect.sid", &value), None);
    }
    for value in [
        "",
        "s%3A",
        "s%3A.",
        id,
        "s%3A_vOcWhrI2gnfyU0sFFf6w_IoSH7_bcSG",
        &cookie.replace("_vOc", "xvOc"),
        &cookie.replace("s%3A", "j%3A"),
        &cookie.replace("%2B", "%2"),
        &cookie.replace("%2B", "%+B"),
        &cookie[..cookie.len() - 1],
    ] {
        assert_eq!(express.id("connect.sid", value), None, "{value}");
    }
    assert_eq!(Express::new([""; 0]).id("connect.sid", cookie), None);

    let stored = r#"{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"user_id":42,"name":"Zoë","passport":{"user":7}}"#;
    assert_eq!(
        decoded(&express, stored.as_bytes()),
        r#"{"user_id":42,"name":"Zoë","passport":{"user":7},"_permanent":false}"#
    );
    let stored = stored.replace("null", "3600000");
    assert!(decoded(&express, stored.as_bytes()).ends_with("\"_permanent\":true}"));
    for stored in [
        "{}",
        "{\"cookie\":1}",
        "[]",
        "",
        "{\"cookie\":{},\"a\":1,\"a\":2}",
    ] {
        assert!(express.decode(stored.as_bytes()).is_err(), "{stored}");
    }
}

/// Django 5.2.19 with django-redis 7.0.0.
#[test]
fn django_is_read() {
    let django = Django::new();
    let id = "48w69w2o8z21i002gwt18kaj02hvo6pf";
    assert_eq!(django.id("sessionid", id).as_deref(), Some(id));
    for value in [
        "",
        &id[1..],
        &id.to_uppercase(),
        &format!("{id}0"),
        &id.replace('w', "-"),
    ] {
        assert_eq!(django.id("sessionid", value), None, "{value}");
    }
    let pickle = unhex(
        "80049533000000000000007d94288c07757365725f6964944b2a8c046e616d65948c045a6fc3ab948c0d5f617574685f757365725f6964948c013794752e",
    );
    let fields = r#""user_id":42,"name":"Zoë","_auth_user_id":"7","_permanent":true}"#;
    assert_eq!(decoded(&django, &pickle), format!("{{{fields}"));
    let json = br#"{"user_id": 42, "name": "Zo\u00eb", "_auth_user_id": "7"}"#;
    assert_eq!(
        decoded(&django, json),
        format!("{{{fields}").replace('ë', "\\u00eb")
    );
    let ends = decoded(&django, br#"{"_session_expiry": 0, "a": 1}"#);
    assert!(ends.ends_with("\"_permanent\":false}"), "{ends}");
}

/// CPython 3.11.
#[test]
fn plain_data_of_each_pickle_protocol_is_read() {
    const SHARED: &str = r#"{"user_id":42,"name":"Zoë","roles":["admin",["a",1]],"f":1.5,"n":null,"t":true,"neg":-7,"big":1180591620717411303424"#;
    const P2: &str = "7d7100285807000000757365725f696471014b2a58040000006e616d65710258040000005a6fc3ab71035805000000726f6c657371045d710528580500000061646d696e710658010000006171074b01867108655801000000667109473ff800000000000058010000006e710a4e580100000074710b8858030000006e6567710c4af9ffffff5803000000626967710d8a090000000000000000405805000000616761696e710e6805752e";
    const P4: &str = "9591000000000000007d94288c07757365725f6964944b2a8c046e616d65948c045a6fc3ab948c05726f6c6573945d94288c0561646d696e948c0161944b018694658c016694473ff80000000000008c016e944e8c017494888c036e6567944af9ffffff8c03626967948a090000000000000000408c05627974657394430200ff948c03736574948f94284b01908c05616761696e946805752e";
    let again = r#","again":["admin",["a",1]]}"#;
    for (protocol, rest, more) in [
        ("8002", P2, ""),
        ("8003", P2, ""),
        ("8004", P4, r#","bytes":[0,255],"set":[1]"#),
        ("8005", P4, r#","bytes":[0,255],"set":[1]"#),
    ] {
        let pickle = unhex(&[protocol, rest].concat());
        assert_eq!(
            decoded(&Flask::new(), &pickle),
            [SHARED, more, again].concat(),
            "{protocol}"
        );
        // Its first byte alone is an empty map in MessagePack.
        for length in 2..pickle.len() {
            assert!(Flask::new().decode(&pickle[..length]).is_err(), "{length}");
        }
    }
}

#[test]
fn a_pickle_that_names_code_is_refused() {
    for (name, pickle) in [
        (
            "datetime",
            "80049532000000000000007d948c026174948c086461746574696d65948c086461746574696d65949394430a07ea01010000000000009485945294732e",
        ),
        (
            "os.system, protocol 4",
            "80049532000000000000007d948c0165948c05706f736978948c0673797374656d9493948c10746f756368202f746d702f70776e65649485945294732e",
        ),
        (
            "os.system, protocol 2",
            "80027d7100580100000065710163706f7369780a73797374656d0a71025810000000746f756368202f746d702f70776e65647103857104527105732e",
        ),
        ("REDUCE alone", "80027d2952"),
        ("NEWOBJ", "80027d2981"),
        ("INST", "80026970"),
        ("a persistent id", "80027d51"),
    ] {
        let error = Flask::new().decode(&unhex(pickle)).expect_err(name);
        assert!(error.to_string().contains("never run"), "{name}: {error}");
    }
    assert!(!std::path::Path::new("/tmp/pwned").exists());
}

#[test]
fn hostile_values_are_refused_quickly() {
    let nested = |open: &str, count: usize, close: &str| {
        let mut bytes = unhex(&open.repeat(count));
        bytes.extend(unhex(&close.repeat(count)));
        bytes
    };
    let pickle = |body: &[u8]| [b"\x80\x04}X\x01\0\0\0a".as_slice(), body, b"s."].concat();
    // A list that contains ten times the one before it.
    let mut bomb = b"]\x94".to_vec();
    for level in 0..30 {
        bomb.extend(b"](");
        bomb.extend([b'h', level].repeat(10));
        bomb.extend(b"e\x94");
    }
    for (name, value) in [
        ("nothing", vec![]),
        ("zeros", vec![0; 64]),
        ("gzip", unhex("1f8b0800")),
        ("a text", b"hello".to_vec()),
        (
            "MessagePack nested",
            [b"\x81\xa1a".to_vec(), nested("91", 100_000, "")].concat(),
        ),
        ("MessagePack map of 4 GiB", unhex("dfffffffff")),
        (
            "MessagePack with an array of 4 GiB",
            unhex("81a161ddffffffff"),
        ),
        ("MessagePack bytes of 4 GiB", unhex("81a161c6ffffffff")),
        ("MessagePack, more behind", unhex("80c0")),
        ("MessagePack, a list as key", unhex("819001")),
        ("MessagePack, NaN", unhex("81a161cb7ff8000000000000")),
        ("MessagePack, another extension", unhex("81a161d40501")),
        ("MessagePack, text that is not UTF-8", unhex("81a161a1ff")),
        (
            "pickle nested",
            pickle(&[vec![b']'; 100_000], vec![b'a'; 99_999]].concat()),
        ),
        ("pickle of a list", b"\x80\x04].".to_vec()),
        ("pickle that contains itself", pickle(b"]\x94h\0a")),
        ("pickle of repeated lists", pickle(&bomb)),
        (
            "pickle, text of 2^64",
            pickle(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff"),
        ),
        (
            "pickle, an integer of 136 bits",
            pickle(&[b"\x8a\x11".as_slice(), &[1; 17]].concat()),
        ),
        ("pickle, no mark", b"\x80\x04}u.".to_vec()),
        ("pickle, an odd dictionary", b"\x80\x04}(Nu.".to_vec()),
        ("pickle, unknown memo", pickle(b"h\x07")),
        ("pickle, append to a number", pickle(b"K\x01Na")),
        ("pickle, infinity", pickle(b"G\x7f\xf0\0\0\0\0\0\0")),
    ] {
        let error = Flask::new().decode(&value).expect_err(name);
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn messagepack_without_an_equivalent_in_json_becomes_text_or_numbers() {
    for (hex, json) in [
        ("81a161c403 010203", r#"{"a":[1,2,3]}"#),
        ("8107a162", r#"{"7":"b"}"#),
        ("81a161d6ff 65920080", r#"{"a":"2024-01-01T00:00:00Z"}"#),
        (
            "81a161d7ff 7735940065920080",
            r#"{"a":"2024-01-01T00:00:00.5Z"}"#,
        ),
        (
            "81a161c70cff 1dcd6500 ffffffffffffffff",
            r#"{"a":"1969-12-31T23:59:59.5Z"}"#,
        ),
        ("80", "{}"),
    ] {
        let stored = unhex(&hex.replace(' ', ""));
        assert_eq!(decoded(&Flask::new(), &stored), json);
    }
}

#[test]
fn debug_shows_no_secret() {
    let secret = "0123456789abcdef".repeat(4);
    let key: &[u8; 64] = secret.as_bytes().try_into().expect("64 bytes");
    let texts = [
        format!("{:?}", Flask::new().with_signer([key])),
        format!("{:?}", Express::new([key])),
        format!("{:?}", TowerSessions::private(key)),
        format!("{:?}", ActixSession::signed(key)),
        format!("{:?}", Migration::from(Express::new([key]))),
    ];
    for text in texts {
        assert!(!text.contains("0123") && !text.contains("48, 49"), "{text}");
    }
}
