//! Sessions of other apps that are taken over while something else happens.

use axum::{Router, routing::get};
use axum_redis_sessions::{
    RedisSessionLayer, Session, SessionError,
    format::{ActixSession, AxumSession, Django, Flask, Migration, TowerSessions},
};
use futures_util::future::join_all;

use crate::{
    client::{Reply, ask},
    support::{
        app::{Address, serve},
        server::Server,
    },
};

const COOKIE: &str = "session=BTVKkDcA2ZjsLMC0BGr7vXgE6FomuHvWCJIG0JA2DEE";
const KEY: &str = "session:BTVKkDcA2ZjsLMC0BGr7vXgE6FomuHvWCJIG0JA2DEE";
const VALUE: &str = r#"{"name":"Zoë","user_id":42}"#;

fn routes() -> Router {
    let count = async |session: Session| {
        let count = session.update("count", |n: Option<u64>| n.unwrap_or(0) + 1)?;
        Ok::<_, SessionError>(count.to_string())
    };
    let name = async |session: Session| {
        Ok::<_, SessionError>(format!(
            "{:?} {:?}",
            session.get::<String>("name")?,
            session.get::<u64>("user_id")?
        ))
    };
    let too_large = async |session: Session| {
        session.cycle_id();
        session.save().await?;
        session.insert("large", "x".repeat(2000))
    };
    let logout_and_login = async |session: Session| {
        session.destroy();
        session.save().await?;
        session.insert("name", "Eva")?;
        session.save().await
    };
    Router::new()
        .route("/logout-and-login", get(logout_and_login))
        .route("/count", get(count))
        .route("/name", get(name))
        .route("/cycle", get(async |session: Session| session.cycle_id()))
        .route(
            "/fail",
            get(async || axum::http::StatusCode::INTERNAL_SERVER_ERROR),
        )
        .route("/too-large", get(too_large))
        .route(
            "/log-in",
            get(async |session: Session| session.log_in("42")),
        )
}

async fn set(server: &Server, key: &str, value: &[u8]) {
    let mut connection = server.connection().await;
    let _: () = redis::cmd("SET")
        .arg(key)
        .arg(value)
        .arg("EX")
        .arg(600)
        .query_async(&mut connection)
        .await
        .expect("stored");
}

async fn exists(server: &Server, key: &str) -> bool {
    server.command::<bool>(&["EXISTS", key]).await
}

fn new_cookie(reply: &Reply) -> String {
    let lines = reply.values("set-cookie");
    let new = lines
        .iter()
        .find(|line| line.starts_with("__Host-session="));
    let new = new.expect("a new cookie");
    new.split(';').next().expect("a pair").to_owned()
}

#[tokio::test]
async fn the_old_cookie_is_retired_whatever_the_first_request_does() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client()).with_migration_from(Flask::new());
    let app = serve(routes().layer(layer)).await;
    for path in ["/count", "/cycle", "/log-in", "/name"] {
        set(&server, KEY, VALUE.as_bytes()).await;
        let first = ask(&app, path, &[COOKIE]).await;
        assert_eq!(first.status, 200, "{path}");
        assert!(exists(&server, KEY).await, "{path}: a pointer until then");
        let new = new_cookie(&first);
        assert_eq!(
            ask(&app, "/name", &[&new]).await.body,
            r#"Some("Zoë") Some(42)"#,
            "{path}"
        );
        assert!(!exists(&server, KEY).await, "{path}: retired");
        let both = format!("{COOKIE}; {new}");
        assert_eq!(
            ask(&app, "/name", &[&both]).await.body,
            r#"Some("Zoë") Some(42)"#
        );
        assert_eq!(
            ask(&app, "/name", &[COOKIE]).await.body,
            "None None",
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_session_that_begins_after_a_logout_has_a_cookie() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client()).with_migration_from(Flask::new());
    let app = serve(routes().layer(layer)).await;
    let own = new_cookie(&ask(&app, "/count", &[]).await);
    set(&server, KEY, VALUE.as_bytes()).await;
    let both = format!("{COOKIE}; {own}");
    let reply = ask(&app, "/logout-and-login", &[&both]).await;
    let new = new_cookie(&reply);
    assert_eq!(
        reply.values("set-cookie").len(),
        2,
        "the old one is removed"
    );
    assert_eq!(
        ask(&app, "/name", &[&new]).await.body,
        r#"Some("Eva") None"#
    );
    assert!(!exists(&server, KEY).await);
    assert_eq!(ask(&app, "/name", &[&both]).await.body, "None None");
}

/// The session lives under its new id by then, so a browser without the new cookie would be logged out.
#[tokio::test]
async fn an_error_response_carries_the_cookie_of_a_new_id() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client())
        .with_max_size(1000)
        .with_migration_from(Flask::new());
    let app = serve(routes().layer(layer)).await;
    let own = new_cookie(&ask(&app, "/count", &[]).await);
    let failed = ask(&app, "/too-large", &[&own]).await;
    assert!(failed.status >= 400, "{}", failed.status);
    let cycled = new_cookie(&failed);
    assert_ne!(cycled, own);
    assert_eq!(ask(&app, "/count", &[&cycled]).await.body, "2");

    for path in ["/too-large", "/fail"] {
        set(&server, KEY, VALUE.as_bytes()).await;
        let failed = ask(&app, path, &[COOKIE]).await;
        assert!(failed.status >= 400, "{path}");
        if path == "/too-large" {
            let new = new_cookie(&failed);
            assert_eq!(
                ask(&app, "/name", &[&new]).await.body,
                r#"Some("Zoë") Some(42)"#
            );
        } else {
            // Nothing asked for the session.
            assert!(failed.values("set-cookie").is_empty());
            assert_eq!(
                ask(&app, "/name", &[COOKIE]).await.body,
                r#"Some("Zoë") Some(42)"#
            );
        }
    }
}

#[tokio::test]
async fn several_old_apps_are_taken_over_by_one_layer() {
    let key: [u8; 64] = std::array::from_fn(|index| index as u8);
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client())
        .with_migration_from(Migration::from(Flask::new()).with_cookie_name("flask"))
        .with_migration_from(Django::new())
        .with_migration_from(TowerSessions::signed(&key))
        .with_migration_from(ActixSession::private(&key))
        .with_migration_from(AxumSession::new());
    let app = serve(routes().layer(layer)).await;
    let json = r#"{"user_id":"42","name":"\"Zoë\""}"#;
    let data = format!(r#"{{"data":{json},"longterm":false}}"#);
    // The array of an id, the map and an expiry.
    let tower = b"\x93\xc4\x10\x0d\xd6\x75\x6e\xc3\xee\xc7\x16\xe1\xee\x6c\x6b\xb2\xfe\xb1\xdd\x82\xa7user_id\x2a\xa4name\xa4Zo\xc3\xab\x99\xcd\x07\xea\xcd\x01\x59\x04\x2e\x14\xce\x2d\x75\xcc\x7c\x00\x00\x00";
    for (cookie, key, value, removed) in [
        (
            "flask=BTVKkDcA2ZjsLMC0BGr7vXgE6FomuHvWCJIG0JA2DEE",
            KEY,
            VALUE.as_bytes(),
            &["flask="][..],
        ),
        (
            "sessionid=48w69w2o8z21i002gwt18kaj02hvo6pf",
            ":1:django.contrib.sessions.cache48w69w2o8z21i002gwt18kaj02hvo6pf",
            VALUE.as_bytes(),
            &["sessionid="],
        ),
        (
            "id=3BNsijfPa38FOImgOo/ZorDhCtqpb5twhzxY5kUqQpo=3bH-smts7uEWx-7DbnXWDQ",
            "3bH-smts7uEWx-7DbnXWDQ",
            tower,
            &["id="],
        ),
        (
            "id=NKIdu+0XYPV5YRMog0y2dAheFdfYyc1qDILdKdLNDo7%2FnLU+BdL3FMj0pMug+FD0dVdrfAEPGhjMj1srY5mL%2FAtC4zcp6RwE%2FeyQHilOkkkECqf9X1syJpG+ZMs%3D",
            "BHD2FmfebASXA91iS1RNxO7yrzKkBPLomLf45q8TZGg8Oh45ZBi1P1FBZLPfxtMP",
            json.as_bytes(),
            &["id="],
        ),
        (
            "session=8ff6407c-4abc-4551-91b0-16596aad0514",
            "sessions:8ff6407c-4abc-4551-91b0-16596aad0514",
            data.as_bytes(),
            &["store=", "session="],
        ),
    ] {
        set(&server, key, value).await;
        let reply = ask(&app, "/name", &[cookie]).await;
        assert_eq!(reply.body, r#"Some("Zoë") Some(42)"#, "{cookie}");
        let lines = reply.values("set-cookie");
        assert_eq!(lines.len(), 1 + removed.len(), "{lines:?}");
        for (line, name) in lines[1..].iter().zip(removed) {
            assert!(
                line.starts_with(&format!("{name};")) && line.contains("Max-Age=0"),
                "{lines:?}"
            );
        }
    }
}

/// Two keys in two slots: the move takes two steps.
#[cfg(feature = "cluster")]
#[tokio::test]
async fn parallel_first_requests_in_a_cluster_make_one_session() {
    use crate::support::cluster::Cluster;

    let cluster = Cluster::start().await;
    let layer = RedisSessionLayer::cluster(cluster.urls()).expect("addresses");
    let app = serve(routes().layer(layer.with_migration_from(Flask::new()))).await;
    for round in 0..6 {
        let key = format!("session:{round}TVKkDcA2ZjsLMC0BGr7vXgE6FomuHvWCJIG0JA2DEE");
        let cookie = key.replace("session:", "session=");
        let owner = cluster
            .owner(cluster.slot(&key).await)
            .await
            .expect("an owner");
        set(&cluster.nodes[owner], &key, VALUE.as_bytes()).await;
        let new = first_requests(&app, &cookie, 20).await;
        assert_eq!(new.len(), 1, "{round}");
        assert_eq!(ask(&app, "/count", &[&new[0]]).await.body, "21");
        assert!(!exists(&cluster.nodes[owner], &key).await, "retired");
    }
    let mut sessions = 0;
    for node in &cluster.nodes[..3] {
        let keys: Vec<String> = node.command(&["KEYS", "session:????????-*"]).await;
        sessions += keys.len();
    }
    assert_eq!(sessions, 6, "none is left behind");
}

/// The new cookies that parallel requests with the old one get.
async fn first_requests(app: &Address, cookie: &str, count: usize) -> Vec<String> {
    let cookies = [cookie];
    let replies = join_all((0..count).map(|_| ask(app, "/count", &cookies))).await;
    let mut new: Vec<_> = replies
        .iter()
        .map(|reply| {
            assert_eq!(reply.status, 200, "{}", reply.body);
            new_cookie(reply)
        })
        .collect();
    new.sort_unstable();
    new.dedup();
    new
}
