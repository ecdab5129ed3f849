//! Connecting: slow, hanging, from several runtimes, and with different deadlines.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use axum::{Router, http::StatusCode, routing::get};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionError};
use futures_util::future::join_all;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use crate::{
    client::{begin, send},
    support::{
        app::{self, Address},
        browser::Browser,
        eventually,
        proxy::{Mode, Proxy},
        server::Server,
    },
    visits::{
        DEADLINE, PATIENT, SLACK, app as visits_app, failures_until_connected, serve, serve_client,
        visits,
    },
};

/// Forwards to `port`, but each connection only after `delay`. Returns its address, and the number of connections.
async fn slow_to_connect(port: u16, delay: Duration) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            count.fetch_add(1, Relaxed);
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
                client.set_nodelay(true)?;
                server.set_nodelay(true)?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    (format!("redis://{address}/"), accepted)
}

#[tokio::test]
async fn a_late_connection_serves_the_next_request() {
    let server = Server::start().await;
    for delay in [200, 600, 800].map(Duration::from_millis) {
        let (url, accepted) = slow_to_connect(server.port(), delay).await;
        let app = serve(RedisSessionLayer::open(url).expect("an address")).await;
        let bad = failures_until_connected(&app).await;
        println!("{delay:?}: {bad} times 503, {accepted:?} connections");
        assert!(bad <= 1, "{delay:?}: {bad}");
    }
}

#[tokio::test]
async fn connecting_over_long_round_trips_outlasts_the_first_request() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port()).await;
    proxy.set(Mode::Delay(Duration::from_millis(260)));
    let app = serve_client(proxy.client()).await;
    let bad = failures_until_connected(&app).await;
    println!("{bad} times 503, {} connections", proxy.accepted());
    // One, or a few on a busy machine. Without an attempt that outlasts its request it would never end.
    assert!(bad <= 3, "{bad}");
}

#[tokio::test]
async fn attempts_that_hang_do_not_delay_the_recovery() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port()).await;
    proxy.set(Mode::Discard);
    let app = serve_client(proxy.client()).await;
    let browser = Browser::new();
    let mut took = Vec::new();
    for _ in 0..3 {
        for _ in 0..2 {
            assert_eq!(browser.get(app.url("/")).await.status, 503);
        }
        proxy.set(Mode::Forward);
        let forwards = Instant::now();
        eventually(Duration::from_secs(5), async || {
            browser.get(app.url("/")).await.status == 200
        })
        .await;
        took.push(forwards.elapsed());
        proxy.set(Mode::Discard);
        proxy.sever_open();
        eventually(Duration::from_secs(5), async || {
            browser.get(app.url("/")).await.status == 503
        })
        .await;
    }
    took.sort();
    println!("available after attempts that hang: {took:?}");
    assert!(took[1] < Duration::from_millis(200) + SLACK, "{took:?}");
}

#[tokio::test]
async fn clones_with_different_deadlines_do_not_affect_each_other() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port()).await;
    let short = RedisSessionLayer::new(proxy.client()).with_deadline(Duration::from_millis(50));
    let long = short.clone().with_deadline(Duration::from_secs(20));
    let [short, long] = [short, long].map(visits_app);
    let cookie = begin(&long, "/").await;
    proxy.set(Mode::Delay(Duration::from_millis(200)));
    for _ in 0..5 {
        let (late, good) = tokio::join!(
            send(&short, "/only-if", Some(&cookie)),
            send(&long, "/only-if", Some(&cookie)),
        );
        assert_eq!(
            (late.status(), good.status()),
            (StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK)
        );
    }
    proxy.set(Mode::Forward);
    eventually(Duration::from_secs(5), async || {
        send(&short, "/only-if", Some(&cookie)).await.status() == 200
    })
    .await;
}

#[test]
fn a_blocked_runtime_does_not_block_other_runtimes() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
    };
    let (servers, others) = (runtime(), runtime());
    let (server, proxy) = servers.block_on(async {
        let server = Server::start().await;
        let proxy = Proxy::before(server.port()).await;
        (server, proxy)
    });
    let layer = RedisSessionLayer::new(proxy.client()).with_deadline(DEADLINE);
    let app = visits_app(layer);
    let stands_still = runtime();
    stands_still.block_on(async {
        let attempt = send(&app, "/", None);
        let _ = tokio::time::timeout(Duration::from_millis(20), attempt).await;
    });
    // The proxy runs beside.
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let beside = thread::spawn(move || {
        servers.block_on(async {
            let _ = stopped.await;
        });
        drop((server, proxy));
    });
    others.block_on(async {
        for _ in 0..20 {
            assert_eq!(send(&app, "/", None).await.status(), 200);
        }
    });
    drop(stop);
    beside.join().expect("no panic");
    drop(stands_still);
}

#[test]
fn runtimes_that_begin_and_end_share_a_static_layer() {
    let servers = tokio::runtime::Runtime::new().expect("a runtime");
    let server = servers.block_on(Server::start());
    let app = visits_app(RedisSessionLayer::new(server.client()).with_deadline(PATIENT));
    let bad = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .expect("a runtime");
                    runtime.block_on(async {
                        let cookie = begin(&app, "/").await;
                        for _ in 0..3 {
                            if send(&app, "/", Some(&cookie)).await.status() != 200 {
                                bad.fetch_add(1, Relaxed);
                            }
                        }
                    });
                }
            });
        }
    });
    assert_eq!(bad.into_inner(), 0);
}

/// Handlers that block their runtime, then use the session.
fn serve_blocking(layer: RedisSessionLayer, workers: usize) -> (Address, mpsc::Sender<()>) {
    let (stop, stopped) = mpsc::channel::<()>();
    let (ready, address) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_all()
            .build()
            .expect("a runtime");
        let blocking = async |session: Session| -> Result<String, SessionError> {
            thread::sleep(Duration::from_millis(300));
            visits(session).await
        };
        let router = Router::new().route("/", get(blocking)).layer(layer);
        // In a task: what `block_on` runs has a thread of its own.
        let served = runtime.spawn(app::serve(router));
        let served = runtime.block_on(served).expect("no panic");
        ready.send(served).expect("received");
        let _ = stopped.recv();
        runtime.shutdown_background();
    });
    (address.recv().expect("an address"), stop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_that_block_the_runtime_do_not_cost_the_connection() {
    let server = Server::start().await;
    // With two workers, tokio cannot take what one of them was about to run while a handler blocks it: a few may fail.
    for (workers, visitors, tolerated) in [(1, 2, 0), (2, 8, 8)] {
        let layer = RedisSessionLayer::new(server.client()).with_deadline(DEADLINE);
        let (app, _stop) = serve_blocking(layer, workers);
        assert_eq!(Browser::new().get(app.url("/")).await.status, 200);
        let asked = (0..visitors).map(|_| async {
            let browser = Browser::new();
            let mut bad = Vec::new();
            for _ in 0..5 {
                let page = browser.get(app.url("/")).await;
                if page.status != 200 {
                    bad.push(page.body);
                }
            }
            bad
        });
        let bad: Vec<String> = join_all(asked).await.concat();
        println!(
            "{workers} workers, {visitors} visitors: {} of {} are 503",
            bad.len(),
            5 * visitors
        );
        assert!(
            bad.len() <= tolerated,
            "{workers} workers, {visitors} visitors: {bad:?}"
        );
    }
}
