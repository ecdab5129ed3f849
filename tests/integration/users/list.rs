//! Listing and revoking a user's sessions, in a handler and outside of requests, on each store.

use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use axum_redis_sessions::{Session, SessionError, SessionHandle};

use super::{Device, app, devices, next_moment, sorted_devices};
use crate::client::on_each_store;

#[tokio::test]
async fn a_users_sessions_are_listed_newest_first() {
    on_each_store(async |layer| {
        let app = app(&layer);
        let sessions = layer.sessions();
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
        let first = layer.sessions().list("zoe").await.expect("listed");
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
        let listed = layer.sessions().list("zoe").await.expect("listed");
        let drift = listed[0]
            .last_seen()
            .duration_since(first[0].last_seen())
            .unwrap_or_default();
        assert!(drift < Duration::from_millis(250), "{drift:?}");
        phone.look().await;
        let used = layer.sessions().list("zoe").await.expect("listed");
        assert!(used[0].last_seen() >= first[0].last_seen() + Duration::from_millis(300));
        assert_eq!(used[0].created(), first[0].created());
    })
    .await;
}

#[tokio::test]
async fn revoke_ends_the_session_of_the_handle_only() {
    on_each_store(async |layer| {
        let app = app(&layer);
        let sessions = layer.sessions();
        let phone = Device::of(&app, "zoe", "phone").await;
        let laptop = Device::of(&app, "zoe", "laptop").await;
        let handle: SessionHandle = laptop.text("/handle").await.parse().expect("a handle");
        let listed = sessions.list("zoe").await.expect("listed");
        let same = listed.iter().find(|other| other.handle() == handle);
        let device = same.expect("there").get::<String>("device").expect("text");
        assert_eq!(device.as_deref(), Some("laptop"));

        assert!(sessions.revoke("zoe", &handle).await.expect("ended"));
        assert_eq!(laptop.look().await, "nobody on nothing");
        assert_eq!(phone.look().await, "zoe on phone");
        assert_eq!(devices(&sessions, "zoe").await, ["phone"]);
        // A second time it is no error, and returns false.
        assert!(!sessions.revoke("zoe", &handle).await.expect("answered"));
    })
    .await;
}

#[tokio::test]
async fn a_session_of_another_user_cannot_be_revoked() {
    on_each_store(async |layer| {
        let app = app(&layer);
        let sessions = layer.sessions();
        let phone = Device::of(&app, "zoe", "phone").await;
        Device::of(&app, "max", "desktop").await;
        let handle: SessionHandle = phone.text("/handle").await.parse().expect("a handle");
        assert!(!sessions.revoke("max", &handle).await.expect("answered"));
        assert!(!sessions.revoke("", &handle).await.expect("answered"));
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
                    !layer
                        .sessions()
                        .revoke("zoe", &handle)
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
        let sessions = layer.sessions();
        let zoe = [
            Device::of(&app, "zoe", "phone").await,
            Device::of(&app, "zoe", "laptop").await,
        ];
        let max = Device::of(&app, "max", "desktop").await;
        assert_eq!(sessions.revoke_all("zoe").await.expect("ended"), 2);
        for device in &zoe {
            assert_eq!(device.look().await, "nobody on nothing");
        }
        assert_eq!(max.look().await, "max on desktop");
        assert_eq!(devices(&sessions, "zoe").await, [""; 0]);
        assert_eq!(sessions.revoke_all("zoe").await.expect("answered"), 0);
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
        assert_eq!(devices(&layer.sessions(), "zoe").await, ["phone"]);
    })
    .await;
}

#[tokio::test]
async fn a_logout_and_a_rotation_update_the_list() {
    on_each_store(async |layer| {
        let app = app(&layer);
        let sessions = layer.sessions();
        let phone = Device::of(&app, "zoe", "phone").await;
        let laptop = Device::of(&app, "zoe", "laptop").await;
        let before = phone.id();
        phone.text("/rotate").await;
        assert_ne!(phone.id(), before);
        assert_eq!(sorted_devices(&sessions, "zoe").await, ["laptop", "phone"]);
        let handle = phone.text("/handle").await.parse().expect("a handle");
        assert!(sessions.revoke("zoe", &handle).await.expect("ended"));
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
        let sessions = layer.sessions();
        let shared = Device::of(&app, "zoe", "kiosk").await;
        assert_eq!(shared.log_in("max", "kiosk").await, StatusCode::OK);
        assert_eq!(devices(&sessions, "zoe").await, [""; 0]);
        assert_eq!(devices(&sessions, "max").await, ["kiosk"]);
        assert_eq!(sessions.revoke_all("zoe").await.expect("answered"), 0);
        assert_eq!(shared.look().await, "max on kiosk");
    })
    .await;
}

#[tokio::test]
async fn clear_keeps_the_user_and_remove_user_keeps_the_data() {
    on_each_store(async |layer| {
        let app = app(&layer);
        let sessions = layer.sessions();
        let phone = Device::of(&app, "zoe", "phone").await;
        phone.text("/clear").await;
        assert_eq!(phone.look().await, "zoe on nothing");
        assert_eq!(devices(&sessions, "zoe").await, ["?"]);
        assert_eq!(phone.text("/visit").await, "1");
        phone.text("/remove-user").await;
        assert_eq!(phone.look().await, "nobody on nothing");
        assert_eq!(devices(&sessions, "zoe").await, [""; 0]);
        assert_eq!(sessions.revoke_all("zoe").await.expect("answered"), 0);
        assert_eq!(phone.text("/visit").await, "2");
    })
    .await;
}

#[tokio::test]
async fn a_listed_session_knows_whether_it_is_current() {
    async fn marks(session: Session) -> Result<String, SessionError> {
        let user = session.user().unwrap_or_default();
        let listed = session.sessions().list(&user).await?;
        let mark = |other: &axum_redis_sessions::UserSession| {
            let device = other.get::<String>("device")?.unwrap_or_default();
            let here = if other.is_current(&session) { "*" } else { "" };
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
async fn a_user_name_may_be_any_text() {
    on_each_store(async |layer| {
        let app = app(&layer);
        let sessions = layer.sessions();
        let long = "long".repeat(500);
        let id = "5e0c1f0a-93a4-4f8e-a7d8-0c2f6f1b9a3e";
        let names = [
            "",
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
            let listed = sessions.list(name).await.expect("listed");
            assert_eq!(listed.len(), 1, "{name:?}");
        }
        for (ended, name) in names.iter().enumerate() {
            assert_eq!(
                sessions.revoke_all(name).await.expect("ended"),
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
        let sessions = layer.sessions();
        let listed = sessions.list("zoe-who-is-secret").await.expect("listed");
        let shown = format!("{sessions:?} {listed:?} {layer:?}");
        let id = phone.id();
        for secret in [&id, "zoe-who", "a-secret", &id[..8]] {
            assert!(!shown.contains(secret), "{shown}");
        }
    })
    .await;
}
