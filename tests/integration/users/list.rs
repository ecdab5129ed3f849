//! Listing and revoking a user's sessions, in a handler and outside of requests, on each store.

use std::time::{Duration, SystemTime};

use axum::{Router, extract::Path, http::StatusCode, routing::get};
use axum_redis_sessions::{ErrorKind, Session, SessionError, SessionHandle};

use super::{Device, app, devices, next_moment, of, sorted_devices};
use crate::client::on_each_store;

#[tokio::test]
async fn a_users_sessions_are_listed_newest_first() {
    on_each_store(async |layer| {
        let app = app(&layer);
        let sessions = layer.users();
        assert_eq!(devices(&sessions, "zoe").await, [""; 0]);
        for device in ["phone", "laptop", "tablet"] {
            next_moment().await;
            Device::of(&app, "zoe", device).await;
        }
        Device::of(&app, "max", "desktop").await;
        // An anonymous session.
        Device::new(&app).text("/visit").await;
        assert_eq!(
            devices(&sessions, "zoe").await,
            ["tablet", "laptop", "phone"]
        );
        assert_eq!(devices(&sessions, "max").await, ["desktop"]);
    })
    .await;
}

#[tokio::test]
async fn a_listed_session_has_its_times() {
    on_each_store(async |layer| {
        let layer = layer.with_idle_timeout(Duration::from_secs(3600));
        let app = app(&layer);
        let before = SystemTime::now();
        let phone = Device::of(&app, "zoe", "phone").await;
        let first = of(&layer.users(), "zoe").list().await.expect("listed");
        let second = Duration::from_secs(1);
        let now = SystemTime::now();
        for time in [first[0].created(), first[0].last_seen()] {
            // Times have whole seconds.
            assert!(before - second <= time && time <= now + second, "{time:?}");
        }
        let left = first[0]
            .expires_at()
            .duration_since(now)
            .expect("in future");
        assert!(left <= Duration::from_secs(3601), "{left:?}");
        assert!(left > Duration::from_secs(3500), "{left:?}");

        // Listing is not use of a session; a request is, even one that only reads.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let listed = of(&layer.users(), "zoe").list().await.expect("listed");
        let drift = listed[0]
            .last_seen()
            .duration_since(first[0].last_seen())
            .unwrap_or_default();
        assert!(drift < Duration::from_millis(250), "{drift:?}");
        phone.look().await;
        let used = of(&layer.users(), "zoe").list().await.expect("listed");
        assert!(used[0].last_seen() >= first[0].last_seen() + Duration::from_millis(300));
        assert_eq!(used[0].created(), first[0].created());
    })
    .await;
}

#[tokio::test]
async fn revoke_ends_the_session_of_the_handle_only() {
    on_each_store(async |layer| {
        let app = app(&layer);
        let sessions = layer.users();
        let phone = Device::of(&app, "zoe", "phone").await;
        let laptop = Device::of(&app, "zoe", "laptop").await;
        let handle: SessionHandle = laptop.text("/handle").await.parse().expect("a handle");
        let listed = of(&sessions, "zoe").list().await.expect("listed");
        let same = listed.iter().find(|other| other.handle() == handle);
        let device = same.expect("there").get::<String>("device").expect("text");
        assert_eq!(device.as_deref(), Some("laptop"));

        assert!(of(&sessions, "zoe").revoke(&handle).await.expect("ended"));
        assert_eq!(laptop.look().await, "nobody on nothing");
        assert_eq!(phone.look().await, "zoe on phone");
        assert_eq!(devices(&sessions, "zoe").await, ["phone"]);
        // A second time it is no error, and returns false.
        assert!(
            !of(&sessions, "zoe")
                .revoke(&handle)
                .await
                .expect("answered")
        );
    })
    .await;
}

#[tokio::test]
async fn a_session_of_another_user_cannot_be_revoked() {
    on_each_store(async |layer| {
        let app = app(&layer);
        let sessions = layer.users();
        let phone = Device::of(&app, "zoe", "phone").await;
        Device::of(&app, "max", "desktop").await;
        let handle: SessionHandle = phone.text("/handle").await.parse().expect("a handle");
        assert!(
            !of(&sessions, "max")
                .revoke(&handle)
                .await
                .expect("answered")
        );
        assert_eq!(phone.look().await, "zoe on phone");
    })
    .await;
}

#[tokio::test]
async fn a_handle_gives_no_access_and_does_not_reveal_the_id() {
    on_each_store(async |layer| {
        let app = app(&layer);
        let phone = Device::of(&app, "zoe", "phone").await;
        let handle = phone.text("/handle").await;
        let id = phone.id();
        for part in id.split('-') {
            assert!(!handle.contains(part), "{handle} has {part} of its id");
        }
        // The handle in place of the id.
        let (name, _) = phone
            .cookie()
            .expect("a session")
            .split_once('=')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .expect("a cookie");
        let thief = crate::client::send(&app, "/look", Some(&format!("{name}={handle}"))).await;
        assert_eq!(crate::client::text(thief).await, "nobody on nothing");
        // It round-trips through a form and through JSON.
        assert!(
            handle.len() <= 64
                && handle
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        );
        let parsed: SessionHandle = handle.parse().expect("a handle");
        assert_eq!(parsed.to_string(), handle);
        let json = serde_json::to_string(&parsed).expect("JSON");
        assert_eq!(json, format!("{handle:?}"));
        let back: SessionHandle = serde_json::from_str(&json).expect("a handle");
        assert_eq!(back, parsed);
        // Unknown handles cause no error.
        for text in [
            "",
            "x",
            "../../x",
            &format!("{handle}A"),
            "AAAAAAAAAAAAAAAAAAAAAA",
        ] {
            if let Ok(handle) = text.parse::<SessionHandle>() {
                assert!(
                    !of(&layer.users(), "zoe")
                        .revoke(&handle)
                        .await
                        .expect("answered")
                );
            }
        }
        // A session that is not stored has no handle.
        assert_eq!(Device::new(&app).text("/handle").await, "");
    })
    .await;
}

#[tokio::test]
async fn revoke_all_ends_the_sessions_of_one_user_only() {
    on_each_store(async |layer| {
        let app = app(&layer);
        let sessions = layer.users();
        let zoe = [
            Device::of(&app, "zoe", "phone").await,
            Device::of(&app, "zoe", "laptop").await,
        ];
        let max = Device::of(&app, "max", "desktop").await;
        assert_eq!(of(&sessions, "zoe").revoke_all().await.expect("ended"), 2);
        for device in &zoe {
            assert_eq!(device.look().await, "nobody on nothing");
        }
        assert_eq!(max.look().await, "max on desktop");
        assert_eq!(devices(&sessions, "zoe").await, [""; 0]);
        assert_eq!(
            of(&sessions, "zoe").revoke_all().await.expect("answered"),
            0
        );
        // She can log in again.
        assert_eq!(zoe[0].log_in("zoe", "phone").await, StatusCode::OK);
        assert_eq!(devices(&sessions, "zoe").await, ["phone"]);
    })
    .await;
}

#[tokio::test]
async fn revoke_others_keeps_the_current_session() {
    on_each_store(async |layer| {
        let app = app(&layer);
        let phone = Device::of(&app, "zoe", "phone").await;
        let others = [
            Device::of(&app, "zoe", "laptop").await,
            Device::of(&app, "zoe", "tablet").await,
        ];
        assert_eq!(phone.text("/log-out-elsewhere").await, "2");
        assert_eq!(phone.look().await, "zoe on phone");
        for other in &others {
            assert_eq!(other.look().await, "nobody on nothing");
        }
        assert_eq!(devices(&layer.users(), "zoe").await, ["phone"]);
    })
    .await;
}

#[tokio::test]
async fn a_logout_and_a_rotation_update_the_list() {
    on_each_store(async |layer| {
        let app = app(&layer);
        let sessions = layer.users();
        let phone = Device::of(&app, "zoe", "phone").await;
        let laptop = Device::of(&app, "zoe", "laptop").await;
        let before = phone.id();
        phone.text("/rotate").await;
        assert_ne!(phone.id(), before);
        assert_eq!(sorted_devices(&sessions, "zoe").await, ["laptop", "phone"]);
        let handle = phone.text("/handle").await.parse().expect("a handle");
        assert!(of(&sessions, "zoe").revoke(&handle).await.expect("ended"));
        assert_eq!(phone.look().await, "nobody on nothing");

        laptop.text("/log-out").await;
        assert_eq!(devices(&sessions, "zoe").await, [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn a_session_belongs_to_its_latest_user() {
    on_each_store(async |layer| {
        let app = app(&layer);
        let sessions = layer.users();
        let shared = Device::of(&app, "zoe", "kiosk").await;
        assert_eq!(shared.log_in("max", "kiosk").await, StatusCode::OK);
        assert_eq!(devices(&sessions, "zoe").await, [""; 0]);
        assert_eq!(devices(&sessions, "max").await, ["kiosk"]);
        assert_eq!(
            of(&sessions, "zoe").revoke_all().await.expect("answered"),
            0
        );
        assert_eq!(shared.look().await, "max on kiosk");
    })
    .await;
}

#[tokio::test]
async fn clear_keeps_the_user_and_remove_user_keeps_the_data() {
    on_each_store(async |layer| {
        let app = app(&layer);
        let sessions = layer.users();
        let phone = Device::of(&app, "zoe", "phone").await;
        phone.text("/clear").await;
        assert_eq!(phone.look().await, "zoe on nothing");
        assert_eq!(devices(&sessions, "zoe").await, ["?"]);
        assert_eq!(phone.text("/visit").await, "1");
        phone.text("/remove-user").await;
        assert_eq!(phone.look().await, "nobody on nothing");
        assert_eq!(devices(&sessions, "zoe").await, [""; 0]);
        assert_eq!(
            of(&sessions, "zoe").revoke_all().await.expect("answered"),
            0
        );
        assert_eq!(phone.text("/visit").await, "2");
    })
    .await;
}

#[tokio::test]
async fn a_listed_session_knows_whether_it_is_current() {
    async fn marks(session: Session) -> Result<String, SessionError> {
        let sessions = session.user_sessions().expect("a user");
        let listed = sessions.list().await?;
        let mark = |other: &axum_redis_sessions::UserSession| {
            let device = other.get::<String>("device")?.unwrap_or_default();
            let here = if other.is_current() { "*" } else { "" };
            Ok(format!("{device}{here} "))
        };
        listed.iter().map(mark).collect()
    }
    on_each_store(async |layer| {
        let marks = axum::Router::new().route("/marks", axum::routing::get(marks));
        let app = app(&layer).merge(marks.layer(layer.clone()));
        let phone = Device::of(&app, "zoe", "phone").await;
        next_moment().await;
        let laptop = Device::of(&app, "zoe", "laptop").await;
        assert_eq!(phone.text("/marks").await, "laptop phone* ");
        assert_eq!(laptop.text("/marks").await, "laptop* phone ");
    })
    .await;
}

#[tokio::test]
async fn revoking_the_current_session_destroys_it_in_this_request() {
    async fn revoke(session: Session, Path(how): Path<String>) -> Result<String, SessionError> {
        let sessions = session.user_sessions().expect("a user");
        session.insert("unsaved", true)?;
        let revoked = match &*how {
            "one" => usize::from(sessions.revoke(&session.handle().expect("stored")).await?),
            "all" => sessions.revoke_all().await?,
            _ => sessions.revoke_others().await?,
        };
        let left = session.user().unwrap_or_default();
        session.insert("device", "new")?;
        Ok(format!("{revoked} {left}"))
    }
    on_each_store(async |layer| {
        let revoke = Router::new().route("/revoke/{how}", get(revoke));
        let app = app(&layer).merge(revoke.layer(layer.clone()));
        for (how, revoked, after) in [
            ("one", "1 ", "nobody on new"),
            ("all", "2 ", "nobody on new"),
            ("others", "1 zoe", "zoe on new"),
        ] {
            let phone = Device::of(&app, "zoe", "phone").await;
            let laptop = Device::of(&app, "zoe", "laptop").await;
            let before = phone.id();
            assert_eq!(phone.text(&format!("/revoke/{how}")).await, revoked);
            assert_eq!(phone.look().await, after, "{how}");
            assert_eq!(phone.id() == before, how == "others", "{how}");
            let laptop = laptop.look().await == "zoe on laptop";
            assert_eq!(laptop, how == "one", "{how}");
            of(&layer.users(), "zoe")
                .revoke_all()
                .await
                .expect("revoked");
        }
    })
    .await;
}

#[tokio::test]
async fn a_user_name_may_be_any_text() {
    on_each_store(async |layer| {
        let app = app(&layer);
        let sessions = layer.users();
        let long = "long".repeat(500);
        let id = "5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e";
        let anonymous = Device::new(&app).log_in("", "phone").await;
        assert_eq!(anonymous, StatusCode::INTERNAL_SERVER_ERROR);
        let error = sessions.of("").expect_err("an empty user");
        assert_eq!(error.kind(), ErrorKind::InvalidUser);
        let names = [
            "42",
            "Zoë",
            "a b",
            "a\"b\\c",
            "{a}",
            "*",
            "a:b",
            "\r\nDEL x",
            "\0",
            id,
            &long,
            "ZOË",
        ];
        for name in names {
            Device::of(&app, name, "phone").await;
        }
        for name in names {
            let listed = of(&sessions, name).list().await.expect("listed");
            assert_eq!(listed.len(), 1, "{name:?}");
        }
        for (ended, name) in names.iter().enumerate() {
            assert_eq!(
                of(&sessions, name).revoke_all().await.expect("ended"),
                1,
                "{name:?}"
            );
            for other in &names[ended + 1..] {
                assert_eq!(devices(&sessions, other).await, ["phone"], "{other:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn debug_output_shows_no_session_and_no_user() {
    on_each_store(async |layer| {
        let app = app(&layer);
        let phone = Device::of(&app, "zoe-who-is-secret", "a-secret-phone").await;
        let sessions = layer.users();
        let listed = of(&sessions, "zoe-who-is-secret")
            .list()
            .await
            .expect("listed");
        let shown = format!("{sessions:?} {listed:?} {layer:?}");
        let id = phone.id();
        for secret in [&id, "zoe-who", "a-secret", &id[..8]] {
            assert!(!shown.contains(secret), "{shown}");
        }
    })
    .await;
}
