//! No id, key, user or value in errors, in `Debug`, and in the log at any level. The log is the process's, so this has a process of its own.
//!
//! What is secret here has the form of an id, or contains the word "sesame".

#![cfg(feature = "axum")]

#[path = "../support/client.rs"]
mod client;
mod errors;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use axum::{
    Router,
    http::{Request, Response},
    routing::get,
};
use axum_redis_sessions::{
    Credentials, ErrorKind, FlashLevel, LazySession, NextPath, RedisSessionLayer, SameSite,
    Session, SessionError, SessionHandle, SessionId, SessionLimit, Timeouts,
};
use tower::{Layer, Service};

use crate::{
    client::{begin, pair, send, set_cookie},
    support::{
        command_proxy::{CommandProxy, Verdict},
        eventually,
        log::Log,
        secrets::{has_id, has_secret},
        server::Server,
    },
};

/// All tests of this binary write to it.
static LOG: LazyLock<Log> = LazyLock::new(Log::of_this_process);

const PASSWORD: &str = "sesame-of-the-server";
const KEY: &str = "sesame that signs cookies, 32 bytes";
const VALUE: &str = "sesame that is a value";
const USER: &str = "sesame that is a user";
/// The name of a key in the session.
const NAME: &str = "sesame that is a key";

fn assert_redacted(what: &str, text: &str) {
    assert!(!has_secret(text), "{what}: {text}");
}

fn assert_debug(what: &str, it: &dyn fmt::Debug) {
    assert_redacted(what, &format!("{it:?}"));
    assert_redacted(what, &format!("{it:#?}"));
}

async fn server() -> Server {
    LazyLock::force(&LOG);
    Server::start_with(&["--requirepass", PASSWORD]).await
}

fn layers(server: &Server) -> Vec<RedisSessionLayer> {
    let plain = RedisSessionLayer::new(server.client());
    let guarded = plain
        .clone()
        .with_prefix("guarded:")
        .with_signing_keys([KEY])
        .with_hashed_keys()
        .with_password_provider(|| PASSWORD.to_owned());
    vec![
        plain.clone(),
        guarded,
        RedisSessionLayer::in_memory(),
        #[cfg(feature = "local-cache")]
        plain
            .with_prefix("cached:")
            .with_local_cache(axum_redis_sessions::LocalCache::new()),
    ]
}

async fn log_in(session: Session) -> Result<(), SessionError> {
    session.cycle_id();
    session.set_user(USER)?;
    session.insert(NAME, VALUE)?;
    session.insert("name", VALUE)
}

#[tokio::test]
async fn debug_output_is_redacted_for_every_public_type() {
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
            assert_debug("Latest", &axum_redis_sessions::Latest(session.clone()));
            in_handler("SessionId", &session.id());
            in_handler("SessionHandle", &session.handle());
            let sessions = session.user_sessions().expect("a user");
            in_handler("UserSessions", &sessions);
            let of_user = sessions.list().await?;
            assert_eq!(of_user.len(), 1);
            in_handler("UserSession", &of_user);
            session.flash(FlashLevel::Error, VALUE)?;
            in_handler("FlashMessage", &session.take_flashes().await?);
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
        show("Stats", &layer.stats());
        #[cfg(feature = "local-cache")]
        {
            assert_debug("CacheStats", &layer.cache_stats());
            assert_debug("LocalCache", &axum_redis_sessions::LocalCache::new());
        }
        show("Users", &layer.users());
        show("Sessions", &layer.sessions());
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
    assert_redacted("ParseSessionHandleError", &no_handle.to_string());
    let no_id = VALUE.parse::<SessionId>().expect_err("no id");
    show("ParseSessionIdError", &no_id);
    assert_redacted("ParseSessionIdError", &no_id.to_string());
    let mistake = RedisSessionLayer::in_memory().with_signing_keys(["sesame"]);
    let mistake = mistake.validate().expect_err("a short key");
    show("ConfigError", &mistake);
    assert_redacted("ConfigError", &mistake.to_string());
    show("Credentials", &Credentials::new(USER, PASSWORD));
    // Without a secret to show, and shown for the list below to be whole.
    show("SessionLimit", &SessionLimit::Reject);
    show("SameSite", &SameSite::Lax);
    show("FlashLevel", &FlashLevel::Info);
    show("NextPath", &NextPath::default());
    show("Timeouts", &Timeouts::NIST_AAL1);
    // These two have a test of their own.
    show("ErrorKind", &ErrorKind::InvalidData);
    shown.lock().expect("no panic").insert("SessionError");

    let mut shown = shown.lock().expect("no panic").clone();
    // A trait.
    shown.insert("ErrorBody");
    assert_eq!(shown, public_types());
}

/// The names that the crate exports.
fn public_types() -> BTreeSet<&'static str> {
    let source = include_str!("../../src/lib.rs");
    let (_, exports) = source.split_once("pub use crate::{").expect("exports");
    let (exports, _) = exports.split_once("};").expect("an end");
    exports
        .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|name| name.starts_with(|letter: char| letter.is_ascii_uppercase()))
        .collect()
}

#[tokio::test]
async fn the_log_is_redacted_at_trace_level() {
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
    touch_in_vain(&server).await;
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
    for said in [
        "changes were discarded",
        "with unsaved changes",
        "may end too early",
    ] {
        assert!(log.contains(said), "the log does not say {said:?}: {log}");
    }
    assert_redacted("the log", &log);
}

/// A load sets the TTL of a session with its own timeout in the background. Here that fails.
async fn touch_in_vain(server: &Server) {
    let denies = |words: &[String]| match words[0].as_str() {
        "PEXPIRE" => Verdict::Reply("-OOM sesame".to_owned()),
        _ => Verdict::Pass,
    };
    let proxy = CommandProxy::before(server.port(), denies).await;
    let url = format!("redis://:{PASSWORD}@127.0.0.1:{}/", proxy.port());
    let layer = RedisSessionLayer::open(url).expect("an address");
    let short = async |session: Session| {
        session.set_idle_timeout(Duration::from_secs(60));
        log_in(session).await
    };
    let look = async |session: Session| session.get::<String>("name").map(drop);
    let app = Router::new()
        .route("/", get(short))
        .route("/look", get(look))
        .layer(layer);
    let cookie = begin(&app, "/").await;
    send(&app, "/look", Some(&cookie)).await;
    eventually(Duration::from_secs(20), async || {
        LOG.text().contains("may end too early")
    })
    .await;
}

#[test]
fn the_redaction_check_finds_ids() {
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

#[test]
fn the_redaction_check_finds_the_word_in_each_form() {
    let word = "a Sesame";
    for text in [
        word.to_owned(),
        format!("{:?}", word.to_lowercase().as_bytes()),
        format!("{:#?}", word.to_lowercase().as_bytes()),
        "0x736573616D65".to_owned(),
    ] {
        assert!(has_secret(&text), "{text}");
    }
    assert!(!has_secret("sesam, 115, 101"));
}
