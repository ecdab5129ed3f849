//! An invalid configuration is found when the app starts, and the text says what to change.

use std::time::Duration;

use axum_redis_sessions::{RedisSessionLayer, SameSite, SessionLimit};
use tower::Layer;

const DAY: Duration = Duration::from_secs(86_400);

type Configure = fn(RedisSessionLayer) -> RedisSessionLayer;

#[test]
fn each_config_error_says_what_to_change() {
    let cases: &[(&str, Configure, &str)] = &[
        ("defaults", |l| l, ""),
        (
            "__Host- with a Domain",
            |l| {
                l.with_cookie_name("__Host-sid")
                    .with_cookie_domain("example.com")
            },
            "remove with_cookie_domain",
        ),
        (
            "__Secure- with a Domain",
            |l| {
                l.with_cookie_name("__Secure-sid")
                    .with_cookie_domain("example.com")
            },
            "",
        ),
        (
            "__Host- with a Path",
            |l| l.with_cookie_name("__Host-sid").with_cookie_path("/app"),
            "remove with_cookie_path",
        ),
        (
            "__host- in lower case",
            |l| l.with_cookie_name("__host-sid").with_cookie_path("/app"),
            "remove with_cookie_path",
        ),
        (
            "no name, but a Domain",
            |l| l.with_cookie_domain("example.com"),
            "",
        ),
        ("no name, but a Path", |l| l.with_cookie_path("/app"), ""),
        (
            "__Host- without Secure",
            |l| l.with_cookie_name("__Host-sid").with_secure(false),
            "remove with_secure(false)",
        ),
        (
            "__Secure- without Secure",
            |l| l.with_cookie_name("__Secure-sid").with_secure(false),
            "remove with_secure(false)",
        ),
        (
            "no name, and no Secure",
            |layer| layer.with_secure(false),
            "",
        ),
        (
            "SameSite=None without Secure",
            |l| l.with_same_site(SameSite::None).with_secure(false),
            "remove with_secure(false)",
        ),
        (
            "SameSite=None with Secure",
            |l| l.with_same_site(SameSite::None),
            "",
        ),
        (
            "Partitioned without Secure",
            |l| l.with_partitioned_cookie().with_secure(false),
            "remove with_secure(false)",
        ),
        (
            "Partitioned with Secure",
            RedisSessionLayer::with_partitioned_cookie,
            "",
        ),
        (
            "an empty name",
            |l| l.with_cookie_name(""),
            "use letters, digits",
        ),
        (
            "a name with a space",
            |l| l.with_cookie_name("my session"),
            "use letters, digits",
        ),
        (
            "a name with an equals sign",
            |l| l.with_cookie_name("a=b"),
            "use letters, digits",
        ),
        (
            "a name with a line break",
            |l| l.with_cookie_name("a\r\nSet-Cookie: b"),
            "use letters, digits",
        ),
        (
            "a name that is too long",
            |l| l.with_cookie_name("a".repeat(4017)),
            "at most 4016",
        ),
        (
            "the longest name",
            |l| l.with_cookie_name("a".repeat(4016)),
            "",
        ),
        (
            "a relative path",
            |l| l.with_cookie_path("app"),
            "begin it with \"/\"",
        ),
        (
            "a path with a semicolon",
            |l| l.with_cookie_path("/;Secure"),
            "without \";\"",
        ),
        (
            "a domain that is a URL",
            |l| l.with_cookie_domain("https://example.com"),
            "without scheme",
        ),
        (
            "an empty domain",
            |l| l.with_cookie_domain(""),
            "use a host name",
        ),
        (
            "a domain with a leading dot",
            |l| l.with_cookie_domain(".example.com"),
            "",
        ),
        (
            "a zero idle timeout",
            |l| l.with_idle_timeout(Duration::ZERO),
            "with_idle_timeout is shorter than a millisecond",
        ),
        (
            "an idle timeout of a millisecond",
            |l| l.with_idle_timeout(Duration::from_millis(1)),
            "",
        ),
        (
            "an endless idle timeout",
            |l| l.with_idle_timeout(Duration::MAX),
            "make it shorter",
        ),
        (
            "a zero absolute timeout",
            |l| l.with_absolute_timeout(Duration::ZERO),
            "with_absolute_timeout is shorter",
        ),
        (
            "a zero deadline",
            |l| l.with_deadline(Duration::ZERO),
            "with_deadline is shorter",
        ),
        (
            "a zero permanent lifetime",
            |l| l.with_permanent_lifetime(Duration::ZERO),
            "with_permanent_lifetime is shorter than a millisecond",
        ),
        (
            "a Max-Age of zero",
            |l| l.with_permanent_lifetime(Duration::from_millis(999)),
            "shorter than a second",
        ),
        (
            "a Max-Age of 401 days",
            |l| l.with_permanent_lifetime(401 * DAY),
            "at most 400 days",
        ),
        (
            "a Max-Age of 400 days",
            |l| l.with_permanent_lifetime(400 * DAY),
            "",
        ),
        (
            "no sessions per user",
            |l| l.with_sessions_per_user(0, SessionLimit::Reject),
            "make it at least 1",
        ),
        (
            "last write wins in memory",
            RedisSessionLayer::with_last_write_wins,
            "with_last_write_wins needs Redis",
        ),
        (
            "a password in memory",
            |l| l.with_password_provider(String::new),
            "with_password_provider needs Redis",
        ),
        (
            "replicas in memory",
            |l| l.with_replica_acks(1, Duration::from_millis(100)),
            "with_replica_acks needs Redis",
        ),
        (
            "last write wins in Redis",
            |_| RedisSessionLayer::default().with_last_write_wins(),
            "",
        ),
        (
            "a replica timeout over a quarter of the deadline",
            |_| RedisSessionLayer::default().with_replica_acks(1, Duration::from_millis(126)),
            "at most a quarter of the deadline",
        ),
        (
            "every write without replicas",
            |_| RedisSessionLayer::default().with_replica_acks_for_every_write(),
            "add with_replica_acks",
        ),
        ("a size of zero", |l| l.with_max_size(0), "1 byte to 4 GiB"),
    ];
    for (name, configure, expected) in cases {
        let checked = configure(RedisSessionLayer::in_memory()).validate();
        let text = checked.map_or_else(|error| error.to_string(), |_| String::new());
        assert_eq!(text.is_empty(), expected.is_empty(), "{name}: {text:?}");
        assert!(text.contains(expected), "{name}: {text:?}");
    }
}

#[test]
#[should_panic(
    expected = "RedisSessionLayer: browsers reject the cookie \"__Host-sid\" with a Domain"
)]
fn an_invalid_config_panics_when_the_layer_is_applied() {
    let layer = RedisSessionLayer::in_memory()
        .with_cookie_name("__Host-sid")
        .with_cookie_domain("example.com");
    let _ = layer.layer(());
}

/// The table of `RedisSessionLayer`'s documentation and `src/docs/security.md` state them (ASVS 5.0, 13.1.3 and 13.2.6).
#[test]
fn the_defaults_are_secure_and_as_documented() {
    let layer = RedisSessionLayer::in_memory().validate().expect("defaults");
    assert_eq!(
        format!("{layer:?}"),
        "RedisSessionLayer { config: Config { prefix: \"session:\", hashed_keys: false, idle_timeout: 86400s, absolute_timeout: None, \
         permanent_lifetime: 2678400s, rotation_grace: 10s, deadline: 500ms, max_size: 65536, replica_acks: None, sessions_per_user: None, eager: false, discard_unreadable: false, cookie: CookieConfig { \
         name: None, domain: None, path: \"/\", http_only: true, secure: true, same_site: Lax, partitioned: false, signer: None }, .. }, \
         .. }"
    );
}

#[test]
fn same_site_is_parsed_in_any_case() {
    for (text, expected) in [
        ("strict", Some(SameSite::Strict)),
        ("Lax", Some(SameSite::Lax)),
        ("NONE", Some(SameSite::None)),
        ("", None),
        ("lax ", None),
    ] {
        assert_eq!(text.parse::<SameSite>().ok(), expected, "{text:?}");
    }
    let error = "laxer".parse::<SameSite>().expect_err("not a value");
    assert_eq!(
        error.to_string(),
        "\"laxer\" is not a value of SameSite: use strict, lax or none"
    );
}
