//! Micro-benchmarks of a request's parts, without the network and axum.
//!
//! ```sh
//! cargo bench --manifest-path benches/peers/Cargo.toml --target-dir target/peers
//! ```
//!
//! The crate's parts are private, so each benchmark sends a request through the service over the in-memory store, which holds the same
//! text as Redis. The cost of a part is the difference of two rows: decoding and `get` are `read` minus `anonymous_read`, encoding and
//! saving are `write` minus `read`, a cookie is `anonymous_read` with more cookies minus `anonymous_read` with one. For comparison, the
//! `map_*` and `raw_values_*` rows parse the whole text as a `serde_json::Map` and as a map of `RawValue`s.

use std::{collections::BTreeMap, convert::Infallible, fmt::Debug};

use axum::http::{Request, Response, header};
use axum_redis_sessions::{LazySession, RedisSessionLayer, Session, SessionError};
use divan::{Bencher, black_box};
use peers::fields;
use serde_json::{Map, Value, value::RawValue};
use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceExt, service_fn};

fn main() {
    divan::main();
}

const SIZES: [usize; 3] = [300, 2_000, 20_000];

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the runtime starts")
}

fn send<S>(runtime: &Runtime, app: &S, request: Request<()>) -> Response<String>
where
    S: Service<Request<()>, Response = Response<String>, Error: Debug> + Clone,
{
    let response = app.clone().oneshot(request);
    runtime
        .block_on(response)
        .expect("the in-memory store does not fail")
}

fn request(path: &str, cookie: &str) -> Request<()> {
    let request = Request::builder().uri(path);
    match cookie {
        "" => request.body(()),
        cookie => request.header(header::COOKIE, cookie).body(()),
    }
    .expect("a valid request")
}

fn cookie_of(response: &Response<String>) -> String {
    let line = response.headers()[header::SET_COOKIE].to_str();
    let pair = line.expect("the cookie is ASCII").split(';').next();
    pair.expect("split has a first item").to_owned()
}

async fn read_n(request: Request<()>) -> Result<Response<String>, SessionError> {
    let session = load(&request).await?;
    if !seeded(&session, &request)? {
        black_box(session.get::<u64>("n")?);
    }
    Ok(Response::new(String::new()))
}

async fn count_n(request: Request<()>) -> Result<Response<String>, SessionError> {
    let session = load(&request).await?;
    if !seeded(&session, &request)? {
        session.update("n", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    }
    Ok(Response::new(String::new()))
}

async fn load(request: &Request<()>) -> Result<Session, SessionError> {
    LazySession::from_extensions(request.extensions())?
        .load()
        .await
}

/// Creates the session if the path is `/seed/{size}`. Returns whether it is.
fn seeded(session: &Session, request: &Request<()>) -> Result<bool, SessionError> {
    let Some(size) = request.uri().path().strip_prefix("/seed/") else {
        return Ok(false);
    };
    session.insert("n", 1)?;
    for (key, value) in fields(size.parse().expect("the size is a number")) {
        session.insert(&key, value)?;
    }
    Ok(true)
}

#[divan::bench]
fn untouched(bencher: Bencher) {
    let runtime = runtime();
    let app = RedisSessionLayer::in_memory().layer(service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    bencher
        .with_inputs(|| request("/", ""))
        .bench_local_values(|request| send(&runtime, &app, request));
}

#[divan::bench(args = [1, 20, 1_000])]
fn anonymous_read(bencher: Bencher, cookies: usize) {
    let runtime = runtime();
    let app = RedisSessionLayer::in_memory().layer(service_fn(read_n));
    let others: Vec<String> = (0..cookies).map(|n| format!("other-{n}=value")).collect();
    let others = others.join("; ");
    bencher
        .with_inputs(|| request("/", &others))
        .bench_local_values(|request| send(&runtime, &app, request));
}

#[divan::bench(args = SIZES)]
fn read(bencher: Bencher, size: usize) {
    let runtime = runtime();
    let app = RedisSessionLayer::in_memory().layer(service_fn(read_n));
    let cookie = cookie_of(&send(&runtime, &app, request(&format!("/seed/{size}"), "")));
    bencher
        .with_inputs(|| request("/", &cookie))
        .bench_local_values(|request| send(&runtime, &app, request));
}

#[divan::bench(args = SIZES)]
fn write(bencher: Bencher, size: usize) {
    let runtime = runtime();
    let app = RedisSessionLayer::in_memory().layer(service_fn(count_n));
    let cookie = cookie_of(&send(&runtime, &app, request(&format!("/seed/{size}"), "")));
    bencher
        .with_inputs(|| request("/", &cookie))
        .bench_local_values(|request| send(&runtime, &app, request));
}

fn text(size: usize) -> Vec<u8> {
    let mut map = Map::new();
    map.insert("n".to_owned(), 1.into());
    map.extend(fields(size).map(|(key, value)| (key, value.into())));
    serde_json::to_vec(&map).expect("valid JSON")
}

#[divan::bench(args = SIZES)]
fn map_read(bencher: Bencher, size: usize) {
    let text = text(size);
    bencher.bench_local(|| {
        let map: Map<String, Value> = serde_json::from_slice(black_box(&text)).expect("valid JSON");
        black_box(map.get("n").and_then(Value::as_u64))
    });
}

#[divan::bench(args = SIZES)]
fn map_read_and_write(bencher: Bencher, size: usize) {
    let text = text(size);
    bencher.bench_local(|| {
        let mut map: Map<String, Value> =
            serde_json::from_slice(black_box(&text)).expect("valid JSON");
        map.insert("n".to_owned(), 2.into());
        serde_json::to_vec(&map).expect("valid JSON")
    });
}

#[divan::bench(args = SIZES)]
fn raw_values_read(bencher: Bencher, size: usize) {
    let text = text(size);
    bencher.bench_local(|| {
        let map: BTreeMap<&str, &RawValue> =
            serde_json::from_slice(black_box(&text)).expect("valid JSON");
        black_box(serde_json::from_str::<u64>(map["n"].get())).expect("n is a number")
    });
}

#[divan::bench(args = SIZES)]
fn raw_values_read_and_write(bencher: Bencher, size: usize) {
    let text = text(size);
    let next = RawValue::from_string("2".to_owned()).expect("valid JSON");
    bencher.bench_local(|| {
        let mut map: BTreeMap<&str, &RawValue> =
            serde_json::from_slice(black_box(&text)).expect("valid JSON");
        map.insert("n", &next);
        serde_json::to_vec(&map).expect("valid JSON")
    });
}
