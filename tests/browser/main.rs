//! `examples/login` in Chromium, on each store.
//!
//! The example must be built before: `cargo test` without a filter does that, and so does `tests/run.sh`.

#![cfg(feature = "axum")]
// A test binary has no API.
#![allow(unreachable_pub)]

mod chromium;
mod cookie_changes;
#[path = "../../examples/login/device.rs"]
#[allow(dead_code)]
mod device;
mod login;
mod other_sites;
mod pictures;
#[path = "../support/mod.rs"]
mod support;

use std::time::SystemTime;

use thirtyfour::{Cookie, SameSite};

use crate::{
    chromium::COOKIE,
    login::{HOME, PASSWORD, on_each_store},
    support::{app::serve, browser::Browser},
};

const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.1 \
                      Mobile/15E148 Safari/604.1";
const FIREFOX: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0";

const REFUSED: &str = "The name or the password is wrong.";

/// 31 days, the default lifetime of a permanent session.
const MONTH: i64 = 2_678_400;

#[tokio::test(flavor = "multi_thread")]
async fn the_cookie_is_host_only_and_hidden_from_scripts() {
    on_each_store(async |stage| {
        let browser = stage.driver.browser().await;
        browser.open(&stage.url("/sign-in")).await;
        assert!(
            browser.cookie().await.is_none(),
            "a visitor who only looks gets none"
        );
        stage.sign_up(&browser, "Zoë").await;

        let cookie = browser.cookie().await.expect("a cookie");
        assert_eq!(cookie.secure, Some(true));
        assert_eq!(cookie.http_only, Some(true));
        assert_eq!(cookie.same_site, Some(SameSite::Lax));
        assert_eq!(cookie.path.as_deref(), Some("/"));
        assert_eq!(
            cookie.domain.as_deref(),
            Some("localhost"),
            "no dot before it: no other host"
        );
        assert_eq!(cookie.expiry, None, "it ends with the browser");

        // Scripts do see cookies that are not HttpOnly.
        browser.run("document.cookie = 'mine=1'").await;
        assert_eq!(browser.run("return document.cookie").await, "mine=1");
        browser.quit().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cross_site_form_post_has_no_session_and_is_rejected() {
    on_each_store(async |stage| {
        let browser = stage.driver.browser().await;
        stage.sign_up(&browser, "Zoë").await;

        // 127.0.0.1 is another site than localhost; another port is the same site and another origin. Cookies ignore ports, so
        // `heard` gets the cookies that the app would get.
        let elsewhere = serve(other_sites::forms()).await;
        let heard = serve(other_sites::echo()).await;
        let heard = heard.url("/").replace("127.0.0.1", "localhost");
        let another_site = |to: &str| elsewhere.url(&format!("/?to={to}"));
        let same_site = |to: &str| another_site(to).replace("127.0.0.1", "localhost");

        for (from, how, what) in [
            (
                another_site(&heard),
                "Post",
                "cross-site without the session",
            ),
            (another_site(&heard), "Look", "cross-site with the session"),
            (same_site(&heard), "Post", "same-site with the session"),
        ] {
            browser.open(&from).await;
            browser.press(how).await;
            browser.shows("p", what).await;
        }

        let out = stage.url("/sign-out");
        // SameSite=Lax withholds the cookie from the first; the CSRF layer rejects the second, which has it.
        for from in [another_site(&out), same_site(&out)] {
            browser.open(&from).await;
            browser.press("Post").await;
            browser
                .shows("h1", "This request came from another site")
                .await;
            browser.open(&stage.url("/")).await;
            browser.shows("h1", HOME).await;
        }
        browser.press("Sign out").await;
        browser.shows("h1", "Sign in").await;
        browser.quit().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn session_fixation_gives_no_access_after_the_login() {
    on_each_store(async |stage| {
        let mallory = stage.driver.browser().await;
        stage.sign_up(&mallory, "Mallory").await;
        let known = mallory.cookie().await.expect("a cookie").value;

        // Mallory plants her session in Zoë's browser.
        let zoë = stage.driver.browser().await;
        zoë.open(&stage.url("/sign-in")).await;
        let mut planted = Cookie::new(COOKIE, &*known);
        planted.set_path("/");
        planted.set_secure(true);
        planted.set_http_only(true);
        planted.set_same_site(SameSite::Lax);
        zoë.0.add_cookie(planted).await.expect("planted");
        zoë.open(&stage.url("/")).await;
        zoë.shows(".user", "Mallory").await;

        stage.sign_up(&zoë, "Zoë").await;
        zoë.shows(".user", "Zoë").await;
        let first = zoë.cookie().await.expect("a cookie").value;
        assert_ne!(first, known);
        mallory.reload().await;
        mallory.shows("h1", "Sign in").await;

        // Each further login gives a new id as well.
        stage.sign_in(&zoë, "Zoë").await;
        assert_ne!(zoë.cookie().await.expect("a cookie").value, first);
        mallory.quit().await;
        zoë.quit().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_back_button_shows_no_private_page_after_a_logout() {
    on_each_store(async |stage| {
        let browser = stage.driver.browser().await;
        stage.sign_up(&browser, "Zoë").await;
        browser.press("Sign out").await;
        browser.shows("h1", "Sign in").await;

        browser.back().await;
        let page = browser.texts("body").await.join("");
        assert!(!page.contains("Zoë") && !page.contains(HOME), "{page}");
        browser.shows("h1", "Sign in").await;
        browser.quit().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_everywhere_else_logs_the_other_browser_out() {
    on_each_store(async |stage| {
        let here = stage.driver.browser().await;
        stage.sign_up(&here, "Zoë").await;
        let other = stage.driver.browser().await;
        stage.sign_in(&other, "Zoë").await;

        here.reload().await;
        here.shows("h2", "Chrome on Linux this device").await;
        assert_eq!(here.texts(".devices li").await.len(), 2);
        here.press("Sign out everywhere else").await;
        here.shows(".flash", "Signed out on 1 other device.").await;
        assert_eq!(here.texts(".devices li").await.len(), 1);

        other.reload().await;
        other.shows("h1", "Sign in").await;
        here.reload().await;
        here.shows("h1", HOME).await;
        here.quit().await;
        other.quit().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_a_device_out_affects_no_other_device() {
    on_each_store(async |stage| {
        let here = stage.driver.browser().await;
        stage.sign_up(&here, "Zoë").await;
        let phone = stage.driver.browser_like(IPHONE).await;
        stage.sign_in(&phone, "Zoë").await;
        let third = Browser::new();
        let credentials = [("name", "Zoë"), ("password", PASSWORD)];
        third.post(stage.url("/sign-in"), &credentials).await;

        here.reload().await;
        here.press("Sign out there: Safari on iPhone").await;
        here.shows(".flash", "Signed out: Safari on iPhone.").await;
        assert_eq!(
            here.texts("h2").await,
            ["Chrome on Linux this device", "Unknown device"]
        );
        phone.reload().await;
        phone.shows("h1", "Sign in").await;
        assert!(third.get(stage.url("/")).await.body.contains(HOME));
        here.quit().await;
        phone.quit().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_the_browser_unless_remembered() {
    on_each_store(async |stage| {
        for (name, is_remembered) in [("Zoë", false), ("Max", true)] {
            let profile = stage.driver.new_profile();
            let browser = stage.driver.browser_at(&profile, &[]).await;
            stage.sign_up(&browser, name).await;
            browser.press("Sign out").await;
            browser.shows("h1", "Sign in").await;
            if is_remembered {
                browser.tick("remember").await;
            }
            browser.fill("name", name).await;
            browser.fill("password", PASSWORD).await;
            browser.press("Sign in").await;
            browser.shows("h1", HOME).await;
            let cookie = browser.cookie().await.expect("a cookie");
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let now = i64::try_from(now.expect("after 1970").as_secs()).expect("an i64");
            let seconds_left = cookie.expiry.map(|expiry| expiry - now);
            assert_eq!(
                seconds_left.map(|left| (MONTH - 120..=MONTH + 1).contains(&left)),
                is_remembered.then_some(true),
                "{seconds_left:?}"
            );
            browser.quit().await;

            let restarted = stage.driver.browser_at(&profile, &[]).await;
            restarted.open(&stage.url("/")).await;
            let heading = if is_remembered { HOME } else { "Sign in" };
            restarted.shows("h1", heading).await;
            assert_eq!(restarted.cookie().await.is_some(), is_remembered);
            restarted.quit().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_an_unknown_name_look_the_same() {
    on_each_store(async |stage| {
        let browser = stage.driver.browser().await;
        stage.sign_up(&browser, "Zoë").await;
        browser.press("Sign out").await;
        browser.shows("h1", "Sign in").await;

        for name in ["Zoë", "Nobody"] {
            browser.open(&stage.url("/sign-in")).await;
            browser.fill("name", name).await;
            browser.fill("password", "incorrect horse").await;
            browser.press("Sign in").await;
            browser.shows("[role=alert]", REFUSED).await;
            let fields = "return [...document.querySelectorAll('form input')].map(input => input.value).slice(0, 2)";
            assert_eq!(browser.run(fields).await, serde_json::json!([name, ""]));
            assert!(browser.cookie().await.is_none(), "nothing has begun");
        }
        browser.fill("name", "zoë ").await;
        browser.fill("password", PASSWORD).await;
        browser.press("Sign in").await;
        browser.shows(".user", "Zoë").await;
        browser.quit().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_shown_once() {
    on_each_store(async |stage| {
        let browser = stage.driver.browser().await;
        stage.sign_up(&browser, "Zoë").await;
        browser.shows(".flash", "Welcome, Zoë.").await;
        browser.reload().await;
        browser.shows("h1", HOME).await;
        assert!(browser.texts(".flash").await.is_empty());

        browser.press("Sign out").await;
        browser.shows(".flash", "You are signed out.").await;
        browser.reload().await;
        browser.shows("h1", "Sign in").await;
        assert!(browser.texts(".flash").await.is_empty());
        assert!(
            browser.cookie().await.is_none(),
            "the session that held the message is over"
        );
        browser.quit().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_escaped() {
    on_each_store(async |stage| {
        let browser = stage.driver.browser().await;
        let name = r#"<b>Zoë</b> & '"co"'"#;
        stage.sign_up(&browser, name).await;
        browser.shows(".user", name).await;
        browser.shows(".flash", &format!("Welcome, {name}.")).await;
        browser.quit().await;
    })
    .await;
}

#[test]
fn a_device_is_named_by_its_user_agent() {
    for (user_agent, label, is_handheld) in [
        (IPHONE, "Safari on iPhone", true),
        (
            "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
            "Firefox on Linux",
            false,
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
            "Chrome on Windows",
            false,
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0",
            "Edge on Windows",
            false,
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.1 Safari/605.1.15",
            "Safari on macOS",
            false,
        ),
        (
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36",
            "Chrome on Android",
            true,
        ),
        (
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/29.0 Chrome/136.0.0.0 Mobile Safari/537.36",
            "Samsung Internet on Android",
            true,
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/142.0.7444.77 Mobile/15E148 Safari/604.1",
            "Chrome on iPhone",
            true,
        ),
        ("curl/8.14.1", "curl", false),
        ("<script>", "Unknown device", false),
        ("", "Unknown device", false),
    ] {
        let device = device::Device::new(user_agent, String::new());
        assert_eq!((&*device.label, device.is_handheld), (label, is_handheld));
    }
}
