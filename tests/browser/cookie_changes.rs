//! An app whose cookie changes while its users have the former one, and an area with a session of its own inside a site.

use axum::{Router, extract::Path, response::Html, routing::get};
use axum_redis_sessions::{LazySession, RedisSessionLayer, SameSite, Session, SessionError};

use crate::{
    chromium::{Chromedriver, Chromium},
    support::app::{Address, serve},
};

const ADMIN: &str = "__Secure-admin";

fn user(session: &Session) -> Html<String> {
    Html(format!(
        "<p>user: {}</p>",
        session.user().unwrap_or_default()
    ))
}

async fn who(session: Session) -> Html<String> {
    user(&session)
}

async fn log_in(session: Session, Path(name): Path<String>) -> Result<Html<String>, SessionError> {
    session.log_in(name)?;
    Ok(user(&session))
}

async fn log_out(session: Session) -> Html<String> {
    session.destroy();
    user(&session)
}

fn routes() -> Router {
    Router::new()
        .route("/who", get(who))
        .route("/log-in/{name}", get(log_in))
        .route("/log-out", get(log_out))
}

/// A site, on a host of its own, for which cookies can have a Domain. Chromium resolves it to the loopback address.
struct Site<'a> {
    host: &'a str,
    browser: &'a Chromium,
}

impl Site<'_> {
    async fn open(&self, app: &Address, path: &str) {
        let url = app.url(path).replace("127.0.0.1", self.host);
        self.browser.open(&url).await;
    }

    async fn shows(&self, app: &Address, path: &str, user: &str) {
        self.open(app, path).await;
        let user = format!("user: {user}");
        self.browser.shows("p", user.trim()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_sticks_after_the_cookie_has_got_other_attributes() {
    let driver = Chromedriver::start().await;
    let browser = driver.browser().await;
    // All have one store, as the releases of one app have.
    let default = RedisSessionLayer::in_memory();
    let named = default.clone().with_cookie_name("__Secure-sid");
    let domain = |layer: &RedisSessionLayer, host| layer.clone().with_cookie_domain(host);
    let path = |layer: &RedisSessionLayer| layer.clone().with_cookie_path("/app");
    let partitioned = |layer: &RedisSessionLayer| layer.clone().with_partitioned_cookie();
    for (host, before, after) in [
        (
            "domain.localhost",
            named.clone(),
            domain(&named, "domain.localhost"),
        ),
        ("path.localhost", named.clone(), path(&named)),
        ("partitioned.localhost", named.clone(), partitioned(&named)),
        (
            "default-domain.localhost",
            default.clone(),
            domain(&default, "default-domain.localhost"),
        ),
        ("default-path.localhost", default.clone(), path(&default)),
        (
            "default-partitioned.localhost",
            default.clone(),
            partitioned(&default),
        ),
        (
            "no-domain.localhost",
            domain(&named, "no-domain.localhost"),
            named.clone(),
        ),
    ] {
        println!("{host}");
        let app = |layer| serve(Router::new().nest("/app", routes()).layer(layer));
        let (before, after) = (app(before).await, app(after).await);
        let browser = &browser;
        let site = Site { host, browser };
        site.shows(&before, "/app/log-in/zoe", "zoe").await;
        for user in ["max", "eve"] {
            site.shows(&after, &format!("/app/log-in/{user}"), user)
                .await;
            site.shows(&after, "/app/who", user).await;
        }
        site.shows(&after, "/app/log-out", "").await;
        site.shows(&after, "/app/who", "").await;
    }
    browser.quit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_area_inside_a_site_has_its_own_login() {
    let driver = Chromedriver::start().await;
    let site = RedisSessionLayer::in_memory();
    let area = site
        .clone()
        .with_prefix("admin:")
        .with_cookie_name(ADMIN)
        .with_cookie_path("/admin")
        .with_same_site(SameSite::Strict);
    // Both users, as a page of the area sees them.
    let both = async |admin: Session, lazy: LazySession| {
        let site = lazy.by_cookie_name("__Host-session").expect("the site");
        let site = site.load().await?.user().unwrap_or_default();
        let admin = admin.user().unwrap_or_default();
        Ok::<_, SessionError>(Html(format!("<p>site: {site}, admin: {admin}</p>")))
    };
    let area = routes().route("/both", get(both)).layer(area);
    let app = serve(routes().nest("/admin", area).layer(site)).await;
    let browser = driver.browser().await;
    let page = Site {
        host: "area.localhost",
        browser: &browser,
    };
    for (path, of_site, of_admin) in [
        ("/log-in/zoe", "zoe", ""),
        ("/admin/log-in/max", "zoe", "max"),
        ("/admin/log-out", "zoe", ""),
        ("/admin/log-in/max", "zoe", "max"),
        ("/log-out", "", "max"),
        ("/log-in/eve", "eve", "max"),
        ("/admin/log-out", "eve", ""),
    ] {
        page.open(&app, path).await;
        page.open(&app, "/admin/both").await;
        let both = format!("site: {of_site}, admin: {of_admin}");
        browser.shows("p", both.trim()).await;
        page.shows(&app, "/who", of_site).await;
        page.shows(&app, "/admin/who", of_admin).await;
    }
    browser.quit().await;
}
