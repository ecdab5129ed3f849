//! The session layer outside of other layers in one `ServiceBuilder`, and the compiler's message where a body needs to be converted.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode, header},
    routing::get,
};
use axum_redis_sessions::{LazySession, RedisSessionLayer, Session, SessionError};
use bytes::Bytes;
use http_body_util::{
    BodyExt, Full,
    combinators::{BoxBody, UnsyncBoxBody},
};
use serde_json::Value;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_http::{
    catch_panic::CatchPanicLayer, compression::CompressionLayer, limit::RequestBodyLimitLayer,
    map_response_body::MapResponseBodyLayer, timeout::TimeoutLayer, trace::TraceLayer,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

fn sessions() -> RedisSessionLayer {
    RedisSessionLayer::in_memory()
}

fn timeout() -> TimeoutLayer {
    TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, Duration::from_secs(10))
}

fn routes() -> Router {
    Router::new().route("/", get(visits))
}

async fn visits(session: Session) -> Result<String, SessionError> {
    let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    Ok(visits.to_string())
}

/// Two visits of one browser.
macro_rules! assert_counts_visits {
    ($service:expr) => {{
        let service = $service;
        let first = send(service.clone(), None).await;
        let cookie = first.headers()[header::SET_COOKIE].to_str().expect("text");
        let cookie = cookie.split(';').next().expect("a pair").to_owned();
        assert_eq!(text(first).await, "1");
        assert_eq!(text(send(service, Some(&cookie)).await).await, "2");
    }};
}

async fn send<S, B>(service: S, cookie: Option<&str>) -> Response<B>
where
    S: tower::Service<Request<Body>, Response = Response<B>>,
    S::Error: std::fmt::Debug,
{
    let mut request = Request::builder().uri("/");
    if let Some(cookie) = cookie {
        request = request.header(header::COOKIE, cookie);
    }
    let request = request.body(Body::empty()).expect("a request");
    service.oneshot(request).await.expect("a response")
}

async fn text<B>(response: Response<B>) -> String
where
    B: axum::body::HttpBody<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let body = response.into_body().collect().await.expect("a whole body");
    String::from_utf8(body.to_bytes().to_vec()).expect("text")
}

#[tokio::test]
async fn a_layer_that_keeps_the_body_composes_as_it_is() {
    assert_counts_visits!(routes().layer(ServiceBuilder::new().layer(sessions()).layer(timeout())));
}

#[tokio::test]
async fn layers_that_wrap_the_body_compose_with_map_response_body() {
    macro_rules! assert_composes {
        ($layer:expr) => {
            assert_counts_visits!(
                routes().layer(
                    ServiceBuilder::new()
                        .layer(sessions())
                        .layer(MapResponseBodyLayer::new(Body::new))
                        .layer($layer)
                )
            )
        };
    }
    assert_composes!(TraceLayer::new_for_http());
    assert_composes!(CompressionLayer::new());
    assert_composes!(RequestBodyLimitLayer::new(4096));
    assert_composes!(CatchPanicLayer::new());
}

#[tokio::test]
async fn a_full_stack_composes() {
    assert_counts_visits!(
        routes().layer(
            ServiceBuilder::new()
                .layer(TraceLayer::new_for_http())
                .layer(sessions())
                .layer(MapResponseBodyLayer::new(Body::new))
                .layer(TraceLayer::new_for_http())
                .layer(CompressionLayer::new())
                .layer(CatchPanicLayer::new())
                .layer(RequestBodyLimitLayer::new(4096))
                .layer(timeout())
        )
    );
}

#[tokio::test]
async fn separate_router_layers_need_no_conversion() {
    let app = routes()
        .layer(RequestBodyLimitLayer::new(4096))
        .layer(CompressionLayer::new())
        .layer(TraceLayer::new_for_http())
        .layer(sessions());
    assert_counts_visits!(app);
}

#[tokio::test]
async fn a_panic_that_a_layer_inside_catches_is_a_response() {
    async fn panics(session: Session) {
        session.insert("a", 1).expect("a number");
        assert!(session.is_empty(), "on purpose");
    }
    let app = Router::new().route("/", get(panics)).layer(
        ServiceBuilder::new()
            .layer(sessions())
            .layer(MapResponseBodyLayer::new(Body::new))
            .layer(CatchPanicLayer::new()),
    );
    let response = send(app, None).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

/// A plain service that counts, with the body `B`.
async fn count<B>(
    request: Request<Body>,
    body: impl Fn(String) -> B,
) -> Result<Response<B>, SessionError> {
    let session = LazySession::from_extensions(request.extensions())?
        .load()
        .await?;
    let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    Ok(Response::new(body(visits.to_string())))
}

fn full(text: String) -> Full<Bytes> {
    Full::from(text)
}

#[tokio::test]
async fn services_with_other_bodies_have_sessions_and_error_responses() {
    macro_rules! assert_serves {
        ($body:expr) => {
            let serve = |layer: RedisSessionLayer| {
                ServiceBuilder::new()
                    .layer(layer)
                    .service(service_fn(|request| count(request, $body)))
            };
            assert_counts_visits!(serve(sessions()));
            let response = send(serve(sessions().with_max_size(1)), None).await;
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            assert!(text(response).await.contains("with_max_size"));
        };
    }
    assert_serves!(|text| text);
    assert_serves!(full);
    assert_serves!(|text| BoxBody::<Bytes, Error>::new(full(text).map_err(Into::into)));
    assert_serves!(|text| UnsyncBoxBody::<Bytes, Error>::new(full(text).map_err(Into::into)));
}

#[tokio::test]
async fn tonics_body_composes_with_map_response_body() {
    assert_counts_visits!(
        ServiceBuilder::new()
            .layer(sessions())
            .layer(MapResponseBodyLayer::new(Body::new))
            .service(service_fn(|request| count(request, |text| {
                tonic::body::Body::new(full(text))
            })))
    );
}

#[test]
fn the_compiler_says_how_to_convert_a_body() {
    let messages = compile(
        "pub fn app() -> axum::Router {
            axum::Router::new().layer((
                axum_redis_sessions::RedisSessionLayer::in_memory(),
                tower_http::compression::CompressionLayer::new(),
            ))
        }",
    );
    assert_eq!(
        messages.lines().next(),
        Some(
            "error[E0277]: `RedisSessionLayer` cannot create an error response with the body `CompressionBody<Body>`: add \
             `tower_http::map_response_body::MapResponseBodyLayer::new(axum::body::Body::new)` directly inside of it"
        ),
        "{messages}"
    );
    let converted = compile(
        "pub fn app() -> axum::Router {
            axum::Router::new().layer((
                axum_redis_sessions::RedisSessionLayer::in_memory(),
                tower_http::map_response_body::MapResponseBodyLayer::new(axum::body::Body::new),
                tower_http::compression::CompressionLayer::new(),
            ))
        }",
    );
    assert_eq!(converted, "");
}

/// What rustc prints for `source`, with the libraries that cargo has built for this test. A second instead of the minute of a crate of its own.
fn compile(source: &str) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args("test --locked --no-run --message-format=json --test integration".split(' '));
    for (feature, enabled) in [
        ("cluster", cfg!(feature = "cluster")),
        ("sentinel", cfg!(feature = "sentinel")),
        ("tls-rustls", cfg!(feature = "tls-rustls")),
    ] {
        if enabled {
            cargo.args(["--features", feature]);
        }
    }
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    // Build scripts that read these variables would run again.
    for (name, _) in std::env::vars() {
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name);
        }
    }
    let artifacts = cargo.output().expect("cargo runs");
    let artifacts = String::from_utf8(artifacts.stdout).expect("JSON");

    let mut rustc = Command::new("rustc");
    rustc.args("- --edition=2024 --crate-type=lib --crate-name=app --emit=metadata".split(' '));
    // Not to /dev/null: rustc replaces its output file, and root would lose the device.
    rustc.args(["-o", concat!(env!("CARGO_TARGET_TMPDIR"), "/app.rmeta")]);
    for artifact in artifacts.lines() {
        let artifact: Value = serde_json::from_str(artifact).expect("JSON");
        let name = artifact["target"]["name"].as_str().unwrap_or_default();
        let has_feature = |feature: &str| {
            let features = artifact["features"].as_array();
            features.is_some_and(|features| features.iter().any(|one| one == feature))
        };
        // reqwest has a tower-http of its own.
        if !(["axum", "axum_redis_sessions"].contains(&name)
            || name == "tower_http" && has_feature("map-response-body"))
        {
            continue;
        }
        let files = artifact["filenames"].as_array().expect("an array");
        let mut files = files.iter().filter_map(Value::as_str);
        if let Some(library) = files.find(|file| file.ends_with(".rlib")) {
            let directory = Path::new(library).parent().expect("a directory");
            rustc.arg(format!("-Ldependency={}", directory.display()));
            rustc.arg(format!("--extern={name}={library}"));
        }
    }
    rustc.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut rustc = rustc.spawn().expect("rustc runs");
    let mut stdin = rustc.stdin.take().expect("piped");
    stdin.write_all(source.as_bytes()).expect("rustc reads");
    drop(stdin);
    let output = rustc.wait_with_output().expect("rustc ends");
    String::from_utf8(output.stderr).expect("text")
}
