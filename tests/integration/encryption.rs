//! Sessions encrypted in Redis.

use std::time::Duration;

use axum::{Router, routing::get};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionError};
use futures_util::future::join_all;
use redis::AsyncCommands;

use crate::{
    client::{begin, on_each_store, pair, send, set_cookie, text},
    support::server::Server,
    visits::{app, routes},
};

const OLD: [u8; 32] = [1; 32];
const NEW: [u8; 32] = [2; 32];
const SECRET: &str = "plain text of a visitor";

fn encrypted(server: &Server) -> RedisSessionLayer {
    RedisSessionLayer::new(server.client()).with_encryption_keys([NEW])
}

fn key(cookie: &str) -> String {
    cookie.replace("__Host-session=", "session:")
}

async fn stored(server: &Server, cookie: &str) -> Vec<u8> {
    server.command(&["GET", &key(cookie)]).await
}

fn is_encrypted(value: &[u8]) -> bool {
    value.starts_with(b"{\"_rev\":\"") && value[26..28] == [0, 1]
}

async fn store(server: &Server, cookie: &str, value: &[u8]) {
    let mut connection = server.connection().await;
    let _: () = connection
        .set_ex(key(cookie), value, 600)
        .await
        .expect("stored");
}

#[tokio::test]
async fn all_of_redis_has_no_plain_text() {
    let server = Server::start().await;
    let sign_in = async |session: Session| {
        session.insert("note", SECRET)?;
        session.log_in("42")
    };
    let devices = async |session: Session| {
        let sessions = session.user_sessions().expect("a user");
        let count = sessions.list().await?.len();
        Ok::<_, SessionError>(count.to_string())
    };
    let others = async |session: Session| {
        let sessions = session.user_sessions().expect("a user");
        let revoked = sessions.revoke_others().await?;
        Ok::<_, SessionError>(revoked.to_string())
    };
    let app = Router::new()
        .route("/sign-in", get(sign_in))
        .route("/devices", get(devices))
        .route("/others", get(others))
        .merge(routes())
        .layer(encrypted(&server));

    let anonymous = begin(&app, &format!("/keep/note/{}", SECRET.replace(' ', "%20"))).await;
    let response = send(&app, "/cycle", Some(&anonymous)).await;
    let cycled = pair(&set_cookie(&response).expect("a new id")).to_owned();
    // The tombstone, and what its id may read.
    assert_eq!(
        text(send(&app, "/kept/note", Some(&anonymous)).await).await,
        SECRET
    );
    let response = send(&app, "/sign-in", Some(&cycled)).await;
    let phone = pair(&set_cookie(&response).expect("a new id")).to_owned();
    let laptop = begin(&app, "/sign-in").await;
    assert_eq!(text(send(&app, "/devices", Some(&phone)).await).await, "2");

    let mut connection = server.connection().await;
    let keys: Vec<String> = connection.keys("*").await.expect("keys");
    assert_eq!(keys.len(), 5, "two tombstones, two sessions, an index");
    for key in keys.iter().filter(|key| !key.contains(":user:")) {
        let value: Vec<u8> = connection.get(key).await.expect("a value");
        let text = String::from_utf8_lossy(&value);
        for plain in [SECRET, "note", "_user", "_created", "\"42\""] {
            assert!(!text.contains(plain), "{plain}");
        }
    }
    assert_eq!(text(send(&app, "/others", Some(&phone)).await).await, "1");
    assert_eq!(
        text(send(&app, "/kept/note", Some(&laptop)).await).await,
        ""
    );
    assert_eq!(
        text(send(&app, "/kept/note", Some(&phone)).await).await,
        SECRET
    );
    send(&app, "/destroy", Some(&phone)).await;
    assert_eq!(text(send(&app, "/kept/note", Some(&phone)).await).await, "");
}

#[tokio::test]
async fn parallel_changes_of_an_encrypted_session_are_all_kept() {
    on_each_store(async |layer| {
        // Last write wins by definition.
        let compares = !format!("{layer:?}").contains("lww:");
        let app = app(layer
            .with_encryption_keys([NEW])
            .with_deadline(Duration::from_secs(20)));
        let cookie = begin(&app, "/").await;
        let visits = (0..20).map(|_| send(&app, "/", Some(&cookie)));
        join_all(visits).await;
        let visits = text(send(&app, "/visits", Some(&cookie)).await).await;
        assert!(visits == "21" || !compares, "{visits}");
        let response = send(&app, "/cycle", Some(&cookie)).await;
        let next = pair(&set_cookie(&response).expect("a new id")).to_owned();
        send(&app, "/remove", Some(&next)).await;
        assert_eq!(
            text(send(&app, "/look", Some(&next)).await).await,
            "[] None",
            "deleted when empty"
        );
    })
    .await;
}

#[tokio::test]
async fn encryption_keys_rotate_without_logging_users_out() {
    let server = Server::start().await;
    let layer = || RedisSessionLayer::new(server.client());
    let in_the_clear = app(layer());
    let before = app(layer().with_encryption_keys([OLD]));
    let during = app(layer().with_encryption_keys([NEW, OLD]));
    let after = app(layer()
        .with_encryption_keys([NEW])
        .with_encryption_required());

    let clear = begin(&in_the_clear, "/").await;
    assert_eq!(stored(&server, &clear).await[26], b',');
    assert_eq!(send(&after, "/visits", Some(&clear)).await.status(), 500);
    let old = begin(&before, "/").await;
    assert_eq!(send(&after, "/visits", Some(&old)).await.status(), 500);

    for cookie in [&clear, &old] {
        assert_eq!(
            text(send(&during, "/visits", Some(cookie)).await).await,
            "1"
        );
        // A read was enough, and one was.
        let value = stored(&server, cookie).await;
        assert!(is_encrypted(&value));
        send(&during, "/visits", Some(cookie)).await;
        assert_eq!(stored(&server, cookie).await, value);
        assert_eq!(text(send(&after, "/", Some(cookie)).await).await, "2");
        assert_eq!(send(&before, "/visits", Some(cookie)).await.status(), 500);
    }
}

#[tokio::test]
async fn a_value_that_was_changed_or_copied_in_redis_is_refused() {
    let server = Server::start().await;
    let app = app(encrypted(&server));
    let victim = begin(&app, &format!("/keep/note/{}", SECRET.replace(' ', "%20"))).await;
    let attacker = begin(&app, "/").await;
    let [theirs, own] = [
        stored(&server, &victim).await,
        stored(&server, &attacker).await,
    ];
    let mut flipped = own.clone();
    *flipped.last_mut().expect("a tag") ^= 1;
    let mut other_revision = own.clone();
    other_revision[12] ^= 1;
    let mut tombstone = own.clone();
    tombstone.splice(26..26, b",\"_rotated\":9999999999999".iter().copied());
    for (name, value) in [
        ("copied", theirs),
        ("a changed bit", flipped),
        ("another revision", other_revision),
        ("made a tombstone", tombstone),
        ("cut short", own[..own.len() - 1].to_vec()),
        ("the head alone", own[..28].to_vec()),
    ] {
        store(&server, &attacker, &value).await;
        let response = send(&app, "/kept/note", Some(&attacker)).await;
        assert_eq!(response.status(), 500, "{name}");
        assert_eq!(set_cookie(&response), None, "{name}");
        let body = text(response).await;
        assert!(body.contains("with_encryption_keys"), "{name}: {body}");
        assert!(!body.contains(SECRET), "{name}");
        assert_eq!(stored(&server, &attacker).await, value, "{name}");
    }
    store(&server, &attacker, &own).await;
    assert_eq!(
        text(send(&app, "/visits", Some(&attacker)).await).await,
        "1"
    );
}

#[tokio::test]
async fn a_layer_without_keys_refuses_an_encrypted_session() {
    let server = Server::start().await;
    let encrypted = app(encrypted(&server));
    let without = app(RedisSessionLayer::new(server.client()));
    let cookie = begin(&encrypted, "/").await;
    assert_eq!(send(&without, "/", Some(&cookie)).await.status(), 500);
    assert_eq!(
        text(send(&encrypted, "/", Some(&cookie)).await).await,
        "2",
        "nothing is lost"
    );
}

#[tokio::test]
async fn hashed_keys_prefixes_and_signed_cookies_go_with_encryption() {
    let server = Server::start().await;
    let layer = encrypted(&server)
        .with_hashed_keys()
        .with_prefix("app:")
        .with_signing_keys([OLD])
        .with_encryption_required();
    let app = app(layer);
    let cookie = begin(&app, "/").await;
    assert_eq!(text(send(&app, "/", Some(&cookie)).await).await, "2");
    let response = send(&app, "/cycle", Some(&cookie)).await;
    let cookie = pair(&set_cookie(&response).expect("a new id")).to_owned();
    assert_eq!(text(send(&app, "/", Some(&cookie)).await).await, "3");
}

#[test]
fn short_or_missing_keys_are_a_configuration_error() {
    let layer = RedisSessionLayer::in_memory;
    let none: [[u8; 32]; 0] = [];
    for (layer, option) in [
        (layer().with_encryption_keys(none), "with_encryption_keys"),
        (
            layer().with_encryption_keys([[7; 31]]),
            "with_encryption_keys",
        ),
        (
            layer().with_encryption_required(),
            "with_encryption_required",
        ),
    ] {
        let error = layer.validate().expect_err("refused").to_string();
        assert!(error.contains(option), "{error}");
    }
}
