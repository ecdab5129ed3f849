//! How long a session lives in Redis. The tests set stored times back instead of waiting.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::{Router, routing::get};
use axum_redis_sessions::{RedisSessionLayer, Session};

use crate::{
    support::{
        app::{self, Address},
        browser::Browser,
        eventually,
        server::Server,
    },
    visits::{self, visits},
};

const DAY: u64 = 86_400;
const PATIENCE: Duration = Duration::from_secs(10);

async fn serve(layer: RedisSessionLayer) -> Address {
    app::serve(visits::app(layer)).await
}

fn key(app: &Address, browser: &Browser) -> String {
    format!(
        "session:{}",
        browser
            .cookie(&app.url("/"), "__Host-session")
            .expect("a session")
    )
}

/// Whether the TTL is this many seconds, or a little less on a busy machine.
async fn lives_for(server: &Server, key: &str, seconds: u64) -> bool {
    let left = server.command::<i64>(&["TTL", key]).await;
    u64::try_from(left).is_ok_and(|left| (seconds.saturating_sub(15)..=seconds).contains(&left))
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs()
}

/// Changes one of the times in a stored session.
async fn set_back(server: &Server, key: &str, name: &str, value: &str) {
    let stored: String = server.command(&["GET", key]).await;
    let (before, rest) = stored.split_once(&format!("\"{name}\":")).expect("there");
    let end = rest.find([',', '}']).expect("an end");
    let changed = format!("{before}\"{name}\":{value}{}", &rest[end..]);
    server
        .command::<String>(&["SET", key, &changed, "KEEPTTL"])
        .await;
}

#[tokio::test]
async fn a_session_lives_a_day_from_its_last_use_by_default() {
    let server = Server::start().await;
    let app = serve(RedisSessionLayer::new(server.client())).await;
    let browser = Browser::new();
    browser.get(app.url("/")).await;
    let key = key(&app, &browser);
    assert!(lives_for(&server, &key, DAY).await);
    for path in ["/look", "/"] {
        server.command::<i64>(&["EXPIRE", &key, "100"]).await;
        browser.get(app.url(path)).await;
        assert!(lives_for(&server, &key, DAY).await);
    }
}

#[tokio::test]
async fn a_permanent_session_lives_31_days_from_its_last_use() {
    let server = Server::start().await;
    let app = serve(RedisSessionLayer::new(server.client())).await;
    let browser = Browser::new();
    browser.get(app.url("/permanent?is=true")).await;
    let key = key(&app, &browser);
    assert!(lives_for(&server, &key, 31 * DAY).await);
    server.command::<i64>(&["EXPIRE", &key, "100"]).await;
    browser.get(app.url("/look")).await;
    // The load does not know yet that it is permanent; the longer TTL is set in the background.
    eventually(PATIENCE, || async {
        lives_for(&server, &key, 31 * DAY).await
    })
    .await;
    browser.get(app.url("/")).await;
    eventually(PATIENCE, || async {
        lives_for(&server, &key, 31 * DAY).await
    })
    .await;
}

#[tokio::test]
async fn a_permanent_cookie_is_refreshed_after_a_tenth_of_max_age() {
    let server = Server::start().await;
    let app = serve(RedisSessionLayer::new(server.client())).await;
    let browser = Browser::new();
    let first = browser.get(app.url("/permanent?is=true")).await.set_cookies;
    assert!(first[0].ends_with("; Max-Age=2678400"), "{first:?}");
    let key = key(&app, &browser);
    for (days, sent_again) in [(0, false), (3, false), (4, true), (30, true)] {
        set_back(
            &server,
            &key,
            "_permanent",
            &(now() - days * DAY).to_string(),
        )
        .await;
        let again = browser.get(app.url("/look")).await.set_cookies;
        assert_eq!(!again.is_empty(), sent_again, "after {days} days");
        if sent_again {
            assert_eq!(again, first);
            assert!(
                browser.get(app.url("/look")).await.set_cookies.is_empty(),
                "and then no more"
            );
        }
    }
    // Other frameworks write `true`.
    set_back(&server, &key, "_permanent", "true").await;
    assert_eq!(browser.get(app.url("/look")).await.set_cookies, first);
}

#[tokio::test]
async fn the_absolute_timeout_ends_a_session_in_use() {
    let server = Server::start().await;
    let absolute = Duration::from_secs(7 * DAY);
    let app = serve(RedisSessionLayer::new(server.client()).with_absolute_timeout(absolute)).await;
    let browser = Browser::new();
    browser.get(app.url("/")).await;
    let key = key(&app, &browser);
    assert!(lives_for(&server, &key, DAY).await);

    // An hour before the end, a save and a read both set a TTL of an hour.
    for path in ["/", "/look"] {
        set_back(
            &server,
            &key,
            "_created",
            &(now() - 7 * DAY + 3600).to_string(),
        )
        .await;
        browser.get(app.url(path)).await;
        eventually(PATIENCE, || async { lives_for(&server, &key, 3600).await }).await;
    }

    for (name, created) in [
        ("seven days ago", (now() - 7 * DAY).to_string()),
        ("long ago", "0".to_owned()),
        ("far in the future", (now() + 30 * DAY).to_string()),
        ("not a time", "\"yesterday\"".to_owned()),
        ("too large", "99999999999999999999999".to_owned()),
    ] {
        let browser = Browser::new();
        browser.get(app.url("/")).await;
        let key = self::key(&app, &browser);
        set_back(&server, &key, "_created", &created).await;
        assert_eq!(
            browser.get(app.url("/look")).await.body,
            "[] None",
            "{name}"
        );
        // The key is left to its TTL: another node's clock may be right.
        assert_eq!(server.command::<i64>(&["EXISTS", &key]).await, 1, "{name}");
    }
}

#[tokio::test]
async fn reading_a_tombstone_does_not_extend_it() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client()).with_rotation_grace(Duration::ZERO);
    let app = serve(layer).await;
    let browser = Browser::new();
    browser.get(app.url("/")).await;
    let old = key(&app, &browser);
    let straggler = browser.fork(&app.url("/"));
    browser.get(app.url("/cycle")).await;
    assert!(lives_for(&server, &old, 60).await);
    for _ in 0..3 {
        assert_eq!(straggler.get(app.url("/look")).await.body, "[] None");
        eventually(PATIENCE, || async { lives_for(&server, &old, 60).await }).await;
    }
    // An expired tombstone is like any unknown id: the next insert begins a session.
    set_back(&server, &old, "_rotated", "1000").await;
    assert_eq!(straggler.get(app.url("/")).await.set_cookies.len(), 1);
}

#[tokio::test]
async fn a_session_can_override_the_timeouts() {
    let server = Server::start().await;
    let app = Router::new()
        .route("/", get(visits))
        .route(
            "/log-in/{remember}",
            get(
                |session: Session, axum::extract::Path(remember): axum::extract::Path<bool>| async move {
                    session.cycle_id();
                    session.set_permanent(remember);
                    let days = if remember { 14 } else { 1 };
                    session.set_idle_timeout(Duration::from_secs(days * DAY / 2));
                    session.set_absolute_timeout(Duration::from_secs(days * DAY));
                    session.insert("user", 42)
                },
            ),
        )
        .route(
            "/left",
            get(|session: Session| async move {
                session.expires_at().map_or_else(String::new, |end| {
                    let left = end.duration_since(SystemTime::now());
                    left.expect("not over").as_secs().to_string()
                })
            }),
        )
        .layer(
            RedisSessionLayer::new(server.client())
                .with_idle_timeout(Duration::from_secs(DAY / 4))
                .with_absolute_timeout(Duration::from_secs(DAY * 400)),
        );
    let app = app::serve(app).await;
    let about = |left: u64, seconds: u64| (seconds - 15..=seconds).contains(&left);
    for (remember, idle, absolute) in [(false, DAY / 2, DAY), (true, 7 * DAY, 14 * DAY)] {
        let browser = Browser::new();
        assert_eq!(
            browser.get(app.url("/left")).await.body,
            "",
            "there is no session"
        );
        browser.get(app.url("/")).await;
        assert!(lives_for(&server, &key(&app, &browser), DAY / 4).await);
        let page = browser.get(app.url(&format!("/log-in/{remember}"))).await;
        let max_age = format!("Max-Age={idle}");
        assert_eq!(
            page.set_cookies[0].contains(&max_age),
            remember,
            "{:?}",
            page.set_cookies
        );
        let key = key(&app, &browser);
        assert!(lives_for(&server, &key, idle).await);
        // A load sets the TTL to the layer's timeout, and then to the session's own.
        server.command::<i64>(&["EXPIRE", &key, "100"]).await;
        let left = browser.get(app.url("/left")).await.body;
        assert!(about(left.parse().expect("seconds"), idle), "{left}");
        eventually(PATIENCE, || lives_for(&server, &key, idle)).await;
        // Near the end of the absolute timeout the TTL is what is left of it.
        let created = (now() - absolute + 100).to_string();
        set_back(&server, &key, "_created", &created).await;
        let left = browser.get(app.url("/left")).await.body;
        assert!(about(left.parse().expect("seconds"), 100), "{left}");
        assert_eq!(browser.get(app.url("/")).await.body, "2");
        assert!(lives_for(&server, &key, 100).await);
        // Past it there is no session.
        set_back(&server, &key, "_created", &(now() - absolute).to_string()).await;
        assert_eq!(browser.get(app.url("/")).await.body, "1");
    }
}

#[tokio::test]
async fn overridden_timeouts_are_replayed_on_a_conflict() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client());
    let app = Router::new()
        .route("/", get(visits))
        .route(
            "/both",
            get(|session: Session| async move {
                session.set_idle_timeout(Duration::from_secs(1000));
                session.insert("own", 1)
            }),
        )
        .layer(layer);
    let app = app::serve(app).await;
    let browser = Browser::new();
    browser.get(app.url("/")).await;
    let [one, two] = ["/", "/both"].map(|path| browser.get(app.url(path)));
    let (one, two) = tokio::join!(one, two);
    assert_eq!((one.status, two.status), (200, 200));
    let stored: String = server.command(&["GET", &key(&app, &browser)]).await;
    for part in [r#""_idle":1000000"#, r#""visits":2"#, r#""own":1"#] {
        assert!(stored.contains(part), "{stored}");
    }
    assert!(lives_for(&server, &key(&app, &browser), 1000).await);
}

#[tokio::test]
async fn a_cookie_refresh_does_not_undo_a_concurrent_change() {
    let server = Server::start().await;
    let loaded = std::sync::Arc::new(tokio::sync::Notify::new());
    let go_on = std::sync::Arc::new(tokio::sync::Notify::new());
    let wait = {
        let (loaded, go_on) = (loaded.clone(), go_on.clone());
        move || {
            let (loaded, go_on) = (loaded.clone(), go_on.clone());
            async move {
                loaded.notify_one();
                go_on.notified().await;
            }
        }
    };
    let look = wait.clone();
    let app = visits::routes()
        .route(
            "/forget",
            get(|session: Session| async move { session.set_permanent(false) }),
        )
        .route(
            "/rotate",
            get(|session: Session| async move {
                wait().await;
                session.cycle_id();
            }),
        )
        .route("/slow", get(|_: Session| async move { look().await }))
        .layer(RedisSessionLayer::new(server.client()));
    let app = app::serve(app).await;
    for path in ["/slow", "/rotate"] {
        let browser = Browser::new();
        browser.get(app.url("/permanent?is=true")).await;
        // The cookie needs a refresh.
        set_back(&server, &key(&app, &browser), "_permanent", "1000").await;
        let other = browser.fork(&app.url("/"));
        let slow = tokio::spawn({
            let (browser, url) = (browser.clone(), app.url(path));
            async move { browser.get(url).await }
        });
        loaded.notified().await;
        other.get(app.url("/forget")).await;
        go_on.notify_one();
        let page = slow.await.expect("no panic");
        let lines = page.set_cookies.join(" ");
        assert!(!lines.contains("Max-Age"), "{path}: {lines}");
        let stored: String = server.command(&["GET", &key(&app, &browser)]).await;
        assert!(!stored.contains("_permanent"), "{path}: {stored}");
    }
}
