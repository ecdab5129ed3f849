//! The user index in Redis: its entries, lifetime, cost and clean-up.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use axum_redis_sessions::{ErrorKind, RedisSessionLayer, SessionLimit};

use super::{Device, app, devices, of};
use crate::support::{eventually, server::Server};

const INDEX: &str = "session:user:zoe";
const HOUR: Duration = Duration::from_secs(3600);

/// The score of an index entry that is added now.
fn now_micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.expect("after 1970").as_micros()).expect("far from the end of time")
}

fn layer(server: &Server) -> RedisSessionLayer {
    // A busy machine must not cause an error.
    RedisSessionLayer::new(server.client())
        .with_deadline(Duration::from_secs(20))
        .with_idle_timeout(HOUR)
}

async fn names(server: &Server) -> Vec<String> {
    server.command(&["ZRANGE", INDEX, "0", "-1"]).await
}

#[tokio::test]
async fn an_index_entry_is_the_suffix_of_the_session_key() {
    let server = Server::start().await;
    let layer = layer(&server);
    let phone = Device::of(&app(&layer), "zoe", "phone").await;
    assert_eq!(names(&server).await, [phone.id()]);
    let stored: String = server
        .command(&["GET", &format!("session:{}", phone.id())])
        .await;
    assert!(stored.contains(r#""_user":"zoe""#), "{stored}");
    phone.text("/log-out").await;
    assert_eq!(names(&server).await, [""; 0]);
}

#[tokio::test]
async fn with_hashed_keys_an_index_entry_does_not_reveal_the_id() {
    let server = Server::start().await;
    let layer = layer(&server).with_hashed_keys();
    let app = app(&layer);
    let phone = Device::of(&app, "zoe", "phone").await;
    let laptop = Device::of(&app, "zoe", "laptop").await;
    for name in names(&server).await {
        assert_eq!(name.len(), 64);
        assert!(!name.contains(&phone.id()) && !name.contains(&laptop.id()));
        assert_eq!(
            server
                .command::<u64>(&["EXISTS", &format!("session:{name}")])
                .await,
            1
        );
    }
    let handle = phone.text("/handle").await.parse().expect("a handle");
    assert!(
        of(&layer.users(), "zoe")
            .revoke(&handle)
            .await
            .expect("ended")
    );
    assert_eq!(phone.look().await, "nobody on nothing");
    assert_eq!(devices(&layer.users(), "zoe").await, ["laptop"]);
}

#[tokio::test]
async fn an_entry_without_a_session_is_removed_once_it_is_old() {
    let server = Server::start().await;
    let layer = layer(&server);
    let phone = Device::of(&app(&layer), "zoe", "phone").await;
    let ids = [
        "11111111-1111-1111-1111-111111111111",
        "22222222-2222-2222-2222-222222222222",
    ];
    // One of an expired session, and one of a login that has not stored its session yet.
    let hour_ago = (now_micros() - 3_600_000_000).to_string();
    server
        .command::<u64>(&["ZADD", INDEX, &hour_ago, ids[0]])
        .await;
    server
        .command::<u64>(&["ZADD", INDEX, &now_micros().to_string(), ids[1]])
        .await;
    let sessions = layer.users();
    assert_eq!(devices(&sessions, "zoe").await, ["phone"]);
    let mut left = names(&server).await;
    left.sort();
    let mut expected = vec![ids[1].to_owned(), phone.id()];
    expected.sort();
    assert_eq!(left, expected);
    // `revoke_all` keeps it too, or the session of that login would be missing.
    assert_eq!(of(&sessions, "zoe").revoke_all().await.expect("ended"), 1);
    assert_eq!(names(&server).await, [ids[1]]);
}

#[tokio::test]
async fn an_entry_for_another_users_session_is_ignored() {
    let server = Server::start().await;
    let layer = layer(&server);
    let max = Device::of(&app(&layer), "max", "desktop").await;
    server
        .command::<u64>(&["ZADD", INDEX, "1000", &max.id()])
        .await;
    let handle = max.text("/handle").await.parse().expect("a handle");
    let sessions = layer.users();
    assert!(
        !of(&sessions, "zoe")
            .revoke(&handle)
            .await
            .expect("answered")
    );
    server
        .command::<u64>(&["ZADD", INDEX, "1000", &max.id()])
        .await;
    assert_eq!(devices(&sessions, "zoe").await, [""; 0]);
    server
        .command::<u64>(&["ZADD", INDEX, "1000", &max.id()])
        .await;
    assert_eq!(
        of(&sessions, "zoe").revoke_all().await.expect("answered"),
        0
    );
    assert_eq!(max.look().await, "max on desktop");
}

#[tokio::test]
async fn an_invalid_value_does_not_hide_other_sessions() {
    let server = Server::start().await;
    let layer = layer(&server);
    Device::of(&app(&layer), "zoe", "phone").await;
    let id = "11111111-1111-1111-1111-111111111111";
    server.command::<u64>(&["ZADD", INDEX, "1000", id]).await;
    server
        .command::<String>(&["SET", &format!("session:{id}"), "what is this"])
        .await;
    let sessions = layer.users();
    assert_eq!(devices(&sessions, "zoe").await, ["phone"]);
    assert_eq!(of(&sessions, "zoe").revoke_all().await.expect("ended"), 1);
    let left: String = server.command(&["GET", &format!("session:{id}")]).await;
    assert_eq!(left, "what is this");
}

#[tokio::test]
async fn index_entries_outlive_their_sessions() {
    let server = Server::start().await;
    let layer = layer(&server);
    let app = app(&layer);
    let phone = Device::of(&app, "zoe", "phone").await;
    let left = async |key: String| server.command::<i64>(&["PTTL", &key]).await;
    let tenth = i64::try_from(HOUR.as_millis()).expect("small") / 10;
    // A read may extend the session by a tenth of its lifetime before it extends the index.
    let session = left(format!("session:{}", phone.id())).await;
    assert!(left(INDEX.to_owned()).await >= session + tenth);

    // A longer session extends the index, a shorter one does not shorten it.
    let laptop = Device::new(&app);
    laptop.text("/log-in/laptop?user=zoe&permanent=true").await;
    let session = left(format!("session:{}", laptop.id())).await;
    let index = left(INDEX.to_owned()).await;
    assert!(
        session > 30 * 86_400_000 && index >= session + session / 10,
        "{session} {index}"
    );
    Device::of(&app, "zoe", "tablet").await;
    assert!(left(INDEX.to_owned()).await > index - 60_000);
}

#[tokio::test]
async fn lost_index_entries_are_restored_by_use() {
    let server = Server::start().await;
    let layer = layer(&server);
    let phone = Device::of(&app(&layer), "zoe", "phone").await;
    server.command::<u64>(&["DEL", INDEX]).await;
    // Not at once, since a read is one command. Until then it is not listed, as documented.
    phone.look().await;
    let sessions = layer.users();
    assert_eq!(devices(&sessions, "zoe").await, [""; 0]);
    // As if a tenth of an hour had passed.
    let key = format!("session:{}", phone.id());
    let stored: String = server.command(&["GET", &key]).await;
    let listed: u64 = number(&stored, "\"_listed\":");
    let earlier = stored.replace(
        &format!("\"_listed\":{listed}"),
        &format!("\"_listed\":{}", listed - 361),
    );
    assert_ne!(stored, earlier);
    server
        .command::<String>(&["SET", &key, &earlier, "KEEPTTL"])
        .await;
    assert_eq!(phone.look().await, "zoe on phone");
    assert_eq!(devices(&sessions, "zoe").await, ["phone"]);
    assert!(server.command::<i64>(&["PTTL", INDEX]).await > 3_600_000);
    assert_eq!(of(&sessions, "zoe").revoke_all().await.expect("ended"), 1);
    assert_eq!(phone.look().await, "nobody on nothing");
}

fn number(text: &str, after: &str) -> u64 {
    let (_, rest) = text.split_once(after).expect("there");
    let end = rest.find(|c: char| !c.is_ascii_digit()).expect("an end");
    rest[..end].parse().expect("a number")
}

#[tokio::test]
async fn a_request_of_a_logged_in_user_costs_no_more_commands() {
    let server = Server::start().await;
    let layer = layer(&server);
    let app = app(&layer);
    let phone = Device::of(&app, "zoe", "phone").await;
    phone.text("/visit").await;
    let write = if server.is_valkey().await {
        "SET"
    } else {
        "EVALSHA"
    };
    let monitor = server.monitor().await;
    let verbs = async || {
        let commands = monitor.drain().await;
        let verbs = commands.iter().map(|words| words[0].to_ascii_uppercase());
        verbs.collect::<Vec<_>>()
    };
    phone.look().await;
    assert_eq!(verbs().await, ["GETEX"]);
    phone.text("/visit").await;
    assert_eq!(verbs().await, ["GETEX", write]);
    Device::new(&app).text("/visit").await;
    assert_eq!(verbs().await, ["SET"]);
    // The index entry, then the session.
    Device::of(&app, "zoe", "laptop").await;
    assert_eq!(verbs().await, ["EVALSHA", "SET"]);
}

#[tokio::test]
async fn list_and_revoke_fail_at_the_deadline() {
    let server = Server::start().await;
    let deadline = Duration::from_millis(300);
    let layer = RedisSessionLayer::new(server.client());
    let phone = Device::of(&app(&layer), "zoe", "phone").await;
    let sessions = layer.with_deadline(deadline).users();
    of(&sessions, "zoe").list().await.expect("connected");
    server.stop();
    let start = Instant::now();
    let error = of(&sessions, "zoe").list().await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let error = of(&sessions, "zoe")
        .revoke_all()
        .await
        .expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    server.resume();
    eventually(Duration::from_secs(10), async || {
        of(&sessions, "zoe").revoke_all().await.is_ok()
    })
    .await;
    assert_eq!(phone.look().await, "nobody on nothing");
}

#[tokio::test]
async fn an_error_names_missing_permissions_and_no_user() {
    // It ends like a session's key.
    const USER: &str = "zoe-5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e";
    let server = Server::start().await;
    let acl = async |rules: &str| {
        let rules = rules.split(' ');
        let command: Vec<&str> = ["ACL", "SETUSER", "app"].into_iter().chain(rules).collect();
        server.command::<String>(&command).await;
    };
    acl("on >sesame ~session:* +getex +get +getrange +set +del +pexpire +eval +evalsha").await;
    let url = format!("redis://app:sesame@127.0.0.1:{}/", server.port());
    let client = redis::Client::open(url).expect("an address");
    let layer = RedisSessionLayer::new(client).with_deadline(Duration::from_secs(20));
    let without_scripts = layer.clone().with_last_write_wins();
    for layer in [&layer, &without_scripts] {
        let app = app(layer);
        // Enough for sessions without a user.
        assert_eq!(Device::new(&app).text("/visit").await, "1");
        let login = format!("/log-in/phone?user={USER}");
        let (status, told) = Device::new(&app).get(&login).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(told.contains("+zadd") && !told.contains("zoe"), "{told}");
        let error = of(&layer.users(), USER)
            .list()
            .await
            .expect_err("forbidden");
        let told = error.to_string();
        assert!(
            told.contains("the command ZRANGE") && !told.contains("zoe"),
            "{told}"
        );
    }

    acl("+zadd +zrange +zrem +zcard +zscore +pttl").await;
    for layer in [layer, without_scripts] {
        let layer = layer.with_sessions_per_user(2, SessionLimit::Reject);
        let sessions = layer.users();
        let app = app(&layer);
        let phone = Device::of(&app, USER, "phone").await;
        phone.text("/rotate").await;
        assert_eq!(devices(&sessions, USER).await, ["phone"]);
        Device::of(&app, USER, "laptop").await;
        assert_eq!(phone.text("/log-out-elsewhere").await, "1");
        phone.text("/log-out").await;
        assert_eq!(of(&sessions, USER).revoke_all().await.expect("looked"), 0);
    }

    acl("resetkeys ~other:*").await;
    let layer = RedisSessionLayer::new(
        redis::Client::open(format!("redis://app:sesame@127.0.0.1:{}/", server.port()))
            .expect("an address"),
    );
    let error = of(&layer.users(), USER)
        .list()
        .await
        .expect_err("forbidden");
    let told = error.to_string();
    assert!(
        told.contains("the keys session:*") && !told.contains("zoe"),
        "{told}"
    );
}

/// No single command handles more than a page of the sessions, so none blocks Redis for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_of_one_user_are_listed_and_revoked_in_pages() {
    const COUNT: usize = 100_000;
    let server = Server::start().await;
    let layer = layer(&server);
    let entered = now_micros() - 3_600_000_000;
    let fill = format!(
        "for n = 1, {COUNT} do \
         local name = string.format('00000000-0000-0000-0000-%012x', n) \
         local value = '{{\"_rev\":\"0123456789abcdef\",\"_created\":{0},\"_listed\":{0},\"_user\":\"zoe\"}}' \
         redis.call('SET', 'session:' .. name, value, 'PX', 3600000) \
         redis.call('ZADD', KEYS[1], {entered} + n, name) end",
        entered / 1_000_000
    );
    server
        .command::<Option<u64>>(&["EVAL", &fill, "1", INDEX])
        .await;
    server.command::<String>(&["CONFIG", "RESETSTAT"]).await;

    let sessions = layer.users();
    let listed = of(&sessions, "zoe").list().await.expect("listed");
    assert_eq!(listed.len(), COUNT);
    let handle = listed[COUNT / 2].handle();
    assert!(of(&sessions, "zoe").revoke(&handle).await.expect("ended"));
    assert_eq!(
        of(&sessions, "zoe").revoke_all().await.expect("ended"),
        COUNT - 1
    );
    assert_eq!(server.command::<u64>(&["DBSIZE"]).await, 0);

    let stats: String = server.command(&["INFO", "commandstats"]).await;
    let calls = |verb: &str| {
        let line = stats
            .lines()
            .find(|line| line.starts_with(&format!("cmdstat_{verb}:")));
        line.map_or(0, |line| number(line, "calls="))
    };
    for verb in ["keys", "scan", "zscan", "smembers"] {
        assert_eq!(calls(verb), 0, "{verb}");
    }
    let parts = u64::try_from(COUNT).expect("small") / 1000;
    assert!(
        calls("zrange") >= 2 * parts && calls("zrem") >= parts,
        "{stats}"
    );
}
