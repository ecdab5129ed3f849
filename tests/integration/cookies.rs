//! Invalid, forged and foreign Cookie headers, sent over a socket.
//!
//! Anonymous means an empty session, no Redis command, no Set-Cookie, and no part of the input in the response.

use std::{collections::HashSet, time::Duration};

use axum::{
    Router,
    http::{Version, header},
    routing::any,
};
use axum_redis_sessions::{RedisSessionLayer, Session};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    support::{
        app::{self, Address},
        eventually,
        monitor::Monitor,
        server::Server,
    },
    visits::visits,
};

const NAME: &str = "__Host-session";
const ANONYMOUS: &str = "no session, 0 keys";
const FOUND: &str = "a session, 1 keys";

async fn look(session: Session) -> String {
    let which = session.id().map_or("no", |_| "a");
    format!("{which} session, {} keys", session.len())
}

async fn serve(layer: RedisSessionLayer) -> Address {
    let app = Router::new()
        .route("/look", any(look))
        .route("/count", any(visits))
        .layer(layer);
    app::serve(app).await
}

/// One without and one with signed cookies, each with the cookie value of a live session.
async fn apps(server: &Server) -> [(&'static str, Address, String); 2] {
    let plain = RedisSessionLayer::new(server.client());
    let signed = plain.clone().with_signing_keys([[7; 32]]);
    let (plain, signed) = (serve(plain).await, serve(signed).await);
    let values = [begin(&plain).await, begin(&signed).await];
    let [of_plain, of_signed] = values;
    [("plain", plain, of_plain), ("signed", signed, of_signed)]
}

async fn begin(app: &Address) -> String {
    let answer = ask(app, "/count", &[]).await;
    let (_, rest) = answer
        .split_once(&format!("set-cookie: {NAME}="))
        .expect("a cookie");
    rest.split(';').next().expect("a value").to_owned()
}

/// The response to a request with exactly these Cookie headers.
async fn ask(app: &Address, path: &str, cookies: &[&[u8]]) -> String {
    let url = app.url("");
    let address = url.strip_prefix("http://").expect("a URL");
    let mut request =
        format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n").into_bytes();
    for cookie in cookies {
        request.extend_from_slice(b"Cookie: ");
        request.extend_from_slice(cookie);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(&request).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

fn client() -> reqwest::Client {
    let client = reqwest::Client::builder()
        .no_proxy()
        .http2_prior_knowledge();
    client.build().expect("a client")
}

/// Malformed cookie values, most of them made from that of a live session.
fn malformed(value: &str) -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: String| text.into_bytes();
    let tail = &value[1..];
    vec![
        ("empty", vec![]),
        ("a character less in front", text(tail.to_owned())),
        (
            "a character less behind",
            text(value[..value.len() - 1].to_owned()),
        ),
        ("a character more behind", text(format!("{value}0"))),
        ("a character more in front", text(format!("0{value}"))),
        ("twice", text(format!("{value}{value}"))),
        ("4 KiB", vec![b'a'; 4096]),
        ("64 KiB", vec![b'a'; 65_536]),
        (
            "64 KiB that begin well",
            text(format!("{value}{}", "0".repeat(65_536))),
        ),
        ("not hexadecimal", text(format!("g{tail}"))),
        (
            "nil",
            text(format!(
                "00000000-0000-0000-0000-000000000000{}",
                &value[36..]
            )),
        ),
        ("without hyphens", text(value.replace('-', ""))),
        ("in braces", text(format!("{{{value}}}"))),
        ("as a URN", text(format!("urn:uuid:{value}"))),
        ("in upper case", text(value.to_ascii_uppercase())),
        ("quoted", text(format!("\"{value}\""))),
        ("percent-encoded", text(value.replace('-', "%2D"))),
        ("a space in front", text(format!(" {value}"))),
        ("a space behind", text(format!("{value} ; a=b"))),
        ("a tab behind", text(format!("{value}\t; a=b"))),
        ("not UTF-8", [b"\xff", tail.as_bytes()].concat()),
        ("full-width digits", text(format!("５{tail}"))),
        ("a path", text("../../x".to_owned())),
        ("a glob", text("*".to_owned())),
        ("an equals sign", text(format!("={value}"))),
        (
            "a signature of nothing",
            text(format!("{value}.{}", "A".repeat(43))),
        ),
    ]
}

/// Bytes that HTTP forbids in a header.
fn forbidden(value: &str) -> Vec<(&'static str, Vec<u8>)> {
    let tail = &value[1..];
    vec![
        ("NUL", format!("\0{tail}").into_bytes()),
        ("CR", format!("{value}\r{tail}").into_bytes()),
        ("LF", format!("{value}\n{tail}").into_bytes()),
        ("DEL", format!("{value}\x7f").into_bytes()),
        ("a command on a line of its own", b"a\r\nDEL x".to_vec()),
    ]
}

fn assert_anonymous(name: &str, answer: &str, value: &[u8]) {
    assert!(answer.starts_with("HTTP/1.1 200"), "{name}: {answer}");
    assert!(answer.ends_with(ANONYMOUS), "{name}: {answer}");
    assert_quiet(name, answer, value);
}

fn assert_quiet(name: &str, answer: &str, value: &[u8]) {
    assert!(!answer.contains("set-cookie"), "{name}: {answer}");
    // Too short a needle to search for.
    let value = String::from_utf8_lossy(value);
    assert!(
        value.len() < 4 || !answer.contains(&*value),
        "{name}: {answer}"
    );
}

async fn assert_free(name: &str, monitor: &Monitor) {
    assert_eq!(monitor.drain().await, Vec::<Vec<String>>::new(), "{name}");
}

#[tokio::test]
async fn a_malformed_cookie_is_anonymous() {
    let server = Server::start().await;
    for (app_name, app, value) in apps(&server).await {
        let monitor = server.monitor().await;
        for (name, bad) in malformed(&value) {
            let name = format!("{app_name}, {name}");
            let cookie = [NAME.as_bytes(), b"=", &bad].concat();
            let answer = ask(&app, "/look", &[&cookie]).await;
            assert_anonymous(&name, &answer, &bad);
            assert_free(&name, &monitor).await;
        }
        for (name, cookie) in [
            ("no value", NAME.to_owned()),
            ("a name in another case", format!("__host-session={value}")),
            ("a longer name", format!("{NAME}s={value}")),
            ("a name with something in front", format!("x{NAME}={value}")),
            ("a space before the equals sign", format!("{NAME} ={value}")),
            ("no name", value.clone()),
            ("a comma between cookies", format!("a=b, {NAME}={value}")),
        ] {
            let name = format!("{app_name}, {name}");
            let answer = ask(&app, "/look", &[cookie.as_bytes()]).await;
            assert_anonymous(&name, &answer, value.as_bytes());
            assert_free(&name, &monitor).await;
        }
        // The valid value is accepted, so the others are not rejected for another reason.
        let cookie = format!("{NAME}={value}");
        let answer = ask(&app, "/look", &[cookie.as_bytes()]).await;
        assert!(answer.ends_with(FOUND), "{app_name}: {answer}");
    }
}

#[tokio::test]
async fn bytes_that_http_forbids_in_a_cookie_reach_no_session() {
    let server = Server::start().await;
    for (app_name, app, value) in apps(&server).await {
        let monitor = server.monitor().await;
        for (name, bad) in forbidden(&value) {
            let name = format!("{app_name}, {name}");
            let cookie = [NAME.as_bytes(), b"=", &bad].concat();
            let answer = ask(&app, "/look", &[&cookie]).await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{name}: {answer}");
            assert_quiet(&name, &answer, &bad);
            assert_free(&name, &monitor).await;
        }
    }
}

#[tokio::test]
async fn the_cookie_is_found_in_any_header_and_among_a_thousand() {
    let server = Server::start().await;
    for (app_name, app, value) in apps(&server).await {
        let cookie = format!("{NAME}={value}");
        let many = "other=value; ".repeat(1000);
        let not_text = b"a=\xff";
        let rows: [(&str, Vec<Vec<u8>>); 6] = [
            (
                "before 1,000 others",
                vec![format!("{cookie}; {many}a=b").into_bytes()],
            ),
            (
                "behind 1,000 others",
                vec![format!("{many}{cookie}").into_bytes()],
            ),
            (
                "without spaces",
                vec![format!("a=b;{cookie};c=d").into_bytes()],
            ),
            (
                "in the second of two headers",
                vec![b"a=b".to_vec(), cookie.clone().into_bytes()],
            ),
            (
                "beside one that is not text",
                vec![not_text.to_vec(), cookie.clone().into_bytes()],
            ),
            (
                "behind a malformed one",
                vec![format!("{NAME}=x; {cookie}").into_bytes()],
            ),
        ];
        for (name, cookies) in rows {
            let cookies: Vec<&[u8]> = cookies.iter().map(Vec::as_slice).collect();
            let answer = ask(&app, "/look", &cookies).await;
            assert!(answer.ends_with(FOUND), "{app_name}, {name}: {answer}");
        }
        // HTTP/2, where a browser sends each cookie in a header of its own (RFC 9113, section 8.2.3).
        for place in 0..3 {
            let mut request = client().get(app.url("/look"));
            for at in 0..3 {
                let other = format!("other{at}=1");
                let pair = if at == place { &cookie } else { &other };
                request = request.header(header::COOKIE, pair);
            }
            let answer = request.send().await.expect("an answer");
            assert_eq!(answer.version(), Version::HTTP_2);
            assert_eq!(
                answer.text().await.expect("a body"),
                FOUND,
                "{app_name}, {place}"
            );
        }
    }
}

#[tokio::test]
async fn an_unknown_id_costs_one_read_and_keeps_the_cookie() {
    let server = Server::start().await;
    let app = serve(RedisSessionLayer::new(server.client())).await;
    let unknown = "5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e".to_owned();
    let expired = begin(&app).await;
    let key = format!("session:{expired}");
    server.command::<i64>(&["PEXPIRE", &key, "1"]).await;
    eventually(Duration::from_secs(10), async || {
        server.command::<i64>(&["EXISTS", &key]).await == 0
    })
    .await;
    let monitor = server.monitor().await;
    for (name, value) in [("unknown", unknown), ("expired", expired)] {
        let cookie = format!("{NAME}={value}");
        let answer = ask(&app, "/look", &[cookie.as_bytes()]).await;
        assert_anonymous(name, &answer, value.as_bytes());
        let commands = monitor.drain().await;
        assert_eq!(commands.len(), 1, "{name}");
        assert_eq!(commands[0][0], "GETEX", "{name}");
        assert_eq!(server.session_keys().await, Vec::<String>::new(), "{name}");
        // A write does not adopt it either.
        let answer = ask(&app, "/count", &[cookie.as_bytes()]).await;
        assert!(answer.contains("set-cookie"), "{name}: {answer}");
        assert!(!answer.contains(&value), "{name}: {answer}");
        server.command::<String>(&["FLUSHALL"]).await;
        monitor.drain().await;
    }
}

#[tokio::test]
async fn a_rotated_id_costs_one_read_and_keeps_the_cookie() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client());
    let cycle = Router::new()
        .route("/cycle", any(async |session: Session| session.cycle_id()))
        .layer(layer.clone());
    let (app, cycle) = (serve(layer).await, app::serve(cycle).await);
    let old = begin(&app).await;
    let cookie = format!("{NAME}={old}");
    ask(&cycle, "/cycle", &[cookie.as_bytes()]).await;
    let dump = async || {
        let mut connection = server.connection().await;
        let mut dumps = HashSet::new();
        for key in server.session_keys().await {
            let dump = redis::cmd("DUMP")
                .arg(key)
                .query_async::<Vec<u8>>(&mut connection)
                .await;
            dumps.insert(dump.expect("a key"));
        }
        dumps
    };
    let before = dump().await;
    assert_eq!(before.len(), 2, "the session and the tombstone");
    let monitor = server.monitor().await;
    for path in ["/look", "/count"] {
        let answer = ask(&app, path, &[cookie.as_bytes()]).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_quiet(path, &answer, old.as_bytes());
    }
    for command in monitor.drain().await {
        // The read extends the TTL of any key, and that of a tombstone is set back.
        assert!(
            ["GETEX", "PEXPIRE"].contains(&command[0].as_str()),
            "{}",
            command[0]
        );
    }
    assert_eq!(dump().await, before);
}

#[tokio::test]
async fn an_id_outside_the_cookie_is_ignored() {
    let server = Server::start().await;
    for (app_name, app, value) in apps(&server).await {
        let pair = format!("{NAME}={value}");
        let client = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client");
        let url = app.url("/look");
        let monitor = server.monitor().await;
        for (name, request) in [
            ("in the query", client.get(format!("{url}?{pair}"))),
            (
                "in the query, as an id",
                client.get(format!("{url}?sid={value}&id={value}")),
            ),
            (
                "in a matrix parameter",
                client.get(format!("{url}?;{pair}")),
            ),
            ("in a form", client.post(&url).form(&[(NAME, &value)])),
            ("in JSON", client.post(&url).json(&[(NAME, &value)])),
            ("as a token", client.get(&url).bearer_auth(&value)),
            (
                "in another header",
                client.get(&url).header("x-session", &pair),
            ),
            (
                "in Set-Cookie",
                client.get(&url).header(header::SET_COOKIE, &pair),
            ),
        ] {
            let answer = request.send().await.expect("an answer");
            let headers = answer.headers().clone();
            assert!(
                !headers.contains_key(header::SET_COOKIE),
                "{app_name}, {name}"
            );
            assert_eq!(
                answer.text().await.expect("a body"),
                ANONYMOUS,
                "{app_name}, {name}"
            );
            assert_free(name, &monitor).await;
        }
    }
}
