//! `with_format`: both apps work on the same session, with the same cookie.

use std::time::Duration;

use axum_redis_sessions::{
    RedisSessionLayer,
    format::{Django, Express, Flask, Serialization, Sharing},
};
use serde_json::json;

use crate::{
    model::{Model, Step, Steps},
    process::Framework,
    site::{Side, Site},
    support::eventually,
};

const SIDES: [Side; 2] = [Side::Ours, Side::Theirs];

fn sharing(framework: Framework) -> Sharing {
    let flask = |serialization| Flask::new().with_serialization(serialization);
    let flask_user = |flask: Flask| Sharing::from(flask).with_user_at("/_user_id");
    let django = |serialization| {
        let django = Django::new().with_serialization(serialization);
        Sharing::from(django).with_user_at("/_auth_user_id")
    };
    let express = |secrets: &[&str]| {
        let express = Express::new(secrets.iter().copied());
        Sharing::from(express).with_user_at("/passport/user")
    };
    match framework {
        Framework::FlaskJson => flask_user(flask(Serialization::Json)),
        Framework::FlaskMsgpack => flask_user(Flask::new()),
        Framework::FlaskSigner => flask_user(Flask::new().with_signer([Framework::FLASK_SECRET])),
        Framework::FlaskSnippet => flask_user(flask(Serialization::Pickle)),
        Framework::DjangoPickle => django(Serialization::Pickle),
        Framework::DjangoJson => django(Serialization::Json),
        Framework::Express => express(&Framework::EXPRESS_SECRETS[1..]),
        Framework::ExpressRotated => express(&Framework::EXPRESS_SECRETS),
        Framework::TowerPlain
        | Framework::TowerSigned
        | Framework::TowerPrivate
        | Framework::ActixSigned
        | Framework::ActixPrivate
        | Framework::AxumSession => unreachable!("taken over, not shared"),
    }
}

async fn site(framework: Framework) -> Site {
    let format = sharing(framework);
    // As the frameworks' cookies.
    let layer = |layer: RedisSessionLayer| layer.with_format(format).with_secure(false);
    Site::start(framework, layer).await
}

/// Random steps on either side. Each step is seen on the other side at once, and no former id is worth anything.
async fn random_steps_agree_with_the_model(site: &Site) {
    let framework = site.framework;
    let visitor = site.visitor();
    let mut model = Model::default();
    let mut steps = Steps::new(framework);
    for _ in 0..framework.steps() {
        let (side, step) = steps.live_step();
        let is_login = matches!(step, Step::LogIn(_));
        // Django's hash of the password is not known here.
        let side = match is_login && framework.keeps_its_login() {
            true => Side::Theirs,
            false => side,
        };
        let before = (visitor.their_cookie(), visitor.fork());
        let user = model.user.clone();
        let existed = model != Model::default();
        model.take_unseen(&step, side, &visitor, framework).await;
        let seen_at = [&step as &dyn std::fmt::Debug, &side];
        model.compare(side.other(), &visitor, &seen_at).await;
        model.compare(side, &visitor, &seen_at).await;
        if let Step::SetPermanent(is_permanent) = step
            && !model.keys.is_empty()
        {
            for side in SIDES {
                let seen = visitor.is_permanent(side).await;
                assert_eq!(seen, is_permanent, "{side:?}, after {seen_at:?}");
            }
        }
        let is_rotated = before.0.is_some() && before.0 != visitor.their_cookie();
        let must_rotate = is_login && before.0.is_some() && framework.rotates(side);
        // Django does it for another user alone.
        let must_rotate = must_rotate && (!framework.keeps_its_login() || user != model.user);
        assert!(is_rotated || !must_rotate, "{seen_at:?}");
        let is_new_id = matches!(step, Step::LogIn(_) | Step::Cycle);
        if is_rotated && side == Side::Ours && is_new_id && existed {
            // It would begin another session, whose cookie takes the place of the new one.
            let url = site.url(Side::Ours, "/set/theme/1");
            let late = before.1.browser.post(url, &[]).await;
            assert_eq!(
                late.set_cookies, [""; 0],
                "a late request, after {seen_at:?}"
            );
        }
        if is_rotated {
            for side in SIDES {
                let why = format!("a former id, after {seen_at:?}");
                // What an anonymous session held may be read for a while, by this side.
                if side == Side::Ours && user.is_none() {
                    assert_eq!(before.1.user(side).await, None, "{why}");
                } else {
                    Model::default().compare(side, &before.1, &why).await;
                }
            }
            model
                .compare(side, &visitor, &"a request with a former id")
                .await;
        }
    }
}

/// What only they can express.
async fn what_we_do_not_touch_stays_as_it_was(site: &Site) {
    let visitor = site.visitor();
    visitor.set(Side::Theirs, "cart", &json!(["apple"])).await;
    visitor.post(Side::Theirs, "/special").await;
    let stored = async || {
        for key in site.their_keys().await {
            let value = site.redis.try_command::<Vec<u8>>(&["GET", &key]).await;
            // The index of a user is no string, and a former id has a copy for this side alone.
            if let Ok(value) = value
                && find(&value, b"special").is_some()
                && find(&value, b"rotated").is_none()
            {
                return value;
            }
        }
        panic!("there is no such session")
    };
    let before = stored().await;
    visitor.set(Side::Ours, "n", &json!(1)).await;
    visitor.set(Side::Ours, "cart", &json!([])).await;
    visitor.set_permanent(Side::Ours, true).await;
    if !site.framework.keeps_its_login() {
        visitor.log_in(Side::Ours, "7").await;
    }
    assert!(visitor.yes_or_no(Side::Theirs, "/special").await);
    assert_eq!(visitor.keys(Side::Ours).await["n"], 1);
    let after = stored().await;
    if site.framework.keeps_bytes() {
        // It was the last key. The text between a key and its value is not part of it.
        let key = find(&before, b"special").expect("a key") + b"special".len();
        let special = match before[key..].strip_prefix(b"\"") {
            Some(json) => json[1..].trim_ascii_start(),
            None => &before[key..],
        };
        let special = special.strip_suffix(b"}").unwrap_or(special);
        assert!(
            find(&after, special).is_some(),
            "{} became {}",
            before.escape_ascii(),
            after.escape_ascii()
        );
    }
}

/// A visit here leaves the session as long to live as one there.
async fn the_ttl_is_the_frameworks(site: &Site) {
    for is_permanent in [false, true] {
        site.clear().await;
        let visitor = site.visitor();
        visitor.set(Side::Theirs, "cart", &json!(1)).await;
        if is_permanent {
            visitor.set_permanent(Side::Theirs, true).await;
        }
        visitor.set(Side::Theirs, "cart", &json!(2)).await;
        let ttl = async || {
            let keys = site.their_keys().await;
            let [key] = &keys[..] else { panic!("{keys:?}") };
            site.redis.command::<i64>(&["TTL", key]).await
        };
        let theirs = ttl().await;
        visitor.keys(Side::Ours).await;
        // A session's own timeout is only known when it was read, so it may be set afterwards.
        let is_equal = async || (ttl().await - theirs).abs() < 60;
        eventually(Duration::from_secs(10), is_equal).await;
        visitor.set(Side::Ours, "cart", &json!(3)).await;
        eventually(Duration::from_secs(10), is_equal).await;
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

async fn one_session(framework: Framework) {
    let site = site(framework).await;
    what_we_do_not_touch_stays_as_it_was(&site).await;
    the_ttl_is_the_frameworks(&site).await;
    site.clear().await;
    random_steps_agree_with_the_model(&site).await;
}

#[tokio::test]
async fn a_session_is_shared_with_flask_session_with_json() {
    one_session(Framework::FlaskJson).await;
}

#[tokio::test]
async fn a_session_is_shared_with_flask_session_with_messagepack() {
    one_session(Framework::FlaskMsgpack).await;
}

#[tokio::test]
async fn a_session_is_shared_with_flask_session_with_a_signer() {
    one_session(Framework::FlaskSigner).await;
}

#[tokio::test]
async fn a_session_is_shared_with_the_flask_snippet() {
    one_session(Framework::FlaskSnippet).await;
}

#[tokio::test]
async fn a_session_is_shared_with_django_with_pickle() {
    one_session(Framework::DjangoPickle).await;
}

#[tokio::test]
async fn a_session_is_shared_with_django_with_json() {
    one_session(Framework::DjangoJson).await;
}

#[tokio::test]
async fn a_session_is_shared_with_express() {
    one_session(Framework::Express).await;
}

#[tokio::test]
async fn a_session_is_shared_with_express_with_two_secrets() {
    one_session(Framework::ExpressRotated).await;
}
