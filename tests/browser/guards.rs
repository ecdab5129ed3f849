//! Sign-in with the way back, a grave action that asks for the password again, and a page that notices a logout elsewhere.

use crate::login::{HOME, PASSWORD, Stage, on_each_store};
use crate::support::server::Server;

const DELETE: &str = "Delete your account?";

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_leads_back_to_the_page_that_asked_for_it() {
    on_each_store(async |stage| {
        let browser = stage.driver.browser().await;
        stage.sign_up(&browser, "Zoë").await;
        browser.press("Sign out").await;
        browser.shows("h1", "Sign in").await;

        browser.open(&stage.url("/delete-account")).await;
        browser.shows("h1", "Sign in").await;
        let place = browser
            .run("return location.pathname + location.search")
            .await;
        assert_eq!(place, "/sign-in?next=/delete-account");
        // A wrong password does not lose the way back.
        browser.fill("name", "Zoë").await;
        browser.fill("password", "incorrect horse").await;
        browser.press("Sign in").await;
        browser
            .shows("[role=alert]", "The name or the password is wrong.")
            .await;
        browser.fill("password", PASSWORD).await;
        browser.press("Sign in").await;
        browser.shows("h1", DELETE).await;

        // A link from another site does not lead there.
        browser
            .open(&stage.url("/sign-in?next=//localhost:1/evil"))
            .await;
        browser.fill("name", "Zoë").await;
        browser.fill("password", PASSWORD).await;
        browser.press("Sign in").await;
        browser.shows("h1", HOME).await;
        browser.quit().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_the_account_asks_for_the_password_again() {
    let stage = Stage::start(Some(Server::start().await)).await;
    let browser = stage.driver.browser().await;
    stage.sign_up(&browser, "Zoë").await;
    browser.open(&stage.url("/delete-account")).await;
    browser.shows("h1", DELETE).await;

    // An hour later.
    let redis = stage.redis.as_ref().expect("with Redis");
    let before = browser.cookie().await.expect("a cookie").value;
    let key = format!("session:{before}");
    let value: String = redis.command(&["GET", &key]).await;
    let (head, rest) = value.split_once("\"_created\":").expect("a session");
    let digits = rest.find(',').expect("more");
    let created: u64 = rest[..digits].parse().expect("a number");
    let older = format!("{head}\"_created\":{}{}", created - 3600, &rest[digits..]);
    redis
        .command::<String>(&["SET", &key, &older, "KEEPTTL"])
        .await;
    browser.open(&stage.url("/delete-account")).await;
    browser.shows("h1", "Enter your password again").await;
    // The other pages still work.
    browser.open(&stage.url("/")).await;
    browser.shows("h1", HOME).await;

    browser.open(&stage.url("/delete-account")).await;
    browser.fill("password", PASSWORD).await;
    browser.press("Sign in").await;
    browser.shows("h1", DELETE).await;
    let after = browser.cookie().await.expect("a cookie").value;
    assert_ne!(after, before, "a new id");
    browser.press("Delete the account of Zoë").await;
    browser.shows("h1", "Create an account").await;
    browser.shows(".flash", "Your account is deleted.").await;
    browser.open(&stage.url("/")).await;
    browser.shows("h1", "Sign in").await;
    browser.quit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_notices_that_it_was_signed_out_elsewhere() {
    on_each_store(async |stage| {
        let here = stage.driver.browser().await;
        stage.sign_up(&here, "Zoë").await;
        let other = stage.driver.browser().await;
        stage.sign_in(&other, "Zoë").await;
        here.reload().await;
        here.press("Sign out everywhere else").await;
        // Without a click or a reload there.
        other.shows("h1", "Sign in").await;
        here.shows("h1", HOME).await;
        here.quit().await;
        other.quit().await;
    })
    .await;
}
