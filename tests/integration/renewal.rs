//! A renewed cookie waits for a response that is not meant for shared caches; one that must go out makes its response `no-store`.

use axum::{
    Router,
    http::{HeaderMap, HeaderName, HeaderValue},
    routing::get,
};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionError};

use crate::{
    client::{ask, begin_at},
    support::{
        app::{Address, serve},
        server::Server,
    },
    visits,
};

const CDN_HEADERS: [&str; 6] = [
    "cdn-cache-control",
    "surrogate-control",
    "cloudflare-cdn-cache-control",
    "netlify-cdn-cache-control",
    "vercel-cdn-cache-control",
    "x-accel-expires",
];

/// What a handler marks its response with, and whether a renewed cookie goes out with it.
fn marks() -> Vec<(&'static [(&'static str, &'static str)], bool)> {
    vec![
        (&[("cache-control", "public, max-age=600")], false),
        (&[("cache-control", "max-age=31536000, immutable")], false),
        (&[("cache-control", "max-age=60")], false),
        (&[("cache-control", "s-maxage=60")], false),
        (&[("cache-control", "PUBLIC")], false),
        (
            &[("cache-control", "public"), ("cache-control", "max-age=60")],
            false,
        ),
        (&[("cache-control", "private=\"x-a\", max-age=60")], false),
        (
            &[(
                "cache-control",
                "max-age=60, no-cache=\"x-a, no-store, x-b\"",
            )],
            false,
        ),
        (&[("cdn-cache-control", "max-age=600")], false),
        (&[("surrogate-control", "max-age=600")], false),
        (&[("cloudflare-cdn-cache-control", "max-age=600")], false),
        (&[("vercel-cdn-cache-control", "max-age=600")], false),
        (&[("x-accel-expires", "600")], false),
        (&[("x-accel-expires", "0")], true),
        (
            &[
                ("cache-control", "private"),
                ("cdn-cache-control", "max-age=600"),
            ],
            false,
        ),
        (&[], true),
        (&[("cache-control", "no-store")], true),
        (&[("cache-control", "private, max-age=60")], true),
        (
            &[("cache-control", "public"), ("cache-control", "private")],
            true,
        ),
        (&[("cache-control", "no-cache")], true),
        (
            &[("cache-control", "max-age=0, must-revalidate, no-cache")],
            true,
        ),
        (&[("cdn-cache-control", "no-store")], true),
        (
            &[
                ("cache-control", "private"),
                ("surrogate-control", "no-store"),
            ],
            true,
        ),
        (&[("etag", "\"1\"")], true),
    ]
}

fn headers(marks: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in marks {
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    headers
}

fn routes() -> Router {
    let mut routes = visits::routes();
    for (index, (marks, _)) in marks().into_iter().enumerate() {
        let looks = async move |session: Session| (headers(marks), session.len().to_string());
        let logs_in = async move |session: Session| {
            session.log_in("zoe")?;
            Ok::<_, SessionError>((headers(marks), "in"))
        };
        routes = routes
            .route(&format!("/look/{index}"), get(looks))
            .route(&format!("/log-in/{index}"), get(logs_in));
    }
    routes
}

/// A session whose cookie was sent four days ago, of 31.
async fn begin_long_ago(server: &Server, app: &Address) -> String {
    let cookie = begin_at(app, "/permanent?is=true").await;
    let key = cookie.replace("__Host-session=", "session:");
    let stored = server.command::<String>(&["GET", &key]).await;
    let (before, sent) = stored.split_once("\"_permanent\":").expect("permanent");
    let digits = sent.find(|c: char| !c.is_ascii_digit()).expect("more");
    let long_ago = sent[..digits].parse::<u64>().expect("seconds") - 4 * 86_400;
    let stored = format!("{before}\"_permanent\":{long_ago}{}", &sent[digits..]);
    server
        .command::<String>(&["SET", &key, &stored, "EX", "1000"])
        .await;
    cookie
}

#[tokio::test]
async fn a_renewal_waits_for_a_response_that_is_not_for_shared_caches() {
    let server = Server::start().await;
    let layer = RedisSessionLayer::new(server.client()).with_deadline(visits::PATIENT);
    let app = serve(routes().layer(layer)).await;
    for (index, (marks, renews)) in marks().into_iter().enumerate() {
        let cookie = begin_long_ago(&server, &app).await;
        let reply = ask(&app, &format!("/look/{index}"), &[&cookie]).await;
        assert_eq!(reply.body, "1", "{marks:?}");
        assert_eq!(
            reply.cookie().as_ref(),
            renews.then_some(&cookie),
            "{marks:?}"
        );
        if renews {
            let stated = reply.values("cache-control");
            assert!(stated[..] == ["no-store"], "{marks:?}: {stated:?}");
            for name in CDN_HEADERS {
                assert!(reply.values(name).is_empty(), "{marks:?}: {name}");
            }
        } else {
            for (name, _) in marks {
                let expected = marks.iter().filter(|(other, _)| other == name);
                let expected: Vec<_> = expected.map(|(_, value)| *value).collect();
                assert_eq!(reply.values(name), expected, "{marks:?}");
            }
            // The next response has it.
            let next = ask(&app, "/look", &[&cookie]).await;
            assert_eq!(next.cookie(), Some(cookie.clone()), "{marks:?}");
            assert!(
                next.values("set-cookie")[0].contains("Max-Age=2678400"),
                "{marks:?}"
            );
        }
        let after = ask(&app, "/look", &[&cookie]).await;
        assert_eq!(after.cookie(), None, "{marks:?}: once");
    }
}

#[tokio::test]
async fn a_login_makes_its_response_no_store_whatever_the_handler_said() {
    let app = serve(routes().layer(RedisSessionLayer::in_memory())).await;
    for (index, (marks, _)) in marks().into_iter().enumerate() {
        let reply = ask(&app, &format!("/log-in/{index}"), &[]).await;
        assert!(reply.cookie().is_some(), "{marks:?}");
        let stated = reply.values("cache-control");
        assert!(stated[..] == ["no-store"], "{marks:?}: {stated:?}");
        for name in CDN_HEADERS {
            assert!(reply.values(name).is_empty(), "{marks:?}: {name}");
        }
    }
}

#[tokio::test]
async fn a_cookie_of_a_former_key_is_signed_again_on_a_private_response() {
    let server = Server::start().await;
    let layer = |keys: &[&str]| {
        let keys: Vec<_> = keys.iter().map(|key| key.repeat(32)).collect();
        RedisSessionLayer::new(server.client()).with_signing_keys(keys)
    };
    let former = serve(routes().layer(layer(&["a"]))).await;
    let app = serve(routes().layer(layer(&["b", "a"]))).await;
    for (index, (marks, renews)) in marks().into_iter().enumerate() {
        let cookie = begin_at(&former, "/").await;
        let reply = ask(&app, &format!("/look/{index}"), &[&cookie]).await;
        assert_eq!(reply.body, "1", "{marks:?}");
        assert_eq!(reply.cookie().is_some(), renews, "{marks:?}");
        if !renews {
            let next = ask(&app, "/look", &[&cookie]).await;
            assert!(next.cookie().is_some_and(|new| new != cookie), "{marks:?}");
        }
    }
}
