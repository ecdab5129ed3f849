//! What `insert` accepts, `get` returns unchanged; what it could not return, `insert` refuses.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex},
};

use axum::{Router, routing::get};
use axum_redis_sessions::{ErrorKind, RedisSessionLayer, Session, SessionError};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned, ser};

use crate::{
    client::{begin, on_each_store, send, text},
    support::server::Server,
};

/// serde's data model, as far as serde_json has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Data {
    Unit,
    Bool(bool),
    Small(i8, u16, i32),
    Large(i64, u64),
    Huge(i128, u128),
    Floats {
        single: f32,
        double: f64,
    },
    Char(char),
    Text(String),
    Bytes(Bytes),
    Null(Option<u8>, (), UnitStruct),
    OptionalFloat(Option<f64>),
    OptionalText(Newtype<Option<String>>),
    // Some of these are refused.
    OptionOfOption(Option<Option<u8>>),
    OptionOfUnit(Option<()>),
    OptionOfUnitStruct(Option<UnitStruct>),
    OptionOfNewtype(Option<Newtype<Option<u8>>>),
    OptionOfVariant(Option<Variant>),
    // Keys of every kind.
    Bools(BTreeMap<bool, i8>),
    Integers(BTreeMap<i128, BTreeMap<u64, ()>>),
    Chars(BTreeMap<char, Option<bool>>),
    Texts(BTreeMap<String, Data>),
    Variants(BTreeMap<Newtype<Variant>, f64>),
    List(Vec<Data>),
    Pair(Box<(Data, Data)>),
    Boxed(Newtype<Box<Data>>),
    Struct {
        first: Box<Data>,
        second: Option<Box<Data>>,
    },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct UnitStruct;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Newtype<T>(T);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Variant {
    One,
    Two,
}

/// Serialized by `serialize_bytes`, not as a sequence.
#[derive(Clone, Debug)]
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self)
    }
}

impl Data {
    fn can_be_stored(&self) -> bool {
        match self {
            Self::Floats { single, double } => single.is_finite() && double.is_finite(),
            Self::OptionalFloat(float) => float.is_none_or(f64::is_finite),
            Self::Variants(map) => map.values().all(|float| float.is_finite()),
            Self::OptionOfOption(Some(None))
            | Self::OptionOfUnit(Some(()))
            | Self::OptionOfUnitStruct(Some(_))
            | Self::OptionOfNewtype(Some(Newtype(None))) => false,
            Self::Texts(map) => map.values().all(Self::can_be_stored),
            Self::List(list) => list.iter().all(Self::can_be_stored),
            Self::Pair(pair) => pair.0.can_be_stored() && pair.1.can_be_stored(),
            Self::Boxed(Newtype(data)) => data.can_be_stored(),
            Self::Struct { first, second } => {
                first.can_be_stored() && second.as_ref().is_none_or(|data| data.can_be_stored())
            }
            _ => true,
        }
    }
}

fn data() -> impl Strategy<Value = Data> {
    let variant = || prop_oneof![Just(Variant::One), Just(Variant::Two)];
    let double = || prop_oneof![9 => any::<f64>(), 1 => any::<u64>().prop_map(f64::from_bits)];
    let single = prop_oneof![9 => any::<f32>(), 1 => any::<u32>().prop_map(f32::from_bits)];
    let key = || prop_oneof![any::<i128>(), -3..3_i128];
    let leaf = prop_oneof![
        Just(Data::Unit),
        any::<bool>().prop_map(Data::Bool),
        any::<(i8, u16, i32)>().prop_map(|(a, b, c)| Data::Small(a, b, c)),
        any::<(i64, u64)>().prop_map(|(a, b)| Data::Large(a, b)),
        any::<(i128, u128)>().prop_map(|(a, b)| Data::Huge(a, b)),
        (single, double()).prop_map(|(single, double)| Data::Floats { single, double }),
        any::<char>().prop_map(Data::Char),
        any::<String>().prop_map(Data::Text),
        any::<Vec<u8>>().prop_map(|bytes| Data::Bytes(Bytes(bytes))),
        any::<Option<u8>>().prop_map(|option| Data::Null(option, (), UnitStruct)),
        option::of(double()).prop_map(Data::OptionalFloat),
        any::<Option<String>>().prop_map(|text| Data::OptionalText(Newtype(text))),
        any::<Option<Option<u8>>>().prop_map(Data::OptionOfOption),
        any::<Option<()>>().prop_map(Data::OptionOfUnit),
        option::of(Just(UnitStruct)).prop_map(Data::OptionOfUnitStruct),
        option::of(any::<Option<u8>>().prop_map(Newtype)).prop_map(Data::OptionOfNewtype),
        option::of(variant()).prop_map(Data::OptionOfVariant),
        btree_map(any::<bool>(), any::<i8>(), 0..3).prop_map(Data::Bools),
        btree_map(key(), btree_map(any::<u64>(), Just(()), 0..3), 0..3).prop_map(Data::Integers),
        btree_map(any::<char>(), any::<Option<bool>>(), 0..3).prop_map(Data::Chars),
        btree_map(variant().prop_map(Newtype), double(), 0..3).prop_map(Data::Variants),
    ];
    leaf.prop_recursive(6, 24, 3, |data| {
        let boxed = data.clone().prop_map(Box::new);
        prop_oneof![
            btree_map(any::<String>(), data.clone(), 0..3).prop_map(Data::Texts),
            vec(data.clone(), 0..3).prop_map(Data::List),
            (data.clone(), data).prop_map(|pair| Data::Pair(Box::new(pair))),
            boxed.clone().prop_map(|data| Data::Boxed(Newtype(data))),
            (boxed.clone(), option::of(boxed))
                .prop_map(|(first, second)| Data::Struct { first, second }),
        ]
    })
}

/// The session of a request that has ended.
async fn session() -> Session {
    let kept: Arc<Mutex<Option<Session>>> = Arc::default();
    let keep = kept.clone();
    let handler =
        get(async move |session: Session| *keep.lock().expect("no panic") = Some(session));
    let app = Router::new().route("/", handler);
    send(&app.layer(RedisSessionLayer::in_memory()), "/", None).await;
    kept.lock().expect("no panic").take().expect("a session")
}

#[tokio::test]
async fn a_value_comes_back_unchanged_or_is_refused() {
    let session = session().await;
    let config = Config {
        cases: 4096,
        failure_persistence: None,
        ..Config::default()
    };
    let run = TestRunner::new(config).run(&data(), |data| {
        let inserted = session.insert("data", &data);
        prop_assert_eq!(inserted.is_ok(), data.can_be_stored(), "{:?}", inserted);
        match inserted {
            Ok(()) => {
                let read = session
                    .get::<Data>("data")
                    .expect("decoded")
                    .expect("a value");
                // Tells -0.0 from 0.0, unlike `==`.
                prop_assert_eq!(format!("{read:?}"), format!("{data:?}"));
            }
            Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Encode),
        }
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("{error}"));
}

fn floats() -> Vec<f64> {
    let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
    let random = std::iter::from_fn(|| {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        Some(f64::from_bits(bits))
    });
    let edges = [
        1.414_213_562_373_095_2e-7,
        -0.0,
        f64::MIN_POSITIVE,
        f64::MAX,
        5e-324,
    ];
    edges
        .into_iter()
        .chain(random.filter(|float| float.is_finite()).take(2000))
        .collect()
}

#[tokio::test]
async fn floats_and_huge_integers_are_stored_bit_for_bit() {
    async fn put(session: Session) -> Result<(), SessionError> {
        session.insert("floats", floats())?;
        session.insert(
            "singles",
            floats()
                .iter()
                .map(|float| *float as f32)
                .filter(|float| float.is_finite())
                .collect::<Vec<_>>(),
        )?;
        session.insert("huge", [(i128::MIN, u128::MAX)])
    }
    async fn wrong(session: Session) -> Result<String, SessionError> {
        let read: Vec<f64> = session.get("floats")?.unwrap_or_default();
        let wrong = read
            .iter()
            .zip(floats())
            .filter(|(read, float)| read.to_bits() != float.to_bits());
        let singles: Vec<f32> = session.get("singles")?.unwrap_or_default();
        let expected = floats()
            .into_iter()
            .map(|float| float as f32)
            .filter(|float| float.is_finite());
        let wrong_singles = singles
            .iter()
            .zip(expected)
            .filter(|(read, float)| read.to_bits() != float.to_bits());
        let huge: Vec<(i128, u128)> = session.get("huge")?.unwrap_or_default();
        Ok(format!(
            "{} {} {} {huge:?}",
            read.len(),
            wrong.count(),
            wrong_singles.count()
        ))
    }
    on_each_store(|layer| async {
        let app = Router::new()
            .route("/put", get(put))
            .route("/wrong", get(wrong))
            .layer(layer);
        let cookie = begin(&app, "/put").await;
        let read = text(send(&app, "/wrong", Some(&cookie)).await).await;
        assert_eq!(read, format!("2005 0 0 [({}, {})]", i128::MIN, u128::MAX));
    })
    .await;
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Nested {
    End,
    List(Vec<Nested>),
    Struct { inner: Box<Nested> },
}

/// Each level is an array in an object.
fn nested(levels: usize) -> Nested {
    (0..levels).fold(Nested::End, |inner, _| Nested::List(vec![inner]))
}

#[tokio::test]
async fn values_that_cannot_be_read_back_are_refused_with_a_reason() {
    fn refused(session: &Session, name: &str, value: impl Serialize, why: &str) {
        session.insert("kept", 1).expect("a number");
        let error = session.insert("kept", value).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Encode, "{name}");
        assert!(error.to_string().contains(why), "{name}: {error}");
        assert_eq!(session.get("kept").expect("a number"), Some(1), "{name}");
    }
    fn kept<T: Serialize + DeserializeOwned + PartialEq + Debug>(session: &Session, value: T) {
        session.insert("kept", &value).expect("accepted");
        assert_eq!(session.get::<T>("kept").expect("decoded"), Some(value));
    }
    let session = session().await;
    let float = "infinite or not a number";
    refused(&session, "NaN", f64::NAN, float);
    refused(
        &session,
        "a negative infinity of 32 bits",
        f32::NEG_INFINITY,
        float,
    );
    refused(
        &session,
        "a float in a map",
        BTreeMap::from([("a", (None::<u8>, f64::INFINITY))]),
        float,
    );
    refused(&session, "an optional float", Some(f64::NAN), float);
    let some = "`Some` of `None`";
    refused(&session, "Some(None)", Some(None::<u64>), some);
    refused(&session, "Some(())", [Some(())], some);
    refused(
        &session,
        "Some of JSON's null",
        Some(serde_json::Value::Null),
        some,
    );
    refused(&session, "Some of a unit struct", Some(UnitStruct), some);
    let deep = "more than 127 levels";
    refused(&session, "nested 128 times", nested(64), deep);
    let structs = (0..64).fold(Nested::End, |inner, _| Nested::Struct {
        inner: inner.into(),
    });
    refused(&session, "structs nested 128 times", structs, deep);
    let mut json = serde_json::Value::from(1);
    for _ in 0..127 {
        json = vec![json].into();
    }
    kept(&session, json.clone());
    refused(&session, "JSON nested 128 times", [json], deep);
    refused(&session, "endless", Endless, deep);
    refused(&session, "a Serialize that fails", Fails, "does not fail");

    kept(&session, nested(63));
    kept(&session, vec![nested(63)]);
    kept(&session, None::<u64>);
    kept(&session, ());
    kept(&session, Some(Some(1)));
    kept(&session, [Some(vec![()]), None]);
    kept(&session, vec![0; 1000]);
}

/// As a structure that contains itself.
struct Endless;

impl Serialize for Endless {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq([Self])
    }
}

struct Fails;

impl Serialize for Fails {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(ser::Error::custom("on purpose"))
    }
}

#[tokio::test]
async fn update_and_modify_refuse_what_insert_refuses() {
    let session = session().await;
    session.insert("ratio", 0.0).expect("a float");
    let divided = session.update("ratio", |ratio: Option<f64>| 1.0 / ratio.unwrap_or(0.0));
    assert_eq!(divided.expect_err("infinite").kind(), ErrorKind::Encode);
    let divided = session.modify("ratio", |ratio: &mut f64| *ratio /= *ratio);
    assert_eq!(divided.expect_err("not a number").kind(), ErrorKind::Encode);
    assert_eq!(session.get("ratio").expect("a float"), Some(0.0));
}

#[tokio::test]
async fn a_null_that_is_not_a_value_is_absent() {
    async fn read(session: Session) -> Result<String, SessionError> {
        let number = session.get::<u64>("null")?;
        let optional = session.get::<Option<u64>>("null")?;
        let unit = session.get::<()>("null")?;
        let json = session.get::<serde_json::Value>("null")?;
        let taken = session.take::<String>("null")?;
        Ok(format!(
            "{number:?} {optional:?} {unit:?} {json:?} {taken:?}"
        ))
    }
    async fn count(session: Session) -> Result<String, SessionError> {
        let count = session.update("null", |n: Option<u64>| n.map_or(1, |n| n + 1))?;
        Ok(count.to_string())
    }
    async fn begin_list(session: Session) -> Result<String, SessionError> {
        session.insert("null", None::<Vec<u8>>)?;
        let list = session.modify("null", |list: &mut Vec<u8>| list.push(7))?;
        Ok(format!("{list:?}"))
    }
    let server = Server::start().await;
    let app = Router::new()
        .route(
            "/put",
            get(async |session: Session| session.insert("null", None::<u64>)),
        )
        .route("/read", get(read))
        .route("/count", get(count))
        .route("/list", get(begin_list))
        .layer(RedisSessionLayer::new(server.client()));
    let cookie = begin(&app, "/put").await;
    let page = async |path| text(send(&app, path, Some(&cookie)).await).await;
    assert_eq!(
        page("/read").await,
        "None Some(None) Some(()) Some(Null) None"
    );
    assert_eq!(page("/count").await, "1");
    assert_eq!(page("/count").await, "2");
    assert_eq!(page("/list").await, "[7]");
}
