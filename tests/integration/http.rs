//! What a browser sees of a session, on each store.

use std::time::Duration;

use axum::{Extension, Router, http::StatusCode, response::IntoResponse, routing::get};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionId};

use crate::{
    client::{begin, on_each_store, pair, send, set_cookie, text},
    visits::{app, look, visits},
};

#[tokio::test]
async fn the_first_insert_creates_the_session_and_its_cookie() {
    on_each_store(|layer| async {
        let app = app(layer);
        let first = send(&app, "/", None).await;
        let line = set_cookie(&first).expect("a cookie");
        let (name, id) = pair(&line).split_once('=').expect("a pair");
        assert_eq!(name, "__Host-session");
        assert_eq!(id.len(), 36);
        assert_eq!(
            line,
            format!("__Host-session={id}; HttpOnly; SameSite=Lax; Secure; Path=/")
        );
        assert_eq!(text(first).await, "1");
        let second = send(&app, "/", Some(pair(&line))).await;
        assert_eq!(set_cookie(&second), None, "a cookie is sent once");
        assert_eq!(text(second).await, "2");
        assert_eq!(
            text(send(&app, "/look", Some(pair(&line))).await).await,
            r#"["visits"] Some(2)"#
        );
    })
    .await;
}

#[tokio::test]
async fn without_data_there_is_no_cookie() {
    on_each_store(|layer| async {
        let app = app(layer);
        for path in [
            "/look",
            "/clear",
            "/remove",
            "/destroy",
            "/cycle",
            "/only-if",
            "/untouched",
            "/lazy",
        ] {
            assert_eq!(set_cookie(&send(&app, path, None).await), None, "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_emptied_session_is_deleted_with_its_cookie() {
    on_each_store(|layer| async {
        let app = app(layer);
        for path in ["/clear", "/remove", "/destroy"] {
            let cookie = begin(&app, "/").await;
            let line = set_cookie(&send(&app, path, Some(&cookie)).await).expect("a removal");
            assert_eq!(
                line,
                "__Host-session=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
                "{path}"
            );
            assert_eq!(text(send(&app, "/only-if", Some(&cookie)).await).await, "false", "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_insert_after_destroy_begins_a_new_session() {
    on_each_store(|layer| async {
        let app = app(layer);
        let cookie = begin(&app, "/").await;
        let line = set_cookie(&send(&app, "/farewell", Some(&cookie)).await).expect("a new cookie");
        assert_ne!(pair(&line), cookie);
        assert_eq!(
            text(send(&app, "/look", Some(pair(&line))).await).await,
            r#"["flash"] None"#
        );
        assert_eq!(
            text(send(&app, "/only-if", Some(&cookie)).await).await,
            "false"
        );
    })
    .await;
}

#[tokio::test]
async fn cycle_id_keeps_the_data_and_invalidates_the_old_id() {
    on_each_store(|layer| async {
        let app = app(layer.with_rotation_grace(Duration::ZERO));
        let old = begin(&app, "/").await;
        let line = set_cookie(&send(&app, "/cycle", Some(&old)).await).expect("a new id");
        let new = pair(&line);
        assert_ne!(new, old);
        assert_eq!(
            text(send(&app, "/look", Some(new)).await).await,
            r#"["visits"] Some(1)"#
        );
        // A late request with the old cookie.
        for path in ["/look", "/", "/clear", "/destroy"] {
            let straggler = send(&app, path, Some(&old)).await;
            assert_eq!(
                (straggler.status(), set_cookie(&straggler)),
                (StatusCode::OK, None),
                "{path}"
            );
        }
        assert_eq!(text(send(&app, "/look", Some(&old)).await).await, "[] None");
        assert_eq!(
            text(send(&app, "/look", Some(new)).await).await,
            r#"["visits"] Some(1)"#
        );
    })
    .await;
}

#[tokio::test]
async fn a_rotated_id_can_read_anonymous_data_during_the_grace() {
    on_each_store(|layer| async {
        let app = app(layer);
        let old = begin(&app, "/").await;
        let line = set_cookie(&send(&app, "/cycle", Some(&old)).await).expect("a new id");
        for path in ["/look", "/", "/clear", "/destroy", "/look"] {
            let late = send(&app, path, Some(&old)).await;
            assert_eq!((late.status(), set_cookie(&late)), (StatusCode::OK, None));
            if path == "/look" {
                assert_eq!(text(late).await, r#"["visits"] Some(1)"#);
            }
        }
        let new = send(&app, "/look", Some(pair(&line))).await;
        assert_eq!(text(new).await, r#"["visits"] Some(1)"#);
    })
    .await;
}

#[tokio::test]
async fn permanence_sets_and_removes_max_age() {
    on_each_store(|layer| async {
        let app = app(layer.with_permanent_lifetime(Duration::from_secs(1000)));
        let line = set_cookie(&send(&app, "/permanent?is=true", None).await).expect("a cookie");
        let cookie = pair(&line);
        assert!(line.ends_with("; Path=/; Max-Age=1000"), "{line}");
        assert_eq!(
            set_cookie(&send(&app, "/permanent?is=true", Some(cookie)).await),
            None,
            "the cookie is not sent again"
        );
        let line = set_cookie(&send(&app, "/permanent?is=false", Some(cookie)).await)
            .expect("the same id without Max-Age");
        assert_eq!((pair(&line), line.contains("Max-Age")), (cookie, false));
        assert_eq!(
            set_cookie(&send(&app, "/permanent?is=false", Some(cookie)).await),
            None
        );
    })
    .await;
}

#[tokio::test]
async fn the_idle_timeout_slides_with_use() {
    // Longer than a busy machine takes between two requests.
    const IDLE: Duration = Duration::from_millis(1500);
    on_each_store(|layer| async {
        let app = app(layer.with_idle_timeout(IDLE));
        let cookie = begin(&app, "/").await;
        let begun = std::time::Instant::now();
        while begun.elapsed() < IDLE + IDLE / 2 {
            let seen = text(send(&app, "/look", Some(&cookie)).await).await;
            assert_eq!(seen, r#"["visits"] Some(1)"#, "after {:?}", begun.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // A read would extend it, so there is none for longer than the timeout.
        tokio::time::sleep(IDLE + Duration::from_millis(200)).await;
        let seen = send(&app, "/only-if", Some(&cookie)).await;
        assert_eq!(text(seen).await, "false");
    })
    .await;
}

#[tokio::test]
async fn an_id_chosen_by_the_client_is_never_adopted() {
    on_each_store(|layer| async {
        let app = app(layer);
        let unknown = "__Host-session=5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e";
        let looked = send(&app, "/look", Some(unknown)).await;
        assert_eq!(
            (set_cookie(&looked), text(looked).await),
            (None, "[] None".to_owned())
        );
        let line = set_cookie(&send(&app, "/", Some(unknown)).await).expect("an id of our own");
        assert_ne!(pair(&line), unknown);
        assert_eq!(
            text(send(&app, "/only-if", Some(unknown)).await).await,
            "false"
        );
        let in_the_query = format!("/only-if?{}", pair(&line));
        assert_eq!(text(send(&app, &in_the_query, None).await).await, "false");
    })
    .await;
}

#[tokio::test]
async fn nested_routers_share_the_outer_session() {
    let nested = Router::new()
        .route("/visits", get(visits))
        .layer(RedisSessionLayer::in_memory());
    let app = Router::new()
        .route("/", get(visits))
        .nest("/nested", nested)
        .layer(RedisSessionLayer::in_memory());
    let cookie = begin(&app, "/nested/visits").await;
    assert_eq!(text(send(&app, "/", Some(&cookie)).await).await, "2");
    assert_eq!(
        text(send(&app, "/nested/visits", Some(&cookie)).await).await,
        "3"
    );
}

#[tokio::test]
async fn middleware_and_handler_share_one_session() {
    async fn middleware(
        session: Session,
        request: axum::extract::Request,
        next: axum::middleware::Next,
    ) -> impl IntoResponse {
        session.insert("from", "middleware").expect("text");
        let response = next.run(request).await;
        assert_eq!(session.get::<u64>("visits").expect("a number"), Some(1));
        response
    }
    let app = Router::new()
        .route("/", get(visits))
        .route("/look", get(look))
        .layer(axum::middleware::from_fn(middleware))
        .layer(RedisSessionLayer::in_memory());
    let cookie = begin(&app, "/").await;
    assert_eq!(
        text(send(&app, "/look", Some(&cookie)).await).await,
        r#"["from", "visits"] Some(1)"#
    );
}

#[tokio::test]
async fn eager_load_provides_the_session_extension() {
    on_each_store(|layer| async {
        let app = Router::new()
            .route(
                "/",
                get(|Extension(session): Extension<Session>| visits(session)),
            )
            .layer(layer.with_eager_load());
        let cookie = begin(&app, "/").await;
        assert_eq!(text(send(&app, "/", Some(&cookie)).await).await, "2");
    })
    .await;
}

#[tokio::test]
async fn a_custom_id_generator_is_used_and_a_broken_one_fails() {
    on_each_store(|layer| async {
        let app = app(layer
            .clone()
            .with_id_generator(|| SessionId::from_bytes([0xab; 16])));
        assert_eq!(
            begin(&app, "/").await,
            "__Host-session=abababab-abab-abab-abab-abababababab"
        );
        let again = send(&app, "/", None).await;
        assert_eq!(
            (again.status(), set_cookie(&again)),
            (StatusCode::INTERNAL_SERVER_ERROR, None),
            "the same id again"
        );
        let zeros = crate::visits::app(layer.with_id_generator(|| SessionId::from_bytes([0; 16])));
        assert_eq!(
            send(&zeros, "/", None).await.status(),
            StatusCode::INTERNAL_SERVER_ERROR
        );
    })
    .await;
}
