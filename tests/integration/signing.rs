//! Cookies that are signed, and keys that are hashed.

use axum_redis_sessions::RedisSessionLayer;

use crate::{
    client::{begin, pair, send, set_cookie, text},
    support::server::Server,
    visits::app,
};

const OLD: [u8; 32] = [1; 32];
const NEW: [u8; 32] = [2; 32];

#[tokio::test]
async fn a_forged_signature_costs_no_command() {
    let server = Server::start().await;
    let signed = app(RedisSessionLayer::new(server.client()).with_signing_keys([NEW]));
    let foreign = app(RedisSessionLayer::new(server.client()).with_signing_keys([OLD]));
    let unsigned = app(RedisSessionLayer::new(server.client()));
    let cookie = begin(&signed, "/").await;
    let id = cookie.split(['=', '.']).nth(1).expect("an id").to_owned();
    let flipped = |at: usize| {
        let mut cookie = cookie.clone().into_bytes();
        cookie[at] = if cookie[at] == b'0' { b'1' } else { b'0' };
        String::from_utf8(cookie).expect("text")
    };
    let start = cookie.find('=').expect("a value") + 1;
    let rows = [
        ("unsigned", format!("__Host-session={id}")),
        ("another id", flipped(start)),
        ("another signature", flipped(start + 40)),
        ("cut short", cookie[..cookie.len() - 1].to_owned()),
        ("by another key", begin(&foreign, "/").await),
        ("of an app that signs none", begin(&unsigned, "/").await),
    ];
    let monitor = server.monitor().await;
    monitor.drain().await;
    for (name, cookie) in &rows {
        let response = send(&signed, "/look", Some(cookie)).await;
        assert_eq!(set_cookie(&response), None, "{name}");
        assert_eq!(text(response).await, "[] None", "{name}");
        assert_eq!(monitor.drain().await, Vec::<Vec<String>>::new(), "{name}");
    }
    assert_eq!(text(send(&signed, "/", Some(&cookie)).await).await, "2");
    // The signature is not part of the key.
    let response = send(&unsigned, "/look", Some(&rows[0].1)).await;
    assert_eq!(text(response).await, r#"["visits"] Some(2)"#);
}

#[tokio::test]
async fn signing_keys_rotate_without_logging_users_out() {
    let server = Server::start().await;
    let layer = || RedisSessionLayer::new(server.client());
    let before = app(layer().with_signing_keys([OLD]));
    let during = app(layer().with_signing_keys([NEW, OLD]));
    let after = app(layer().with_signing_keys([NEW]));
    let old = begin(&before, "/").await;

    let response = send(&during, "/look", Some(&old)).await;
    let line = set_cookie(&response).expect("re-signed by a read");
    assert_eq!(text(response).await, r#"["visits"] Some(1)"#);
    let new = pair(&line).to_owned();
    let id = |cookie: &str| cookie.split('.').next().expect("an id").to_owned();
    assert_eq!(id(&old), id(&new), "the same session");
    assert_eq!(
        line.replace(&new, ""),
        "; HttpOnly; SameSite=Lax; Secure; Path=/"
    );
    let response = send(&during, "/look", Some(&new)).await;
    assert_eq!(set_cookie(&response), None, "re-signed once");
    assert_eq!(text(send(&after, "/", Some(&new)).await).await, "2");
    assert_eq!(
        text(send(&after, "/look", Some(&old)).await).await,
        "[] None",
        "the old key is no longer accepted"
    );
}

#[tokio::test]
async fn a_late_re_sign_does_not_overwrite_a_new_cookie() {
    let server = Server::start().await;
    let old = begin(
        &app(RedisSessionLayer::new(server.client()).with_signing_keys([OLD])),
        "/",
    )
    .await;
    let during = RedisSessionLayer::new(server.client()).with_signing_keys([NEW, OLD]);
    let during = app(during);
    // The slow request has loaded the session when the login rotates it.
    let (loaded, wait_until_loaded) = tokio::sync::oneshot::channel();
    let (go_on, wait_to_go_on) = tokio::sync::oneshot::channel::<()>();
    let channels = std::sync::Arc::new(std::sync::Mutex::new(Some((loaded, wait_to_go_on))));
    let slow = axum::Router::new()
        .route(
            "/slow",
            axum::routing::get(move |_: axum_redis_sessions::Session| async move {
                let channels = channels.lock().expect("not poisoned").take();
                let (loaded, wait) = channels.expect("one request");
                loaded.send(()).expect("a receiver");
                wait.await.expect("told to go on");
            }),
        )
        .layer(RedisSessionLayer::new(server.client()).with_signing_keys([NEW, OLD]));
    let straggler = tokio::spawn({
        let old = old.clone();
        async move { send(&slow, "/slow", Some(&old)).await }
    });
    wait_until_loaded.await.expect("loaded");
    let login = set_cookie(&send(&during, "/cycle", Some(&old)).await).expect("a new id");
    go_on.send(()).expect("it waits");
    let response = straggler.await.expect("no panic");
    assert_eq!(set_cookie(&response), None);
    let look = send(&during, "/look", Some(pair(&login))).await;
    assert_eq!(text(look).await, r#"["visits"] Some(1)"#);
}

#[test]
fn a_short_signing_key_is_a_config_error() {
    let check = |keys: Vec<Vec<u8>>| {
        RedisSessionLayer::in_memory()
            .with_signing_keys(keys)
            .validate()
            .map(drop)
            .map_err(|error| error.to_string())
    };
    assert_eq!(check(vec![vec![1; 32]]), Ok(()));
    for keys in [vec![], vec![vec![1; 31]], vec![vec![1; 32], vec![]]] {
        let error = check(keys).expect_err("too short");
        assert!(error.contains("32 random bytes"), "{error}");
    }
    let secret = "a secret of thirty-two characters";
    let layer = RedisSessionLayer::in_memory().with_signing_keys([secret]);
    assert!(!format!("{layer:?}").contains("secret of"));
}

#[tokio::test]
async fn hashed_keys_keep_ids_out_of_redis() {
    let server = Server::start().await;
    let hashed = app(RedisSessionLayer::new(server.client()).with_hashed_keys());
    let plain = app(RedisSessionLayer::new(server.client()));
    let monitor = server.monitor().await;
    let cookie = begin(&hashed, "/").await;
    assert_eq!(text(send(&hashed, "/", Some(&cookie)).await).await, "2");
    let rotated = set_cookie(&send(&hashed, "/cycle", Some(&cookie)).await).expect("a new id");
    let rotated = pair(&rotated).to_owned();
    assert_eq!(text(send(&hashed, "/", Some(&rotated)).await).await, "3");
    let seen = format!("{:?}", monitor.drain().await);
    for cookie in [&cookie, &rotated] {
        let id = cookie.split('=').nth(1).expect("an id");
        assert!(!seen.contains(id), "a key has an id in it");
    }
    let keys: Vec<String> = server.command(&["KEYS", "session:*"]).await;
    assert_eq!(keys.len(), 2, "the session and its tombstone");
    for key in keys {
        assert_eq!(key.len(), "session:".len() + 64);
    }
    assert_eq!(
        text(send(&plain, "/look", Some(&rotated)).await).await,
        "[] None",
        "keys in the other form are not read"
    );
    send(&hashed, "/destroy", Some(&rotated)).await;
    assert_eq!(
        server
            .command::<Vec<String>>(&["KEYS", "session:*"])
            .await
            .len(),
        1
    );
}
