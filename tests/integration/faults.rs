//! Network faults between app and server: bounded time, no reply to the wrong request, nothing done twice, and recovery without
//! a restart.

use std::time::Duration;

use axum_redis_sessions::RedisSessionLayer;
use futures_util::future::join_all;
use tokio::net::{TcpSocket, TcpStream};

use crate::{
    support::{
        app::Address,
        browser::{Browser, Page},
        proxy::{Mode, Proxy},
        server::Server,
    },
    visits::{
        DEADLINE, assert_available, assert_unavailable, id, is_cached, serve as serve_layer,
        serve_client as serve, serve_gated, serve_patient,
    },
};

async fn behind_a_proxy() -> (Server, Proxy, Address) {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port()).await;
    let app = serve(proxy.client()).await;
    (server, proxy, app)
}

/// The replies of a request that loads and writes have more bytes than this: the load's is the whole session. With a local cache there is only
/// the write's, `:1`.
fn min_replies() -> usize {
    if is_cached() { 3 } else { 60 }
}

/// Repeats a request, each time with the connection cut one byte later in the replies, until it is not cut.
#[tokio::test]
async fn an_update_over_a_broken_connection_is_exact_or_an_error() {
    let (server, proxy, app) = behind_a_proxy().await;
    let browser = Browser::new();
    let mut least = number(&browser.get(app.url("/")).await);
    let mut most = least;
    let (mut good, mut bad) = (0, 0);
    for bytes in 0.. {
        proxy.cut_after(bytes);
        let page = browser.get(app.url("/")).await;
        let is_complete = proxy.cancel_cuts();
        if page.status == 200 {
            good += 1;
            let visits = number(&page);
            let expected = least + 1..=most + 1;
            assert!(
                expected.contains(&visits),
                "byte {bytes}: {visits}, not {expected:?}"
            );
            (least, most) = (visits, visits);
        } else {
            bad += 1;
            most += 1;
            assert_eq!(page.status, 503, "byte {bytes}: {}", page.body);
            assert!(page.set_cookies.is_empty(), "byte {bytes}");
        }
        assert_available(&app, &browser).await;
        if is_complete {
            break;
        }
    }
    println!("a visit: {good} good answers, {bad} times 503");
    assert!(good + bad > min_replies(), "{good} and {bad}");
    assert!(
        good > bad,
        "one cut is made up for by the one retry: {good} and {bad}"
    );
    assert_eq!(server.session_keys().await.len(), 1);
    let visits = number(&browser.get(app.url("/visits")).await);
    assert!((least..=most).contains(&visits), "{visits}");
}

/// The first cut is right before the save's reply, so the save is done; the second is a few bytes later each time.
#[tokio::test]
async fn an_update_is_applied_once_though_two_connections_break() {
    let (server, proxy, app) = behind_a_proxy().await;
    let browser = Browser::new();
    browser.get(app.url("/")).await;
    let (mut good, mut bad) = (0, 0);
    for bytes in (0..).step_by(3) {
        // After this visit the connection knows which commands the server has, so a save is one command.
        let mut visits = number(&browser.get(app.url("/")).await);
        let before = proxy.replied();
        browser.get(app.url("/visits")).await;
        let load = proxy.replied() - before;

        // HELLO is cut, and so is what follows with RESP2.
        proxy.cut_after_each([load, bytes, 0]);
        let page = browser.get(app.url("/")).await;
        let is_complete = proxy.cancel_cuts();
        visits += 1;
        if page.status == 200 {
            good += 1;
            assert_eq!(number(&page), visits, "byte {bytes}");
        } else {
            bad += 1;
            assert_eq!(page.status, 503, "byte {bytes}: {}", page.body);
        }
        assert_available(&app, &browser).await;
        let counted = number(&browser.get(app.url("/visits")).await);
        assert_eq!(
            counted, visits,
            "byte {bytes}: counted once, whatever the response"
        );
        if is_complete {
            break;
        }
    }
    println!("two cuts: {good} good answers, {bad} times 503");
    assert!(bad > 10, "connecting was cut: {bad}");
    assert_eq!(server.session_keys().await.len(), 1);
}

#[tokio::test]
async fn a_session_is_created_once_over_a_broken_connection() {
    let (server, proxy, _) = behind_a_proxy().await;
    let mut keys = 0;
    for bytes in 0.. {
        // Including the handshake of the first connection.
        let app = serve(proxy.client()).await;
        let browser = Browser::new();
        proxy.cut_after(bytes);
        let page = browser.get(app.url("/")).await;
        let is_complete = proxy.cancel_cuts();
        let keys_before = keys;
        keys = server.session_keys().await.len();
        if page.status == 200 {
            assert_eq!(page.body, "1", "byte {bytes}");
            let id = id(&app, &browser).expect("a cookie");
            let exists = ["EXISTS", &format!("session:{id}")];
            assert_eq!(server.command::<i64>(&exists).await, 1, "byte {bytes}");
            assert_eq!(keys, keys_before + 1, "byte {bytes}: a second session");
        } else {
            assert_eq!(page.status, 503, "byte {bytes}: {}", page.body);
            assert!(page.set_cookies.is_empty(), "byte {bytes}");
            assert!(keys <= keys_before + 1, "byte {bytes}: a second session");
        }
        if is_complete {
            println!("a new session: {bytes} cuts");
            assert!(bytes > 100, "connecting has replies too: {bytes}");
            break;
        }
    }
}

#[tokio::test]
async fn rotation_over_a_broken_connection_leaves_one_session() {
    let (server, proxy, _) = behind_a_proxy().await;
    let layer = RedisSessionLayer::new(proxy.client()).with_rotation_grace(Duration::ZERO);
    let app = serve_layer(layer).await;
    let mut browser = Browser::new();
    browser.get(app.url("/keep/name/own")).await;
    for bytes in 0.. {
        proxy.cut_after(bytes);
        let page = browser.get(app.url("/cycle")).await;
        let is_complete = proxy.cancel_cuts();
        assert!(
            [200, 503].contains(&page.status),
            "byte {bytes}: {}",
            page.body
        );
        assert_available(&app, &browser).await;
        let mut live = 0;
        for key in server.session_keys().await {
            let stored: String = server.command(&["GET", &key]).await;
            live += usize::from(stored.contains("\"own\""));
        }
        assert_eq!(live, 1, "byte {bytes}: never none, never two");
        if browser.get(app.url("/kept/name")).await.body != "own" {
            assert_eq!(page.status, 503, "byte {bytes}: a cookie without a session");
            // It was rotated, but the response with the new id was an error.
            server.command::<String>(&["FLUSHALL"]).await;
            browser = Browser::new();
            browser.get(app.url("/keep/name/own")).await;
        }
        if is_complete {
            assert!(bytes > min_replies(), "{bytes}");
            break;
        }
    }
}

#[tokio::test]
async fn a_logout_acknowledged_over_a_broken_connection_is_done() {
    let (server, proxy, app) = behind_a_proxy().await;
    for bytes in 0.. {
        let browser = Browser::new();
        browser.get(app.url("/")).await;
        let cookie = id(&app, &browser).expect("a cookie");
        proxy.cut_after(bytes);
        let page = browser.get(app.url("/destroy")).await;
        let is_complete = proxy.cancel_cuts();
        let exists = ["EXISTS", &format!("session:{cookie}")];
        let is_there = server.command::<i64>(&exists).await == 1;
        if page.status == 200 {
            assert!(!is_there, "byte {bytes}");
            assert_eq!(id(&app, &browser), None, "byte {bytes}");
        } else {
            assert_eq!(page.status, 503, "byte {bytes}: {}", page.body);
            assert_eq!(id(&app, &browser), Some(cookie), "byte {bytes}");
        }
        assert_available(&app, &browser).await;
        if is_complete {
            assert!(bytes > min_replies(), "{bytes}");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_connection_never_mixes_up_replies() {
    let (_server, proxy, app) = behind_a_proxy().await;
    let browsers: Vec<Browser> = (0..8).map(|_| Browser::new()).collect();
    for (name, browser) in browsers.iter().enumerate() {
        let url = app.url(&format!("/keep/name/own-{name}"));
        assert_eq!(browser.get(url).await.status, 200);
    }
    let (mut good, mut bad) = (0, 0);
    for bytes in 0.. {
        proxy.cut_after(bytes);
        let asked = browsers
            .iter()
            .map(|browser| browser.get(app.url("/kept/name")));
        let pages = join_all(asked).await;
        let is_complete = proxy.cancel_cuts();
        for (name, page) in pages.iter().enumerate() {
            match page.status {
                200 => {
                    good += 1;
                    assert_eq!(page.body, format!("own-{name}"), "byte {bytes}");
                }
                _ => {
                    bad += 1;
                    assert_eq!(page.status, 503, "byte {bytes}: {}", page.body);
                }
            }
        }
        if is_complete {
            break;
        }
        assert_available(&app, &browsers[0]).await;
    }
    println!("many: {good} good answers, {bad} times 503");
    assert!(good > 4 * bad, "{good} and {bad}");
}

#[tokio::test]
async fn late_replies_are_awaited_until_the_deadline() {
    let (server, proxy, app) = behind_a_proxy().await;
    let patient = serve_patient(RedisSessionLayer::new(proxy.client())).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    proxy.set(Mode::Delay(DEADLINE));
    assert_eq!(browser.get(patient.url("/")).await.body, "2");
    proxy.set(Mode::Delay(2 * DEADLINE));
    assert_unavailable(&app, &browser).await;
    proxy.set(Mode::Forward);
    assert_available(&app, &browser).await;
    // The loads failed, so nothing was saved.
    assert_eq!(browser.get(app.url("/")).await.body, "3");
    assert_eq!(server.session_keys().await.len(), 1);
}

#[tokio::test]
async fn trickling_replies_are_awaited_until_the_deadline() {
    let (_server, proxy, app) = behind_a_proxy().await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    // Each reply has some hundred bytes.
    proxy.set(Mode::Trickle(Duration::from_millis(20)));
    assert_unavailable(&app, &browser).await;
    proxy.set(Mode::Forward);
    assert_available(&app, &browser).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");
}

#[tokio::test]
async fn a_connection_that_is_reset_is_replaced_without_an_error() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port()).await;
    let app = serve_patient(RedisSessionLayer::new(proxy.client())).await;
    let browser = Browser::new();
    for visit in 1..=20 {
        assert_eq!(browser.get(app.url("/")).await.body, visit.to_string());
        proxy.reset_open();
    }
    assert_eq!(proxy.accepted(), 20);
}

#[tokio::test]
async fn a_half_closed_connection_is_replaced_without_an_error() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port()).await;
    let app = serve_patient(RedisSessionLayer::new(proxy.client())).await;
    let browser = Browser::new();
    for visit in 1..=20 {
        assert_eq!(browser.get(app.url("/")).await.body, visit.to_string());
        proxy.half_close_open();
    }
    assert!(proxy.accepted() >= 20, "{}", proxy.accepted());
}

#[tokio::test]
async fn a_frozen_connection_is_replaced_after_one_deadline() {
    let (_server, proxy, app) = behind_a_proxy().await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    proxy.freeze_open();
    assert_eq!(browser.get(app.url("/")).await.status, 503);
    assert_available(&app, &browser).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");
}

#[tokio::test]
async fn a_stalled_network_recovers() {
    let (server, proxy, app) = behind_a_proxy().await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    proxy.set(Mode::Stall);
    assert_unavailable(&app, &browser).await;
    proxy.set(Mode::Forward);
    assert_available(&app, &browser).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");
    assert_eq!(server.session_keys().await.len(), 1);
}

#[tokio::test]
async fn a_server_that_accepts_but_never_replies_meets_the_deadline() {
    let server = Server::start().await;
    let browser = visitor_of(&server).await;
    let proxy = Proxy::before(server.port()).await;
    proxy.set(Mode::Discard);
    let app = serve(proxy.client()).await;
    assert_unavailable(&app, &browser).await;
    assert_unavailable(&app, &browser).await;
    proxy.set(Mode::Forward);
    assert_available(&app, &browser).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");
}

#[tokio::test]
async fn a_server_that_never_accepts_meets_the_deadline() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.1:0".parse().expect("an address"))
        .expect("bound");
    let listener = socket.listen(1).expect("listening");
    let address = listener.local_addr().expect("an address");
    // Fill the accept queue, so that further connections are not accepted.
    let mut queued = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        queued.push(connected.expect("queued"));
        assert!(queued.len() < 1000);
    }
    let client = redis::Client::open(format!("redis://{address}/")).expect("an address");
    let app = serve(client).await;
    let browser = visitor_of(&Server::start().await).await;
    assert_unavailable(&app, &browser).await;
    assert_unavailable(&app, &browser).await;
}

#[tokio::test]
async fn a_save_without_a_reply_is_done_once() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port()).await;
    let (app, gate) = serve_gated(proxy.client()).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    // The first save over a connection finds out which commands the server has.
    assert_eq!(browser.get(app.url("/")).await.body, "2");
    let late = {
        let (url, browser) = (app.url("/gated/mark"), browser.clone());
        tokio::spawn(async move { browser.get(url).await })
    };
    gate.arrived(1).await;
    proxy.set(Mode::DiscardReplies);
    gate.let_pass(1);
    assert_eq!(late.await.expect("an answer").status, 503);
    proxy.set(Mode::Forward);
    assert_available(&app, &browser).await;
    let keys = server.session_keys().await;
    assert_eq!(keys.len(), 1);
    let stored: String = server.command(&["GET", &keys[0]]).await;
    assert!(stored.contains("\"visits\":3"), "it arrived: {stored}");
    assert_eq!(browser.get(app.url("/")).await.body, "4");
}

/// A browser with a session; its cookie goes to any port of this host.
async fn visitor_of(server: &Server) -> Browser {
    let app = serve(server.client()).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    browser
}

fn number(page: &Page) -> u64 {
    assert_eq!(page.status, 200, "{}", page.body);
    page.body.parse().expect("a number")
}
