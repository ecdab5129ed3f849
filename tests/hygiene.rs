//! No id, no key and no value in what is said: in errors, in `Debug`, and through `tracing`, at every level.
//!
//! Whatever is secret here has the word "sesame" in it, or the form of an id.

#[path = "support/exchange.rs"]
mod exchange;
mod support;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    error::Error,
    fmt,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use axum::{
    Router,
    http::{Request, Response},
    routing::{MethodRouter, get},
};
use axum_redis_sessions::{
    ErrorKind, LazySession, RedisSessionLayer, SameSite, Session, SessionError, SessionHandle,
    SessionId, SessionLimit, Timeouts,
};
use exchange::{begin, pair, send, set_cookie, text};
use support::{log::Log, server::Server};
use tower::{Layer, Service};

/// All tests of this binary write to it.
static LOG: LazyLock<Log> = LazyLock::new(Log::of_this_process);

const PASSWORD: &str = "sesame-of-the-server";
const KEY: &str = "sesame that signs cookies, 32 bytes";
const VALUE: &str = "sesame that is a value";
const USER: &str = "sesame that is a user";

/// `sesame` as text, as a list of bytes, and in hexadecimal digits; or an id.
fn assert_secret(what: &str, text: &str) {
    for form in ["sesame", "115, 101, 115, 97, 109, 101", "736573616d65"] {
        assert!(!text.to_lowercase().contains(form), "{what}: {text}");
    }
    // On several lines, one number each.
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!one_line.contains("115, 101, 115, 97"), "{what}: {text}");
    assert!(!has_id(text), "{what}: {text}");
}

/// Whether there is something in the form of an id, or of a key that is the hash of one.
fn has_id(text: &str) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let is_id = |window: &[u8]| {
        window.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => is_digit(byte),
        })
    };
    let bytes = text.as_bytes();
    bytes.windows(36).any(is_id) || bytes.windows(64).any(|window| window.iter().all(is_digit))
}

fn assert_debug(what: &str, it: &dyn fmt::Debug) {
    assert_secret(what, &format!("{it:?}"));
    assert_secret(what, &format!("{it:#?}"));
}

fn assert_error(error: &SessionError) {
    let kind = format!("{:?}", error.kind());
    assert_debug(&kind, error);
    assert_secret(&kind, &error.to_string());
    let mut source = error.source();
    while let Some(cause) = source {
        assert_debug(&kind, &cause);
        assert_secret(&kind, &cause.to_string());
        source = cause.source();
    }
}

async fn server() -> Server {
    LazyLock::force(&LOG);
    Server::start_with(&["--requirepass", PASSWORD]).await
}

fn layers(server: &Server) -> [RedisSessionLayer; 3] {
    let plain = RedisSessionLayer::new(server.client());
    let guarded = plain
        .clone()
        .with_prefix("guarded:")
        .with_signing_keys([KEY])
        .with_hashed_keys()
        .with_password_provider(|| PASSWORD.to_owned());
    [plain, guarded, RedisSessionLayer::in_memory()]
}

async fn log_in(session: Session) -> Result<(), SessionError> {
    session.cycle_id();
    session.set_user(USER)?;
    session.insert("name", VALUE)
}

#[tokio::test]
async fn debug_of_no_public_type_shows_an_id_a_key_or_a_value() {
    let server = server().await;
    let shown: Arc<Mutex<BTreeSet<&str>>> = Arc::default();
    let show = {
        let shown = shown.clone();
        move |name: &'static str, it: &dyn fmt::Debug| {
            assert_debug(name, it);
            shown.lock().expect("no panic").insert(name);
        }
    };
    for layer in layers(&server) {
        let in_handler = show.clone();
        let handler = get(async move |lazy: LazySession, session: Session| {
            in_handler("LazySession", &lazy);
            in_handler("Session", &session);
            in_handler("SessionId", &session.id());
            in_handler("SessionHandle", &session.handle());
            let sessions = session.user_sessions().expect("a user");
            in_handler("UserSessions", &sessions);
            let of_user = sessions.list().await?;
            assert_eq!(of_user.len(), 1);
            in_handler("UserSession", &of_user);
            session.insert("another", VALUE)?;
            session.destroy();
            in_handler("Session", &session);
            Ok::<_, SessionError>(())
        });
        let app = Router::new()
            .route("/", get(log_in))
            .route("/show", handler)
            .layer(layer.clone());
        let response = send(&app, "/", None).await;
        assert_eq!(response.status(), 200);
        // The header itself, for an access log that writes them all.
        assert_debug("the response's headers", response.headers());
        let cookie = pair(&set_cookie(&response).expect("a cookie")).to_owned();
        let shown = send(&app, "/show", Some(&cookie)).await;
        assert_eq!(shown.status(), 200);

        show("RedisSessionLayer", &layer);
        show("CommitStats", &layer.commit_stats());
        show("Users", &layer.users());
        let inner = tower::service_fn(async |_: Request<String>| {
            Ok::<_, std::convert::Infallible>(Response::new(String::new()))
        });
        let mut service = layer.layer(inner);
        let request = Request::builder().header("cookie", &cookie);
        let request = request.body(String::new()).expect("a request");
        show("ResponseFuture", &service.call(request));
    }
    #[derive(Clone, Debug)]
    struct Inner;
    show(
        "SessionService",
        &RedisSessionLayer::in_memory().layer(Inner),
    );
    show("SessionId", &SessionId::random().expect("random numbers"));
    let no_handle = VALUE.parse::<SessionHandle>().expect_err("no handle");
    show("ParseSessionHandleError", &no_handle);
    assert_secret("ParseSessionHandleError", &no_handle.to_string());
    let mistake = RedisSessionLayer::in_memory().with_signing_keys(["sesame"]);
    let mistake = mistake.validate().expect_err("a short key");
    show("ConfigError", &mistake);
    assert_secret("ConfigError", &mistake.to_string());
    // Without a secret to show, and shown for the list below to be whole.
    show("SessionLimit", &SessionLimit::Reject);
    show("SameSite", &SameSite::Lax);
    show("Timeouts", &Timeouts::NIST_AAL1);
    // These two have a test of their own.
    show("ErrorKind", &ErrorKind::InvalidData);
    shown.lock().expect("no panic").insert("SessionError");

    let shown = shown.lock().expect("no panic").clone();
    assert_eq!(shown, public_types());
}

/// The names that the crate exports.
fn public_types() -> BTreeSet<&'static str> {
    let source = include_str!("../src/lib.rs");
    let (_, exports) = source.split_once("pub use crate::{").expect("exports");
    let (exports, _) = exports.split_once("};").expect("an end");
    exports
        .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|name| name.starts_with(|letter: char| letter.is_ascii_uppercase()))
        .collect()
}

/// The error that a request with this cookie meets, in the handler or in the save after it.
async fn error_of(layer: &RedisSessionLayer, cookie: &str, handler: MethodRouter) -> SessionError {
    let app = Router::new().route("/", handler).layer(layer.clone());
    let response = send(&app, "/", Some(cookie)).await;
    let error = response.extensions().get::<SessionError>().cloned();
    let error = error.unwrap_or_else(|| panic!("no error, but {}", response.status()));
    assert_error(&error);
    assert_debug("an error's headers", response.headers());
    assert_secret("an error's text", &text(response).await);
    error
}

#[tokio::test]
async fn no_error_shows_an_id_a_key_or_a_value() {
    let server = server().await;
    let mut kinds = HashSet::new();
    for layer in layers(&server).into_iter().take(2) {
        let layer = layer.with_deadline(Duration::from_secs(10));
        kinds.extend(errors_of(&server, &layer).await);
    }
    let source = include_str!("../src/error.rs");
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

/// One of each kind, and some kinds from several places.
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

    // Somebody else saves before each try.
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

#[tokio::test]
async fn the_log_at_trace_has_no_id_no_key_and_no_value() {
    let mut server = server().await;
    for layer in layers(&server) {
        let (sender, receiver) = tokio::sync::oneshot::channel::<Session>();
        let sender = Arc::new(Mutex::new(Some(sender)));
        let keeping = get(async move |session: Session| {
            let _ = session.insert("kept", VALUE);
            let sender = sender.lock().expect("no panic").take();
            sender.expect("once").send(session).ok();
        });
        let app = Router::new()
            .route("/", get(log_in))
            .route("/keep", keeping)
            .route(
                "/look",
                get(async |session: Session| session.get::<String>("name").map(drop)),
            )
            .route(
                "/wrong",
                get(async |session: Session| session.get::<u64>("name").map(drop)),
            )
            .route("/end", get(async |session: Session| session.destroy()))
            .route(
                "/end-all",
                get(async |session: Session| {
                    let sessions = session.user_sessions().expect("a user");
                    sessions.revoke_all().await.map(|ended| ended.to_string())
                }),
            )
            .route(
                "/panic",
                get(async |session: Session| {
                    session.insert("name", VALUE).expect("text");
                    assert!(session.is_empty(), "on purpose");
                }),
            )
            .layer(layer);
        let first = begin(&app, "/").await;
        let response = send(&app, "/", Some(&first)).await;
        let second = pair(&set_cookie(&response).expect("a new id")).to_owned();
        for path in ["/look", "/wrong"] {
            for cookie in [&first, &second] {
                send(&app, path, Some(cookie)).await;
            }
        }
        // Behind a tombstone: dropped, as the log says.
        send(&app, "/", Some(&first)).await;
        let kept = send(&app, "/keep", Some(&second)).await;
        assert_eq!(kept.status(), 200);
        let kept = receiver.await.expect("a session");
        kept.insert("late", VALUE).expect("text");
        send(&app, "/end", Some(&second)).await;
        assert_eq!(
            kept.save().await.expect_err("logged out").kind(),
            ErrorKind::Ended
        );
        kept.insert("late", VALUE).expect("text");
        drop(kept);
        let third = begin(&app, "/").await;
        let panicking = tokio::spawn({
            let (app, third) = (app.clone(), third.clone());
            async move { send(&app, "/panic", Some(&third)).await }
        });
        assert!(panicking.await.expect_err("a panic").is_panic());
        send(&app, "/end-all", Some(&third)).await;
    }
    // And away.
    let layer = layers(&server)[1]
        .clone()
        .with_deadline(Duration::from_millis(300));
    let app = Router::new().route("/", get(log_in)).layer(layer);
    let cookie = begin(&app, "/").await;
    server.kill();
    for cookie in [Some(&*cookie), None] {
        let response = send(&app, "/", cookie).await;
        assert_eq!(response.status(), 503);
    }
    let log = LOG.text();
    for said in ["changes were discarded", "with unsaved changes"] {
        assert!(log.contains(said), "the log does not say {said:?}: {log}");
    }
    assert_secret("the log", &log);
}

#[test]
fn what_is_looked_for_would_be_found() {
    let id = SessionId::random().expect("random numbers").expose_secret();
    for (told, text) in [
        (true, format!("a session:{id} somewhere")),
        (true, "f".repeat(64)),
        (false, id[..35].to_owned()),
        (false, id.to_uppercase()),
        (false, id.replace('-', "_")),
    ] {
        assert_eq!(has_id(&text), told, "{text}");
    }
}
