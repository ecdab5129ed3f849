use super::*;

fn live(text: &str) -> Record {
    match Record::decode(&Bytes::copy_from_slice(text.as_bytes())) {
        Ok(Stored::Live(record)) => record,
        _ => panic!("not a live session: {text}"),
    }
}

fn keep_all(base: &Record) -> Written {
    let mut writer = Writer::new(base, base.meta, base.user.clone(), 0).expect("random numbers");
    writer.carry_over(|_| Fate::Keep);
    writer.finish()
}

#[test]
fn what_nobody_touched_goes_back_byte_for_byte() {
    let values = [
        r#""big":1180591620717411303424"#,
        r#""z":{"b":1, "a":2}"#,
        r#""surrogate":"\ud800""#,
        r#""es\"caped":[1.0,1e5]"#,
        r#""_user_id":"7""#,
    ];
    let base = live(&format!(
        "{{\"_rev\":\"0123456789abcdef\",\"_created\":5,{}}}",
        values.join(",")
    ));
    let written = keep_all(&base);
    let text = std::str::from_utf8(&written.record.bytes).expect("text");
    assert_eq!(
        &text[FINGERPRINT..],
        &format!(",\"_created\":5,{}}}", values.join(","))
    );
    assert!(!written.changed);
    assert_eq!(
        written.record.value("es\"caped").as_deref(),
        Some(&b"[1.0,1e5]"[..])
    );
    assert_eq!(
        written.record.keys().collect::<Vec<_>>(),
        ["big", "z", "surrogate", "es\"caped"]
    );
}

#[test]
fn a_written_record_is_what_decoding_its_bytes_gives() {
    let base = live(r#"{"a":1,"c\n":[],"d":{"x":"y"}}"#);
    let mut writer = Writer::new(
        &base,
        Meta {
            created: Some(7),
            permanent: Some(9),
            idle_timeout: Some(900_000),
            absolute_timeout: Some(43_200_000),
            listed: Some(11),
        },
        Some("Zoë \"42\"".into()),
        0,
    )
    .expect("random numbers");
    writer.carry_over(|key| match key {
        b"a" => Fate::Replace(b"2"),
        b"d" => Fate::Drop,
        _ => Fate::Keep,
    });
    writer.append("n\"ew", b"true");
    let written = writer.finish();
    let again = live(std::str::from_utf8(&written.record.bytes).expect("text"));
    assert_eq!(written.record.meta, again.meta);
    for record in [&written.record, &again] {
        assert_eq!(record.keys().collect::<Vec<_>>(), ["a", "c\n", "n\"ew"]);
        assert_eq!(record.value("a").as_deref(), Some(&b"2"[..]));
        assert_eq!(record.value("n\"ew").as_deref(), Some(&b"true"[..]));
        assert_eq!(record.value("d"), None);
    }
}

#[test]
fn each_version_has_a_fingerprint_of_its_own() {
    let base = live(r#"{"a":1}"#);
    assert_eq!(fingerprint(&base.bytes), base.bytes);
    let (one, two) = (keep_all(&base).record, keep_all(&base).record);
    assert_eq!(fingerprint(&one.bytes).len(), FINGERPRINT);
    assert_ne!(fingerprint(&one.bytes), fingerprint(&two.bytes));
    assert!(same_version(&one.bytes, &one.bytes));
    assert!(!same_version(&one.bytes, &two.bytes));
}

#[test]
fn what_is_no_session_is_an_error_and_never_an_empty_session() {
    let deep = format!("{{\"a\":{}", "[".repeat(10_000));
    for (name, stored) in [
        ("empty", &b""[..]),
        ("truncated", b"{\"a\":1"),
        ("random bytes", b"\x80\x04\x95\xff"),
        ("trailing bytes", b"{\"a\":1}x"),
        ("not UTF-8", b"{\"a\":\"\xff\"}"),
        ("duplicate keys", b"{\"a\":1,\"a\":2}"),
        ("duplicate keys, one escaped", b"{\"a\":1,\"\\u0061\":2}"),
        ("a list", b"[1]"),
        ("null", b"null"),
        ("a key with half a surrogate pair", b"{\"\\ud800\":1}"),
        ("deep and unfinished", deep.as_bytes()),
    ] {
        let error = Record::decode(&Bytes::copy_from_slice(stored)).err();
        let error = error.unwrap_or_else(|| panic!("{name} was taken for a session"));
        assert_eq!(error.kind(), crate::ErrorKind::InvalidData, "{name}");
    }
}

#[test]
fn a_session_without_a_key_counts_as_gone() {
    for text in [
        "{}",
        r#"{"_rev":"0123456789abcdef"}"#,
        r#"{"_permanent":true}"#,
    ] {
        let stored = Record::decode(&Bytes::from_static(text.as_bytes()));
        assert!(matches!(stored, Ok(Stored::Empty)), "{text}");
    }
}

#[test]
fn a_tombstone_tells_when_it_ends_and_nothing_else() {
    let bytes = tombstone(1_764_000_000_000).expect("random numbers");
    assert_eq!(&bytes[FINGERPRINT..], b",\"_rotated\":1764000000000}");
    let stored = Record::decode(&bytes);
    assert!(matches!(
        stored,
        Ok(Stored::Retired {
            until: 1_764_000_000_000
        })
    ));
}
