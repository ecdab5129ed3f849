//! Headers for shared caches (RFC 9111): every response that depends on the session varies by Cookie, and one with a Set-Cookie is
//! not stored.

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, HeaderName, Response, StatusCode, header},
    middleware::{Next, from_fn},
    response::IntoResponse,
    routing::{MethodRouter, get},
};
use axum_redis_sessions::{LazySession, RedisSessionLayer, Session, SessionError};

use crate::{
    client::{begin, on_each_store, send},
    support::server::Server,
    visits::visits,
};

fn values(response: &Response<Body>, name: HeaderName) -> Vec<&str> {
    let values = response.headers().get_all(name).iter();
    values.map(|value| value.to_str().expect("text")).collect()
}

/// Handlers that read the session in one way each and change nothing.
macro_rules! looks {
    ($($session:ident => $look:expr),* $(,)?) => {
        [$((stringify!($look), get(async |$session: Session| { let _ = $look; }))),*]
    };
}

#[tokio::test]
async fn every_kind_of_access_adds_vary_cookie() {
    on_each_store(|layer| async move {
        let base = Router::new().route("/", get(visits)).layer(layer.clone());
        let cookie = begin(&base, "/").await;
        let methods = looks![
            session => session.get::<u64>("visits"),
            session => session.contains_key("visits"),
            session => session.keys(),
            session => session.len(),
            session => session.is_empty(),
            session => session.id(),
            session => session.is_permanent(),
            session => session.expires_at(),
            session => session.user(),
            session => session.handle(),
            session => session.remove("absent"),
            session => session.take::<u64>("absent"),
            session => session.insert("_reserved", 1),
            session => session.save().await,
            // Loading extends the lifetime, whatever the handler reads.
            session => &session,
        ];
        let extractors: [(&str, MethodRouter); 4] = [
            ("Option<Session>", get(async |_: Option<Session>| {})),
            (
                "Result<Session, _>",
                get(async |_: Result<Session, SessionError>| {}),
            ),
            (
                "LazySession, loaded",
                get(async |lazy: LazySession| drop(lazy.load().await)),
            ),
            (
                "a session that a failing extractor behind it wasted",
                get(async |_: Session, _: axum::extract::Path<u64>| {}),
            ),
        ];
        for (name, handler) in methods.into_iter().chain(extractors) {
            let app = Router::new().route("/", handler).layer(layer.clone());
            for cookie in [Some(&*cookie), None] {
                let response = send(&app, "/", cookie).await;
                assert_eq!(values(&response, header::VARY), ["Cookie"], "{name}");
                assert!(
                    !response.headers().contains_key(header::SET_COOKIE),
                    "{name}"
                );
                // Whether to cache the response is up to the app.
                assert_eq!(values(&response, header::CACHE_CONTROL), [""; 0], "{name}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_response_without_session_access_stays_cacheable() {
    let layer = RedisSessionLayer::in_memory();
    let public = get(async || ([(header::CACHE_CONTROL, "public, max-age=60")], "hello"));
    let lazy = get(async |lazy: LazySession| drop(lazy.loaded()));
    let app = Router::new()
        .route("/", get(visits))
        .route("/public", public)
        .route("/lazy", lazy)
        .layer(layer.clone());
    let cookie = begin(&app, "/").await;
    for (path, cache_control) in [
        ("/public", &["public, max-age=60"][..]),
        ("/lazy", &[]),
        ("/absent", &[]),
    ] {
        let response = send(&app, path, Some(&cookie)).await;
        assert_eq!(values(&response, header::VARY), [""; 0], "{path}");
        assert_eq!(
            values(&response, header::CACHE_CONTROL),
            cache_control,
            "{path}"
        );
    }
    // A middleware that reads the session, and eager load, affect every route.
    let looks = async |session: Session, request: axum::extract::Request, next: Next| {
        let _ = session.is_empty();
        next.run(request).await
    };
    let watched = Router::new()
        .route("/public", get(async || "hello"))
        .layer(from_fn(looks))
        .layer(layer.clone());
    let eager = Router::new()
        .route("/public", get(async || "hello"))
        .layer(layer.with_eager_load());
    for app in [watched, eager] {
        let response = send(&app, "/public", Some(&cookie)).await;
        assert_eq!(values(&response, header::VARY), ["Cookie"]);
    }
}

#[tokio::test]
async fn vary_is_appended_to_and_never_duplicated() {
    for (own, expected) in [
        (&[][..], &["Cookie"][..]),
        (&["Accept-Encoding"], &["Accept-Encoding", "Cookie"]),
        (&["X-Cookie, Cookies"], &["X-Cookie, Cookies", "Cookie"]),
        (
            &["Accept", "Accept-Language"],
            &["Accept", "Accept-Language", "Cookie"],
        ),
        (&["Cookie"], &["Cookie"]),
        (&["accept,COOKIE"], &["accept,COOKIE"]),
        (
            &["Accept", "cookie , Origin"],
            &["Accept", "cookie , Origin"],
        ),
        (&["*"], &["*"]),
    ] {
        let handler = async move |session: Session| {
            let mut headers = HeaderMap::new();
            for value in own {
                headers.append(header::VARY, value.parse().expect("a header value"));
            }
            (headers, session.len().to_string())
        };
        let app = Router::new()
            .route("/", get(handler))
            .layer(RedisSessionLayer::in_memory());
        let response = send(&app, "/", None).await;
        assert_eq!(values(&response, header::VARY), expected);
    }
}

#[tokio::test]
async fn a_response_with_set_cookie_is_always_no_store() {
    on_each_store(|layer| async move {
        let with = |cache_control: Option<&'static str>, end: bool| {
            get(async move |session: Session| {
                if end {
                    session.destroy();
                } else {
                    session.cycle_id();
                    session.insert("a", 1)?;
                }
                let own = cache_control.map(|value| [(header::CACHE_CONTROL, value)]);
                Ok::<_, SessionError>((own, "").into_response())
            })
        };
        for (own, expected) in [
            (None, "no-store"),
            (Some("public"), "no-store"),
            (Some("private, max-age=5"), "no-store"),
            (Some("private, no-store"), "private, no-store"),
        ] {
            let app = Router::new()
                .route("/", get(visits))
                .route("/log-in", with(own, false))
                .route("/log-out", with(own, true))
                .layer(layer.clone());
            let cookie = begin(&app, "/").await;
            // The first cookie, a new id, and a removal.
            for (path, cookie) in [
                ("/log-in", None),
                ("/log-in", Some(&*cookie)),
                ("/log-out", Some(&*begin(&app, "/").await)),
            ] {
                let response = send(&app, path, cookie).await;
                assert_eq!(values(&response, header::SET_COOKIE).len(), 1, "{path}");
                assert_eq!(
                    values(&response, header::CACHE_CONTROL),
                    [expected],
                    "{path}"
                );
                assert_eq!(values(&response, header::VARY), ["Cookie"], "{path}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_error_response_is_no_store_and_varies_by_cookie() {
    let away = redis::Client::open("redis://127.0.0.1:1/").expect("an address");
    let away = RedisSessionLayer::new(away);
    let shaped = |layer: RedisSessionLayer| {
        layer.with_error_response(|_, _| {
            // A status that is cacheable by default (RFC 9110, section 15.1).
            let response = Response::builder().status(StatusCode::NOT_FOUND);
            response.body(String::new()).expect("a response")
        })
    };
    let own = |layer: RedisSessionLayer| {
        layer.with_error_response(|_, _| {
            let response = Response::builder().header(header::CACHE_CONTROL, "private");
            response.body(String::new()).expect("a response")
        })
    };
    let small = RedisSessionLayer::in_memory().with_max_size(50);
    let failing = get(async |session: Session| session.get::<u64>("name").map(drop));
    let too_large = get(async |session: Session| session.insert("large", "x".repeat(1000)));
    let cookie = "__Host-session=5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e";
    let app = |layer: RedisSessionLayer| {
        Router::new()
            .route("/failing", failing.clone())
            .route("/too-large", too_large.clone())
            .layer(layer)
    };
    for (name, app, path, cache_control) in [
        ("away", app(away.clone()), "/failing", "no-store"),
        (
            "away, shaped",
            app(shaped(away.clone())),
            "/failing",
            "no-store",
        ),
        (
            "away, by its own rule",
            app(own(away.clone())),
            "/failing",
            "private",
        ),
        (
            "away, eagerly",
            app(away.clone().with_eager_load()),
            "/failing",
            "no-store",
        ),
        (
            "away, eagerly, shaped",
            app(shaped(away.with_eager_load())),
            "/failing",
            "no-store",
        ),
        ("not saved", app(small.clone()), "/too-large", "no-store"),
        (
            "not saved, shaped",
            app(shaped(small)),
            "/too-large",
            "no-store",
        ),
    ] {
        let response = send(&app, path, Some(cookie)).await;
        assert_eq!(values(&response, header::VARY), ["Cookie"], "{name}");
        assert_eq!(
            values(&response, header::CACHE_CONTROL),
            [cache_control],
            "{name}"
        );
        assert_eq!(values(&response, header::SET_COOKIE), [""; 0], "{name}");
    }
}

#[tokio::test]
async fn a_404_of_the_app_varies_if_the_session_was_read() {
    let server = Server::start().await;
    let app = Router::new()
        .fallback(async |session: Session| (StatusCode::NOT_FOUND, session.len().to_string()))
        .layer(RedisSessionLayer::new(server.client()));
    let response = send(&app, "/absent", None).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(values(&response, header::VARY), ["Cookie"]);
}
