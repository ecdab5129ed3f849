//! `RedisSessionLayer::sessions`: jobs and administration, and cookies for an app's tests.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, StatusCode, header::COOKIE},
    routing::get,
};
use axum_redis_sessions::{ErrorKind, RedisSessionLayer, Session, SessionError, SessionId};
use tower::ServiceExt;

use crate::{
    client::{on_each_store, set_cookie, text},
    support::{eventually, server::Server},
    visits::PATIENT,
};

const KEY: &str = "a key of thirty-two random bytes";

fn app(layer: RedisSessionLayer) -> Router {
    let user = async |session: Session| format!("{:?} {:?}", session.user(), session.keys());
    let id = async |session: Session| {
        session
            .id()
            .map_or_else(String::new, |id| id.expose_secret())
    };
    let add = async |session: Session| {
        session
            .update("count", |n: Option<u32>| n.unwrap_or(0) + 1)
            .map(drop)
    };
    let out = async |session: Session| session.destroy();
    Router::new()
        .route("/", get(user))
        .route("/id", get(id))
        .route("/add", get(add))
        .route("/out", get(out))
        .layer(layer)
}

async fn get_with(app: &Router, path: &str, cookie: &HeaderValue) -> axum::response::Response {
    let request = Request::get(path)
        .header(COOKIE, cookie)
        .body(Body::empty());
    app.clone()
        .oneshot(request.expect("a request"))
        .await
        .expect("infallible")
}

#[tokio::test]
async fn a_test_needs_no_login() {
    let server = Server::start().await;
    let redis = || RedisSessionLayer::new(server.client());
    for (name, layer) in [
        ("in memory", RedisSessionLayer::in_memory()),
        ("Redis", redis()),
        ("signed", redis().with_signing_keys([KEY])),
        ("hashed", redis().with_hashed_keys().with_prefix("hashed:")),
        ("named", redis().with_cookie_name("shop").with_secure(false)),
        ("last write wins", redis().with_last_write_wins()),
    ] {
        let app = app(layer.clone());
        let cookie = layer
            .sessions()
            .create(|session| {
                session.log_in("42")?;
                session.set_permanent(true);
                session.insert("cart", [1, 2])
            })
            .await
            .expect("created");
        assert!(cookie.is_sensitive(), "{name}");
        let response = get_with(&app, "/", &cookie).await;
        assert_eq!(set_cookie(&response), None, "{name}: nothing to renew");
        assert_eq!(text(response).await, r#"Some("42") ["cart"]"#, "{name}");
        let sessions = layer.users().of("42").expect("a user");
        assert_eq!(sessions.list().await.expect("listed").len(), 1, "{name}");
        assert_eq!(sessions.revoke_all().await.expect("revoked"), 1, "{name}");
        assert_eq!(
            text(get_with(&app, "/", &cookie).await).await,
            "None []",
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_job_and_a_request_keep_each_others_changes() {
    on_each_store(async |layer| {
        let app = app(layer.clone());
        let cookie = layer
            .sessions()
            .create(|session| session.insert("count", 1))
            .await;
        let cookie = cookie.expect("created");
        let id: SessionId = text(get_with(&app, "/id", &cookie).await)
            .await
            .parse()
            .expect("an id");
        let job = layer
            .sessions()
            .load(id)
            .await
            .expect("asked")
            .expect("alive");
        assert_eq!(job.id(), Some(id));
        job.insert("job", "done").expect("text");
        job.update("count", |n: Option<u32>| n.unwrap_or(0) + 10)
            .expect("a number");
        assert_eq!(
            get_with(&app, "/add", &cookie).await.status(),
            StatusCode::OK
        );
        job.save().await.expect("saved");
        let seen = layer
            .sessions()
            .load(id)
            .await
            .expect("asked")
            .expect("alive");
        assert_eq!(
            seen.get::<String>("job").expect("text").as_deref(),
            Some("done")
        );
        if !format!("{layer:?}").contains("lww:") {
            assert_eq!(seen.get::<u32>("count").expect("a number"), Some(12));
        }

        // After a logout, nothing comes back.
        job.insert("late", 1).expect("a number");
        get_with(&app, "/out", &cookie).await;
        assert_eq!(
            job.save().await.expect_err("ended").kind(),
            ErrorKind::Ended
        );
        assert!(layer.sessions().load(id).await.expect("asked").is_none());
    })
    .await;
}

#[tokio::test]
async fn loading_extends_nothing_and_a_save_does() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client());
    let cookie = layer
        .sessions()
        .create(|session| session.insert("a", 1))
        .await
        .expect("created");
    let id = cookie
        .to_str()
        .expect("ASCII")
        .split_once('=')
        .expect("a pair")
        .1;
    let key = format!("session:{id}");
    let _: i64 = server.command(&["PEXPIRE", &key, "60000"]).await;
    let session = layer
        .sessions()
        .load(id.parse().expect("an id"))
        .await
        .expect("asked")
        .expect("alive");
    assert!(server.command::<i64>(&["PTTL", &key]).await <= 60_000);
    session.insert("a", 2).expect("a number");
    session.save().await.expect("saved");
    assert!(server.command::<i64>(&["PTTL", &key]).await > 60_000);
}

#[tokio::test]
async fn there_is_no_browser_to_tell_of_a_new_id() {
    on_each_store(async |layer| {
        let cookie = layer
            .sessions()
            .create(|session| session.insert("a", 1))
            .await
            .expect("created");
        let id = cookie
            .to_str()
            .expect("ASCII")
            .split_once('=')
            .expect("a pair")
            .1;
        let session = layer
            .sessions()
            .load(id.parse().expect("an id"))
            .await
            .expect("asked")
            .expect("alive");
        session.cycle_id();
        assert_eq!(
            session.save().await.expect_err("no response").kind(),
            ErrorKind::HeadersSent
        );
        assert_eq!(session.id().expect("kept").expose_secret(), id);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_created_or_loaded_is_an_error_or_none() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client()).with_max_size(200);
    let sessions = layer.sessions();
    let empty = sessions.create(|_| Ok(())).await.expect_err("empty");
    assert_eq!(empty.kind(), ErrorKind::Ended);
    assert!(empty.to_string().contains("log a user in"), "{empty}");
    let large = sessions
        .create(|session| session.insert("a", "x".repeat(300)))
        .await;
    assert_eq!(large.expect_err("too large").kind(), ErrorKind::TooLarge);
    let own = sessions.create(|session| session.insert("_a", 1)).await;
    assert_eq!(own.expect_err("reserved").kind(), ErrorKind::ReservedKey);
    assert_eq!(server.command::<u32>(&["DBSIZE"]).await, 0);

    let unknown = SessionId::random().expect("random");
    assert!(sessions.load(unknown).await.expect("asked").is_none());
    let key = format!("session:{}", unknown.expose_secret());
    let _: String = server.command(&["SET", &key, "pickle"]).await;
    let unreadable = sessions.load(unknown).await.expect_err("not a session");
    assert_eq!(unreadable.kind(), ErrorKind::InvalidData);
    assert_eq!(server.command::<i64>(&["PTTL", &key]).await, -1);

    let impatient = layer
        .clone()
        .with_deadline(Duration::from_millis(50))
        .sessions();
    server.stop();
    assert_eq!(
        impatient.load(unknown).await.expect_err("stopped").kind(),
        ErrorKind::Unavailable
    );
    server.resume();
    eventually(PATIENT, async || {
        sessions.load(SessionId::from_bytes([7; 16])).await.is_ok()
    })
    .await;
}

#[tokio::test]
#[should_panic(expected = "remove with_cookie_domain")]
async fn an_invalid_layer_has_no_sessions() {
    let layer = RedisSessionLayer::in_memory();
    drop(
        layer
            .with_cookie_name("__Host-a")
            .with_cookie_domain("example.com")
            .sessions(),
    );
}

#[test]
fn an_id_is_parsed_in_one_form_only_and_not_shown() {
    let text = "5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e";
    let id: SessionId = text.parse().expect("an id");
    assert_eq!(id.expose_secret(), text);
    assert!(!format!("{id:?}").contains("5e0c"));
    for other in [
        "",
        "00000000-0000-0000-0000-000000000000",
        &text.to_uppercase(),
        &text.replace('-', ""),
    ] {
        let error = other.parse::<SessionId>().expect_err("another form");
        assert!(other.is_empty() || !format!("{error} {error:?}").contains(other));
    }
}

#[tokio::test]
async fn two_layers_have_sessions_of_their_own() {
    let shared = RedisSessionLayer::in_memory();
    let admin = shared
        .clone()
        .with_cookie_name("admin")
        .with_secure(false)
        .with_prefix("admin:");
    let begin = |session: &Session| -> Result<(), SessionError> { session.log_in("42") };
    let cookie = admin.sessions().create(begin).await.expect("created");
    assert!(cookie.to_str().expect("ASCII").starts_with("admin="));
    let id = cookie.to_str().expect("ASCII")["admin=".len()..]
        .parse()
        .expect("an id");
    assert!(shared.sessions().load(id).await.expect("asked").is_none());
    assert!(admin.sessions().load(id).await.expect("asked").is_some());
}
