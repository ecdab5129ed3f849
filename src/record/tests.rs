use super::*;

fn session(text: &str) -> Record {
    match Record::decode(&Bytes::copy_from_slice(text.as_bytes())) {
        Ok(Decoded::Session(record)) => record,
        _ => panic!("not a session: {text}"),
    }
}

fn keep_all(base: &Record) -> Encoded {
    let mut encoder =
        Encoder::new(base, base.metadata, base.user.clone(), 0).expect("random numbers");
    encoder.copy_from_base(|_| KeyEdit::Keep);
    encoder.finish()
}

#[test]
fn unchanged_values_are_kept_byte_for_byte() {
    let values = [
        r#""big":1180591620717411303424"#,
        r#""z":{"b":1, "a":2}"#,
        r#""surrogate":"\ud800""#,
        r#""es\"caped":[1.0,1e5]"#,
        r#""_user_id":"7""#,
    ];
    let base = session(&format!(
        "{{\"_rev\":\"0123456789abcdef\",\"_created\":5,{}}}",
        values.join(",")
    ));
    let encoded = keep_all(&base);
    let text = std::str::from_utf8(&encoded.record.bytes).expect("text");
    assert_eq!(
        &text[REVISION_LEN..],
        &format!(",\"_created\":5,{}}}", values.join(","))
    );
    assert!(!encoded.changed);
    assert_eq!(
        encoded.record.value("es\"caped").as_deref(),
        Some(&b"[1.0,1e5]"[..])
    );
    assert_eq!(
        encoded.record.keys().collect::<Vec<_>>(),
        ["big", "z", "surrogate", "es\"caped"]
    );
}

#[test]
fn an_encoded_record_equals_the_decoded_one() {
    let base = session(r#"{"a":1,"c\n":[],"d":{"x":"y"}}"#);
    let mut encoder = Encoder::new(
        &base,
        Metadata {
            created: Some(7),
            permanent: Some(9),
            idle_timeout: Some(900_000),
            absolute_timeout: Some(43_200_000),
            indexed_at: Some(11),
            confirmed_at: Some(13),
        },
        Some(UserId::new("Zoë \"42\"").expect("not empty")),
        0,
    )
    .expect("random numbers");
    encoder.copy_from_base(|key| match key {
        b"a" => KeyEdit::Replace(b"2"),
        b"d" => KeyEdit::Drop,
        _ => KeyEdit::Keep,
    });
    encoder.append("n\"ew", b"true");
    let encoded = encoder.finish();
    let again = session(std::str::from_utf8(&encoded.record.bytes).expect("text"));
    assert_eq!(encoded.record.metadata, again.metadata);
    assert_eq!(again.user.as_deref(), Some("Zoë \"42\""));
    for record in [&encoded.record, &again] {
        assert_eq!(record.keys().collect::<Vec<_>>(), ["a", "c\n", "n\"ew"]);
        assert_eq!(record.value("a").as_deref(), Some(&b"2"[..]));
        assert_eq!(record.value("n\"ew").as_deref(), Some(&b"true"[..]));
        assert_eq!(record.value("d"), None);
    }
}

#[test]
fn each_version_has_its_own_revision() {
    let base = session(r#"{"a":1}"#);
    assert_eq!(revision(&base.bytes), base.bytes);
    let (one, two) = (keep_all(&base).record, keep_all(&base).record);
    assert_eq!(revision(&one.bytes).len(), REVISION_LEN);
    assert_ne!(revision(&one.bytes), revision(&two.bytes));
    assert!(same_revision(&one.bytes, &one.bytes));
    assert!(!same_revision(&one.bytes, &two.bytes));
}

/// Only what begins with `_rev` is compared by its beginning.
#[test]
fn json_of_another_writer_is_compared_as_a_whole() {
    for (one, two) in [
        (
            r#"{"name":"zoe","cart":[1,2,3],"n":1}"#,
            r#"{"name":"zoe","cart":[1,2,3],"n":2}"#,
        ),
        (
            r#"{"_rev":"0123456789abcde","n":1}"#,
            r#"{"_rev":"0123456789abcde","n":2}"#,
        ),
    ] {
        assert_eq!(one[..REVISION_LEN], two[..REVISION_LEN]);
        assert_eq!(revision(one.as_bytes()), one.as_bytes());
        assert!(same_revision(one.as_bytes(), one.as_bytes()));
        assert!(!same_revision(one.as_bytes(), two.as_bytes()));
    }
}

#[test]
fn duplicate_keys_are_found_among_any_number_of_keys() {
    for count in [2, MAX_LINEAR_KEYS, MAX_LINEAR_KEYS + 1, 40] {
        let keys: Vec<_> = (1..count).map(|n| format!("\"k{n}\":{n}")).collect();
        let distinct = format!("{{{},\"k\":0}}", keys.join(","));
        assert_eq!(session(&distinct).keys().count(), count);
        for twice in [1, count - 1] {
            let text = format!("{{{},\"k{twice}\":0}}", keys.join(","));
            let error = Record::decode(&Bytes::from(text)).err();
            let error = error.unwrap_or_else(|| panic!("{count} keys, k{twice} twice"));
            assert_eq!(error.kind(), crate::ErrorKind::InvalidData);
        }
    }
}

#[test]
fn invalid_data_is_an_error_and_never_an_empty_session() {
    let deep = format!("{{\"a\":{}", "[".repeat(10_000));
    for (name, stored) in [
        ("empty", &b""[..]),
        ("truncated", b"{\"a\":1"),
        ("random bytes", b"\x80\x04\x95\xff"),
        ("trailing bytes", b"{\"a\":1}x"),
        ("a misspelled true", b"{\"a\":trux}"),
        ("a misspelled false", b"{\"a\":falsy}"),
        ("a misspelled null", b"{\"a\":nulx}"),
        ("not UTF-8", b"{\"a\":\"\xff\"}"),
        ("duplicate keys", b"{\"a\":1,\"a\":2}"),
        ("duplicate keys, one escaped", b"{\"a\":1,\"\\u0061\":2}"),
        ("a list", b"[1]"),
        ("null", b"null"),
        ("a key with half a surrogate pair", b"{\"\\ud800\":1}"),
        ("deep and unfinished", deep.as_bytes()),
    ] {
        let error = Record::decode(&Bytes::copy_from_slice(stored)).err();
        let error = error.unwrap_or_else(|| panic!("{name}: accepted as a session"));
        assert_eq!(error.kind(), crate::ErrorKind::InvalidData, "{name}");
    }
}

#[test]
fn a_session_without_keys_and_user_is_empty() {
    for text in [
        "{}",
        r#"{"_rev":"0123456789abcdef"}"#,
        r#"{"_permanent":true}"#,
        r#"{"_user":""}"#,
    ] {
        let stored = Record::decode(&Bytes::from_static(text.as_bytes()));
        assert!(matches!(stored, Ok(Decoded::Empty)), "{text}");
    }
}

#[test]
fn a_tombstone_holds_its_end_and_nothing_else() {
    let bytes = tombstone(1_764_000_000_000, None).expect("random numbers");
    assert_eq!(&bytes[REVISION_LEN..], b",\"_rotated\":1764000000000}");
    let stored = Record::decode(&bytes);
    assert!(matches!(
        stored,
        Ok(Decoded::Tombstone {
            until: 1_764_000_000_000,
            readable: None,
            moved_to: None,
        })
    ));
}

#[test]
fn a_tombstone_shows_what_stays_readable() {
    let rotated = session(r#"{"_rev":"0123456789abcdef","_user":"zoe","a":1,"b\n":[2]}"#);
    let bytes = tombstone(9, Some((7, &rotated))).expect("random numbers");
    let Ok(Decoded::Tombstone {
        until: 9,
        readable: Some((7, readable)),
        moved_to: None,
    }) = Record::decode(&bytes)
    else {
        panic!("{bytes:?}");
    };
    assert_eq!(readable.user.as_deref(), Some("zoe"));
    assert_eq!(readable.keys().collect::<Vec<_>>(), ["a", "b\n"]);
    assert_eq!(readable.value("b\n").as_deref(), Some(&b"[2]"[..]));
}

#[cfg(feature = "migration")]
#[test]
fn a_pointer_names_the_session_that_another_one_became() {
    let bytes = pointer(9, |_| "session:x".to_owned()).expect("random numbers");
    let Ok(Decoded::Tombstone {
        until: 9,
        readable: None,
        moved_to: Some(to),
    }) = Record::decode(&bytes)
    else {
        panic!("{bytes:?}");
    };
    assert_eq!(&*to, "session:x");
}

#[test]
fn a_permanent_cookie_is_noted_with_its_time() {
    for (value, expected) in [
        ("false", None),
        ("null", None),
        ("true", Some(0)),
        ("1764000000", Some(1_764_000_000)),
    ] {
        let record = session(&format!("{{\"_permanent\":{value},\"a\":1}}"));
        assert_eq!(record.metadata.permanent, expected, "{value}");
    }
}

#[test]
fn own_keys_between_the_apps_are_written_once() {
    let base = session(r#"{"a":1,"_created":5,"b":2}"#);
    let record = keep_all(&base).record;
    let text = std::str::from_utf8(&record.bytes).expect("text");
    assert_eq!(&text[REVISION_LEN..], r#","_created":5,"a":1,"b":2}"#);
    assert_eq!(record.value("b").as_deref(), Some(&b"2"[..]));
}

#[test]
fn space_and_literals_are_read_as_json_has_them() {
    let record = session("\t{ \"a\" : true ,\r\n\"b\":false, \"c\" :null}\n ");
    let values = ["a", "b", "c"].map(|key| record.value(key).expect("there"));
    assert_eq!(values, [&b"true"[..], b"false", b"null"]);
}

/// Four bytes with two escapes: as many more as quotes and escapes add.
#[test]
fn a_key_with_escapes_keeps_its_name_whatever_its_length() {
    let base = session(r#"{"a":1}"#);
    let mut encoder = Encoder::new(&base, base.metadata, None, 0).expect("random numbers");
    for name in ["\"", "\"\"ab", "plain"] {
        encoder.append(name, b"0");
    }
    let record = encoder.finish().record;
    assert_eq!(record.keys().collect::<Vec<_>>(), ["\"", "\"\"ab", "plain"]);
}

#[test]
fn sizes_count_what_they_say() {
    let record = session(r#"{"_created":5,"a":1,"bc":[2]}"#);
    assert_eq!(record.data_len(), r#""a"1"bc"[2]"#.len());
    assert_eq!(
        format!("{record:?}"),
        "Record { bytes: 29, .. }",
        "neither keys nor values"
    );
}

#[cfg(feature = "local-cache")]
#[test]
fn the_memory_of_a_record_is_that_of_its_parts() {
    let text = r#"{"a":1,"b\n":2,"ccc\n":3}"#;
    let mut record = session(text);
    let names = ("b\n".len() + 32) + ("ccc\n".len() + 32);
    let parts = text.len() + 3 * size_of::<fields::Field>() + names;
    assert_eq!(record.size(), parts);
    record.set_sealed(Bytes::from_static(b"sealed"));
    assert_eq!(record.stored(), "sealed");
    assert_eq!(record.size(), parts + "sealed".len() + 48);
    let shared = record.shared();
    assert_eq!(shared.keys().collect::<Vec<_>>(), ["a", "b\n", "ccc\n"]);
    assert_eq!(shared.value("a"), record.value("a"));
}

/// Another framework may use names that this crate reserves in sessions of its own.
#[test]
fn a_shared_session_reserves_one_name() {
    for is_shared in [false, true] {
        let record = Record::empty(is_shared);
        for record in [&record, &record.emptied()] {
            assert_eq!(record.is_reserved(b"_auth_user_id"), !is_shared);
            assert!(record.is_reserved(OWN_KEY.as_bytes()));
        }
    }
}
