//! Flash messages: each shown once, across redirects and with parallel requests.

use axum::{Router, extract::Path, response::Redirect, routing::get};
use axum_redis_sessions::{
    ErrorKind, FlashLevel, FlashMessages, RedisSessionLayer, Session, SessionError, SessionId,
};

use crate::{
    client::{ask, begin_at, on_each_store},
    support::{
        app::{Address, serve},
        browser::Browser,
        server::Server,
    },
    visits,
};

async fn add(session: Session, Path(text): Path<String>) -> Result<Redirect, SessionError> {
    session.flash(FlashLevel::Success, text)?;
    Ok(Redirect::to("/show"))
}

async fn show(FlashMessages(messages): FlashMessages) -> String {
    let lines: Vec<String> = messages
        .iter()
        .map(|message| format!("{}: {}", message.level, message.text))
        .collect();
    lines.join(", ")
}

fn routes() -> Router {
    let out = async |session: Session| -> Result<Redirect, SessionError> {
        session.destroy();
        session.flash(FlashLevel::Info, "signed out")?;
        Ok(Redirect::to("/show"))
    };
    let add_only =
        async |session: Session, Path(text): Path<String>| session.flash(FlashLevel::Warning, text);
    let both = async |session: Session| -> Result<String, SessionError> {
        session.flash(FlashLevel::Error, "at once")?;
        let taken = session.take_flashes().await?;
        Ok(serde_json::to_string(&taken).expect("JSON"))
    };
    visits::routes()
        .route("/add/{text}", get(add))
        .route("/add-only/{text}", get(add_only))
        .route("/show", get(show))
        .route("/out", get(out))
        .route("/both", get(both))
}

async fn app(layer: RedisSessionLayer) -> Address {
    serve(routes().layer(layer)).await
}

#[tokio::test]
async fn a_message_is_shown_once_after_a_redirect() {
    on_each_store(async |layer| {
        let app = app(layer).await;
        let browser = Browser::new();
        assert_eq!(browser.get(app.url("/show")).await.body, "");
        let page = browser.get(app.url("/add/saved")).await;
        assert_eq!(
            (page.url, page.body.as_str()),
            (app.url("/show"), "success: saved")
        );
        assert_eq!(browser.get(app.url("/show")).await.body, "");
        assert_eq!(
            browser.cookie(&app.url("/"), "__Host-session"),
            None,
            "nothing is left"
        );

        browser.get(app.url("/add-only/one")).await;
        browser.get(app.url("/add-only/two")).await;
        assert_eq!(
            browser.get(app.url("/add/three")).await.body,
            "warning: one, warning: two, success: three"
        );
    })
    .await;
}

#[tokio::test]
async fn a_message_survives_a_logout_and_other_data_survives_a_message() {
    on_each_store(async |layer| {
        let app = app(layer).await;
        let browser = Browser::new();
        browser.get(app.url("/")).await;
        browser.get(app.url("/add/saved")).await;
        assert_eq!(browser.get(app.url("/visits")).await.body, "1");
        assert_eq!(browser.get(app.url("/out")).await.body, "info: signed out");
        assert_eq!(browser.get(app.url("/visits")).await.body, "0");
        let both = browser.get(app.url("/both")).await;
        assert_eq!(both.body, r#"[{"level":"error","text":"at once"}]"#);
        assert!(both.set_cookies.is_empty(), "nothing was stored");
    })
    .await;
}

#[tokio::test]
async fn messages_of_parallel_requests_are_all_kept() {
    let server = Server::start().await;
    let app = app(RedisSessionLayer::new(server.client())).await;
    let cookie = begin_at(&app, "/").await;
    let adds = (0..16).map(|n| {
        let (app, cookie) = (&app, &cookie);
        async move { ask(app, &format!("/add-only/{n}"), &[cookie]).await.status }
    });
    let added = futures_util::future::join_all(adds).await;
    assert!(added.iter().all(|status| *status == 200));
    let shown = ask(&app, "/show", &[&cookie]).await.body;
    let mut texts: Vec<u32> = shown
        .split(", ")
        .map(|line| line["warning: ".len()..].parse().expect("a number"))
        .collect();
    texts.sort_unstable();
    assert_eq!(texts, (0..16).collect::<Vec<_>>());
}

#[tokio::test]
async fn of_parallel_requests_one_shows_each_message() {
    for in_memory in [false, true] {
        let server = Server::start().await;
        let layer = match in_memory {
            true => RedisSessionLayer::in_memory(),
            false => RedisSessionLayer::new(server.client()),
        };
        let app = app(layer).await;
        let cookie = begin_at(&app, "/").await;
        for round in 0..20 {
            // Some are added while others are taken.
            let adds = (0..3).map(|n| format!("/add-only/{round}-{n}"));
            let takes = (0..8).map(|_| "/show".to_owned());
            ask(&app, &format!("/add-only/{round}-first"), &[&cookie]).await;
            let asked = takes.chain(adds).map(|path| {
                let (app, cookie) = (&app, &cookie);
                async move { ask(app, &path, &[cookie]).await.body }
            });
            let mut shown = futures_util::future::join_all(asked).await;
            shown.push(ask(&app, "/show", &[&cookie]).await.body);
            let shown: Vec<&str> = shown
                .iter()
                .flat_map(|body| body.split(", "))
                .filter(|line| !line.is_empty())
                .collect();
            let mut distinct = shown.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!((shown.len(), distinct.len()), (4, 4), "{shown:?}");
        }
        assert_eq!(ask(&app, "/visits", &[&cookie]).await.body, "1");
    }
}

#[tokio::test]
async fn a_request_that_shows_no_page_takes_no_message() {
    let app = app(RedisSessionLayer::in_memory()).await;
    let cookie = begin_at(&app, "/").await;
    ask(&app, "/add-only/kept", &[&cookie]).await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let url = app.url("/show");
    for request in [
        client.head(&url),
        client.get(&url).header("sec-purpose", "prefetch"),
        client.get(&url).header("sec-purpose", "prefetch;prerender"),
        client.get(&url).header("purpose", "prefetch"),
    ] {
        let response = request
            .header("cookie", &cookie)
            .send()
            .await
            .expect("a response");
        assert_eq!(response.text().await.expect("a body"), "");
    }
    assert_eq!(ask(&app, "/show", &[&cookie]).await.body, "warning: kept");
}

#[tokio::test]
async fn messages_that_no_page_takes_do_not_fill_the_session() {
    let layer = RedisSessionLayer::in_memory();
    let cookie = layer
        .sessions()
        .create(|session| {
            for n in 0..1000 {
                session.flash(FlashLevel::Info, n.to_string())?;
            }
            Ok(())
        })
        .await
        .expect("created");
    let id: SessionId = cookie
        .to_str()
        .expect("ASCII")
        .split_once('=')
        .expect("a pair")
        .1
        .parse()
        .expect("an id");
    let session = layer
        .sessions()
        .load(id)
        .await
        .expect("asked")
        .expect("alive");
    let taken = session.take_flashes().await.expect("taken");
    assert_eq!(taken.len(), 32);
    assert_eq!(taken[31].text, "999");
    assert!(
        layer.sessions().load(id).await.expect("asked").is_none(),
        "it held nothing else"
    );
}

#[tokio::test]
async fn what_is_not_a_message_is_an_error_and_kept() {
    let layer = RedisSessionLayer::in_memory();
    let cookie = layer
        .sessions()
        .create(|session| session.insert("flash_messages", "the app's own"))
        .await
        .expect("created");
    let id: SessionId = cookie
        .to_str()
        .expect("ASCII")
        .split_once('=')
        .expect("a pair")
        .1
        .parse()
        .expect("an id");
    let session = layer
        .sessions()
        .load(id)
        .await
        .expect("asked")
        .expect("alive");
    assert_eq!(
        session
            .flash(FlashLevel::Info, "a")
            .expect_err("another type")
            .kind(),
        ErrorKind::Decode
    );
    assert_eq!(
        session
            .take_flashes()
            .await
            .expect_err("another type")
            .kind(),
        ErrorKind::Decode
    );
    assert_eq!(
        session
            .get::<String>("flash_messages")
            .expect("text")
            .as_deref(),
        Some("the app's own")
    );
    // A level of a later version of this crate.
    session
        .insert("flash_messages", [["critical", "text"]])
        .expect("text");
    assert_eq!(
        session.take_flashes().await.expect("taken")[0].level,
        FlashLevel::Info
    );
}

#[tokio::test]
async fn a_session_that_ended_has_no_messages() {
    let layer = RedisSessionLayer::in_memory();
    let cookie = layer
        .sessions()
        .create(|session| session.flash(FlashLevel::Info, "a"))
        .await
        .expect("created");
    let id: SessionId = cookie
        .to_str()
        .expect("ASCII")
        .split_once('=')
        .expect("a pair")
        .1
        .parse()
        .expect("an id");
    let load = async || {
        layer
            .sessions()
            .load(id)
            .await
            .expect("asked")
            .expect("alive")
    };
    let [here, there] = [load().await, load().await];
    there.destroy();
    there.save().await.expect("saved");
    assert_eq!(here.take_flashes().await.expect("none"), []);
}
