//! `with_migration_from`: users of the framework's app go on in ours.

use axum_redis_sessions::{
    RedisSessionLayer,
    format::{ActixSession, AxumSession, Django, Express, Flask, Migration, TowerSessions},
};
use futures_util::future::join_all;
use serde_json::json;

use crate::{
    model::{Model, Step, Steps},
    process::Framework,
    site::{Side, Site, Visitor},
};

/// Of our sessions, so that every `session:` key is of the framework.
const PREFIX: &str = "ours:";
const OUR_COOKIE: &str = "__Host-session";

fn migration(framework: Framework) -> Migration {
    match framework {
        Framework::FlaskJson | Framework::FlaskMsgpack | Framework::FlaskSnippet => {
            Migration::from(Flask::new()).with_user_at("/_user_id")
        }
        Framework::FlaskSigner => {
            let flask = Flask::new().with_signer(["newer", Framework::FLASK_SECRET]);
            Migration::from(flask).with_user_at("/_user_id")
        }
        Framework::DjangoPickle | Framework::DjangoJson => {
            Migration::from(Django::new()).with_user_at("/_auth_user_id")
        }
        Framework::Express | Framework::ExpressRotated => {
            let express = Express::new(Framework::EXPRESS_SECRETS);
            Migration::from(express).with_user_at("/passport/user")
        }
        Framework::TowerPlain => Migration::from(TowerSessions::plain()).with_user_at("/user_id"),
        Framework::TowerSigned => {
            let tower = TowerSessions::signed(&Framework::COOKIE_KEY);
            Migration::from(tower).with_user_at("/user_id")
        }
        Framework::TowerPrivate => {
            let tower = TowerSessions::private(&Framework::COOKIE_KEY);
            Migration::from(tower).with_user_at("/user_id")
        }
        Framework::ActixSigned => {
            let actix = ActixSession::signed(&Framework::COOKIE_KEY);
            Migration::from(actix).with_user_at("/user_id")
        }
        Framework::ActixPrivate => {
            let actix = ActixSession::private(&Framework::COOKIE_KEY);
            Migration::from(actix).with_user_at("/user_id")
        }
        Framework::AxumSession => Migration::from(AxumSession::new()).with_user_at("/user_id"),
    }
}

async fn site(framework: Framework) -> Site {
    let layer = |layer: RedisSessionLayer| {
        layer
            .with_prefix(PREFIX)
            .with_migration_from(migration(framework))
    };
    Site::start(framework, layer).await
}

/// Somebody who is logged in to the framework's app.
async fn logged_in(site: &Site) -> (Visitor<'_>, Model) {
    let visitor = site.visitor();
    let mut model = Model::default();
    for step in [
        Step::Set("cart", json!(["apple", {"ß": 1.5}])),
        Step::LogIn("7"),
    ] {
        let there = (Side::Theirs, &visitor, site.framework);
        model.take(step, there.0, there.1, there.2).await;
    }
    (visitor, model)
}

async fn our_sessions(site: &Site) -> usize {
    let keys = format!("{PREFIX}????????-????-????-????-????????????");
    let keys: Vec<String> = site.redis.command(&["KEYS", &keys]).await;
    keys.len()
}

async fn assert_nobody(visitor: &Visitor<'_>, side: Side, why: &str) {
    Model::default().compare(side, visitor, &why).await;
}

/// 200 random steps there, then 200 here.
async fn a_user_goes_on(site: &Site) {
    let visitor = site.visitor();
    let mut model = Model::default();
    let framework = site.framework;
    let mut steps = Steps::new(framework);
    for _ in 0..framework.steps() {
        let step = steps.step();
        model.take(step, Side::Theirs, &visitor, framework).await;
    }
    for step in [
        Step::Set("cart", steps.value(2)),
        Step::LogIn("7"),
        Step::SetPermanent(steps.random(2) == 0),
    ] {
        model.take(step, Side::Theirs, &visitor, framework).await;
    }

    let old = visitor.fork();
    model.compare(Side::Ours, &visitor, &"the move").await;
    assert!(visitor.cookie(OUR_COOKIE).is_some());
    assert_eq!(visitor.their_cookie(), None, "removed");
    assert_eq!(site.their_keys().await, [""; 0], "retired");
    assert_nobody(&old, Side::Ours, "the old cookie, in our app").await;
    assert_nobody(&old, Side::Theirs, "the old cookie, in theirs").await;
    assert_nobody(&visitor, Side::Theirs, "without a cookie").await;

    for _ in 0..framework.steps() {
        let step = steps.step();
        model.take(step, Side::Ours, &visitor, framework).await;
    }
    assert!(our_sessions(site).await >= 1);
}

async fn parallel_first_requests_make_one_session(site: &Site) {
    let (visitor, mut model) = logged_in(site).await;
    visitor.set(Side::Theirs, "n", &json!(5)).await;
    let tabs: Vec<_> = (0..10).map(|_| visitor.fork()).collect();
    join_all(tabs.iter().map(|tab| tab.post(Side::Ours, "/count/n"))).await;
    let mut cookies: Vec<_> = tabs.iter().map(|tab| tab.cookie(OUR_COOKIE)).collect();
    cookies.dedup();
    assert!(matches!(cookies[..], [Some(_)]), "{cookies:?}");
    model.keys.insert("n".to_owned(), json!(15));
    model.compare(Side::Ours, &tabs[3], &"all").await;
    assert_eq!(our_sessions(site).await, 1);
}

async fn a_logout_there_ends_what_is_not_moved(site: &Site) {
    let (visitor, _) = logged_in(site).await;
    let old = visitor.fork();
    visitor.log_out(Side::Theirs).await;
    assert_nobody(&visitor, Side::Ours, "the logout").await;
    assert_nobody(&old, Side::Ours, "the logout, with its cookie").await;
    assert_eq!(our_sessions(site).await, 0);
}

async fn a_logout_here_ends_both(site: &Site) {
    for is_first_request in [true, false] {
        site.clear().await;
        let (visitor, model) = logged_in(site).await;
        let old = visitor.fork();
        if !is_first_request {
            model.compare(Side::Ours, &visitor, &"the move").await;
        }
        visitor.log_out(Side::Ours).await;
        assert_eq!(visitor.cookie(OUR_COOKIE), None);
        assert_eq!(visitor.their_cookie(), None);
        // Before axum_session begins sessions of its own for visitors.
        assert_eq!(site.their_keys().await, [""; 0]);
        for visitor in [&visitor, &old] {
            assert_nobody(visitor, Side::Ours, "the logout").await;
            assert_nobody(visitor, Side::Theirs, "the logout").await;
        }
        assert_eq!(our_sessions(site).await, 0);
    }
}

/// The first response never reached the browser, which goes on in the framework's app.
async fn a_moved_session_is_no_session_there(site: &Site) {
    let (visitor, _) = logged_in(site).await;
    visitor.fork().user(Side::Ours).await;
    assert_eq!(site.their_keys().await.len(), 1, "the pointer");
    if site.framework.reads_a_pointer() {
        assert_eq!(visitor.user(Side::Theirs).await, None);
        let mut keys = visitor.keys(Side::Theirs).await;
        // The pointer has it for Express.
        keys.remove("cookie");
        assert!(keys.is_empty(), "{keys:?}");
    }
}

/// A user who is logged in to both and logs out here is not logged in again by the cookie of the other app.
async fn a_session_begun_there_later_ends_with_ours(site: &Site) {
    let (visitor, model) = logged_in(site).await;
    model.compare(Side::Ours, &visitor, &"the move").await;
    visitor.log_in(Side::Theirs, "42").await;
    model.compare(Side::Ours, &visitor, &"a login there").await;
    assert_eq!(visitor.user(Side::Theirs).await.as_deref(), Some("42"));
    visitor.log_out(Side::Ours).await;
    assert_eq!(visitor.their_cookie(), None);
    assert_eq!(site.their_keys().await, [""; 0]);
    for side in [Side::Ours, Side::Theirs] {
        assert_nobody(&visitor, side, "the logout").await;
    }
}

/// On one running app, since starting it takes longer than most of them.
async fn users_go_on(framework: Framework) {
    let site = site(framework).await;
    a_user_goes_on(&site).await;
    site.clear().await;
    parallel_first_requests_make_one_session(&site).await;
    site.clear().await;
    a_logout_there_ends_what_is_not_moved(&site).await;
    site.clear().await;
    a_logout_here_ends_both(&site).await;
    site.clear().await;
    a_moved_session_is_no_session_there(&site).await;
    site.clear().await;
    a_session_begun_there_later_ends_with_ours(&site).await;
}

#[tokio::test]
async fn users_of_flask_session_with_json_go_on() {
    users_go_on(Framework::FlaskJson).await;
}

#[tokio::test]
async fn users_of_flask_session_with_messagepack_go_on() {
    users_go_on(Framework::FlaskMsgpack).await;
}

#[tokio::test]
async fn users_of_flask_session_with_a_signer_go_on() {
    users_go_on(Framework::FlaskSigner).await;
}

#[tokio::test]
async fn users_of_the_flask_snippet_go_on() {
    users_go_on(Framework::FlaskSnippet).await;
}

#[tokio::test]
async fn users_of_django_with_pickle_go_on() {
    users_go_on(Framework::DjangoPickle).await;
}

#[tokio::test]
async fn users_of_django_with_json_go_on() {
    users_go_on(Framework::DjangoJson).await;
}

#[tokio::test]
async fn users_of_express_go_on() {
    users_go_on(Framework::Express).await;
}

#[tokio::test]
async fn users_of_express_with_two_secrets_go_on() {
    users_go_on(Framework::ExpressRotated).await;
}

#[tokio::test]
#[ignore = "its app takes minutes to build: tests/run.sh peers"]
async fn users_of_tower_sessions_go_on() {
    users_go_on(Framework::TowerPlain).await;
}

#[tokio::test]
#[ignore = "its app takes minutes to build: tests/run.sh peers"]
async fn users_of_tower_sessions_signed_go_on() {
    users_go_on(Framework::TowerSigned).await;
}

#[tokio::test]
#[ignore = "its app takes minutes to build: tests/run.sh peers"]
async fn users_of_tower_sessions_private_go_on() {
    users_go_on(Framework::TowerPrivate).await;
}

#[tokio::test]
#[ignore = "its app takes minutes to build: tests/run.sh peers"]
async fn users_of_actix_session_private_go_on() {
    users_go_on(Framework::ActixPrivate).await;
}

#[tokio::test]
#[ignore = "its app takes minutes to build: tests/run.sh peers"]
async fn users_of_actix_session_signed_go_on() {
    users_go_on(Framework::ActixSigned).await;
}

#[tokio::test]
#[ignore = "its app takes minutes to build: tests/run.sh peers"]
async fn users_of_axum_session_go_on() {
    users_go_on(Framework::AxumSession).await;
}
