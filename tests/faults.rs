//! A bad network between the app and its server: bounded time, no reply to the wrong request, nothing done twice, and good again without
//! a restart.

#[path = "support/site.rs"]
mod site;
mod support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use site::{DEADLINE, SLACK, assert_away, assert_back, id, serve_client as serve, serve_gated};
use support::{
    app::Address,
    browser::{Browser, Page},
    proxy::{Manner, Proxy},
    server::Server,
};
use tokio::net::{TcpSocket, TcpStream};

async fn behind_a_proxy() -> (Server, Proxy, Address) {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port()).await;
    let app = serve(proxy.client()).await;
    (server, proxy, app)
}

/// Requests are made again and again, each with the connection cut one byte further into the replies, until one gets through whole.
#[tokio::test]
async fn cut_at_each_byte_of_the_replies_a_visit_counts_once_or_says_that_it_may_not_have() {
    let (server, proxy, app) = behind_a_proxy().await;
    let browser = Browser::new();
    let mut least = number(&browser.get(app.url("/")).await);
    let mut most = least;
    let (mut good, mut bad) = (0, 0);
    for bytes in 0.. {
        proxy.cut_after(bytes);
        let page = browser.get(app.url("/")).await;
        let is_whole = proxy.spare();
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
        assert_back(&app, &browser).await;
        if is_whole {
            break;
        }
    }
    println!("a visit: {good} good answers, {bad} times 503");
    // The load's reply is the whole session.
    assert!(good + bad > 60, "{good} and {bad}");
    assert!(
        good > bad,
        "one cut is made up for by the one retry: {good} and {bad}"
    );
    assert_eq!(server.session_keys().await.len(), 1);
    let visits = number(&browser.get(app.url("/look")).await);
    assert!((least..=most).contains(&visits), "{visits}");
}

/// The first cut comes right before the save's reply, so the save is done; the second one further and further into what is tried then.
#[tokio::test]
async fn cut_before_the_reply_to_a_save_and_once_more_a_visit_still_counts_once() {
    let (server, proxy, app) = behind_a_proxy().await;
    let browser = Browser::new();
    browser.get(app.url("/")).await;
    let (mut good, mut bad) = (0, 0);
    for bytes in (0..).step_by(3) {
        // The next save over this connection knows what its server knows, and takes one command.
        let mut visits = number(&browser.get(app.url("/")).await);
        let before = proxy.replied();
        browser.get(app.url("/look")).await;
        let load = proxy.replied() - before;

        proxy.cut_after_each([load, bytes]);
        let page = browser.get(app.url("/")).await;
        let is_whole = proxy.spare();
        visits += 1;
        if page.status == 200 {
            good += 1;
            assert_eq!(number(&page), visits, "byte {bytes}");
        } else {
            bad += 1;
            assert_eq!(page.status, 503, "byte {bytes}: {}", page.body);
        }
        assert_back(&app, &browser).await;
        let counted = number(&browser.get(app.url("/look")).await);
        assert_eq!(counted, visits, "byte {bytes}: once, whatever was said");
        if is_whole {
            break;
        }
    }
    println!("two cuts: {good} good answers, {bad} times 503");
    assert!(bad > 10, "connecting was cut: {bad}");
    assert_eq!(server.session_keys().await.len(), 1);
}

#[tokio::test]
async fn cut_at_each_byte_of_the_replies_a_new_session_is_created_once() {
    let (server, proxy, _) = behind_a_proxy().await;
    let mut keys = 0;
    for bytes in 0.. {
        // From its very first connection on.
        let app = serve(proxy.client()).await;
        let browser = Browser::new();
        proxy.cut_after(bytes);
        let page = browser.get(app.url("/")).await;
        let is_whole = proxy.spare();
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
        if is_whole {
            println!("a new session: {bytes} cuts");
            assert!(bytes > 100, "connecting has replies too: {bytes}");
            break;
        }
    }
}

#[tokio::test]
async fn cut_at_each_byte_of_the_replies_a_rotation_leaves_one_live_session() {
    let (server, proxy, app) = behind_a_proxy().await;
    let mut browser = Browser::new();
    browser.get(app.url("/keep/name/own")).await;
    for bytes in 0.. {
        proxy.cut_after(bytes);
        let page = browser.get(app.url("/cycle")).await;
        let is_whole = proxy.spare();
        assert!(
            [200, 503].contains(&page.status),
            "byte {bytes}: {}",
            page.body
        );
        assert_back(&app, &browser).await;
        let mut live = 0;
        for key in server.session_keys().await {
            let stored: String = server.command(&["GET", &key]).await;
            live += usize::from(stored.contains("\"own\""));
        }
        assert_eq!(live, 1, "byte {bytes}: never none, never two");
        if browser.get(app.url("/kept/name")).await.body != "own" {
            assert_eq!(
                page.status, 503,
                "byte {bytes}: a cookie that leads nowhere"
            );
            // It was rotated, and its browser could not be told.
            server.command::<String>(&["FLUSHALL"]).await;
            browser = Browser::new();
            browser.get(app.url("/keep/name/own")).await;
        }
        if is_whole {
            assert!(bytes > 60, "the load's reply is the whole session: {bytes}");
            break;
        }
    }
}

#[tokio::test]
async fn cut_at_each_byte_of_the_replies_a_logout_that_was_acknowledged_is_one() {
    let (server, proxy, app) = behind_a_proxy().await;
    for bytes in 0.. {
        let browser = Browser::new();
        browser.get(app.url("/")).await;
        let cookie = id(&app, &browser).expect("a cookie");
        proxy.cut_after(bytes);
        let page = browser.get(app.url("/destroy")).await;
        let is_whole = proxy.spare();
        let exists = ["EXISTS", &format!("session:{cookie}")];
        let is_there = server.command::<i64>(&exists).await == 1;
        if page.status == 200 {
            assert!(!is_there, "byte {bytes}");
            assert_eq!(id(&app, &browser), None, "byte {bytes}");
        } else {
            assert_eq!(page.status, 503, "byte {bytes}: {}", page.body);
            assert_eq!(id(&app, &browser), Some(cookie), "byte {bytes}");
        }
        assert_back(&app, &browser).await;
        if is_whole {
            assert!(bytes > 60, "the load's reply is the whole session: {bytes}");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_at_each_byte_of_the_replies_to_many_no_request_gets_the_reply_to_another() {
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
        let is_whole = proxy.spare();
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
        if is_whole {
            break;
        }
        assert_back(&app, &browsers[0]).await;
    }
    println!("many: {good} good answers, {bad} times 503");
    assert!(good > 4 * bad, "{good} and {bad}");
}

#[tokio::test]
async fn replies_that_come_late_are_waited_for_until_the_deadline() {
    let (server, proxy, app) = behind_a_proxy().await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    proxy.set(Manner::Delays(DEADLINE / 6));
    assert_eq!(
        browser.get(app.url("/")).await.body,
        "2",
        "late, but in time"
    );
    proxy.set(Manner::Delays(2 * DEADLINE));
    assert_away(&app, &browser).await;
    proxy.set(Manner::Passes);
    assert_back(&app, &browser).await;
    // None of the loads came in time, so none had anything to save.
    assert_eq!(browser.get(app.url("/")).await.body, "3");
    assert_eq!(server.session_keys().await.len(), 1);
}

#[tokio::test]
async fn replies_that_drip_are_waited_for_until_the_deadline() {
    let (_server, proxy, app) = behind_a_proxy().await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    // Some hundred bytes each.
    proxy.set(Manner::Drips(Duration::from_millis(20)));
    assert_away(&app, &browser).await;
    proxy.set(Manner::Passes);
    assert_back(&app, &browser).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");
}

#[tokio::test]
async fn a_connection_whose_other_side_says_no_more_is_replaced_unnoticed() {
    let (_server, proxy, app) = behind_a_proxy().await;
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
    let asked = Instant::now();
    assert_back(&app, &browser).await;
    println!(
        "a frozen connection: good {:?} after the deadline",
        asked.elapsed()
    );
    assert!(asked.elapsed() < SLACK);
    assert_eq!(browser.get(app.url("/")).await.body, "2");
}

#[tokio::test]
async fn a_network_that_stands_still_goes_on_where_it_stopped() {
    let (server, proxy, app) = behind_a_proxy().await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    proxy.set(Manner::Stands);
    assert_away(&app, &browser).await;
    proxy.set(Manner::Passes);
    assert_back(&app, &browser).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");
    assert_eq!(server.session_keys().await.len(), 1);
}

#[tokio::test]
async fn a_black_hole_that_accepts_and_never_answers_is_waited_for_until_the_deadline() {
    let server = Server::start().await;
    let browser = visitor_of(&server).await;
    let proxy = Proxy::before(server.port()).await;
    proxy.set(Manner::Swallows);
    let app = serve(proxy.client()).await;
    assert_away(&app, &browser).await;
    assert_away(&app, &browser).await;
    proxy.set(Manner::Passes);
    assert_back(&app, &browser).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");
}

#[tokio::test]
async fn a_black_hole_that_does_not_even_accept_is_waited_for_until_the_deadline() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.1:0".parse().expect("an address"))
        .expect("bound");
    let listener = socket.listen(1).expect("listening");
    let address = listener.local_addr().expect("an address");
    // Until it has as many as it queues, and what else knocks is not heard.
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
    assert_away(&app, &browser).await;
    assert_away(&app, &browser).await;
}

#[tokio::test]
async fn saves_whose_replies_are_swallowed_are_done_once() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port()).await;
    let (app, gate) = serve_gated(proxy.client()).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    // The first save over a connection finds out which commands the server knows.
    assert_eq!(browser.get(app.url("/")).await.body, "2");
    let late = {
        let (url, browser) = (app.url("/gated/mark"), browser.clone());
        tokio::spawn(async move { browser.get(url).await })
    };
    gate.arrived(1).await;
    proxy.set(Manner::SwallowsReplies);
    gate.let_pass(1);
    assert_eq!(late.await.expect("an answer").status, 503);
    proxy.set(Manner::Passes);
    assert_back(&app, &browser).await;
    let keys = server.session_keys().await;
    assert_eq!(keys.len(), 1);
    let stored: String = server.command(&["GET", &keys[0]]).await;
    assert!(stored.contains("\"visits\":3"), "it arrived: {stored}");
    assert_eq!(browser.get(app.url("/")).await.body, "4");
}

/// A browser with a session, whose cookie it sends to any app on this host.
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
