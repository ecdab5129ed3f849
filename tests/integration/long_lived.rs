//! `reload` and `touch`, for handlers that continue after their response, and the WebSocket of examples/socket.rs.

use std::{
    sync::Arc,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use axum_redis_sessions::{ErrorKind, RedisSessionLayer, Session, SessionError, SessionId};
use futures_util::StreamExt;
use tokio_tungstenite::tungstenite::{
    Message, client::IntoClientRequest, protocol::frame::coding::CloseCode,
};

use crate::{
    client::{ask, begin_at, on_each_store},
    support::{
        app::serve,
        eventually,
        proxy::{Mode, Proxy},
        server::Server,
    },
    visits::PATIENT,
};

#[path = "../../examples/socket.rs"]
#[allow(dead_code)]
mod example;

/// A stored session with these values, as two requests see it, and its id.
async fn two(
    layer: &RedisSessionLayer,
    begin: impl FnOnce(&Session) -> Result<(), SessionError>,
) -> (Session, Session, SessionId) {
    let cookie = layer.sessions().create(begin).await.expect("created");
    let id = id_of(cookie.to_str().expect("ASCII"));
    let load = async || {
        layer
            .sessions()
            .load(id)
            .await
            .expect("asked")
            .expect("alive")
    };
    (load().await, load().await, id)
}

fn id_of(cookie: &str) -> SessionId {
    let (_, id) = cookie.split_once('=').expect("a cookie");
    id[..36].parse().expect("an id")
}

fn kind(result: Result<(), SessionError>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[tokio::test]
async fn reload_shows_what_others_stored_and_replays_unsaved_changes() {
    on_each_store(async |layer| {
        let (here, there, _) = two(&layer, |session| {
            session.insert("count", 1)?;
            session.insert("old", 1)
        })
        .await;
        here.insert("mine", "unsaved").expect("text");
        let ran = Arc::new(AtomicU32::new(0));
        let counted = ran.clone();
        let increment = move |n: Option<u32>| {
            counted.fetch_add(1, Relaxed);
            n.unwrap_or(0) + 1
        };
        here.update("count", increment).expect("a number");
        assert_eq!(ran.load(Relaxed), 1);

        // Nothing new, so nothing is applied again.
        here.reload().await.expect("alive");
        assert_eq!(ran.load(Relaxed), 1);

        there.insert("theirs", true).expect("a value");
        there.insert("count", 10).expect("a number");
        there.remove("old");
        there.save().await.expect("saved");
        here.reload().await.expect("alive");
        assert_eq!(here.get::<bool>("theirs").expect("a value"), Some(true));
        assert_eq!(here.get::<u32>("count").expect("a number"), Some(11));
        assert_eq!(
            here.get::<String>("mine").expect("text").as_deref(),
            Some("unsaved")
        );
        assert!(!here.contains_key("old"));
        assert_eq!(ran.load(Relaxed), 2);

        there.reload().await.expect("alive");
        assert!(!there.contains_key("mine"), "reload saves nothing");
        here.save().await.expect("saved");
        assert_eq!(
            layer.stats().retries,
            0,
            "the save built on the reloaded version"
        );
        there.reload().await.expect("alive");
        assert_eq!(there.get::<u32>("count").expect("a number"), Some(11));
    })
    .await;
}

#[tokio::test]
async fn reload_and_touch_report_a_session_that_has_ended() {
    on_each_store(async |layer| {
        for how in ["destroyed", "revoked", "cleared"] {
            for touches in [false, true] {
                let (here, there, id) = two(&layer, |session| match how {
                    "revoked" => session.log_in("zoe"),
                    _ => session.insert("a", 1),
                })
                .await;
                here.insert("mine", 1).expect("a number");
                match how {
                    "destroyed" => there.destroy(),
                    "cleared" => there.clear(),
                    _ => {
                        let revoked = layer.users().of("zoe").expect("a user").revoke_all().await;
                        assert_eq!(revoked.expect("revoked"), 1);
                    }
                }
                if how != "revoked" {
                    there.save().await.expect("saved");
                }
                let asked = if touches {
                    here.touch().await
                } else {
                    here.reload().await
                };
                assert_eq!(kind(asked), Some(ErrorKind::Ended), "{how}, {touches}");
                assert!(here.is_empty() && here.user().is_none() && here.id().is_none());
                assert_eq!(kind(here.reload().await), Some(ErrorKind::Ended));
                assert_eq!(kind(here.touch().await), Some(ErrorKind::Ended));
                here.save().await.expect("nothing to save");
                assert!(layer.sessions().load(id).await.expect("asked").is_none());
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_rotated_session_has_ended_for_the_former_id() {
    on_each_store(async |layer| {
        let app = serve(crate::visits::app(layer.clone())).await;
        let cookie = begin_at(&app, "/").await;
        let socket = layer.sessions().load(id_of(&cookie)).await;
        let socket = socket.expect("asked").expect("alive");
        socket.reload().await.expect("alive");
        let reply = ask(&app, "/cycle", &[&cookie]).await;
        assert_ne!(reply.cookie().expect("a new id"), cookie);
        assert_eq!(kind(socket.touch().await), Some(ErrorKind::Ended));
        assert_eq!(kind(socket.reload().await), Some(ErrorKind::Ended));
    })
    .await;
}

#[tokio::test]
async fn a_session_that_is_not_stored_has_not_ended() {
    on_each_store(async |layer| {
        let cookie = layer
            .sessions()
            .create(|session| {
                session.insert("a", 1)?;
                let mut asked = Box::pin(async { (session.reload().await, session.touch().await) });
                // Nothing is stored, so nothing is awaited.
                let (reloaded, touched) =
                    futures_util::FutureExt::now_or_never(&mut asked).expect("at once");
                reloaded.and(touched)
            })
            .await;
        assert!(cookie.is_ok());
    })
    .await;
}

#[tokio::test]
async fn touch_extends_the_sessions_own_timeout_and_reload_does_not() {
    let server = Server::start().await;
    for own in [None, Some(Duration::from_secs(500))] {
        let layer = RedisSessionLayer::new(server.client());
        let (here, there, id) = two(&layer, |session| {
            if let Some(own) = own {
                session.set_idle_timeout(own);
            }
            session.insert("a", 1)
        })
        .await;
        let full = own.map_or(86_400_000, |own| own.as_millis() as i64);
        let key = format!("session:{}", id.expose_secret());
        let ttl = async || server.command::<i64>(&["PTTL", &key]).await;
        let shorten = async || {
            let set: i64 = server.command(&["PEXPIRE", &key, "60000"]).await;
            assert_eq!(set, 1);
        };
        shorten().await;
        here.reload().await.expect("alive");
        assert!(ttl().await <= 60_000);
        there.insert("b", 2).expect("a number");
        there.save().await.expect("saved");
        shorten().await;
        here.touch().await.expect("alive");
        let left = ttl().await;
        assert!((full - 60_000..=full).contains(&left), "{left} of {full}");
        assert!(
            !here.contains_key("b"),
            "touch does not change what is seen"
        );
        let expires = here.expires_at().expect("stored");
        assert!(
            expires > std::time::SystemTime::now() + Duration::from_millis(full as u64 - 60_000)
        );

        // Another request makes the timeout shorter: that is the one to extend.
        there.set_idle_timeout(Duration::from_secs(100));
        there.save().await.expect("saved");
        here.touch().await.expect("alive");
        eventually(PATIENT, async || ttl().await <= 100_000).await;
    }
}

#[tokio::test]
async fn touch_keeps_the_session_in_its_users_index() {
    let server = Server::start().await;
    let idle = Duration::from_secs(20);
    let layer = RedisSessionLayer::new(server.client()).with_idle_timeout(idle);
    let (here, ..) = two(&layer, |session| session.log_in("zoe")).await;
    let commands = async || {
        let stats: String = server.command(&["INFO", "commandstats"]).await;
        let calls = stats
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_zadd:calls="));
        calls.map_or(0, |calls| {
            calls
                .split(',')
                .next()
                .expect("a number")
                .parse::<u32>()
                .expect("a number")
        })
    };
    let before = commands().await;
    here.touch().await.expect("alive");
    assert_eq!(commands().await, before, "not due yet");
    // After a tenth of the timeout the entry is due.
    eventually(PATIENT, async || {
        here.touch().await.expect("alive");
        commands().await > before
    })
    .await;
    let after = commands().await;
    here.touch().await.expect("alive");
    assert_eq!(commands().await, after, "once");
    assert_eq!(
        layer
            .users()
            .of("zoe")
            .expect("a user")
            .revoke_all()
            .await
            .expect("revoked"),
        1
    );
    assert_eq!(kind(here.touch().await), Some(ErrorKind::Ended));
}

#[tokio::test]
async fn a_session_over_its_absolute_timeout_has_ended() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client());
    let (here, there, _) = two(&layer, |session| session.insert("a", 1)).await;
    // Its creation time is in seconds, so this ends within a second.
    there.set_absolute_timeout(Duration::from_millis(1));
    // The value stays in Redis, as if the TTL had not been kept.
    there.save().await.expect("saved");
    eventually(PATIENT, async || {
        kind(here.reload().await) == Some(ErrorKind::Ended)
    })
    .await;
}

#[tokio::test]
async fn an_outage_ends_nothing_and_loses_nothing() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client()).with_deadline(Duration::from_millis(100));
    let (here, ..) = two(&layer, |session| session.insert("a", 1)).await;
    here.insert("mine", 1).expect("a number");
    server.stop();
    assert_eq!(kind(here.reload().await), Some(ErrorKind::Unavailable));
    assert_eq!(kind(here.touch().await), Some(ErrorKind::Unavailable));
    assert_eq!(here.keys(), ["a", "mine"]);
    server.resume();
    eventually(PATIENT, async || here.reload().await.is_ok()).await;
    here.save().await.expect("saved");
}

/// The save's reply is lost, so the handler does not know whether it was executed.
#[tokio::test]
async fn reload_finds_out_whether_a_save_in_doubt_was_executed() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port()).await;
    let layer = RedisSessionLayer::open(format!("redis://127.0.0.1:{}/", proxy.port()))
        .expect("an address")
        .with_deadline(Duration::from_millis(150));
    let direct = RedisSessionLayer::new(server.client());
    let count = async |id| {
        let session = direct.sessions().load(id).await.expect("asked");
        let count = session.expect("alive").get::<u32>("count");
        count.expect("a number").expect("a count")
    };
    for others_save in [false, true] {
        let (here, _, id) = two(&layer, |session| session.insert("count", 1)).await;
        // The server has the script from here on, so that the next save is one command.
        here.insert("a", 1).expect("a number");
        here.save().await.expect("saved");
        here.update("count", |n: Option<u32>| n.unwrap_or(0) + 1)
            .expect("a number");
        proxy.set(Mode::DiscardReplies);
        assert_eq!(kind(here.save().await), Some(ErrorKind::Unavailable));
        eventually(PATIENT, async || count(id).await == 2).await;
        if others_save {
            let other = direct.sessions().load(id).await.expect("asked");
            let other = other.expect("alive");
            other.insert("other", 1).expect("a number");
            other.save().await.expect("saved");
        }
        // Not the same connection, whose replies would be out of step.
        proxy.reset_open();
        proxy.set(Mode::Forward);
        let begun = std::time::Instant::now();
        let reloaded = loop {
            let reloaded = kind(here.reload().await);
            if reloaded != Some(ErrorKind::Unavailable) || begun.elapsed() > PATIENT {
                break reloaded;
            }
        };
        if others_save {
            // Applied or not? The handler is told, instead of counting twice.
            assert_eq!(reloaded, Some(ErrorKind::Conflict));
        } else {
            assert_eq!(reloaded, None);
            here.save().await.expect("nothing is left to save");
        }
        assert_eq!(count(id).await, 2);
    }
}

#[tokio::test]
async fn a_socket_closes_within_a_second_of_signing_out_everywhere() {
    let server = Server::start().await;
    // Two processes of the app.
    let layers = [(); 2].map(|()| RedisSessionLayer::new(server.client()));
    let [here, there] = [
        serve(example::app(layers[0].clone())).await,
        serve(example::app(layers[1].clone())).await,
    ];
    let begin = async || {
        layers[1]
            .sessions()
            .create(|session| session.log_in("42"))
            .await
            .expect("created")
    };
    let connect = async |cookie| {
        let mut request = here
            .url("/socket")
            .replace("http:", "ws:")
            .into_client_request()
            .expect("a URL");
        if let Some(cookie) = cookie {
            request.headers_mut().insert("cookie", cookie);
        }
        tokio_tungstenite::connect_async(request).await
    };
    assert!(connect(None).await.is_err(), "401 without a session");

    let cookie = begin().await;
    let (mut socket, _) = connect(Some(begin().await)).await.expect("101");
    use futures_util::SinkExt;
    socket.send(Message::text("hello")).await.expect("sent");
    assert_eq!(
        socket.next().await.expect("an echo").expect("an echo"),
        Message::text("hello")
    );

    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let out = client
        .post(there.url("/sign-out-everywhere"))
        .header("cookie", cookie);
    assert!(out.send().await.expect("a response").status().is_success());
    let closed = tokio::time::timeout(PATIENT, socket.next())
        .await
        .expect("closed in time");
    match closed.expect("a frame").expect("a frame") {
        Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Library(4001)),
        other => panic!("{other:?}"),
    }
}
