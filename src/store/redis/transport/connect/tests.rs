use std::sync::atomic::AtomicUsize;

use super::*;
use crate::testing::fake_server::{FakeServer, Hello};

fn error(reply: &str) -> RedisError {
    let reply = redis::parse_redis_value(format!("-{reply}\r\n").as_bytes());
    let reply = reply.expect("a reply");
    reply.extract_error().expect_err("an error")
}

fn info(url: &str) -> ConnectionInfo {
    let client = redis::Client::open(url).expect("an address");
    client.get_connection_info().clone()
}

#[test]
fn what_is_not_supported_is_asked_for_again_after_a_reset() {
    let capabilities = Capabilities::default();
    for feature in [Feature::SetIfEq, Feature::Resp3] {
        assert!(capabilities.may_support(feature));
        assert!(capabilities.mark_unsupported(feature), "news");
        assert!(!capabilities.may_support(feature));
        assert!(!capabilities.mark_unsupported(feature), "known");
    }
    // Another server may know the commands; the protocol was negotiated with it.
    capabilities.reset();
    assert!(capabilities.may_support(Feature::SetIfEq));
    assert!(!capabilities.may_support(Feature::Resp3));
    assert!(capabilities.mark_unsupported(Feature::SetIfEq));
    capabilities.reset_protocol();
    assert!(capabilities.may_support(Feature::Resp3));
    assert!(!capabilities.may_support(Feature::SetIfEq));
}

#[test]
fn resp2_is_tried_where_hello_may_be_what_failed() {
    let plain = info("redis://localhost/");
    let with_password = info("redis://:sesame@localhost/");
    for (reply, without, with) in [
        ("ERR unknown command 'HELLO'", true, true),
        ("NOAUTH HELLO must be called with AUTH", false, true),
        ("WRONGPASS x", false, false),
        ("DENIED x", false, false),
        ("ERR max number of clients reached", false, false),
        ("ERR cannot switch database", false, false),
    ] {
        let error = error(reply);
        assert!(is_reply(&error), "{reply}");
        assert_eq!(may_lack_resp3(&error, &plain), without, "{reply}");
        assert_eq!(may_lack_resp3(&error, &with_password), with, "{reply}");
    }
    let failed = RedisError::from((redis::ErrorKind::AuthenticationFailed, "x"));
    assert!(!may_lack_resp3(&failed, &plain));
    for (kind, expected) in [
        (io::ErrorKind::UnexpectedEof, true),
        (io::ErrorKind::BrokenPipe, true),
        (io::ErrorKind::ConnectionReset, true),
        (io::ErrorKind::ConnectionRefused, false),
        (io::ErrorKind::TimedOut, false),
    ] {
        let error = RedisError::from(io::Error::from(kind));
        assert!(!is_reply(&error), "{kind:?}");
        assert_eq!(may_lack_resp3(&error, &plain), expected, "{kind:?}");
    }
}

/// A proxy that closed the connection may only have met a server that was restarting.
#[tokio::test]
async fn resp3_is_asked_for_again_unless_it_was_refused() {
    for (hello, is_asked_again) in [
        (Hello::Supported, true),
        (Hello::Unknown, false),
        (Hello::Closes, true),
    ] {
        let server = FakeServer::start_with(hello, |_| "+OK".to_owned()).await;
        let settings = ConnectSettings::default();
        let opened = open(&server.info(), &settings, || {}).await;
        assert!(opened.is_ok());
        let may_support = settings.capabilities.may_support(Feature::Resp3);
        assert_eq!(may_support, is_asked_again);
    }
}

#[tokio::test]
async fn a_wrong_password_is_not_tried_by_another_protocol() {
    let server = FakeServer::start_with(Hello::WrongPass, |_| "+OK".to_owned()).await;
    let opened = open(&server.info(), &ConnectSettings::default(), || {}).await;
    assert_eq!(
        opened
            .err()
            .and_then(|error| error.code().map(str::to_owned))
            .as_deref(),
        Some("WRONGPASS")
    );
    assert_eq!(server.accepted(), 1);
}

#[cfg(feature = "local-cache")]
#[tokio::test]
async fn it_is_known_why_a_server_reports_no_changes() {
    for (hello, reply, expected) in [
        (Hello::Supported, "+OK", None),
        (Hello::Supported, "-NOPERM x", Some("the ACL denies")),
        (
            Hello::Supported,
            "-ERR unknown command",
            Some("does not support CLIENT TRACKING"),
        ),
        (Hello::Unknown, "+OK", Some("RESP3")),
    ] {
        let server = FakeServer::start_with(hello, move |_| reply.to_owned()).await;
        let cache = Arc::new(Cache::new(crate::LocalCache::new()));
        let settings = ConnectSettings {
            cache: Some(cache.clone()),
            ..ConnectSettings::default()
        };
        let opened = open(&server.info(), &settings, || {})
            .await
            .expect("opened");
        assert_eq!(opened.tracking.is_some(), expected.is_none());
        let why_off = cache.reports().why_off();
        assert_eq!(why_off.is_some(), expected.is_some());
        assert!(
            why_off
                .unwrap_or_default()
                .contains(expected.unwrap_or_default()),
            "{why_off:?}"
        );
    }
}

#[tokio::test]
async fn credentials_that_the_server_refuses_are_fetched_again() {
    let server = FakeServer::start(|_| "-WRONGPASS x".to_owned()).await;
    let refused = server.info();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let unreachable = info(&format!("redis://127.0.0.1:{port}/"));
    for (info, expected) in [(refused, 2), (unreachable, 1)] {
        let fetched = Arc::new(AtomicUsize::new(0));
        let count = fetched.clone();
        let source = CredentialSource::new(Arc::new(move || {
            count.fetch_add(1, Relaxed);
            let credentials = Credentials::password("sesame");
            let credentials = credentials.valid_for(Duration::from_secs(3600));
            Box::pin(async { Ok(credentials) })
        }));
        let settings = ConnectSettings {
            credentials: Some(Arc::new(source)),
            ..ConnectSettings::default()
        };
        for _ in 0..2 {
            assert!(open(&info, &settings, || {}).await.is_err());
        }
        assert_eq!(fetched.load(Relaxed), expected);
    }
}

#[test]
fn a_connection_has_the_settings_that_redis_rs_leaves_to_the_system() {
    let info = with_settings(info("redis://localhost/"), None);
    let settings = info.tcp_settings();
    assert!(settings.nodelay());
    assert!(settings.keepalive().is_some());
    #[cfg(target_os = "linux")]
    assert_eq!(settings.user_timeout(), Some(USER_TIMEOUT));
    // The app's own ones are kept.
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(77));
    let own = TcpSettings::default().set_keepalive(keepalive.clone());
    let settings = tcp_settings(own);
    assert_eq!(
        format!("{:?}", settings.keepalive()),
        format!("{:?}", Some(&keepalive))
    );
}

#[cfg(all(feature = "tls-rustls", any(feature = "cluster", feature = "sentinel")))]
#[test]
fn another_host_is_spoken_to_by_tls_as_the_first_one() {
    for (url, is_tls) in [("rediss://localhost/", true), ("redis://localhost/", false)] {
        let address = with_host(info(url).addr(), "elsewhere".to_owned(), 7);
        let shown = format!("{address:?}");
        assert!(shown.contains("elsewhere"), "{shown}");
        let expected = matches!(address, redis::ConnectionAddr::TcpTls { .. });
        assert_eq!(expected, is_tls, "{shown}");
    }
}
