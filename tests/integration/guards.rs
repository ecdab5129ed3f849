//! `LoggedIn`, `RecentLogin` and the way back after a login.

use std::time::{Duration, SystemTime};

use axum::{
    Form, Router,
    body::Body,
    extract::Query,
    http::{HeaderValue, Method, Request, StatusCode, header},
    middleware::from_extractor,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use axum_redis_sessions::{
    LoggedIn, LoginRejection, NextPath, RecentLogin, RedisSessionLayer, Session, SessionError,
    SessionId,
};
use serde::Deserialize;
use tower::ServiceExt;

use crate::{
    client::{on_each_store, text},
    support::{app::serve, browser::Browser, eventually, server::Server},
    visits::PATIENT,
};

const HTML: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

#[derive(Deserialize)]
struct SignIn {
    #[serde(default)]
    next: NextPath,
}

fn routes() -> Router {
    let user = async |LoggedIn(user): LoggedIn| user;
    let either = async |user: Option<LoggedIn>| format!("{user:?}");
    let grave = async |RecentLogin(user): RecentLogin<2>| user;
    let why = async |user: Result<RecentLogin<0>, LoginRejection>| match user {
        Ok(_) => "in".to_owned(),
        Err(rejection) => format!(
            "{} {} {rejection}",
            rejection.needs_confirmation(),
            rejection.session_error().is_some()
        ),
    };
    let sign_in =
        async |session: Session, Form(form): Form<SignIn>| -> Result<Response, SessionError> {
            session.log_in("42")?;
            Ok(Redirect::to(form.next.as_str()).into_response())
        };
    let page = async |Query(SignIn { next }): Query<SignIn>| next.to_string();
    let confirm = async |session: Session| session.confirm_authentication();
    let nested = Router::new()
        .route("/deep", get(user))
        .route("/", get(user));
    let private = Router::new()
        .route("/orders", get(async || "orders"))
        .route_layer(from_extractor::<LoggedIn>());
    Router::new()
        .route("/user", get(user).post(user))
        .route("/either", get(either))
        .route("/grave", get(grave).post(grave))
        .route("/why", get(why))
        .route("/sign-in", get(page).post(sign_in))
        .route("/guarded-sign-in", get(user))
        .route("/confirm", get(confirm))
        .route(
            "/id",
            get(async |session: Session| {
                session.id().map_or(String::new(), |id| id.expose_secret())
            }),
        )
        .route("/", get(user))
        .nest("/shop", nested)
        .merge(private)
        .fallback(async |LoggedIn(user): LoggedIn| user)
}

fn app(layer: RedisSessionLayer) -> Router {
    routes().layer(layer.with_sign_in_page("/sign-in"))
}

async fn ask(
    app: &Router,
    method: Method,
    target: &str,
    accept: Option<&str>,
    cookie: Option<&HeaderValue>,
) -> Response {
    let mut request = Request::builder().method(method).uri(target);
    if let Some(accept) = accept {
        request = request.header(header::ACCEPT, accept);
    }
    if let Some(cookie) = cookie {
        request = request.header(header::COOKIE, cookie);
    }
    let request = request.body(Body::empty()).expect("a request");
    app.clone().oneshot(request).await.expect("infallible")
}

fn location(response: &Response) -> Option<&str> {
    Some(
        response
            .headers()
            .get(header::LOCATION)?
            .to_str()
            .expect("ASCII"),
    )
}

#[tokio::test]
async fn a_user_passes_and_a_visitor_is_answered_with_401() {
    on_each_store(async |layer| {
        // Without a sign-in page, browsers too.
        let app = routes().layer(layer.clone());
        let cookie = layer
            .sessions()
            .create(|session| session.log_in("42"))
            .await
            .expect("created");
        let anonymous = layer
            .sessions()
            .create(|session| session.insert("a", 1))
            .await
            .expect("created");
        for path in ["/user", "/shop/deep", "/orders", "/nowhere"] {
            let passed = ask(&app, Method::GET, path, Some(HTML), Some(&cookie)).await;
            assert_eq!(passed.status(), StatusCode::OK, "{path}");
            for visitor in [None, Some(&anonymous)] {
                let refused = ask(&app, Method::GET, path, Some(HTML), visitor).await;
                assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
                assert_eq!(refused.headers()[header::CACHE_CONTROL], "no-store");
                assert_eq!(refused.headers()[header::WWW_AUTHENTICATE], "Cookie");
                let vary: Vec<_> = refused.headers().get_all(header::VARY).iter().collect();
                assert_eq!(vary, ["Accept", "Cookie"]);
                assert_eq!(text(refused).await, "Please sign in.\n");
            }
        }
        let user = ask(&app, Method::GET, "/either", None, Some(&cookie)).await;
        assert_eq!(text(user).await, r#"Some(LoggedIn("42"))"#);
        let visitor = ask(&app, Method::GET, "/either", None, None).await;
        assert_eq!(text(visitor).await, "None");
    })
    .await;
}

#[tokio::test]
async fn a_browser_is_sent_to_the_sign_in_page_with_the_way_back() {
    let app = app(RedisSessionLayer::in_memory());
    for (target, expected) in [
        ("/user", "/sign-in?next=/user"),
        ("/user?a=b&c=%2F", "/sign-in?next=/user%3Fa%3Db%26c%3D%252F"),
        ("/", "/sign-in"),
        // The path that the browser asked for, not the nested router's.
        ("/shop/deep?x", "/sign-in?next=/shop/deep%3Fx"),
        ("/shop", "/sign-in?next=/shop"),
        ("/orders", "/sign-in?next=/orders"),
        // The absolute form names another host, which does not count.
        ("http://evil.example/user", "/sign-in?next=/user"),
        ("http://evil.example//evil.example", "/sign-in"),
        ("//evil.example", "/sign-in"),
        ("///evil.example/", "/sign-in"),
        ("/%2Fevil.example", "/sign-in"),
        ("/%5Cevil.example", "/sign-in"),
        ("/%09/evil.example", "/sign-in"),
        ("/.//evil.example", "/sign-in"),
        ("/%252fevil.example", "/sign-in"),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let response = ask(&app, method, target, Some(HTML), None).await;
            assert_eq!(response.status(), StatusCode::SEE_OTHER, "{target}");
            assert_eq!(location(&response), Some(expected), "{target}");
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        }
    }
}

#[tokio::test]
async fn only_a_browser_that_navigates_is_redirected() {
    let app = app(RedisSessionLayer::in_memory());
    for (method, accept) in [
        (Method::POST, Some(HTML)),
        (Method::GET, None),
        (Method::GET, Some("*/*")),
        (Method::GET, Some("application/json")),
        (Method::GET, Some("text/*")),
        (Method::GET, Some("text/html;q=0, application/json")),
        (Method::GET, Some("text/html; q=0.0")),
        (Method::GET, Some("text/htmlx")),
        (Method::GET, Some("")),
    ] {
        let response = ask(&app, method.clone(), "/user", accept, None).await;
        assert_eq!(
            response.status(),
            StatusCode::UNAUTHORIZED,
            "{method} {accept:?}"
        );
    }
    for accept in [
        "TEXT/HTML",
        "application/json, text/html;level=1;q=0.1",
        "application/xhtml+xml",
    ] {
        let response = ask(&app, Method::GET, "/user", Some(accept), None).await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER, "{accept}");
    }
    // A guard on the sign-in page itself.
    let looping = routes()
        .layer(RedisSessionLayer::in_memory().with_sign_in_page("/guarded-sign-in?lang=de"));
    let response = ask(
        &looping,
        Method::GET,
        "/guarded-sign-in?lang=de",
        Some(HTML),
        None,
    )
    .await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let response = ask(&looping, Method::GET, "/user", Some(HTML), None).await;
    assert_eq!(
        location(&response),
        Some("/guarded-sign-in?lang=de&next=/user")
    );
}

#[tokio::test]
async fn the_sign_in_page_is_a_path_on_this_host() {
    for page in [
        "https://login.example/",
        "//login.example",
        "sign-in",
        "",
        "/\\x",
    ] {
        let error = RedisSessionLayer::in_memory()
            .with_sign_in_page(page)
            .validate();
        assert!(
            error
                .expect_err(page)
                .to_string()
                .contains("with_sign_in_page")
        );
    }
}

#[tokio::test]
async fn a_browser_goes_back_after_the_login() {
    let server = Server::start().await;
    let app = serve(app(RedisSessionLayer::new(server.client()))).await;
    let browser = Browser::new();
    // The client accepts anything, which is not HTML.
    assert_eq!(browser.get(app.url("/user")).await.status, 401);
    assert_eq!(
        browser
            .get(app.url("/sign-in?next=/user%3Fa%3Db"))
            .await
            .body,
        "/user?a=b"
    );
    assert_eq!(
        browser
            .get(app.url("/sign-in?next=//evil.example"))
            .await
            .body,
        "/"
    );
    assert_eq!(browser.get(app.url("/sign-in")).await.body, "/");
    let evil = browser
        .post(app.url("/sign-in"), &[("next", "https://evil.example/")])
        .await;
    assert_eq!((evil.url, evil.body.as_str()), (app.url("/"), "42"));
    let back = browser
        .post(app.url("/sign-in"), &[("next", "/shop/deep?a=b")])
        .await;
    assert_eq!(
        (back.url, back.body.as_str()),
        (app.url("/shop/deep?a=b"), "42")
    );
}

#[tokio::test]
async fn a_grave_action_needs_a_recent_login() {
    on_each_store(async |layer| {
        let app = app(layer.clone());
        let before = SystemTime::now() - Duration::from_secs(1);
        let cookie = layer
            .sessions()
            .create(|session| session.log_in("42"))
            .await
            .expect("created");
        let grave =
            async |method, accept, cookie| ask(&app, method, "/grave", accept, Some(cookie)).await;
        assert_eq!(
            grave(Method::POST, None, &cookie).await.status(),
            StatusCode::OK
        );
        eventually(PATIENT, async || {
            grave(Method::POST, None, &cookie).await.status() == StatusCode::UNAUTHORIZED
        })
        .await;
        let refused = grave(Method::GET, None, &cookie).await;
        assert_eq!(
            refused.headers()[header::WWW_AUTHENTICATE],
            r#"Cookie error="insufficient_user_authentication", max_age="2""#
        );
        assert_eq!(text(refused).await, "Please enter your password again.\n");
        let refused = grave(Method::GET, Some(HTML), &cookie).await;
        assert_eq!(location(&refused), Some("/sign-in?next=/grave"));
        let why = ask(&app, Method::GET, "/why", None, Some(&cookie)).await;
        assert_eq!(
            text(why).await,
            "true false the user authenticated more than 0 s ago"
        );
        let why = ask(&app, Method::GET, "/why", None, None).await;
        assert_eq!(text(why).await, "false false no user is logged in");
        // Still logged in.
        assert_eq!(
            ask(&app, Method::GET, "/user", None, Some(&cookie))
                .await
                .status(),
            StatusCode::OK
        );

        let load = async |cookie: &HeaderValue| {
            let id: SessionId = cookie
                .to_str()
                .expect("ASCII")
                .split_once('=')
                .expect("a pair")
                .1
                .parse()
                .expect("an id");
            layer.sessions().load(id).await.expect("asked")
        };
        let created = load(&cookie)
            .await
            .expect("alive")
            .authenticated_at()
            .expect("a user");
        assert!(created >= before);
        let confirmed = ask(&app, Method::GET, "/confirm", None, Some(&cookie)).await;
        let line = crate::client::set_cookie(&confirmed).expect("a new id");
        let new = HeaderValue::from_str(crate::client::pair(&line)).expect("a header");
        assert_ne!(new, cookie);
        let session = load(&new).await.expect("alive");
        assert!(session.authenticated_at().expect("a user") > created);
        assert_eq!(
            grave(Method::POST, None, &new).await.status(),
            StatusCode::OK
        );
        assert_eq!(
            grave(Method::POST, None, &cookie).await.status(),
            StatusCode::UNAUTHORIZED
        );
        assert!(load(&cookie).await.is_none(), "the former id ends");

        // The next user has not confirmed anything, and no user has authenticated.
        session.remove_user();
        assert_eq!(session.authenticated_at(), None);
        session.confirm_authentication();
        assert_eq!(session.authenticated_at(), None);
    })
    .await;
}

#[tokio::test]
async fn a_confirmation_survives_a_conflict_and_goes_with_its_user() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client());
    // Written by hand, so that the times are known: the login was in 2023.
    let id = SessionId::random().expect("random");
    let key = format!("session:{}", id.expose_secret());
    let put = async |confirmed: &str| {
        let value = format!(
            r#"{{"_rev":"0123456789abcdef","_created":1700000000,{confirmed}"_user":"42","a":1}}"#
        );
        server
            .command::<String>(&["SET", &key, &value, "EX", "100"])
            .await;
    };
    let at = async || {
        let session = layer
            .sessions()
            .load(id)
            .await
            .expect("asked")
            .expect("alive");
        let at = session.authenticated_at().expect("a user");
        at.duration_since(SystemTime::UNIX_EPOCH)
            .expect("after 1970")
            .as_secs()
    };
    put("").await;
    assert_eq!(at().await, 1_700_000_000);
    put(r#""_confirmed":1700000500,"#).await;
    assert_eq!(at().await, 1_700_000_500);
    put(r#""_confirmed":"soon","#).await;
    assert_eq!(
        at().await,
        1_700_000_000,
        "what is not a number confirms nothing"
    );
    put(r#""_confirmed":1700000500,"#).await;

    // A change of another request, which is replayed, keeps it.
    let [here, there] = [
        layer
            .sessions()
            .load(id)
            .await
            .expect("asked")
            .expect("alive"),
        layer
            .sessions()
            .load(id)
            .await
            .expect("asked")
            .expect("alive"),
    ];
    here.insert("b", 1).expect("a number");
    there.insert("c", 1).expect("a number");
    here.save().await.expect("saved");
    there.save().await.expect("saved");
    assert_eq!(at().await, 1_700_000_500);
    // Another user logs in: their own time counts.
    here.reload().await.expect("alive");
    here.set_user("43").expect("a user");
    let age = here
        .authenticated_at()
        .expect("a user")
        .elapsed()
        .expect("not in the future");
    assert!(age < PATIENT);

    // A clock that is far ahead makes no login recent.
    put(r#""_confirmed":99999999999,"#).await;
    let app = app(layer.clone());
    let cookie =
        HeaderValue::from_str(&format!("__Host-session={}", id.expose_secret())).expect("a header");
    let refused = ask(&app, Method::GET, "/grave", None, Some(&cookie)).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_outage_is_503_and_not_a_login() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client()).with_deadline(Duration::from_millis(100));
    let app = app(layer.clone());
    let cookie = layer
        .sessions()
        .create(|session| session.log_in("42"))
        .await
        .expect("created");
    server.stop();
    for path in ["/user", "/either", "/grave", "/orders"] {
        let response = ask(&app, Method::GET, path, Some(HTML), Some(&cookie)).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
    server.resume();
}
