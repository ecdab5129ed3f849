//! After the handler has returned: streamed bodies, clients that disconnect, changes that are never saved.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header},
    routing::get,
};
use axum_redis_sessions::{ErrorKind, LazySession, RedisSessionLayer, Session, SessionError};
use futures_util::stream;
use tokio::sync::Notify;

use crate::{
    client::{begin, send, text},
    support::{app, browser::Browser, eventually, server::Server},
    visits,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Streams three lines and saves a count with each.
async fn lines(session: Session) -> Body {
    Body::from_stream(stream::unfold((session, 0), |(session, line)| async move {
        if line == 3 {
            return None;
        }
        let sent = async {
            session.update("lines", |n: Option<u64>| n.unwrap_or(0) + 1)?;
            session.save().await
        };
        let line_ = match sent.await {
            Ok(()) => format!("line {line}\n"),
            Err(error) => format!("{:?}\n", error.kind()),
        };
        Some((Ok::<_, Infallible>(Bytes::from(line_)), (session, line + 1)))
    }))
}

async fn counts(session: Session) -> Result<String, SessionError> {
    Ok(format!(
        "visits {:?}, lines {:?}",
        session.get::<u64>("visits")?,
        session.get::<u64>("lines")?
    ))
}

fn routes() -> Router {
    visits::routes()
        .route("/lines", get(lines))
        .route("/counts", get(counts))
}

#[tokio::test]
async fn a_stream_can_save_while_it_is_sent() {
    let server = Server::start().await;
    let app = routes().layer(RedisSessionLayer::new(server.client()));
    let app = app::serve(app).await;
    let browser = Browser::new();
    // Nothing was stored before the headers were sent, so the browser cannot be told of an id.
    assert_eq!(
        browser.get(app.url("/lines")).await.body,
        "HeadersSent\n".repeat(3)
    );
    browser.get(app.url("/")).await;
    assert_eq!(
        browser.get(app.url("/lines")).await.body,
        "line 0\nline 1\nline 2\n"
    );
    assert_eq!(
        browser.get(app.url("/counts")).await.body,
        "visits Some(1), lines Some(3)"
    );
}

#[tokio::test]
async fn a_session_cannot_be_created_inside_a_stream() {
    let app = Router::new()
        .route(
            "/",
            get(|lazy: LazySession| async move {
                Body::from_stream(stream::once(async move {
                    let session = lazy.load().await.expect("loaded");
                    session.insert("a", 1).expect("a number");
                    let error = session
                        .save()
                        .await
                        .expect_err("no response could tell its id");
                    Ok::<_, Infallible>(Bytes::from(format!("{:?}", error.kind())))
                }))
            }),
        )
        .layer(RedisSessionLayer::in_memory());
    assert_eq!(text(send(&app, "/", None).await).await, "HeadersSent");
}

#[tokio::test]
async fn a_stream_gets_an_error_after_a_logout() {
    let layer = RedisSessionLayer::in_memory();
    let app = routes().layer(layer.clone());
    let cookie = begin(&app, "/").await;
    let response = send(&app, "/lines", Some(&cookie)).await;
    let mut streaming = response.into_body().into_data_stream();
    let line = async |stream: &mut axum::body::BodyDataStream| {
        use futures_util::StreamExt;
        stream.next().await.expect("a line").expect("in memory")
    };
    assert_eq!(line(&mut streaming).await, "line 0\n");
    let logout = send(&app, "/destroy", Some(&cookie)).await;
    assert_eq!(logout.status(), StatusCode::OK);
    assert_eq!(line(&mut streaming).await, "Ended\n");
    assert_eq!(layer.stats().discarded, 1);
}

#[tokio::test]
async fn rotation_after_the_headers_fails_and_loses_nothing() {
    let kept: Arc<Mutex<Option<Session>>> = Arc::default();
    let app = Router::new()
        .route(
            "/",
            get(
                |session: Session, State(kept): State<Arc<Mutex<Option<Session>>>>| async move {
                    session.insert("a", 1).expect("a number");
                    *kept.lock().expect("never poisoned") = Some(session);
                },
            ),
        )
        .layer(RedisSessionLayer::in_memory())
        .with_state(kept.clone());
    let response = send(&app, "/", None).await;
    assert!(response.headers().contains_key(header::SET_COOKIE));
    let session = kept.lock().expect("never poisoned").take().expect("kept");
    let id = session.id();
    session.cycle_id();
    assert_eq!(
        session.save().await.expect_err("too late").kind(),
        ErrorKind::HeadersSent
    );
    assert_eq!(
        (session.id(), session.get::<u8>("a").expect("a number")),
        (id, Some(1))
    );
}

#[tokio::test]
async fn a_commit_completes_after_the_client_disconnects() {
    let server = Server::start().await;
    let [loaded, go, handled]: [Arc<Notify>; 3] = Default::default();
    let slow = {
        let (loaded, go, handled) = (loaded.clone(), go.clone(), handled.clone());
        |session: Session| async move {
            loaded.notify_one();
            go.notified().await;
            session.insert("lines", 7).expect("a number");
            handled.notify_one();
        }
    };
    let app = routes()
        .route("/slow", get(slow))
        .layer(RedisSessionLayer::new(server.client()).with_deadline(PATIENCE));
    let cookie = begin(&app, "/").await;

    // The first client disconnects while its handler runs, the second one after it.
    for leaves_early in [true, false] {
        let mut leaving = Box::pin(send(&app, "/slow", Some(&cookie)));
        let reached = async |leaving: &mut (dyn Future<Output = _> + Unpin), point: &Notify| {
            tokio::select! {
                _ = leaving => panic!("answered without a server"),
                () = point.notified() => {}
            }
        };
        reached(&mut leaving, &loaded).await;
        // Without the script in its cache the server is asked twice; the client is gone before the second time.
        server.command::<String>(&["SCRIPT", "FLUSH"]).await;
        if leaves_early {
            drop(leaving);
        } else {
            server.stop();
            go.notify_one();
            reached(&mut leaving, &handled).await;
            drop(leaving);
            server.resume();
        }
        let expected = if leaves_early {
            "visits Some(1), lines None"
        } else {
            "visits Some(1), lines Some(7)"
        };
        eventually(PATIENCE, || async {
            text(send(&app, "/counts", Some(&cookie)).await).await == expected
        })
        .await;
    }
}

#[tokio::test]
async fn an_unsaved_change_is_logged_at_debug() {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    impl tracing::Subscriber for Lines {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.target().starts_with("axum_redis_sessions")
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            let line = format!("{} {event:?}", event.metadata().level());
            self.0.lock().expect("never poisoned").push(line);
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.clone());
    let seen = || std::mem::take(&mut *lines.0.lock().expect("never poisoned"));
    let app = Router::new()
        .route("/", get(visits::visits))
        .route(
            "/blank",
            get(|session: Session| async move {
                session.insert("a", 1).expect("a number");
                session.clear();
            }),
        )
        .route(
            "/late",
            get(|session: Session| async move {
                Body::from_stream(stream::once(async move {
                    session.insert("late", "a secret value").expect("text");
                    Ok::<_, Infallible>(Bytes::new())
                }))
            }),
        )
        .layer(RedisSessionLayer::in_memory());
    for (path, reported) in [("/", false), ("/blank", false), ("/late", true)] {
        text(send(&app, path, None).await).await;
        let lines = seen();
        let found = lines
            .iter()
            .any(|line| line.starts_with("DEBUG") && line.contains("unsaved changes"));
        assert_eq!(found, reported, "{path}: {lines:?}");
        assert!(!format!("{lines:?}").contains("secret"));
    }
}
