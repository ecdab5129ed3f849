//! Passwords and ACL rules that are missing, wrong, revoked or rotated: 503 with the reason, and recovery without a restart.

use std::sync::{Arc, Mutex};

use axum_redis_sessions::RedisSessionLayer;

use crate::{
    support::{app::Address, browser::Browser, server::Server},
    visits::{assert_available, assert_reason, assert_unavailable, serve, serve_client},
};

/// A server with a user `app` and the password `first-sesame`.
async fn server_with_a_user() -> Server {
    let server = Server::start().await;
    user(&server, &["on", ">first-sesame", "~session:*", "+@all"]).await;
    server
}

async fn user(server: &Server, rules: &[&str]) {
    let command = [&["ACL", "SETUSER", "app"], rules].concat();
    server.command::<String>(&command).await;
}

/// Open connections stay authenticated when the password changes.
async fn close_connections(server: &Server) {
    server
        .command::<i64>(&["CLIENT", "KILL", "USER", "app"])
        .await;
}

fn client(server: &Server, password: &str) -> redis::Client {
    let url = format!("redis://app:{password}@127.0.0.1:{}/", server.port());
    redis::Client::open(url).expect("an address")
}

/// 503, and the error says that the password is wrong without showing it.
async fn assert_locked_out(app: &Address, browser: &Browser) {
    assert_unavailable(app, browser).await;
    assert_reason(app, browser, &["password"]).await;
}

#[tokio::test]
async fn a_wrong_password_is_reported_until_it_is_corrected() {
    let server = server_with_a_user().await;
    let good = serve_client(client(&server, "first-sesame")).await;
    let browser = Browser::new();
    assert_eq!(browser.get(good.url("/")).await.body, "1");
    let app = serve_client(client(&server, "second-sesame")).await;
    assert_locked_out(&app, &browser).await;
    user(&server, &[">second-sesame"]).await;
    assert_available(&app, &browser).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");
}

#[tokio::test]
async fn a_missing_password_is_reported_until_none_is_required() {
    let server = Server::start_with(&["--requirepass", "third-sesame"]).await;
    let good = serve_client(server.client()).await;
    let browser = Browser::new();
    assert_eq!(browser.get(good.url("/")).await.body, "1");
    let without = format!("redis://127.0.0.1:{}/", server.port());
    let app = serve_client(redis::Client::open(without).expect("an address")).await;
    assert_locked_out(&app, &browser).await;
    server.set("requirepass", "").await;
    assert_available(&app, &browser).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");
}

#[tokio::test]
async fn a_revoked_password_is_503_until_it_is_restored() {
    let server = server_with_a_user().await;
    let app = serve_client(client(&server, "first-sesame")).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    user(&server, &["resetpass", ">second-sesame"]).await;
    close_connections(&server).await;
    assert_locked_out(&app, &browser).await;
    user(&server, &[">first-sesame"]).await;
    assert_available(&app, &browser).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");
}

#[tokio::test]
async fn the_password_provider_is_called_at_each_connect() {
    let server = server_with_a_user().await;
    let password = Arc::new(Mutex::new("first-sesame"));
    let provided = password.clone();
    // The client's own password is wrong.
    let layer = RedisSessionLayer::new(client(&server, "third-sesame"))
        .with_password_provider(move || provided.lock().expect("no panic").to_string());
    let app = serve(layer).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");

    // Both passwords are valid during the rotation, so there is no error.
    user(&server, &[">second-sesame"]).await;
    *password.lock().expect("no panic") = "second-sesame";
    user(&server, &["<first-sesame"]).await;
    close_connections(&server).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");

    // Without an overlap there are errors until the provider has the new one.
    user(&server, &["resetpass", ">third-sesame"]).await;
    close_connections(&server).await;
    assert_locked_out(&app, &browser).await;
    *password.lock().expect("no panic") = "third-sesame";
    assert_available(&app, &browser).await;
    assert_eq!(browser.get(app.url("/")).await.body, "3");
}

#[tokio::test]
async fn an_error_names_the_command_or_keys_that_an_acl_denies() {
    let server = Server::start().await;
    let acl = async |rules: &[&str]| {
        let command = [&["ACL", "SETUSER", "app"], rules].concat();
        server.command::<String>(&command).await;
    };
    acl(&["on", ">first-sesame", "~session:*", "+@all"]).await;
    let client = format!("redis://app:first-sesame@127.0.0.1:{}/", server.port());
    let app = serve_client(redis::Client::open(client).expect("an address")).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");

    // A save needs SET on Valkey, and EVALSHA and EVAL on Redis.
    acl(&["-set", "-eval", "-evalsha"]).await;
    let refused = browser.get(app.url("/")).await;
    assert_eq!(refused.status, 503);
    assert!(
        refused
            .body
            .contains("the ACL does not allow this user the command "),
        "{}",
        refused.body
    );
    acl(&["+set", "+eval", "+evalsha"]).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");

    acl(&["resetkeys", "~other:*"]).await;
    let refused = browser.get(app.url("/")).await;
    assert_eq!(refused.status, 503);
    assert!(
        refused.body.contains("the keys session:*"),
        "{}",
        refused.body
    );
    acl(&["~session:*"]).await;
    assert_eq!(browser.get(app.url("/")).await.body, "3");
}

#[tokio::test]
async fn a_disabled_user_is_503_until_it_is_enabled() {
    let server = server_with_a_user().await;
    let app = serve_client(client(&server, "first-sesame")).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    user(&server, &["off"]).await;
    close_connections(&server).await;
    assert_locked_out(&app, &browser).await;
    user(&server, &["on"]).await;
    assert_available(&app, &browser).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");
}

#[tokio::test]
async fn a_unix_socket_a_database_and_least_privilege_suffice() {
    let server = Server::start_with(&["--unixsocket", "socket"]).await;
    let least = [
        "on",
        ">first-sesame",
        "~session:*",
        "+getex",
        "+get",
        "+getrange",
        "+set",
        "+del",
        "+pexpire",
        "+eval",
        "+evalsha",
    ];
    // A database other than 0 needs SELECT as well.
    user(&server, &[&least[..], &["+select"]].concat()).await;
    let socket = server.directory().join("socket");
    let url = format!(
        "redis+unix://{}?db=3&user=app&pass=first-sesame",
        socket.display()
    );
    let app = serve_client(redis::Client::open(url).expect("an address")).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    assert_eq!(browser.get(app.url("/")).await.body, "2");
    assert_eq!(browser.get(app.url("/cycle")).await.status, 200);
    assert_eq!(browser.get(app.url("/")).await.body, "3");
    assert_eq!(server.session_keys().await.len(), 0, "the first database");
    let keys = server.information("db3").await.expect("the fourth");
    assert!(
        keys.starts_with("keys=2,"),
        "the session, and the tombstone of its old id: {keys}"
    );
    assert_eq!(browser.get(app.url("/destroy")).await.status, 200);
    let keys = server.information("db3").await.expect("the fourth");
    assert!(keys.starts_with("keys=1,"), "{keys}");
}
