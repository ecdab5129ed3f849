//! The pictures in the README: `cargo test --all-features --test browser -- --ignored` makes them.

use std::fs;

use crate::{FIREFOX, IPHONE, REFUSED, chromium::Chromium, login::Stage};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes the pictures in the README"]
async fn pictures() {
    let stage = Stage::start(None).await;
    let browser = stage.driver.browser().await;
    browser.open(&stage.url("/sign-up")).await;
    take(&browser, "sign-up", PHONE, "light").await;
    stage.sign_up(&browser, "Zoë").await;
    for user_agent in [FIREFOX, IPHONE] {
        let other = stage.driver.browser_like(user_agent).await;
        stage.sign_in(&other, "Zoë").await;
        other.quit().await;
    }
    browser.reload().await;
    take(&browser, "devices", DESKTOP, "light").await;
    browser.press("Sign out there: Safari on iPhone").await;
    browser
        .shows(".flash", "Signed out: Safari on iPhone.")
        .await;
    take(&browser, "signed-out-there", PHONE, "dark").await;
    browser.press("Sign out").await;
    browser.shows(".flash", "You are signed out.").await;
    take(&browser, "sign-in", PHONE, "light").await;
    browser.fill("name", "Zoë").await;
    browser.fill("password", "incorrect horse").await;
    browser.press("Sign in").await;
    browser.shows("[role=alert]", REFUSED).await;
    take(&browser, "refused", PHONE, "dark").await;
    browser.quit().await;
}

const PHONE: (u32, u32, bool) = (390, 640, true);
const DESKTOP: (u32, u32, bool) = (860, 612, false);

async fn take(
    browser: &Chromium,
    name: &str,
    (width, height, is_mobile): (u32, u32, bool),
    scheme: &str,
) {
    let cdp = browser.0.cdp();
    let emulation = cdp.emulation();
    let sized = emulation
        .set_device_metrics_override(width, height, 1.5, is_mobile)
        .await;
    sized.expect("sized");
    let features =
        serde_json::json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
    let colored = cdp.send_raw("Emulation.setEmulatedMedia", features).await;
    colored.expect("colored");
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/.github/screenshots");
    fs::create_dir_all(directory).expect("a directory");
    let picture = browser.0.screenshot_as_png().await.expect("a picture");
    fs::write(format!("{directory}/{name}.png"), picture).expect("written");
}
