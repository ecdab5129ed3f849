//! Host names: a name server that does not answer, and a host with several addresses of which one is dead.
//!
//! Each test runs itself again in a network and mount namespace of its own, which has its own `/etc/resolv.conf` and `/etc/hosts`. Without
//! `unshare` and `ip`, or where the system forbids namespaces, the tests do nothing and say so.

use std::{
    env, fs,
    net::UdpSocket,
    process::{self, Command},
    thread,
    time::Duration,
};

use axum_redis_sessions::RedisSessionLayer;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpSocket, TcpStream},
};

use crate::{
    support::{browser::Browser, eventually, server::Server},
    visits::{assert_available, assert_unavailable, failures_until_connected, serve},
};

const INSIDE: &str = "INSIDE_THE_NAMESPACE";

/// Whether this process is inside of the namespace. Outside, this runs the test `name` of this module there.
fn is_inside(name: &str, resolv_conf: &str, hosts: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    let probe = unshare("ip link set lo up && mount --bind /etc/hosts /etc/hosts").output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        println!("not tested: this system does not allow `unshare --map-root-user --mount --net`");
        return false;
    }
    let directory = env::temp_dir().join(format!("axum-redis-sessions-{name}-{}", process::id()));
    fs::create_dir_all(&directory).expect("a temporary directory");
    let mut script = "ip link set lo up".to_owned();
    for (file, content) in [
        ("resolv.conf", resolv_conf),
        ("hosts", hosts),
        // Not systemd-resolved, which would ask outside.
        ("nsswitch.conf", "hosts: files dns\n"),
    ] {
        fs::write(directory.join(file), content).expect("written");
        let own = directory.join(file);
        script += &format!(" && mount --bind {} /etc/{file}", own.display());
    }
    script += " && exec \"$0\" \"$@\"";
    let test = env::current_exe().expect("a path");
    let output = unshare(&script)
        .arg(test)
        .args(["--exact", "--nocapture", &format!("host_names::{name}")])
        .env(INSIDE, "1")
        .output()
        .expect("started");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("1 passed"), "{text}{errors}");
    fs::remove_dir_all(&directory).expect("removed");
    false
}

fn unshare(script: &str) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args(["--map-root-user", "--mount", "--net", "sh", "-c", script]);
    unshare
}

/// Answers each question for an A record with 127.0.0.1, and others with no record.
fn name_server(address: &str) {
    let socket = UdpSocket::bind((address, 53)).expect("bound");
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut question) {
            // The name, its type and its class follow the header of 12 bytes.
            let name_end = 12
                + question[12..]
                    .iter()
                    .position(|byte| *byte == 0)
                    .expect("a name");
            let is_a = question[name_end + 1..name_end + 3] == [0, 1];
            let mut reply = question[..(name_end + 5).min(length)].to_vec();
            // A response with recursion; one question, perhaps one answer.
            reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            if is_a {
                // The name in the question; type A, class IN, a TTL of 60 s, 4 bytes.
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
            }
            let _ = socket.send_to(&reply, client);
        }
    });
}

fn layer(server: &Server) -> RedisSessionLayer {
    let url = format!("redis://redis.test:{}/", server.port());
    RedisSessionLayer::open(url).expect("an address")
}

#[tokio::test]
async fn a_dead_name_server_before_a_live_one_delays_only_the_connecting() {
    let resolv_conf = "nameserver 127.0.0.2\nnameserver 127.0.0.3\noptions timeout:1\n";
    let name = "a_dead_name_server_before_a_live_one_delays_only_the_connecting";
    if !is_inside(name, resolv_conf, "") {
        return;
    }
    let dead = UdpSocket::bind("127.0.0.2:53").expect("bound");
    name_server("127.0.0.3");
    let server = Server::start().await;
    let app = serve(layer(&server)).await;
    // A lookup takes a second, which is two deadlines, or more on a busy machine.
    let bad = failures_until_connected(&app).await;
    println!("a lookup of one second: {bad} times 503");
    assert!((1..=4).contains(&bad), "{bad}");
    drop(dead);
}

#[tokio::test]
async fn a_dead_address_before_a_live_one_delays_nothing() {
    let name = "a_dead_address_before_a_live_one_delays_nothing";
    if !is_inside(name, "", "127.0.0.9 redis.test\n127.0.0.1 redis.test\n") {
        return;
    }
    let server = Server::start().await;
    let refuses = serve(layer(&server)).await;
    assert_eq!(failures_until_connected(&refuses).await, 0);

    // A full queue, so that SYNs are not answered.
    let socket = TcpSocket::new_v4().expect("a socket");
    let address = ([127, 0, 0, 9], server.port()).into();
    socket.bind(address).expect("bound");
    let listener: TcpListener = socket.listen(1).expect("listening");
    let fill = || tokio::time::timeout(Duration::from_millis(50), TcpStream::connect(address));
    let mut waiting = Vec::new();
    while let Ok(connection) = fill().await {
        waiting.push(connection);
    }
    let is_silent = serve(layer(&server)).await;
    assert_eq!(failures_until_connected(&is_silent).await, 0);
    drop((listener, waiting));
}

#[tokio::test]
async fn a_name_that_moves_to_another_server_is_followed() {
    let name = "a_name_that_moves_to_another_server_is_followed";
    if !is_inside(name, "", "127.0.0.1 redis.test\n") {
        return;
    }
    let [old, new] = [Server::start().await, Server::start().await];
    let port = new.port();
    let listener = TcpListener::bind(("127.0.0.2", old.port()))
        .await
        .expect("bound");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    let app = serve(layer(&old)).await;
    let browser = Browser::new();
    assert_eq!(browser.get(app.url("/")).await.body, "1");
    // As a managed service fails over: the former master stays, as a replica.
    new.command::<String>(&["REPLICAOF", "127.0.0.1", &old.port().to_string()])
        .await;
    eventually(Duration::from_secs(20), async || {
        new.session_keys().await.len() == 1
    })
    .await;
    new.command::<String>(&["REPLICAOF", "NO", "ONE"]).await;
    old.command::<String>(&["REPLICAOF", "127.0.0.1", &port.to_string()])
        .await;
    assert_unavailable(&app, &browser).await;
    fs::write("/etc/hosts", "127.0.0.2 redis.test\n").expect("written");
    assert_available(&app, &browser).await;
    assert_eq!(browser.get(app.url("/")).await.body, "2");
}
