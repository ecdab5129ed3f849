//! Permissions and passwords: missing, wrong, revoked, rotated. 503 that says what is missing, and good again when it is right again.

use std::sync::{Arc, LazyLock, Mutex};

use axum_redis_sessions::RedisSessionLayer;

use crate::site::{assert_away, assert_back, assert_told, serve, serve_client};
use crate::support::{app::Address, browser::Browser, log::Log, server::Server};

/// All tests of this binary write to it.
static LOG: LazyLock<Log> = LazyLock::new(Log::of_this_process);

/// None of them is a word of another text.
const PASSWORDS: [&str; 3] = ["swordfish", "sailfish", "starfish"];

fn assert_secret(text: &str) {
    for password in PASSWORDS {
        assert!(!text.contains(password), "{text}");
    }
}

/// A server with a user `app`, whose password is `swordfish`.
async fn server_with_a_user() -> Server {
    LazyLock::force(&LOG);
    let server = Server::start().await;
    user(&server, &["on", ">swordfish", "~session:*", "+@all"]).await;
    server
}

async fn user(server: &Server, rules: &[&str]) {
    let command = [&["ACL", "SETUSER", "app"], rules].concat();
    server.command::<String>(&command).await;
}

/// The connections that the user has open already know the old password.
async fn close_connections(server: &Server) {
    server
        .command::<i64>(&["CLIENT", "KILL", "USER", "app"])
        .await;
}

fn client(server: &Server, password: &str) -> redis::Client {
    let url = format!("redis://app:{password}@127.0.0.1:{}/", server.port());
    redis::Client::open(url).expect("an address")
}

/// 503, and neither the answer nor the log tells a password.
async fn assert_locked_out(app: &Address, browser: &Browser) {
    assert_away(app, browser).await;
    assert_told(app, browser, &["password"]).await;
    assert_secret(&browser.get(app.url("/")).await.body);
    tracing::debug!("is heard");
    let log = LOG.text();
    assert!(log.contains("is heard"));
    assert_secret(&log);
}

#[tokio::test]
async fn a_wrong_password_is_reported_until_it_is_corrected() {
    let server = server_with_a_user().await;
    let good = serve_client(client(&server, "swordfish")).await;
    let browser = Browser::new();
    assert_eq!(browser.get(good.url("/")).await.body, "1");
    let app = serve_client(client(&server, "sailfish")).await;
    assert_locked_out(&app, &browser).await;
    user(&server, &[">sailfish"]).await;
    assert_back(&app, &browser).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");
}

#[tokio::test]
async fn a_missing_password_is_reported_until_none_is_required() {
    LazyLock::force(&LOG);
    let server = Server::start_with(&["--requirepass", "starfish"]).await;
    let good = serve_client(server.client()).await;
    let browser = Browser::new();
    assert_eq!(browser.get(good.url("/")).await.body, "1");
    let without = format!("redis://127.0.0.1:{}/", server.port());
    let app = serve_client(redis::Client::open(without).expect("an address")).await;
    assert_locked_out(&app, &browser).await;
    server.set("requirepass", "").await;
    assert_back(&app, &browser).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");
}

#[tokio::test]
async fn a_revoked_password_is_503_until_it_is_restored() {
    let server = server_with_a_user().await;
    let app = serve_client(client(&server, "swordfish")).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    user(&server, &["resetpass", ">sailfish"]).await;
    close_connections(&server).await;
    assert_locked_out(&app, &browser).await;
    user(&server, &[">swordfish"]).await;
    assert_back(&app, &browser).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");
}

#[tokio::test]
async fn the_password_provider_is_called_at_each_connect() {
    let server = server_with_a_user().await;
    let password = Arc::new(Mutex::new("swordfish"));
    let provided = password.clone();
    // The client's own is wrong from the start.
    let layer = RedisSessionLayer::new(client(&server, "starfish"))
        .with_password_provider(move || provided.lock().expect("no panic").to_string());
    let app = serve(layer).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");

    // Both are good while it rotates, so nobody notices.
    user(&server, &[">sailfish"]).await;
    *password.lock().expect("no panic") = "sailfish";
    user(&server, &["<swordfish"]).await;
    close_connections(&server).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");

    // The other way round there is a time when it is wrong.
    user(&server, &["resetpass", ">starfish"]).await;
    close_connections(&server).await;
    assert_locked_out(&app, &browser).await;
    *password.lock().expect("no panic") = "starfish";
    assert_back(&app, &browser).await;
    assert_eq!(browser.get(app.url("/")).await.body, "3");
}

#[tokio::test]
async fn an_error_names_the_command_or_keys_that_an_acl_denies() {
    let server = Server::start().await;
    let acl = async |rules: &[&str]| {
        let command = [&["ACL", "SETUSER", "app"], rules].concat();
        server.command::<String>(&command).await;
    };
    acl(&["on", ">swordfish", "~session:*", "+@all"]).await;
    let client = format!("redis://app:swordfish@127.0.0.1:{}/", server.port());
    let app = serve_client(redis::Client::open(client).expect("an address")).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");

    // What a save needs: the one on Valkey, the others on Redis.
    acl(&["-set", "-eval", "-evalsha"]).await;
    let refused = browser.get(app.url("/")).await;
    assert_eq!(refused.status, 503);
    assert!(
        refused.body.contains("forbids this user the command "),
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
    let app = serve_client(client(&server, "swordfish")).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    user(&server, &["off"]).await;
    close_connections(&server).await;
    assert_locked_out(&app, &browser).await;
    user(&server, &["on"]).await;
    assert_back(&app, &browser).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");
}

#[tokio::test]
async fn a_unix_socket_a_database_and_least_privilege_suffice() {
    let server = Server::start_with(&["--unixsocket", "socket"]).await;
    let least = [
        "on",
        ">swordfish",
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
    // To be in another database than the first, SELECT as well.
    user(&server, &[&least[..], &["+select"]].concat()).await;
    let socket = server.directory().join("socket");
    let url = format!(
        "redis+unix://{}?db=3&user=app&pass=swordfish",
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
