//! Metrics, counters and spans: what the documentation lists is what the example exports, and no more.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    client::{ask, begin_at},
    support::{app::serve, browser::Browser, eventually, server::Server},
    visits::{self, PATIENT},
};
use axum_redis_sessions::RedisSessionLayer;

#[cfg(feature = "metrics")]
#[path = "../../examples/observed.rs"]
#[allow(dead_code)]
mod example;

const DOCS: &str = include_str!("../../src/docs/deployment.md");
const DASHBOARD: &str = include_str!("../../examples/observed/dashboard.json");
const PREFIX: &str = "axum_redis_sessions_";

/// `name` or `name{label="value"}`, of each series that the documentation lists.
fn documented() -> BTreeSet<String> {
    let mut series = BTreeSet::new();
    for line in DOCS
        .lines()
        .filter(|line| line.starts_with(&format!("| `{PREFIX}")))
    {
        let mut cells = line.split('|').skip(1).map(str::trim);
        let name = cells.next().expect("a name").trim_matches('`').to_owned();
        let label = cells.nth(1).expect("a label");
        match label.split_once(':') {
            None => {
                assert_eq!(label, "", "{name}");
                series.insert(name);
            }
            Some((label, values)) => {
                for value in values.split(',') {
                    let (label, value) = (label.trim_matches('`'), value.trim().trim_matches('`'));
                    series.insert(format!("{name}{{{label}=\"{value}\"}}"));
                }
            }
        }
    }
    series
}

#[cfg(feature = "metrics")]
fn exported(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| line.starts_with(PREFIX));
    lines
        .map(|line| {
            let series = line.rsplit_once(' ').expect("a value").0;
            // A histogram is exported as buckets, a sum and a count.
            let series = series
                .replace("_seconds_count", "_seconds")
                .replace("_seconds_sum", "_seconds");
            let series = series.replace("_seconds_bucket", "_seconds");
            match series.split_once(",le=") {
                Some((series, _)) => format!("{series}}}"),
                None => series,
            }
        })
        .collect()
}

#[cfg(feature = "metrics")]
fn value(text: &str, series: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series}"))
        .parse()
        .expect("a number")
}

#[cfg(feature = "metrics")]
#[tokio::test]
async fn the_example_exports_what_the_documentation_lists() {
    let recorder = example::recorder().expect("valid buckets");
    let handle = recorder.handle();
    // Of this thread, which the test's runtime runs on.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client());
    let app = serve(example::app(layer.clone(), handle)).await;
    let post = async |path: &str, cookie: &str| {
        let client = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client");
        let request = client.post(app.url(path)).header("cookie", cookie);
        request.send().await.expect("a response")
    };
    let metrics = async || ask(&app, "/metrics", &[]).await.body;
    assert_eq!(
        exported(&metrics().await),
        BTreeSet::new(),
        "nothing was counted yet"
    );

    let cookie = begin_at(&app, "/").await;
    assert_eq!(exported(&metrics().await), documented());

    ask(&app, "/", &[&cookie]).await;
    let cookies = [&*cookie];
    let adds = (0..8).map(|_| ask(&app, "/", &cookies));
    futures_util::future::join_all(adds).await;
    let reply = post("/log-in", &cookie).await;
    let new = reply.headers()["set-cookie"]
        .to_str()
        .expect("ASCII")
        .split(';')
        .next()
        .expect("a pair")
        .to_owned();
    ask(&app, "/", &[&cookie]).await;
    post("/log-out", &new).await;
    ask(
        &app,
        "/",
        &["__Host-session=5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e"],
    )
    .await;
    layer
        .sessions()
        .create(|session| session.log_in("7"))
        .await
        .expect("created");
    layer
        .users()
        .of("7")
        .expect("a user")
        .revoke_all()
        .await
        .expect("revoked");
    assert_eq!(ask(&app, "/ready", &[]).await.status, 200);

    let text = metrics().await;
    let stats = layer.stats();
    let at = |name: &str| value(&text, &format!("{PREFIX}{name}"));
    for (series, count) in [
        (r#"loads_total{result="found"}"#, stats.loads_found),
        (r#"loads_total{result="missing"}"#, stats.loads_missing),
        (r#"loads_total{result="rotated"}"#, stats.loads_rotated),
        (r#"saves_total{outcome="saved"}"#, stats.commits),
        ("begun_total", stats.begun),
        ("rotated_total", stats.rotated),
        (r#"ended_total{by="destroy"}"#, stats.destroyed),
        (r#"ended_total{by="revocation"}"#, stats.revoked),
        ("connections_opened_total", stats.connections_opened),
        ("connections_open", stats.connections_open),
    ] {
        assert!(count > 0, "{series}");
        assert_eq!(at(series), count as f64, "{series}");
    }
    assert_eq!(
        (stats.begun, stats.rotated, stats.destroyed, stats.revoked),
        (3, 1, 1, 1)
    );
    assert_eq!(at("save_retries_total"), stats.retries as f64);
    let loads = at(r#"operation_duration_seconds_count{operation="load"}"#);
    assert_eq!(
        loads as u64,
        stats.loads_found + stats.loads_missing + stats.loads_rotated
    );
    let sum = at(r#"operation_duration_seconds_sum{operation="load"}"#);
    assert!((sum - stats.load_time.as_secs_f64()).abs() < 1e-6);

    // Not an id, a key or a value.
    for secret in [&cookie, &new] {
        let id = secret.split_once('=').expect("a pair").1;
        assert!(!text.contains(id));
    }
    assert!(!text.contains("session:"));
}

#[test]
fn the_dashboard_shows_what_is_documented() {
    let names: BTreeSet<String> = documented()
        .into_iter()
        .map(|series| series.split('{').next().expect("a name").to_owned())
        .collect();
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let text = dashboard.to_string();
    let shown: BTreeSet<String> = text
        .match_indices(PREFIX)
        .map(|(at, _)| {
            let name: String = text[at..]
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                .collect();
            name.trim_end_matches("_bucket").to_owned()
        })
        .collect();
    assert_eq!(shown, names);
}

#[tokio::test]
async fn loads_and_saves_are_counted_by_result() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client()).with_deadline(Duration::from_millis(200));
    let app = serve(visits::app(layer.clone())).await;
    let browser = Browser::new();
    browser.get(app.url("/untouched")).await;
    browser.get(app.url("/visits")).await;
    let stats = layer.stats();
    assert_eq!(
        stats,
        Default::default(),
        "without a cookie, nothing is loaded"
    );

    browser.get(app.url("/")).await;
    browser.get(app.url("/remove")).await;
    let stats = layer.stats();
    assert_eq!(
        (stats.begun, stats.emptied, stats.destroyed, stats.commits),
        (1, 1, 0, 2)
    );

    // Over its absolute timeout, not a session, and of another request's logout.
    let id = "5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e";
    let (key, cookie) = (format!("session:{id}"), format!("__Host-session={id}"));
    let old = r#"{"_rev":"0123456789abcdef","_created":1,"_absolute":1000,"a":1}"#;
    let _: String = server.command(&["SET", &key, old]).await;
    ask(&app, "/visits", &[&cookie]).await;
    let _: String = server.command(&["SET", &key, "pickle"]).await;
    ask(&app, "/visits", &[&cookie]).await;
    let _: i64 = server.command(&["DEL", &key]).await;
    ask(&app, "/visits", &[&cookie]).await;
    let stats = layer.stats();
    assert_eq!(
        (
            stats.loads_expired,
            stats.unreadable,
            stats.loads_missing,
            stats.loads_failed
        ),
        (1, 1, 1, 0)
    );

    let cookie = begin_at(&app, "/").await;
    server.stop();
    ask(&app, "/", &[&cookie]).await;
    server.resume();
    let stats = layer.stats();
    assert_eq!((stats.loads_failed, stats.saves_failed), (1, 0));
    assert!(stats.load_time >= Duration::from_millis(200) && stats.save_time > Duration::ZERO);
}

#[tokio::test]
async fn connections_are_counted_while_they_are_open() {
    let mut server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client());
    let app = serve(visits::app(layer.clone())).await;
    assert_eq!(layer.stats().connections_opened, 0);
    let cookie = begin_at(&app, "/").await;
    assert_eq!(
        (
            layer.stats().connections_opened,
            layer.stats().connections_open
        ),
        (1, 1)
    );
    // A clone with other options has a connection of its own, and the same counters.
    let clone = layer.clone().with_connect_timeout(Duration::from_secs(1));
    clone.ready().await.expect("ready");
    assert_eq!(
        (
            layer.stats().connections_opened,
            layer.stats().connections_open
        ),
        (2, 2)
    );
    drop(clone);

    server.kill();
    eventually(PATIENT, async || {
        ask(&app, "/", &[&cookie]).await;
        let stats = layer.stats();
        stats.connections_open == 0 && stats.connection_failures > 0
    })
    .await;
    server.relaunch();
    eventually(PATIENT, async || {
        ask(&app, "/", &[&cookie]).await.status == 200
    })
    .await;
    let stats = layer.stats();
    assert_eq!(stats.connections_open, 1);
    assert!(stats.connections_opened >= 3);
}

/// What is logged by the fmt subscriber.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_span_names_the_operation_and_no_id() {
    use tracing_subscriber::{filter::LevelFilter, fmt::format::FmtSpan};

    let server = Server::start().await;
    for level in [LevelFilter::DEBUG, LevelFilter::INFO] {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_span_events(FmtSpan::CLOSE)
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone())
            .finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let seen = || {
            let text = std::mem::take(&mut *lines.0.lock().expect("no panic"));
            let text = String::from_utf8(text).expect("text");
            let lines = text
                .lines()
                .filter_map(|line| line.split_once("session.")?.1.split_once('}'));
            lines.map(|(span, _)| span.to_owned()).collect::<Vec<_>>()
        };
        let span = |name: &str, operation: &str| {
            format!(
                "{name}{{otel.kind=\"client\" db.system.name=\"redis\" db.operation.name=\"{operation}\""
            )
        };
        let layer =
            RedisSessionLayer::new(server.client()).with_deadline(Duration::from_millis(200));
        let app = serve(visits::app(layer)).await;
        let browser = Browser::new();
        for (path, operations) in [
            ("/untouched", vec![]),
            ("/", vec![span("commit", "create")]),
            ("/", vec![span("load", "load"), span("commit", "save")]),
            (
                "/cycle",
                vec![span("load", "load"), span("commit", "rotate")],
            ),
            ("/visits", vec![span("load", "load")]),
            (
                "/destroy",
                vec![span("load", "load"), span("commit", "destroy")],
            ),
            ("/", vec![span("commit", "create")]),
            (
                "/remove",
                vec![span("load", "load"), span("commit", "delete")],
            ),
        ] {
            assert_eq!(browser.get(app.url(path)).await.status, 200, "{path}");
            let expected = if level == LevelFilter::DEBUG {
                operations
            } else {
                vec![]
            };
            assert_eq!(seen(), expected, "{path}");
        }
        browser.get(app.url("/")).await;
        seen();
        server.stop();
        assert_eq!(browser.get(app.url("/")).await.status, 503);
        server.resume();
        if level == LevelFilter::DEBUG {
            let failed = span("load", "load") + " error.type=Unavailable";
            assert_eq!(seen(), [failed]);
        }
    }
}
