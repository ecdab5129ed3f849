//! An error of each kind, from a session whose id, key, user and values are secret.

use std::{
    collections::{BTreeMap, HashSet},
    error::Error,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    routing::{MethodRouter, get},
};
use axum_redis_sessions::{
    ErrorKind, LazySession, RedisSessionLayer, Session, SessionError, SessionId, SessionLimit,
};

use crate::{
    PASSWORD, VALUE, assert_debug, assert_redacted,
    client::{begin, send, text},
    layers, log_in, server,
    support::{secrets::has_id, server::Server},
};

fn assert_error(error: &SessionError) {
    let kind = format!("{:?}", error.kind());
    assert_debug(&kind, error);
    assert_redacted(&kind, &error.to_string());
    let mut source = error.source();
    while let Some(cause) = source {
        assert_debug(&kind, &cause);
        assert_redacted(&kind, &cause.to_string());
        source = cause.source();
    }
}

/// The error that a request with this cookie meets, in the handler or in the save after it.
async fn error_of(layer: &RedisSessionLayer, cookie: &str, handler: MethodRouter) -> SessionError {
    let app = Router::new().route("/", handler).layer(layer.clone());
    let response = send(&app, "/", Some(cookie)).await;
    let error = response.extensions().get::<SessionError>().cloned();
    let error = error.unwrap_or_else(|| panic!("no error, but {}", response.status()));
    assert_error(&error);
    assert_debug("an error's headers", response.headers());
    assert_redacted("an error's text", &text(response).await);
    error
}

#[tokio::test]
async fn errors_of_every_kind_are_redacted() {
    let server = server().await;
    let mut kinds = HashSet::new();
    for layer in layers(&server).into_iter().take(2) {
        let layer = layer.with_deadline(Duration::from_secs(10));
        kinds.extend(errors_of(&server, &layer).await);
    }
    let source = include_str!("../../src/error.rs");
    let (_, all) = source.split_once("pub enum ErrorKind {").expect("kinds");
    let (all, _) = all.split_once("\n}").expect("an end");
    for line in all.lines().map(str::trim) {
        let Some(kind) = line.strip_suffix(',').filter(|_| !line.starts_with('/')) else {
            continue;
        };
        let is_seen = kinds.iter().any(|seen| format!("{seen:?}") == kind);
        assert!(is_seen, "no error of the kind {kind} was looked at");
    }
}

/// Errors of each kind, of some kinds from several causes.
async fn errors_of(server: &Server, layer: &RedisSessionLayer) -> Vec<ErrorKind> {
    let app = Router::new().route("/", get(log_in)).layer(layer.clone());
    let key_of_new = async || {
        server.command::<String>(&["FLUSHALL"]).await;
        let cookie = begin(&app, "/").await;
        let keys: Vec<String> = server.command(&["KEYS", "*"]).await;
        let mut sessions = keys.into_iter().filter(|key| has_id(key));
        (cookie, sessions.next().expect("a session"))
    };
    let (cookie, key) = key_of_new().await;
    let write =
        || get(async |session: Session| session.insert("name", format!("{VALUE}, changed")));
    let mut errors = vec![];

    let missing = LazySession::from_extensions(&axum::http::Extensions::new());
    errors.push(missing.expect_err("no layer"));
    let decode = get(async |session: Session| session.get::<u64>("name").map(drop));
    errors.push(error_of(layer, &cookie, decode).await);
    let encode =
        async |session: Session| session.insert("map", BTreeMap::from([(vec![VALUE], VALUE)]));
    errors.push(error_of(layer, &cookie, get(encode)).await);
    let reserved = get(async |session: Session| session.insert("_sesame-is-not-told", VALUE));
    let reserved = error_of(layer, &cookie, reserved).await;
    errors.push(reserved);
    let rejected = async |session: Session| {
        let reject = |_: Option<String>| Err("the app's own words");
        session.try_update("name", reject).map(drop)
    };
    errors.push(error_of(layer, &cookie, get(rejected)).await);
    errors.push(layer.users().of("").expect_err("no user"));
    let small = layer.clone().with_max_size(20);
    errors.push(error_of(&small, &cookie, write()).await);
    let full = layer
        .clone()
        .with_sessions_per_user(1, SessionLimit::Reject);
    errors.push(error_of(&full, "none=1", get(log_in)).await);
    let zeros = layer
        .clone()
        .with_id_generator(|| SessionId::from_bytes([0; 16]));
    errors.push(error_of(&zeros, "none=1", write()).await);

    // Another client writes before each try.
    let other = Mutex::new(server.client().get_connection().expect("a connection"));
    let other = Arc::new(other);
    let disturbed = key.clone();
    let conflict = get(async move |session: Session| {
        session.update("n", move |n: Option<u64>| {
            static VERSION: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
            let version = VERSION.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let stored = format!(r#"{{"_rev":"{version:016x}","name":"{VALUE}"}}"#);
            let mut set = redis::cmd("SET");
            let set = set.arg(&disturbed).arg(stored);
            let mut other = other.lock().expect("no panic");
            set.exec(&mut *other).expect("set");
            n.unwrap_or(0) + 1
        })?;
        Ok::<_, SessionError>(())
    });
    let conflict = error_of(layer, &cookie, conflict).await;
    errors.push(conflict);

    let gone = key.clone();
    let client = server.client();
    let ended = get(async move |session: Session| {
        let mut connection = client.get_connection().expect("a connection");
        redis::cmd("DEL")
            .arg(&gone)
            .exec(&mut connection)
            .expect("deleted");
        session.insert("name", VALUE)?;
        session.save().await
    });
    errors.push(error_of(layer, &cookie, ended).await);

    let late: Arc<Mutex<Option<Session>>> = Arc::default();
    let keep = late.clone();
    let keeping =
        get(async move |session: Session| *keep.lock().expect("no panic") = Some(session));
    send(
        &Router::new().route("/", keeping).layer(layer.clone()),
        "/",
        None,
    )
    .await;
    let late = late.lock().expect("no panic").take().expect("a session");
    late.insert("name", VALUE).expect("text");
    errors.push(late.save().await.expect_err("too late"));

    let (cookie, key) = key_of_new().await;
    let acks = layer
        .clone()
        .with_replica_acks(1, Duration::from_millis(50));
    let destroy = get(async |session: Session| session.destroy());
    errors.push(error_of(&acks, &cookie, destroy).await);
    for stored in [VALUE, "{\"sesame\":1,\"sesame\":2}"] {
        server.command::<String>(&["SET", &key, stored]).await;
        errors.push(error_of(layer, &cookie, write()).await);
    }
    server.command::<i64>(&["DEL", &key]).await;
    server.command::<i64>(&["RPUSH", &key, VALUE]).await;
    errors.push(error_of(layer, &cookie, write()).await);

    let (cookie, _) = key_of_new().await;
    server.set("maxmemory", "1").await;
    errors.push(error_of(layer, &cookie, write()).await);
    server.set("maxmemory", "0").await;
    server
        .command::<String>(&["ACL", "SETUSER", "default", "-getex"])
        .await;
    errors.push(error_of(layer, &cookie, write()).await);
    server
        .command::<String>(&["ACL", "SETUSER", "default", "+getex"])
        .await;
    let address = format!("redis://:{PASSWORD}-wrong@127.0.0.1:{}/", server.port());
    let wrong = redis::Client::open(address).expect("an address");
    let away =
        redis::Client::open(format!("redis://:{PASSWORD}@127.0.0.1:1/")).expect("an address");
    for client in [wrong, away] {
        let layer = RedisSessionLayer::new(client).with_deadline(Duration::from_millis(500));
        let cookie = "__Host-session=5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e";
        errors.push(error_of(&layer, cookie, write()).await);
    }
    errors.iter().for_each(assert_error);
    errors.iter().map(SessionError::kind).collect()
}
