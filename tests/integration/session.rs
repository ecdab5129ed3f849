//! The map API of `Session`.

use axum::{Router, http::StatusCode, routing::get};
use axum_redis_sessions::{ErrorKind, Session, SessionError};
use serde::{Deserialize, Serialize};

use crate::client::{on_each_store, send, set_cookie};

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Cart {
    items: Vec<u32>,
}

#[tokio::test]
async fn a_session_is_a_map_with_typed_values() {
    async fn all(session: Session) -> Result<(), SessionError> {
        assert!(session.is_empty());
        assert_eq!(session.id(), None);
        session.insert("name", "Zoë")?;
        session.insert("big", u64::MAX)?;
        session.insert("nothing", None::<u8>)?;
        assert_eq!(
            (
                session.len(),
                session.contains_key("name"),
                session.contains_key("other")
            ),
            (3, true, false)
        );
        assert_eq!(session.get::<String>("name")?.as_deref(), Some("Zoë"));
        assert_eq!(session.get::<u64>("big")?, Some(u64::MAX));
        assert_eq!(session.get::<Option<u8>>("nothing")?, Some(None));
        assert_eq!(session.get::<u8>("other")?, None);
        assert_eq!(
            session.take::<u8>("name").expect_err("text").kind(),
            ErrorKind::Decode
        );
        assert_eq!(session.take::<String>("name")?.as_deref(), Some("Zoë"));
        assert_eq!(session.take::<String>("name")?, None);
        assert!(session.remove("nothing") && !session.remove("nothing"));
        assert_eq!(session.keys(), ["big"]);

        assert_eq!(session.get::<Cart>("cart")?, None);
        session.insert("cart", Cart { items: vec![1] })?;
        let cart = session.modify("cart", |cart: &mut Cart| cart.items.push(2))?;
        assert_eq!(cart.items, [1, 2]);
        assert_eq!(session.get::<Cart>("cart")?, Some(cart));
        assert!(session.remove("cart"));

        for key in ["_rev", "_created", "_permanent", "_user", "_"] {
            assert_eq!(
                session.insert(key, 1).expect_err("reserved").kind(),
                ErrorKind::ReservedKey
            );
            assert_eq!(
                session
                    .update(key, |n: Option<u8>| n.unwrap_or(0))
                    .expect_err("reserved")
                    .kind(),
                ErrorKind::ReservedKey
            );
            assert_eq!(
                (
                    session.get::<u8>(key)?,
                    session.remove(key),
                    session.contains_key(key)
                ),
                (None, false, false)
            );
        }

        session.save().await?;
        let id = session.id().expect("saved");
        assert!(!format!("{session:?} {id:?}").contains(&id.expose_secret()));
        session.clear();
        assert!(session.is_empty());
        session.insert("after", 1)?;
        session.save().await?;
        assert_eq!(
            (session.keys(), session.id()),
            (vec!["after".to_owned()], Some(id))
        );
        Ok(())
    }
    on_each_store(|layer| async {
        let app = Router::new().route("/", get(all)).layer(layer);
        let response = send(&app, "/", None).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(
            set_cookie(&response).is_some(),
            "saved early, and the cookie sent at the end"
        );
    })
    .await;
}
