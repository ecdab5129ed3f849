//! The id in a header instead of a cookie.

use axum::{
    Router,
    body::Body,
    extract::Form,
    http::{HeaderMap, Request, StatusCode, header},
    routing::{get, post},
};
use axum_redis_sessions::{LazySession, RedisSessionLayer, Session};
use serde::Deserialize;
use tower::ServiceExt;

use crate::{
    client::{begin, on_each_store, send, set_cookie, text},
    support::{app::serve, server::Server},
    visits::{app, routes},
};

const NAME: &str = "x-session-id";

struct Answer {
    headers: HeaderMap,
    body: String,
}

impl Answer {
    /// The id in the header; `Some("")` if the session has ended.
    fn id(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self.headers.get_all(name).iter().collect();
        assert!(values.len() <= 1);
        let value = values.first()?.to_str().expect("text");
        Some(value.to_owned())
    }

    fn sets_cookie(&self) -> bool {
        self.headers.contains_key(header::SET_COOKIE)
    }

    fn vary(&self) -> Vec<String> {
        let values = self.headers.get_all(header::VARY).iter();
        values
            .map(|value| value.to_str().expect("text").to_lowercase())
            .collect()
    }
}

async fn ask(app: &Router, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).expect("a request");
    let response = app.clone().oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    Answer {
        headers: response.headers().clone(),
        body: text(response).await,
    }
}

#[tokio::test]
async fn a_client_without_cookies_keeps_its_session_by_the_header() {
    on_each_store(async |layer| {
        let app = app(layer.with_header_transport(NAME));
        let begun = ask(&app, "/", &[(NAME, "")]).await;
        let id = begun.id(NAME).expect("issued");
        assert_eq!(id.len(), 36);
        assert!(!begun.sets_cookie());
        assert_eq!(begun.headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(begun.vary(), ["cookie", NAME]);

        let known = ask(&app, "/", &[(NAME, &id)]).await;
        assert_eq!(known.body, "2");
        assert_eq!(known.id(NAME), None, "not repeated");
        assert_eq!(known.vary(), ["cookie", NAME]);

        let rotated = ask(&app, "/cycle", &[(NAME, &id)]).await;
        let next = rotated.id(NAME).expect("a new id");
        assert_ne!(next, id);
        assert_eq!(ask(&app, "/", &[(NAME, &next)]).await.body, "3");

        let ended = ask(&app, "/destroy", &[(NAME, &next)]).await;
        assert_eq!(ended.id(NAME).as_deref(), Some(""));
        assert!(!ended.sets_cookie());
        assert_eq!(ask(&app, "/visits", &[(NAME, &next)]).await.body, "0");
    })
    .await;
}

#[tokio::test]
async fn a_bearer_token_is_the_same_in_the_authorization_header() {
    let app = app(RedisSessionLayer::in_memory().with_bearer_token());
    let begun = ask(&app, "/", &[("authorization", "Bearer")]).await;
    let token = begun.id("authorization").expect("issued");
    assert!(token.starts_with("Bearer "), "{}", token.len());
    assert_eq!(begun.vary(), ["cookie", "authorization"]);
    for form in ["Bearer", "bearer", "BEARER"] {
        let token = token.replace("Bearer", form);
        let seen = ask(&app, "/visits", &[("authorization", &token)]).await;
        assert_eq!(seen.body, "1", "{form}");
    }
    let ended = ask(&app, "/destroy", &[("authorization", &token)]).await;
    assert_eq!(ended.id("authorization").as_deref(), Some(""));
    // Another scheme is not this layer's, so the cookie counts.
    let basic = ask(&app, "/", &[("authorization", "Basic dTpw")]).await;
    assert!(basic.sets_cookie());
    assert_eq!(basic.id("authorization"), None);
    let longer = ask(&app, "/", &[("authorization", "Bearertoken x")]).await;
    assert!(longer.sets_cookie());
}

#[tokio::test]
async fn a_request_uses_the_cookie_or_the_header_and_never_both() {
    let app = app(RedisSessionLayer::in_memory().with_header_transport(NAME));
    let cookie = begin(&app, "/").await;
    let id = cookie.split('=').nth(1).expect("an id").to_owned();

    // A script that sends an empty header with the browser's cookie learns no id.
    for path in ["/", "/cycle", "/visits"] {
        let probed = ask(&app, path, &[(NAME, ""), ("cookie", &cookie)]).await;
        assert_ne!(probed.id(NAME), Some(id.clone()), "{path}");
        assert!(!probed.sets_cookie(), "{path}");
    }
    assert_eq!(text(send(&app, "/visits", Some(&cookie)).await).await, "1");
    // A header with an id that is no session begins nothing but its own.
    let unknown = [(NAME, "5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e")];
    let begun = ask(&app, "/", &unknown).await;
    assert_eq!(begun.body, "1");
    assert_ne!(begun.id(NAME).as_deref(), Some(unknown[0].1), "not adopted");
}

#[tokio::test]
async fn malformed_headers_present_no_session() {
    let server = Server::start().await;
    let layer = || RedisSessionLayer::new(server.client());
    let app = app(layer().with_header_transport(NAME));
    let id = ask(&app, "/", &[(NAME, "")])
        .await
        .id(NAME)
        .expect("issued");
    let monitor = server.monitor().await;
    monitor.drain().await;
    let long = "a".repeat(8000);
    for value in [
        &id.to_uppercase(),
        &id.replace('-', ""),
        &format!("{id}; {id}"),
        &format!("{id}, {id}"),
        &format!("\"{id}\""),
        &format!("Bearer {id}"),
        &long,
    ] {
        let seen = ask(&app, "/visits", &[(NAME, value)]).await;
        assert_eq!(seen.body, "0", "{} bytes", value.len());
        assert!(!seen.sets_cookie());
    }
    assert_eq!(monitor.drain().await, Vec::<Vec<String>>::new());
    // The id is nowhere else.
    let path = format!("/visits?{NAME}={id}&session={id}");
    assert_eq!(ask(&app, &path, &[]).await.body, "0");
    // As with cookies, the first that is live counts.
    let other = "5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e";
    let seen = ask(&app, "/visits", &[(NAME, other), (NAME, &id)]).await;
    assert_eq!(seen.body, "1");
}

#[tokio::test]
async fn a_signed_header_is_not_valid_as_a_cookie_and_the_other_way_round() {
    let layer = RedisSessionLayer::in_memory()
        .with_header_transport(NAME)
        .with_signing_keys([[1; 32]]);
    let app = app(layer);
    let token = ask(&app, "/", &[(NAME, "")])
        .await
        .id(NAME)
        .expect("issued");
    assert_eq!(ask(&app, "/", &[(NAME, &token)]).await.body, "2");
    let id = token.split('.').next().expect("an id");
    assert_eq!(ask(&app, "/visits", &[(NAME, id)]).await.body, "0");
    let as_cookie = format!("__Host-session={token}");
    assert_eq!(
        text(send(&app, "/visits", Some(&as_cookie)).await).await,
        "0"
    );
    let cookie = begin(&app, "/").await;
    let value = cookie.split_once('=').expect("a value").1;
    assert_eq!(ask(&app, "/visits", &[(NAME, value)]).await.body, "0");
}

#[tokio::test]
async fn without_cookie_no_cookie_is_read_or_set() {
    let layer = RedisSessionLayer::in_memory()
        .with_header_transport(NAME)
        .without_cookie();
    let app = app(layer);
    let begun = ask(&app, "/", &[]).await;
    assert!(!begun.sets_cookie());
    assert_eq!(begun.vary(), [NAME]);
    let id = begun.id(NAME).expect("issued");
    let as_cookie = format!("__Host-session={id}");
    let seen = ask(&app, "/visits", &[("cookie", &as_cookie)]).await;
    assert_eq!(seen.body, "0");
    assert_eq!(ask(&app, "/visits", &[(NAME, &id)]).await.body, "1");
}

#[tokio::test]
async fn an_api_with_a_header_and_pages_with_a_cookie_are_two_sessions() {
    let api = RedisSessionLayer::in_memory()
        .with_bearer_token()
        .without_cookie();
    let of_the_site = async |lazy: LazySession| {
        let site = lazy.by_cookie_name("__Host-session").expect("the outer");
        let site = site.load().await.expect("loaded");
        site.get::<u64>("visits")
            .expect("a number")
            .unwrap_or(0)
            .to_string()
    };
    let app = Router::new()
        .nest("/api", routes().route("/site", get(of_the_site)).layer(api))
        .merge(routes())
        .layer(RedisSessionLayer::in_memory());
    let cookie = begin(&app, "/").await;
    let begun = ask(&app, "/api", &[("cookie", &cookie)]).await;
    assert_eq!(begun.body, "1", "another session");
    assert!(!begun.sets_cookie());
    let token = begun.id("authorization").expect("issued");
    let both = [("cookie", &*cookie), ("authorization", &*token)];
    assert_eq!(ask(&app, "/api", &both).await.body, "2");
    assert_eq!(ask(&app, "/visits", &both).await.body, "1");
    assert_eq!(ask(&app, "/api/site", &both).await.body, "1");
}

#[derive(Deserialize)]
struct SignIn {
    user: String,
}

/// Another HTTP client, over a socket: the header of a request is the one of the last response.
#[tokio::test]
async fn a_mobile_client_signs_in_and_out() {
    let server = Server::start().await;
    let sign_in = async |session: Session, Form(form): Form<SignIn>| session.log_in(&form.user);
    let user = async |session: Session| session.user().unwrap_or_default();
    let app = Router::new()
        .route("/sign-in", post(sign_in))
        .route("/user", get(user))
        .route(
            "/sign-out",
            post(async |session: Session| session.destroy()),
        )
        .layer(RedisSessionLayer::new(server.client()).with_bearer_token());
    let app = serve(app).await;
    let client = reqwest::Client::new();
    let sign_in = client.post(app.url("/sign-in")).form(&[("user", "ada")]);
    let response = sign_in.header("authorization", "Bearer").send().await;
    let response = response.expect("an answer");
    let token = response.headers()["authorization"].clone();
    assert!(token.len() > 36);
    let get = |token| {
        let request = client.get(app.url("/user"));
        let request = request.header("authorization", token);
        async { request.send().await.expect("an answer").text().await }
    };
    assert_eq!(get(token.clone()).await.expect("text"), "ada");
    let sign_out = client.post(app.url("/sign-out"));
    let response = sign_out.header("authorization", token.clone()).send().await;
    let headers = response.expect("an answer").headers().clone();
    assert_eq!(headers["authorization"], "");
    assert_eq!(get(token).await.expect("text"), "");
}

#[test]
fn impossible_headers_are_configuration_errors() {
    let layer = RedisSessionLayer::in_memory;
    for (layer, word) in [
        (layer().without_cookie(), "without_cookie"),
        (layer().with_header_transport("two words"), "two words"),
        (layer().with_header_transport(""), "header name"),
        (layer().with_header_transport("Cookie"), "another purpose"),
        (
            layer().with_header_transport("set-cookie"),
            "another purpose",
        ),
        (
            layer().with_header_transport("Authorization"),
            "with_bearer_token",
        ),
    ] {
        let error = layer.validate().expect_err("refused").to_string();
        assert!(error.contains(word), "{error}");
    }
    let good = layer()
        .with_header_transport("X-Session-Id")
        .without_cookie();
    assert!(good.validate().is_ok());
}

#[tokio::test]
async fn a_request_that_never_asks_for_its_session_costs_nothing() {
    let app = app(RedisSessionLayer::in_memory().with_header_transport(NAME));
    let seen = ask(&app, "/untouched", &[(NAME, "")]).await;
    assert_eq!(seen.vary(), Vec::<String>::new());
    assert_eq!(seen.id(NAME), None);
    let response = send(&app, "/untouched", None).await;
    assert_eq!(set_cookie(&response), None);
}
