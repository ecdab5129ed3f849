//! Layers with different cookie names around one route, or side by side: each is a session of its own.

use std::time::Duration;

use axum::{
    Extension, Router,
    extract::Path,
    routing::{get, post},
};
use axum_redis_sessions::{LazySession, RedisSessionLayer, SameSite, Session, SessionError};

use crate::{
    client::{Reply, ask, begin_at},
    support::{
        app::{Address, serve},
        server::Server,
    },
    visits,
};

const ID: &str = "5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e";

fn site(server: &Server) -> RedisSessionLayer {
    RedisSessionLayer::new(server.client()).with_deadline(visits::PATIENT)
}

fn admin(server: &Server) -> RedisSessionLayer {
    site(server)
        .with_prefix("admin:")
        .with_cookie_name("__Host-admin")
        .with_same_site(SameSite::Strict)
        .with_idle_timeout(Duration::from_secs(60))
}

fn area() -> Router {
    let log_in = async |session: Session, Path(user): Path<String>| session.log_in(user);
    let who = async |session: Session| session.user().unwrap_or_default();
    Router::new()
        .route("/", get(visits::visits))
        .route("/log-in/{user}", get(log_in))
        .route("/who", get(who))
        .route("/log-out", get(async |session: Session| session.destroy()))
        .route(
            "/lazy-log-out",
            get(async |lazy: LazySession| lazy.destroy()),
        )
        .route("/site-user", get(site_user))
        .route("/log-out-of-both", get(log_out_of_both))
}

/// Who is logged in at the site, as the admin area sees it.
async fn site_user(lazy: LazySession) -> Result<String, SessionError> {
    let Some(site) = lazy.by_cookie_name("__Host-session") else {
        return Ok("no such layer".to_owned());
    };
    Ok(site.load().await?.user().unwrap_or_default())
}

async fn log_out_of_both(lazy: LazySession) {
    for name in ["__Host-session", "__Host-admin"] {
        if let Some(session) = lazy.by_cookie_name(name) {
            session.destroy();
        }
    }
}

/// The ways in which an app has two areas, `/` and `/admin`.
async fn apps(server: &Server) -> Vec<(&'static str, Address)> {
    let admin_area = || area().layer(admin(server));
    let prefixed = |layer| {
        let area = Router::new().nest("/admin", area());
        area.layer(layer)
    };
    vec![
        (
            "nested",
            serve(area().nest("/admin", admin_area()).layer(site(server))).await,
        ),
        (
            "nested as a service",
            serve(
                area()
                    .nest_service("/admin", admin_area())
                    .layer(site(server)),
            )
            .await,
        ),
        (
            "merged",
            serve(area().merge(prefixed(admin(server))).layer(site(server))).await,
        ),
        (
            "side by side",
            serve(area().layer(site(server)).merge(prefixed(admin(server)))).await,
        ),
    ]
}

/// A browser with one cookie for each name.
#[derive(Clone, Default)]
struct Jar(Vec<(String, String)>);

impl Jar {
    async fn get(&mut self, app: &Address, path: &str) -> String {
        let reply = self.reply(app, path).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        reply.body
    }

    async fn reply(&mut self, app: &Address, path: &str) -> Reply {
        let pairs = self.0.iter().map(|(name, value)| format!("{name}={value}"));
        let cookies = pairs.collect::<Vec<_>>().join("; ");
        let reply = ask(app, path, &[&cookies]).await;
        for line in reply.values("set-cookie") {
            let pair = crate::client::pair(line);
            let (name, value) = pair.split_once('=').expect("a pair");
            self.0.retain(|(other, _)| other != name);
            if !value.is_empty() {
                self.0.push((name.to_owned(), value.to_owned()));
            }
        }
        reply
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(other, _)| other == name)
    }
}

#[tokio::test]
async fn each_area_logs_in_and_out_alone() {
    let server = Server::start().await;
    for (name, app) in apps(&server).await {
        let mut jar = Jar::default();
        let login = jar.reply(&app, "/admin/log-in/root").await;
        let line = login.values("set-cookie");
        assert_eq!(line.len(), 1, "{name}: {line:?}");
        assert!(line[0].starts_with("__Host-admin="), "{name}: {line:?}");
        assert!(line[0].contains("SameSite=Strict"), "{name}: {line:?}");
        assert_eq!(jar.get(&app, "/who").await, "", "{name}");

        let login = jar.reply(&app, "/log-in/zoe").await;
        let line = login.values("set-cookie");
        assert_eq!(line.len(), 1, "{name}: {line:?}");
        assert!(line[0].starts_with("__Host-session="), "{name}: {line:?}");
        assert!(line[0].contains("SameSite=Lax"), "{name}: {line:?}");
        let users = async |jar: &mut Jar| {
            [
                jar.get(&app, "/who").await,
                jar.get(&app, "/admin/who").await,
            ]
        };
        assert_eq!(users(&mut jar).await, ["zoe", "root"], "{name}");

        // Each with its own lifetime.
        for (pattern, most) in [
            ("admin:????????-????-*", 60),
            ("session:????????-????-*", 86_400),
        ] {
            let keys: Vec<String> = server.command(&["KEYS", pattern]).await;
            let ttl: i64 = server.command(&["TTL", &keys[0]]).await;
            assert!(
                (most - 30..=most).contains(&ttl),
                "{name}, {pattern}: {ttl}"
            );
        }

        let mut out_of_admin = jar.clone();
        out_of_admin.get(&app, "/admin/log-out").await;
        assert!(!out_of_admin.has("__Host-admin"), "{name}");
        assert_eq!(users(&mut out_of_admin).await, ["zoe", ""], "{name}");
        assert_eq!(users(&mut jar).await, ["zoe", ""], "{name}: the id is dead");

        jar.get(&app, "/admin/log-in/root").await;
        jar.get(&app, "/lazy-log-out").await;
        assert!(!jar.has("__Host-session"), "{name}");
        assert_eq!(users(&mut jar).await, ["", "root"], "{name}");
        server.command::<String>(&["FLUSHALL"]).await;
    }
}

#[tokio::test]
async fn an_inner_area_finds_the_outer_session_by_its_cookie_name() {
    let server = Server::start().await;
    for (name, app) in apps(&server).await {
        let mut jar = Jar::default();
        jar.get(&app, "/log-in/zoe").await;
        jar.get(&app, "/admin/log-in/root").await;
        let is_inside = name != "side by side";
        let expected = if is_inside { "zoe" } else { "no such layer" };
        assert_eq!(jar.get(&app, "/admin/site-user").await, expected, "{name}");
        if is_inside {
            let reply = jar.reply(&app, "/admin/log-out-of-both").await;
            assert_eq!(reply.values("set-cookie").len(), 2, "{name}");
            assert_eq!(jar.get(&app, "/who").await, "", "{name}");
            assert_eq!(jar.get(&app, "/admin/who").await, "", "{name}");
        }
    }
}

#[tokio::test]
async fn the_same_layer_twice_acts_once() {
    let server = Server::start().await;
    let twice = area().layer(site(&server)).layer(site(&server));
    // Also where the inner one has other options but the same cookie, and with a layer of another name in between.
    let sandwich = area()
        .layer(site(&server).with_prefix("other:"))
        .layer(admin(&server))
        .layer(site(&server));
    for app in [serve(twice).await, serve(sandwich.clone()).await] {
        let first = ask(&app, "/", &[]).await;
        let lines = first.values("set-cookie");
        assert_eq!(lines.len(), 1, "{lines:?}");
        let cookie = crate::client::pair(lines[0]);
        let monitor = server.monitor().await;
        assert_eq!(ask(&app, "/who", &[cookie]).await.body, "");
        assert_eq!(monitor.drain().await.len(), 1, "one load");
    }
    // In the sandwich, the innermost layer that acts is the admin's.
    let app = serve(sandwich).await;
    assert!(begin_at(&app, "/").await.starts_with("__Host-admin="));
}

#[tokio::test]
async fn an_extension_of_an_eager_outer_layer_is_not_taken_for_the_inner_session() {
    let server = Server::start().await;
    let user = async |session: Option<Extension<Session>>| {
        session.map_or_else(
            || "none".to_owned(),
            |Extension(session)| session.user().unwrap_or_default(),
        )
    };
    let user = Router::new().route("/user", get(user));
    let area = || area().merge(user.clone());
    for (layer, seen) in [
        (admin(&server), "none"),
        (admin(&server).with_eager_load(), "root"),
    ] {
        let app = area()
            .nest("/admin", area().layer(layer))
            .layer(site(&server).with_eager_load());
        let app = serve(app).await;
        let mut jar = Jar::default();
        jar.get(&app, "/log-in/zoe").await;
        jar.get(&app, "/admin/log-in/root").await;
        assert_eq!(jar.get(&app, "/user").await, "zoe");
        assert_eq!(jar.get(&app, "/admin/user").await, seen);
    }
}

#[tokio::test]
async fn a_failure_in_one_area_leaves_the_other() {
    let server = Server::start().await;
    let fails = async |session: Session| {
        session.log_in("max")?;
        session.insert("name", "text")?;
        session.get::<u64>("name").map(drop)
    };
    let fails = Router::new()
        .route("/admin/fails", get(fails))
        .layer(admin(&server));
    let app = crate::visits::routes().merge(fails).layer(site(&server));
    let app = serve(app).await;
    let mut jar = Jar::default();
    jar.get(&app, "/").await;
    let reply = jar.reply(&app, "/admin/fails").await;
    assert_eq!((reply.status, jar.has("__Host-admin")), (500, false));
    // Also where the inner session cannot be loaded.
    jar.0.push(("__Host-admin".to_owned(), ID.to_owned()));
    server
        .command::<i64>(&["RPUSH", &format!("admin:{ID}"), "a"])
        .await;
    assert_eq!(jar.reply(&app, "/admin/fails").await.status, 500);
    assert_eq!(jar.get(&app, "/").await, "2");
}

/// A login at another site ends with a POST from there (SAML, 3-D Secure). Such a request has SameSite=None cookies only.
#[tokio::test]
async fn a_callback_area_keeps_its_session_through_a_cross_site_post() {
    let server = Server::start().await;
    let callback = site(&server)
        .with_prefix("callback:")
        .with_cookie_name("__Host-callback")
        .with_same_site(SameSite::None)
        .with_idle_timeout(Duration::from_secs(600));
    // The app notes in the callback's session which of its own sessions the answer is for.
    let begin = async |lazy: LazySession| {
        let callback = lazy.load().await?;
        callback.insert("state", "s3cr3t")
    };
    let finish = async |session: Session| {
        let state: Option<String> = session.take("state")?;
        Ok::<_, SessionError>(state.unwrap_or_default())
    };
    let callbacks = Router::new()
        .route("/begin", get(begin))
        .route("/finish", post(finish).get(finish));
    let app = area()
        .nest("/callback", callbacks.layer(callback))
        .layer(site(&server));
    let app = serve(app).await;
    let mut jar = Jar::default();
    jar.get(&app, "/log-in/zoe").await;
    let begun = jar.reply(&app, "/callback/begin").await;
    let line = begun.values("set-cookie")[0].to_owned();
    assert!(
        line.contains("SameSite=None") && line.contains("Secure"),
        "{line}"
    );

    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let cross_site = client
        .post(app.url("/callback/finish"))
        .header("cookie", crate::client::pair(&line))
        .header("origin", "https://bank.example")
        .send()
        .await
        .expect("a response");
    // The Lax session is neither seen nor replaced.
    let lines = cross_site.headers().get_all("set-cookie").iter();
    let lines: Vec<_> = lines
        .map(|line| line.to_str().expect("text").to_owned())
        .collect();
    assert!(
        lines
            .iter()
            .all(|line| line.starts_with("__Host-callback=")),
        "{lines:?}"
    );
    assert_eq!(cross_site.text().await.expect("a body"), "s3cr3t");
    assert_eq!(jar.get(&app, "/who").await, "zoe");
}
