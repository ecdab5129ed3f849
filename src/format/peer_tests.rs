//! Values that the Rust crates themselves stored, with the key 0, 1, … 63.

use super::*;

fn key() -> [u8; 64] {
    std::array::from_fn(|index| index as u8)
}

fn other_key() -> [u8; 64] {
    [7; 64]
}

/// The cookie's value, the id, and each form that must refuse it.
fn check(format: &dyn Format, value: &str, id: &str, others: &[&dyn Format]) {
    assert_eq!(format.id("id", value).as_deref(), Some(id));
    for other in others {
        assert_eq!(other.id("id", value), None, "{value}");
    }
    for index in 0..value.len() {
        let changed = [&value[..index], "!", &value[index + 1..]].concat();
        assert_eq!(format.id("id", &changed), None, "{changed}");
        let cut = &value[..index];
        assert_eq!(format.id("id", cut), None, "{cut}");
    }
}

/// tower-sessions 0.14.0 with tower-sessions-redis-store 0.16.0.
#[test]
fn tower_sessions_is_read() {
    let plain = TowerSessions::plain();
    let signed = TowerSessions::signed(&key());
    let private = TowerSessions::private(&key());
    let [other_signed, other_private] = [
        TowerSessions::signed(&other_key()),
        TowerSessions::private(&other_key()),
    ];
    check(
        &plain,
        "ZcrxH1anuN4IQMeNc432TA",
        "ZcrxH1anuN4IQMeNc432TA",
        &[&signed, &private],
    );
    check(
        &signed,
        "3BNsijfPa38FOImgOo/ZorDhCtqpb5twhzxY5kUqQpo=3bH-smts7uEWx-7DbnXWDQ",
        "3bH-smts7uEWx-7DbnXWDQ",
        &[&plain, &private, &other_signed],
    );
    let encrypted = "NwxkML1j5Ab5UcLNPSXM2Nsnkp3L/KnSl/i/33gYxJD8WD9BT9DIbOZE4+qx1FhdDMM=";
    check(
        &private,
        encrypted,
        "PKfrWAeax2Z3PEePme2rCA",
        &[&plain, &signed, &other_private],
    );
    assert_eq!(private.id("other", encrypted), None, "of another cookie");
    for (hex, json) in [
        (
            "93c4104cf68d738dc74008deb8a7561ff1ca6583a46e616d65a45a6fc3aba7757365725f69642aa4626c6f629201ccff99cd07eacd0159042e14ce210ab88b000000",
            r#"{"name":"Zoë","user_id":42,"blob":[1,255]}"#,
        ),
        (
            "93c4100dd6756ec3eec716e1ee6c6bb2feb1dd83a7757365725f69642aa46e616d65a45a6fc3aba4626c6f629201ccff99cd07eacd0159042e14ce2d75cc7c000000",
            r#"{"user_id":42,"name":"Zoë","blob":[1,255]}"#,
        ),
    ] {
        let stored = super::tests::unhex(hex);
        assert_eq!(plain.decode(&stored).expect("readable"), json);
        for length in 0..18 + 40 {
            assert!(plain.decode(&stored[..length]).is_err(), "{length}");
        }
    }
    for stored in ["", "90", "93c0c0c0", "9280c0", "80", "93dfffffffff"] {
        assert!(
            plain.decode(&super::tests::unhex(stored)).is_err(),
            "{stored}"
        );
    }
}

/// actix-session 0.11.0.
#[test]
fn actix_session_is_read() {
    let signed = ActixSession::signed(&key());
    let private = ActixSession::private(&key());
    let [other_signed, other_private] = [
        ActixSession::signed(&other_key()),
        ActixSession::private(&other_key()),
    ];
    let id = "BHD2FmfebASXA91iS1RNxO7yrzKkBPLomLf45q8TZGg8Oh45ZBi1P1FBZLPfxtMP";
    check(
        &private,
        "NKIdu+0XYPV5YRMog0y2dAheFdfYyc1qDILdKdLNDo7%2FnLU+BdL3FMj0pMug+FD0dVdrfAEPGhjMj1srY5mL%2FAtC4zcp6RwE%2FeyQHilOkkkECqf9X1syJpG+ZMs%3D",
        id,
        &[&signed, &other_private],
    );
    check(
        &signed,
        "U9kZ5SeQu0kE4S1SvetguzjYsE80umhEDO0ACAa9638%3DtZzh0TTrftXQZEs7KmEm4HwoNAJr2OLKmOeJELEvaFpWoOlX7y3D4D01IKC7BfDo",
        "tZzh0TTrftXQZEs7KmEm4HwoNAJr2OLKmOeJELEvaFpWoOlX7y3D4D01IKC7BfDo",
        &[&private, &other_signed],
    );
    let stored = br#"{"user_id":"42","name":"\"Zo\u00eb\""}"#;
    assert_eq!(
        signed.decode(stored).expect("readable"),
        r#"{"user_id":42,"name":"Zoë"}"#
    );
    for stored in [
        "",
        "[]",
        "{\"a\":1}",
        "{\"a\":\"x\"}",
        "{\"a\":\"1\",\"a\":\"2\"}",
        "{\"a\":\"1 2\"}",
    ] {
        assert!(signed.decode(stored.as_bytes()).is_err(), "{stored}");
    }
}

/// axum_session 0.22.1 with axum_session_redispool 0.13.0.
#[test]
fn axum_session_is_read() {
    let format = AxumSession::new();
    let id = "8ff6407c-4abc-4551-91b0-16596aad0514";
    check(&format, id, id, &[]);
    let stored = r#"{"data":{"name":"\"Zoë\"","user_id":"42"},"longterm":false}"#;
    assert_eq!(
        format.decode(stored.as_bytes()).expect("readable"),
        r#"{"name":"Zoë","user_id":42,"_permanent":true}"#
    );
    for stored in [
        "{}",
        "{\"data\":[]}",
        "{\"data\":{\"a\":1}}",
        "{\"data\":{\"a\":\"\"}}",
    ] {
        assert!(format.decode(stored.as_bytes()).is_err(), "{stored}");
    }
}
