//! Updates that the app rejects: at once, and when they run again on what another request saved.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::Path,
    http::{Response, StatusCode},
    routing::get,
};
use axum_redis_sessions::{ErrorKind, RedisSessionLayer, Session, SessionError};
use futures_util::future::join_all;
use tokio::sync::Barrier;

use crate::{
    client::{Reply, ask, begin_at},
    support::{
        app::{Address, serve},
        server::Server,
    },
    visits::{self, PATIENT},
};

/// The app's own error.
#[derive(Debug)]
struct SoldOut {
    wanted: u32,
}

impl fmt::Display for SoldOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sold out, you wanted {}", self.wanted)
    }
}

impl Error for SoldOut {}

fn take(session: &Session, wanted: u32) -> Result<u32, SessionError> {
    session.try_update("left", move |left: Option<u32>| {
        let left = left.unwrap_or(0).checked_sub(wanted);
        left.ok_or(SoldOut { wanted })
    })
}

/// Each request has loaded and updated its session before any of them is saved.
async fn buy(
    session: Session,
    Path((buyer, wanted)): Path<(String, u32)>,
    Extension(together): Extension<Option<Arc<Barrier>>>,
) -> Result<String, SessionError> {
    session.insert("buyer", &buyer)?;
    let left = take(&session, wanted)?;
    if let Some(together) = together {
        together.wait().await;
    }
    Ok(format!("{left} left"))
}

/// Handles the rejection of an explicit save.
async fn buy_and_save(
    session: Session,
    Path((buyer, wanted)): Path<(String, u32)>,
    Extension(together): Extension<Option<Arc<Barrier>>>,
) -> Result<String, SessionError> {
    session.insert("buyer", &buyer)?;
    let left = take(&session, wanted)?;
    if let Some(together) = together {
        together.wait().await;
    }
    match session.save().await {
        Ok(()) => Ok(format!("{left} left")),
        Err(error) if error.kind() == ErrorKind::UpdateRejected => {
            let left = session.get::<u32>("left")?;
            session.insert("flash", "too late")?;
            Ok(format!("sold out, {left:?}"))
        }
        Err(error) => Err(error),
    }
}

/// Does something else if the update is rejected.
async fn buy_or_wish(session: Session) -> Result<String, SessionError> {
    match take(&session, 100) {
        Err(error) if error.kind() == ErrorKind::UpdateRejected => {
            session.insert("wish", 100)?;
            Ok(error.source().expect("the app's error").to_string())
        }
        left => Ok(left?.to_string()),
    }
}

async fn text_error(session: Session) -> Result<(), SessionError> {
    session.try_update("left", |_: Option<u32>| Err("not today"))?;
    Ok(())
}

/// With `together`, so many requests wait for each other.
async fn start(layer: RedisSessionLayer, together: Option<usize>) -> Address {
    let together = together.map(|requests| Arc::new(Barrier::new(requests)));
    let stock = async |session: Session, Path(left): Path<u32>| session.insert("left", left);
    let any_value = async |session: Session, Path(key): Path<String>| {
        let value = session.get::<serde_json::Value>(&key)?;
        Ok::<_, SessionError>(value.map_or_else(String::new, |value| value.to_string()))
    };
    let shop = Router::new()
        .route("/buy/{buyer}/{wanted}", get(buy))
        .route("/buy-and-save/{buyer}/{wanted}", get(buy_and_save))
        .layer(Extension(together));
    let routes = visits::routes()
        .merge(shop)
        .route("/stock/{left}", get(stock))
        .route("/value/{key}", get(any_value))
        .route("/buy-or-wish", get(buy_or_wish))
        .route("/text-error", get(text_error));
    serve(routes.layer(layer.with_deadline(PATIENT))).await
}

/// The app's form of an error, by its own type.
fn with_shop_errors(layer: RedisSessionLayer) -> RedisSessionLayer {
    layer.with_error_response(|error, _| {
        let sold_out = error.source().and_then(|source| source.downcast_ref());
        match sold_out {
            Some(SoldOut { wanted }) => Response::builder()
                .status(StatusCode::GONE)
                .body(format!("{wanted} are too many"))
                .expect("a response"),
            None => error.to_response(),
        }
    })
}

fn layers(server: &Server) -> [RedisSessionLayer; 2] {
    [
        RedisSessionLayer::new(server.client()),
        RedisSessionLayer::in_memory(),
    ]
}

async fn value(app: &Address, cookie: &str, key: &str) -> String {
    ask(app, &format!("/value/{key}"), &[cookie]).await.body
}

/// Two requests that both see the last item.
async fn race(app: &Address, path: &str) -> (String, [Reply; 2]) {
    let cookie = begin_at(app, "/stock/1").await;
    let paths = ["a", "b"].map(|buyer| format!("/{path}/{buyer}/1"));
    let cookies = [&*cookie];
    let replies = join_all(paths.iter().map(|path| ask(app, path, &cookies))).await;
    let replies = replies.try_into().ok().expect("two");
    (cookie, replies)
}

#[tokio::test]
async fn of_two_requests_for_the_last_item_one_is_told_that_it_is_sold_out() {
    let server = Server::start().await;
    for layer in layers(&server) {
        let plain = start(layer.clone(), Some(2)).await;
        let shaped = start(with_shop_errors(layer), Some(2)).await;
        for (app, status, body) in [
            (&plain, 409, "This is not possible any more"),
            (&shaped, 410, "1 are too many"),
        ] {
            for _ in 0..10 {
                let (cookie, replies) = race(app, "buy").await;
                let bought: Vec<_> = replies.iter().map(|reply| reply.status == 200).collect();
                let winner = match bought[..] {
                    [true, false] => "a",
                    [false, true] => "b",
                    _ => panic!("{bought:?}"),
                };
                let loser = replies.iter().find(|reply| reply.status != 200);
                let loser = loser.expect("one");
                assert_eq!(loser.status, status);
                assert!(loser.body.starts_with(body), "{}", loser.body);
                assert_eq!(loser.values("cache-control"), ["no-store"]);
                assert!(loser.values("set-cookie").is_empty());
                // Nor is anything else of that request saved.
                assert_eq!(value(app, &cookie, "buyer").await, format!("{winner:?}"));
                assert_eq!(value(app, &cookie, "left").await, "0");
            }
        }
    }
}

#[tokio::test]
async fn a_handler_that_saves_goes_on_from_what_the_other_request_saved() {
    let server = Server::start().await;
    for layer in layers(&server) {
        let app = start(layer, Some(2)).await;
        let (cookie, replies) = race(&app, "buy-and-save").await;
        let winner = if replies[0].body == "0 left" {
            "a"
        } else {
            "b"
        };
        let mut bodies = replies.map(|reply| (reply.status, reply.body));
        bodies.sort();
        let bodies = bodies.each_ref().map(|(status, body)| (*status, &**body));
        assert_eq!(bodies, [(200, "0 left"), (200, "sold out, Some(0)")]);
        assert_eq!(value(&app, &cookie, "flash").await, "\"too late\"");
        let buyer = value(&app, &cookie, "buyer").await;
        assert_eq!(buyer, format!("{winner:?}"));
        assert_eq!(value(&app, &cookie, "left").await, "0");
    }
}

#[tokio::test]
async fn a_rejected_update_reaches_the_handler_and_changes_nothing() {
    let server = Server::start().await;
    for layer in layers(&server) {
        let app = start(with_shop_errors(layer), None).await;
        let cookie = begin_at(&app, "/stock/3").await;
        assert_eq!(ask(&app, "/buy/a/2", &[&cookie]).await.body, "1 left");
        // By `?`, which fails the request with all its changes.
        let rejected = ask(&app, "/buy/b/2", &[&cookie]).await;
        assert_eq!((rejected.status, &*rejected.body), (410, "2 are too many"));
        assert_eq!(value(&app, &cookie, "buyer").await, "\"a\"");
        assert_eq!(value(&app, &cookie, "left").await, "1");
        // What the handler does instead is saved.
        let wish = ask(&app, "/buy-or-wish", &[&cookie]).await;
        assert_eq!(
            (wish.status, &*wish.body),
            (200, "sold out, you wanted 100")
        );
        assert_eq!(value(&app, &cookie, "wish").await, "100");
        assert_eq!(value(&app, &cookie, "left").await, "1");
        // A text is an error, too, and visitors do not read it by default.
        let text = ask(&app, "/text-error", &[&cookie]).await;
        assert_eq!(text.status, 409);
        assert!(!text.body.contains("not today"), "{}", text.body);
        // Nor does a session begin.
        let nothing = ask(&app, "/buy/c/1", &[]).await;
        assert_eq!((nothing.status, nothing.cookie()), (410, None));
    }
}

#[tokio::test]
async fn many_requests_take_exactly_what_there_is() {
    const REQUESTS: usize = 30;
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client());
    let app = start(layer, Some(REQUESTS)).await;
    let cookie = begin_at(&app, "/stock/20").await;
    let cookies = [&*cookie];
    let requests = (0..REQUESTS).map(|buyer| {
        let app = &app;
        async move {
            let path = format!("/buy/{buyer}/1");
            ask(app, &path, &cookies).await.status
        }
    });
    let statuses = tokio::time::timeout(Duration::from_secs(60), join_all(requests)).await;
    let statuses = statuses.expect("in time");
    let count = |status| statuses.iter().filter(|other| **other == status).count();
    assert_eq!((count(200), count(409)), (20, REQUESTS - 20));
    assert_eq!(value(&app, &cookie, "left").await, "0");
}
