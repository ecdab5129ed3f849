//! A request with a rotated id: what it may read for a while, and that it has no effect.

use std::time::{Duration, Instant};

use axum::{Router, extract::Path, routing::get};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionError};
use tokio::join;

use crate::{
    client::{ask, begin_at},
    support::{
        app::{Address, serve},
        eventually,
        server::Server,
    },
    visits,
};

const TOKEN: &str = "form-token";

async fn form(session: Session) -> Result<(), SessionError> {
    session.insert("csrf", TOKEN)?;
    session.insert("cart", 3)
}

async fn sign_in(session: Session, Path(token): Path<String>) -> Result<String, SessionError> {
    if session.get::<String>("csrf")?.as_deref() != Some(&*token) {
        return Ok("403".to_owned());
    }
    session.remove("csrf");
    session.log_in("zoe")?;
    Ok("signed in".to_owned())
}

async fn state(session: Session) -> Result<String, SessionError> {
    let cart = session.get::<u64>("cart")?;
    Ok(format!("{:?} {cart:?}", session.user()))
}

async fn try_to_save(session: Session) -> Result<String, SessionError> {
    session.insert("cart", 4)?;
    let saved = session.save().await;
    Ok(saved.map_or_else(
        |error| format!("{:?}", error.kind()),
        |()| "saved".to_owned(),
    ))
}

/// What a straggler may try, and with what it may try to keep it.
async fn change(session: Session, Path(how): Path<String>) -> Result<(), SessionError> {
    match &*how {
        "insert" => session.insert("cart", 99)?,
        "update" => drop(session.update("cart", |n: Option<u64>| n.unwrap_or(0) + 1)?),
        "remove" => drop(session.remove("cart")),
        "take" => drop(session.take::<u64>("cart")?),
        "clear" => session.clear(),
        "permanent" => session.set_permanent(true),
        "set-idle" => session.set_idle_timeout(Duration::from_secs(5)),
        "remove-user" => session.remove_user(),
        "cycle" => session.cycle_id(),
        "cycle-with-grace" => session.cycle_id_with_grace(),
        "destroy" => session.destroy(),
        "destroy-and-insert" => {
            session.destroy();
            session.insert("cart", 99)?;
        }
        _ => unreachable!("{how}"),
    }
    Ok(())
}

const CHANGES: [&str; 12] = [
    "insert",
    "update",
    "remove",
    "take",
    "clear",
    "permanent",
    "set-idle",
    "remove-user",
    "cycle",
    "cycle-with-grace",
    "destroy",
    "destroy-and-insert",
];

/// A grace beside another reason for a new id, in either order.
async fn grace_beside(
    session: Session,
    Path((order, reason)): Path<(String, String)>,
) -> Result<(), SessionError> {
    if order == "first" {
        session.cycle_id_with_grace();
    }
    match &*reason {
        "nothing" => {}
        "grace" => session.cycle_id_with_grace(),
        "same-user" => session.set_user("zoe")?,
        "cycle" => session.cycle_id(),
        "log-in" => session.log_in("zoe")?,
        "other-user" => session.set_user("bob")?,
        "log-in-other" => session.log_in("bob")?,
        "remove-user" => session.remove_user(),
        "there-and-back" => {
            session.set_user("bob")?;
            session.set_user("zoe")?;
        }
        _ => unreachable!("{reason}"),
    }
    if order == "last" {
        session.cycle_id_with_grace();
    }
    Ok(())
}

async fn app(layer: RedisSessionLayer) -> Address {
    let log_in = async |session: Session| {
        session.insert("cart", 3)?;
        session.log_in("zoe")
    };
    let with_grace = async |session: Session| session.cycle_id_with_grace();
    // A rise of rights without a login.
    let become_admin = async |session: Session| {
        session.cycle_id();
        session.insert("admin", true)
    };
    let routes = visits::routes()
        .route("/form", get(form))
        .route("/sign-in/{token}", get(sign_in))
        .route("/state", get(state))
        .route("/log-in", get(log_in))
        .route("/cycle-with-grace", get(with_grace))
        .route("/grace/{order}/{reason}", get(grace_beside))
        .route("/become-admin", get(become_admin))
        .route("/try-to-save", get(try_to_save))
        .route("/change/{how}", get(change));
    serve(
        Router::new()
            .merge(routes)
            .layer(layer.with_deadline(visits::PATIENT)),
    )
    .await
}

/// The default grace, in which a busy machine has the time for a few requests.
fn layer(server: &Server) -> RedisSessionLayer {
    RedisSessionLayer::new(server.client()).with_rotation_grace(Duration::from_secs(50))
}

async fn rotated(app: &Address, begin: &str, rotate: &str) -> (String, String) {
    let old = begin_at(app, begin).await;
    let new = ask(app, rotate, &[&old]).await.cookie();
    (old, new.expect("a new id"))
}

#[tokio::test]
async fn a_double_clicked_sign_in_succeeds_twice() {
    let server = Server::start().await;
    for layer in [
        layer(&server),
        RedisSessionLayer::in_memory(),
        layer(&server).with_last_write_wins(),
    ] {
        let app = app(layer).await;
        let old = begin_at(&app, "/form").await;
        let path = format!("/sign-in/{TOKEN}");
        let first = ask(&app, &path, &[&old]).await;
        let second = ask(&app, &path, &[&old]).await;
        let old = begin_at(&app, "/form").await;
        let cookies = [&*old];
        let (third, fourth) = join!(ask(&app, &path, &cookies), ask(&app, &path, &cookies));
        for reply in [first, second, third, fourth] {
            assert_eq!(reply.body, "signed in");
            // The browser keeps the cookie of either.
            let cookie = reply.cookie().expect("a session");
            assert_eq!(
                ask(&app, "/state", &[&cookie]).await.body,
                "Some(\"zoe\") Some(3)"
            );
        }
        let guessed = ask(&app, "/sign-in/guess", &[&old]).await;
        assert_eq!((&*guessed.body, guessed.cookie()), ("403", None));
    }
}

#[tokio::test]
async fn a_rotated_id_reads_what_an_anonymous_session_held_and_changes_nothing() {
    let server = Server::start().await;
    let app = app(layer(&server)).await;
    for rotate in ["/cycle", "/log-in", "/become-admin", "/cycle-with-grace"] {
        let (old, new) = rotated(&app, "/form", rotate).await;
        let id = new.split_once('=').expect("a pair").1.to_owned();
        let before = ask(&app, "/look", &[&new]).await.body;
        let keys = server.session_keys().await.len();
        for how in CHANGES {
            let reply = ask(&app, &format!("/change/{how}"), &[&old]).await;
            assert_eq!(reply.status, 200, "{rotate}, {how}: {}", reply.body);
            assert!(reply.values("set-cookie").is_empty(), "{rotate}, {how}");
        }
        assert_eq!(
            ask(&app, "/try-to-save", &[&old]).await.body,
            "Ended",
            "{rotate}"
        );
        // The user and the rights came with the rotation, and so are not shown.
        let straggler = ask(&app, "/state", &[&old]).await;
        assert_eq!(straggler.body, "None Some(3)", "{rotate}");
        assert_eq!(
            ask(&app, "/kept/csrf", &[&old]).await.body,
            TOKEN,
            "{rotate}"
        );
        assert_eq!(ask(&app, "/kept/admin", &[&old]).await.body, "", "{rotate}");
        assert_eq!(
            ask(&app, "/only-if", &[&old]).await.body,
            "true",
            "{rotate}"
        );
        assert_eq!(ask(&app, "/look", &[&new]).await.body, before, "{rotate}");
        assert_eq!(server.session_keys().await.len(), keys, "{rotate}");
        // What is stored under the old id leads to nobody.
        let key = old.replace("__Host-session=", "session:");
        let stored = server.command::<String>(&["GET", &key]).await;
        assert!(!stored.contains(&id) && !stored.contains("zoe"), "{stored}");
        let ttl: i64 = server.command(&["TTL", &key]).await;
        assert!(ttl <= 60, "{ttl}");
    }
}

#[tokio::test]
async fn a_session_that_had_a_user_is_dead_at_once_under_its_former_id() {
    let server = Server::start().await;
    let app = app(layer(&server)).await;
    for rotate in ["/cycle", "/log-in", "/become-admin", "/change/remove-user"] {
        let (old, _) = rotated(&app, "/log-in", rotate).await;
        let straggler = ask(&app, "/state", &[&old]).await;
        assert_eq!(
            (&*straggler.body, straggler.cookie()),
            ("None None", None),
            "{rotate}"
        );
        assert_eq!(
            ask(&app, "/only-if", &[&old]).await.body,
            "false",
            "{rotate}"
        );
        let key = old.replace("__Host-session=", "session:");
        let stored = server.command::<String>(&["GET", &key]).await;
        assert!(
            !stored.contains("cart") && !stored.contains("zoe"),
            "{stored}"
        );
    }
}

#[tokio::test]
async fn cycle_id_with_grace_lets_the_former_id_read_a_users_session_and_no_more() {
    let server = Server::start().await;
    let app = app(layer(&server)).await;
    let (old, new) = rotated(&app, "/log-in", "/cycle-with-grace").await;
    for how in CHANGES {
        let reply = ask(&app, &format!("/change/{how}"), &[&old]).await;
        assert!(reply.values("set-cookie").is_empty(), "{how}");
    }
    for cookie in [&old, &new] {
        assert_eq!(
            ask(&app, "/state", &[cookie]).await.body,
            "Some(\"zoe\") Some(3)"
        );
    }
    // A new id and a change begin a session, but not as this user.
    let begun = ask(&app, "/become-admin", &[&old]).await.cookie();
    let begun = begun.expect("a session");
    assert_eq!(ask(&app, "/state", &[&begun]).await.body, "None None");
    // The next rotation is without grace again.
    let newest = ask(&app, "/cycle", &[&new]).await.cookie().expect("an id");
    assert_eq!(ask(&app, "/state", &[&new]).await.body, "None None");
    assert_eq!(
        ask(&app, "/state", &[&newest]).await.body,
        "Some(\"zoe\") Some(3)"
    );
}

#[tokio::test]
async fn a_login_in_the_same_request_ends_the_grace_of_cycle_id_with_grace() {
    let server = Server::start().await;
    let app = app(layer(&server)).await;
    for (reason, is_readable) in [
        ("nothing", true),
        ("grace", true),
        ("same-user", true),
        ("cycle", false),
        ("log-in", false),
        ("other-user", false),
        ("log-in-other", false),
        ("remove-user", false),
        ("there-and-back", false),
    ] {
        for order in ["first", "last"] {
            let path = format!("/grace/{order}/{reason}");
            let (old, new) = rotated(&app, "/log-in", &path).await;
            let expected = if is_readable {
                "Some(\"zoe\") Some(3)"
            } else {
                "None None"
            };
            let straggler = ask(&app, "/state", &[&old]).await;
            assert_eq!(straggler.body, expected, "{path}");
            assert!(
                ask(&app, "/state", &[&new]).await.body.ends_with("Some(3)"),
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn after_the_grace_the_former_id_reads_nothing_and_a_new_session_can_begin() {
    let server = Server::start().await;
    let app = app(layer(&server).with_rotation_grace(Duration::from_millis(400))).await;
    for (begin, rotate) in [("/form", "/log-in"), ("/log-in", "/cycle")] {
        let (old, new) = rotated(&app, begin, rotate).await;
        let mut begun = None;
        eventually(Duration::from_secs(20), async || {
            ask(&app, "/only-if", &[&old]).await.body == "false"
        })
        .await;
        // Where there was nothing to read, the former id blocks a new session until the grace is over, too.
        let end = Instant::now() + Duration::from_secs(20);
        while begun.is_none() {
            assert!(Instant::now() < end, "{begin}: no session could begin");
            begun = ask(&app, "/change/insert", &[&old]).await.cookie();
        }
        let begun = begun.expect("a session");
        assert_eq!(
            ask(&app, "/state", &[&begun]).await.body,
            "None Some(99)",
            "{begin}"
        );
        assert_eq!(
            ask(&app, "/state", &[&new]).await.body,
            "Some(\"zoe\") Some(3)",
            "{begin}"
        );
        assert_eq!(
            ask(&app, "/state", &[&old]).await.body,
            "None None",
            "{begin}"
        );
    }
}

#[tokio::test]
async fn without_grace_a_former_id_reads_nothing_and_begins_nothing() {
    let server = Server::start().await;
    let app = app(layer(&server).with_rotation_grace(Duration::ZERO)).await;
    for rotate in ["/log-in", "/cycle", "/cycle-with-grace"] {
        let (old, _) = rotated(&app, "/form", rotate).await;
        assert_eq!(
            ask(&app, "/state", &[&old]).await.body,
            "None None",
            "{rotate}"
        );
        assert_eq!(
            ask(&app, &format!("/sign-in/{TOKEN}"), &[&old]).await.body,
            "403",
            "{rotate}"
        );
        for how in CHANGES {
            let reply = ask(&app, &format!("/change/{how}"), &[&old]).await;
            assert!(reply.values("set-cookie").is_empty(), "{rotate}, {how}");
        }
        let key = old.replace("__Host-session=", "session:");
        let stored = server.command::<String>(&["GET", &key]).await;
        assert!(!stored.contains("cart"), "{stored}");
    }
}

#[tokio::test]
async fn a_logout_with_a_former_id_leaves_the_session_to_its_new_one() {
    let server = Server::start().await;
    let app = app(layer(&server)).await;
    let (old, new) = rotated(&app, "/form", "/log-in").await;
    let reply = ask(&app, "/destroy", &[&old]).await;
    assert!(reply.values("set-cookie").is_empty());
    assert_eq!(
        ask(&app, "/state", &[&new]).await.body,
        "Some(\"zoe\") Some(3)"
    );
    // And a logout of the session leaves nothing to read under an id from before the login.
    let second = ask(&app, "/cycle", &[&new]).await.cookie().expect("an id");
    assert!(ask(&app, "/destroy", &[&second]).await.removes_cookie());
    for dead in [&new, &second] {
        assert_eq!(ask(&app, "/state", &[dead]).await.body, "None None");
    }
}
