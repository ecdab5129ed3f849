//! A failed save replaces the response: what inner layers said about the request stays, what the handler said about its outcome goes.

use axum::{
    Extension, Router,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header},
    routing::{any, get},
};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionError};
use tower_http::set_header::SetResponseHeaderLayer;

use crate::{
    client::{ask, begin_at},
    support::{
        app::{Address, serve},
        server::Server,
    },
    visits,
};

const KEPT: [(&str, &str); 9] = [
    ("access-control-allow-origin", "https://app.example"),
    ("access-control-allow-credentials", "true"),
    ("content-security-policy", "default-src 'self'"),
    ("content-security-policy-report-only", "default-src 'none'"),
    ("strict-transport-security", "max-age=31536000"),
    ("x-content-type-options", "nosniff"),
    ("x-request-id", "42"),
    ("server-timing", "db;dur=53"),
    ("vary", "Origin"),
];

const DROPPED: [(&str, &str); 28] = [
    ("set-cookie", "theme=dark"),
    ("location", "/welcome"),
    ("etag", "\"1\""),
    ("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT"),
    ("expires", "Wed, 21 Oct 2099 07:28:00 GMT"),
    ("age", "5"),
    ("accept-ranges", "bytes"),
    ("refresh", "0;url=/welcome"),
    ("content-encoding", "gzip"),
    ("content-language", "de"),
    ("content-disposition", "attachment"),
    ("content-range", "bytes 0-1/2"),
    ("content-location", "/1"),
    ("trailer", "Expires"),
    ("repr-digest", "sha-256=:YQ==:"),
    ("clear-site-data", "\"cookies\""),
    ("x-accel-redirect", "/internal/file"),
    ("x-accel-expires", "600"),
    ("cdn-cache-control", "max-age=600"),
    ("surrogate-control", "max-age=600"),
    ("x-sendfile", "/srv/file"),
    ("hx-redirect", "/welcome"),
    ("hx-location", "/welcome"),
    ("hx-trigger", "saved"),
    ("grpc-status", "0"),
    ("upgrade", "websocket"),
    ("sec-websocket-accept", "a"),
    ("sec-websocket-protocol", "b"),
];

async fn large(session: Session) -> Result<(HeaderMap, &'static str), SessionError> {
    session.insert("large", "x".repeat(1000))?;
    let mut headers = HeaderMap::new();
    for (name, value) in DROPPED {
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    headers.append(
        "cache-control",
        HeaderValue::from_static("public, max-age=600"),
    );
    headers.append("content-type", HeaderValue::from_static("application/json"));
    // A second value of one name.
    headers.append("vary", HeaderValue::from_static("Accept"));
    Ok((headers, "{}"))
}

async fn start(layer: RedisSessionLayer) -> Address {
    let mut routes = Router::new()
        .route("/large", get(large))
        .merge(visits::routes());
    for (name, value) in KEPT {
        let (name, value) = (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
        routes = routes.layer(SetResponseHeaderLayer::appending(name, value));
    }
    serve(routes.layer(layer)).await
}

#[tokio::test]
async fn the_replacement_keeps_the_headers_of_inner_layers() {
    let mut server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client());
    let small = start(layer.clone().with_max_size(500)).await;
    let rejected = start(layer).await;
    let cookie = begin_at(&rejected, "/").await;
    // A save that the server rejects.
    server.set("maxmemory", "1").await;
    let oom = ask(&rejected, "/large", &[&cookie]).await;
    server.set("maxmemory", "0").await;
    let too_large = ask(&small, "/large", &[&cookie]).await;
    server.kill();
    for (reply, status, retry) in [(oom, 503, &["1"][..]), (too_large, 500, &[])] {
        assert_eq!(reply.status, status, "{}", reply.body);
        for (name, value) in KEPT {
            assert!(reply.values(name).contains(&value), "{status}: {name}");
        }
        for (name, _) in DROPPED {
            assert!(reply.values(name).is_empty(), "{status}: {name}");
        }
        assert_eq!(
            reply.values("vary"),
            ["Accept", "Origin", "Cookie"],
            "{status}"
        );
        assert_eq!(reply.values("cache-control"), ["no-store"], "{status}");
        assert_eq!(
            reply.values("content-type"),
            ["text/plain; charset=utf-8"],
            "{status}"
        );
        assert_eq!(reply.values("retry-after"), retry, "{status}");
        let length = reply.body.len().to_string();
        assert_eq!(reply.values("content-length"), [length], "{status}");
    }
}

#[tokio::test]
async fn the_apps_own_error_response_wins_over_inner_headers_with_all_its_values() {
    let layer = RedisSessionLayer::in_memory().with_max_size(500);
    let layer = layer.with_error_response(|_, _| {
        Response::builder()
            .status(StatusCode::SERVICE_UNAVAILABLE)
            .header("x-request-id", "of the error")
            .header("link", "<a>; rel=help")
            .header("link", "<b>; rel=help")
            .header("content-type", "application/problem+json")
            .header("retry-after", "120")
            .header("vary", "Origin")
            .header("vary", "Accept-Language")
            .body("{}".to_owned())
            .expect("a response")
    });
    let app = start(layer).await;
    let reply = ask(&app, "/large", &[]).await;
    assert_eq!((reply.status, &*reply.body), (503, "{}"));
    assert_eq!(reply.values("x-request-id"), ["of the error"]);
    assert_eq!(reply.values("link"), ["<a>; rel=help", "<b>; rel=help"]);
    assert_eq!(reply.values("content-type"), ["application/problem+json"]);
    assert_eq!(reply.values("retry-after"), ["120"]);
    assert_eq!(
        reply.values("vary"),
        ["Accept", "Origin", "Cookie", "Accept-Language"]
    );
    assert_eq!(
        reply.values("access-control-allow-origin"),
        ["https://app.example"]
    );
}

/// In which language an outer layer answers.
#[derive(Clone)]
struct Language(&'static str);

/// JSON for the API, and a page for all else, that says what it has seen.
fn with_two_forms(layer: RedisSessionLayer) -> RedisSessionLayer {
    layer.with_error_response(|error, request| {
        let language = request.extensions.get::<Language>();
        let language = language.expect("an outer layer's").0;
        let accept = request.headers.get(header::ACCEPT);
        let accept = accept.expect("a header").to_str().expect("text");
        let is_api = request.uri.path().starts_with("/api/");
        let content_type = if is_api {
            "application/json"
        } else {
            "text/html"
        };
        let response = Response::builder()
            .status(error.status())
            .header(header::CONTENT_TYPE, content_type);
        let seen = format!("{} {} {accept} {language}", request.method, request.uri);
        response.body(seen).expect("a response")
    })
}

#[tokio::test]
async fn the_apps_form_of_an_error_sees_the_request_that_failed() {
    let away = redis::Client::open("redis://127.0.0.1:1/").expect("an address");
    let away = with_two_forms(RedisSessionLayer::new(away));
    let small = with_two_forms(RedisSessionLayer::in_memory().with_max_size(50));
    let untouched = async || "untouched";
    let wrong_type = async |session: Session| {
        session.insert("name", "Zoë")?;
        session.get::<u64>("name").map(drop)
    };
    let client = reqwest::Client::builder().no_proxy();
    let client = client.build().expect("a client");
    for (place, layer, path, status) in [
        ("load", away.clone().with_eager_load(), "untouched", 503),
        ("extractor", away, "extracted", 503),
        ("commit", small.clone(), "large", 500),
        ("handler", small, "wrong-type", 500),
    ] {
        let routes = Router::new()
            .route("/untouched", any(untouched))
            .route("/extracted", any(async |_: Session| "extracted"))
            .route("/large", any(large))
            .route("/wrong-type", any(wrong_type));
        let app = Router::new()
            .nest("/api", routes.clone())
            .merge(routes)
            .layer(layer)
            .layer(Extension(Language("de")));
        let app = serve(app).await;
        for (prefix, content_type) in [("/api", "application/json"), ("", "text/html")] {
            for method in [Method::GET, Method::POST, Method::HEAD] {
                let path = format!("{prefix}/{path}?a=1");
                let request = client
                    .request(method.clone(), app.url(&path))
                    .header(
                        header::COOKIE,
                        "__Host-session=5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e",
                    )
                    .header(header::ACCEPT, "a/b");
                let response = request.send().await.expect("a response");
                let told = format!("{place}, {method} {path}");
                assert_eq!(response.status(), status, "{told}");
                let headers = response.headers().clone();
                assert_eq!(headers[header::CONTENT_TYPE], content_type, "{told}");
                assert_eq!(headers[header::CACHE_CONTROL], "no-store", "{told}");
                let mut vary = headers.get_all(header::VARY).iter();
                assert!(vary.any(|value| value == "Cookie"), "{told}");
                let retry_after = headers.get(header::RETRY_AFTER);
                assert_eq!(retry_after.is_some(), status == 503, "{told}");
                let body = response.text().await.expect("a body");
                let expected = format!("{method} {path} a/b de");
                let length = expected.len().to_string();
                assert_eq!(headers[header::CONTENT_LENGTH], *length, "{told}");
                if method == Method::HEAD {
                    assert_eq!(body, "", "{told}");
                } else {
                    assert_eq!(body, expected, "{told}");
                }
            }
        }
    }
}
