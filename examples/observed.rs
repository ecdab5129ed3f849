//! ```sh
//! REDIS_URL=redis://127.0.0.1/ cargo run --example observed --features metrics
//! curl localhost:3000/metrics        # for Prometheus
//! curl -i localhost:3000/ready       # for a readiness probe
//! ```
//!
//! A counter with metrics and a readiness probe. `examples/observed/dashboard.json` is a dashboard for Grafana.

use std::{env, time::Duration};

use axum::{
    Router,
    http::StatusCode,
    routing::{get, post},
};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionError};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Before the first request: the layer registers its metrics when it first counts something.
    let recorder = recorder()?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)?;

    let sessions = match env::var("REDIS_URL") {
        Ok(url) => RedisSessionLayer::open(url)?,
        Err(_) => RedisSessionLayer::in_memory(),
    };
    // A mistake in the address or in the permissions ends the deploy, and not a visitor's login.
    sessions.ready().await?;

    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("Listening on http://localhost:3000");
    axum::serve(listener, app(sessions, handle)).await?;
    Ok(())
}

pub(crate) fn recorder() -> Result<PrometheusRecorder, BuildError> {
    // Without buckets, the exporter computes quantiles, which cannot be added up over several processes.
    let buckets = [
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    ];
    let durations = Matcher::Full("axum_redis_sessions_operation_duration_seconds".to_owned());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(durations, &buckets)?;
    Ok(builder.build_recorder())
}

pub(crate) fn app(sessions: RedisSessionLayer, metrics: PrometheusHandle) -> Router {
    let ready = {
        let sessions = sessions.clone();
        async move || {
            sessions
                .ready()
                .await
                .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
        }
    };
    Router::new()
        .route("/", get(visits))
        .route("/log-in", post(log_in))
        .route("/log-out", post(async |session: Session| session.destroy()))
        .layer(sessions)
        // After the layer, since they have no session. Keep both from visitors.
        .route("/metrics", get(async move || metrics.render()))
        .route("/ready", get(ready))
}

async fn visits(session: Session) -> Result<String, SessionError> {
    let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
    Ok(format!("visit {visits}\n"))
}

async fn log_in(session: Session) -> Result<(), SessionError> {
    // A real app checks a password here: see examples/login.
    session.log_in("42")
}
