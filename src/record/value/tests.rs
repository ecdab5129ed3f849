use std::{collections::BTreeMap, fmt};

use serde::ser::Error;
use serde_json::{Value, json};

use super::*;
use crate::ErrorKind;

#[derive(Serialize)]
struct Unit;

#[derive(Serialize)]
struct Newtype<T>(T);

#[derive(Serialize)]
struct Named<T> {
    value: T,
}

#[derive(Serialize)]
enum Variant<T> {
    Unit,
    Newtype(T),
    Tuple(T, u8),
    Struct { value: T },
}

struct Failing;

impl Serialize for Failing {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("not today"))
    }
}

/// A value is looked at for what is `null` in JSON only if a `null` was written.
const NULL: Option<u8> = None;

fn accepted<T: Serialize>(value: T) -> String {
    let bytes = encode("k", &value).unwrap_or_else(|error| panic!("{error}"));
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn rejected<T: Serialize>(value: T) -> String {
    let error = encode("k", &value).expect_err("it would not be read back");
    assert_eq!(error.kind(), ErrorKind::Encode);
    error.to_string()
}

#[test]
fn floats_that_json_cannot_express_are_rejected_wherever_they_are() {
    for text in [
        rejected(f64::NAN),
        rejected(f64::INFINITY),
        rejected(f32::NEG_INFINITY),
        rejected([1.0, f64::NAN]),
        rejected((1, f64::NAN)),
        rejected(Newtype(f64::NAN)),
        rejected(Named { value: f64::NAN }),
        rejected(Variant::Newtype(f64::NAN)),
        rejected(Variant::Tuple(f64::NAN, 1)),
        rejected(Variant::Struct { value: f64::NAN }),
        rejected(BTreeMap::from([("a", f64::NAN)])),
        rejected(Some(f64::NAN)),
    ] {
        assert!(text.contains("infinite or not a number"), "{text}");
    }
    assert_eq!(accepted((NULL, 1.5_f32, 2.5_f64)), "[null,1.5,2.5]");
    assert_eq!(accepted((NULL, Some(1.5))), "[null,1.5]");
}

#[test]
fn a_some_that_is_null_in_json_is_rejected() {
    for text in [
        rejected(Some(NULL)),
        rejected(Some(())),
        rejected(Some(Unit)),
        rejected(Some(Newtype(NULL))),
        rejected(BTreeMap::from([("a", Some(NULL))])),
    ] {
        assert!(text.contains("`Some` of `None`"), "{text}");
    }
    for (text, expected) in [
        (accepted(NULL), "null"),
        (accepted(()), "null"),
        (accepted(Unit), "null"),
        (accepted((NULL, Some(1))), "[null,1]"),
        (accepted((NULL, Some("x"))), r#"[null,"x"]"#),
        (accepted((NULL, Some(Some(1)))), "[null,1]"),
        (accepted((NULL, Some(Newtype(1)))), "[null,1]"),
        (
            accepted((NULL, Some(Variant::<u8>::Unit))),
            r#"[null,"Unit"]"#,
        ),
        (
            accepted(Some(Variant::Newtype(NULL))),
            r#"{"Newtype":null}"#,
        ),
        (
            accepted(Some(Variant::Tuple(NULL, 1))),
            r#"{"Tuple":[null,1]}"#,
        ),
        (accepted(Some([NULL])), "[null]"),
        (accepted(Some((NULL, 1))), "[null,1]"),
        (accepted(Some(Named { value: NULL })), r#"{"value":null}"#),
        (
            accepted(Some(Variant::Struct { value: NULL })),
            r#"{"Struct":{"value":null}}"#,
        ),
        (
            accepted(Some(BTreeMap::from([("a", NULL)]))),
            r#"{"a":null}"#,
        ),
        (
            accepted((NULL, Some(format_args!("{}", 1) as fmt::Arguments<'_>))),
            r#"[null,"1"]"#,
        ),
    ] {
        assert_eq!(text, expected);
    }
}

#[test]
fn arrays_and_objects_are_counted_where_they_are_nested() {
    let array = |inner| json!([inner]);
    let object = |inner| json!({ "a": inner });
    let nest = |levels: u32, around: fn(Value) -> Value| {
        (1..levels).fold(around(json!(1)), |inner, _| around(inner))
    };
    for around in [array as fn(Value) -> Value, object] {
        let deepest = encode("k", &nest(MAX_DEPTH, around)).expect("127 levels");
        assert!(decode::<Value>("k", &deepest).expect("read").is_some());
        let error = rejected(nest(MAX_DEPTH + 1, around));
        assert!(error.contains("more than 127 levels"), "{error}");
        let siblings = vec![nest(2, around); 200];
        assert!(encode("k", &siblings).is_ok(), "beside each other");
    }
    // What fails in the deepest level is not taken for one level more.
    let error = deepest_failure();
    assert!(error.contains("a Serialize that does not fail"), "{error}");
}

fn deepest_failure() -> String {
    struct Nested(u32);
    impl Serialize for Nested {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0 {
                0 => Failing.serialize(serializer),
                levels => serializer.collect_seq([Nested(levels - 1)]),
            }
        }
    }
    rejected(Nested(MAX_DEPTH))
}

#[test]
fn null_counts_as_absent_unless_the_type_has_it() {
    assert_eq!(decode::<u8>("k", b"null").expect("absent"), None);
    assert_eq!(
        decode::<Option<u8>>("k", b"null").expect("null"),
        Some(None)
    );
    assert_eq!(decode::<u8>("k", b"7").expect("a number"), Some(7));
    let error = decode::<u8>("k", b"\"x\"").expect_err("a text");
    assert_eq!(error.kind(), ErrorKind::Decode);
}
