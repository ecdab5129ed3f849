//! Extractors that let only logged-in users pass.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use axum::extract::OriginalUri;
use axum_core::{
    body::Body,
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{self, ACCEPT},
    request::Parts,
};

use crate::{
    error::SessionError,
    next_path::{self, is_safe},
    session::Session,
};

/// The clocks of an app's servers agree to within this. A login that is further in the future is not recent.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// The logged-in user, as passed to [`Session::log_in`]. A request without one is answered with 401, or sent to the sign-in page.
///
/// With [`with_sign_in_page`](crate::RedisSessionLayer::with_sign_in_page), a GET or HEAD request that accepts HTML is redirected (303) to that
/// page, with the way back as `?next=`, which [`NextPath`](crate::NextPath) reads. `Option<LoggedIn>` is `None` instead. While Redis is
/// unavailable, the answer is 503.
///
/// Roles are the app's: look the user up in its database.
///
/// # Examples
///
/// ```
/// use axum::{Router, middleware::from_extractor, routing::get};
/// use axum_redis_sessions::{LoggedIn, RedisSessionLayer};
///
/// async fn account(LoggedIn(user): LoggedIn) -> String {
///     format!("account of user {user}")
/// }
///
/// async fn home(user: Option<LoggedIn>) -> &'static str {
///     if user.is_some() { "welcome back" } else { "welcome" }
/// }
///
/// let private = Router::new()
///     .route("/orders", get(async || "orders"))
///     // All routes of this router, without an argument.
///     .route_layer(from_extractor::<LoggedIn>());
/// let app: Router = Router::new()
///     .route("/", get(home))
///     .route("/account", get(account))
///     .merge(private)
///     .layer(RedisSessionLayer::in_memory().with_sign_in_page("/sign-in"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LoggedIn(pub String);

/// The logged-in user, who authenticated within the last `SECONDS`: for grave actions (ASVS 5.0, 7.5.1 and 7.5.3).
///
/// As [`LoggedIn`], and also for a user whose login is older: the sign-in page then asks for the password again and calls
/// [`Session::confirm_authentication`]. Guard the page with the form as well as the action, so that a browser is asked before the form is
/// filled in: a POST is never redirected.
///
/// # Examples
///
/// ```
/// use axum_redis_sessions::RecentLogin;
///
/// async fn delete_account(RecentLogin(user): RecentLogin<300>) -> String {
///     format!("the account of user {user} is deleted")
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecentLogin<const SECONDS: u64>(pub String);

/// Why [`LoggedIn`] or [`RecentLogin`] let a request not pass; a response.
#[derive(Clone, Debug)]
pub struct LoginRejection(Reason);

#[derive(Clone, Debug)]
enum Reason {
    SignIn {
        /// Of the sign-in page, with the way back.
        location: Option<HeaderValue>,
        /// The user is logged in, but authenticated longer ago than this.
        max_age: Option<u64>,
    },
    Failed(SessionError),
}

impl LoginRejection {
    /// Whether there is a user, whose authentication is too old for [`RecentLogin`].
    #[must_use]
    pub fn needs_confirmation(&self) -> bool {
        matches!(
            self.0,
            Reason::SignIn {
                max_age: Some(_),
                ..
            }
        )
    }

    /// Why the session could not be loaded, if that is the reason.
    #[must_use]
    pub fn session_error(&self) -> Option<&SessionError> {
        match &self.0 {
            Reason::Failed(error) => Some(error),
            Reason::SignIn { .. } => None,
        }
    }

    fn sign_in(parts: &Parts, session: &Session, max_age: Option<u64>) -> Self {
        let page = session.cell().context.config.sign_in_page.as_deref();
        Self(Reason::SignIn {
            location: page.and_then(|page| location(parts, page)),
            max_age,
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for LoggedIn {
    type Rejection = LoginRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let session = load(parts, state).await?;
        match session.user() {
            Some(user) => Ok(Self(user)),
            None => Err(LoginRejection::sign_in(parts, &session, None)),
        }
    }
}

/// `Option<LoggedIn>`: `None` without a user. While Redis is unavailable, the answer is 503.
impl<S: Send + Sync> OptionalFromRequestParts<S> for LoggedIn {
    type Rejection = LoginRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> Result<Option<Self>, Self::Rejection> {
        Ok(load(parts, state).await?.user().map(Self))
    }
}

impl<S: Send + Sync, const SECONDS: u64> FromRequestParts<S> for RecentLogin<SECONDS> {
    type Rejection = LoginRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let session = load(parts, state).await?;
        let Some(user) = session.user() else {
            return Err(LoginRejection::sign_in(parts, &session, None));
        };
        if is_recent(&session, Duration::from_secs(SECONDS)) {
            Ok(Self(user))
        } else {
            Err(LoginRejection::sign_in(parts, &session, Some(SECONDS)))
        }
    }
}

impl IntoResponse for LoginRejection {
    fn into_response(self) -> Response {
        let (location, max_age) = match self.0 {
            Reason::Failed(error) => return error.into_response(),
            Reason::SignIn { location, max_age } => (location, max_age),
        };
        let text = match max_age {
            None => "Please sign in.\n",
            Some(_) => "Please enter your password again.\n",
        };
        let mut response = Response::new(Body::from(text));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        match location {
            Some(location) => {
                headers.insert(header::LOCATION, location);
                *response.status_mut() = StatusCode::SEE_OTHER;
            }
            None => {
                headers.insert(header::WWW_AUTHENTICATE, challenge(max_age));
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
        }
        response
    }
}

impl fmt::Display for LoginRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Reason::Failed(error) => error.fmt(f),
            Reason::SignIn { max_age: None, .. } => f.write_str("no user is logged in"),
            Reason::SignIn {
                max_age: Some(seconds),
                ..
            } => {
                write!(f, "the user authenticated more than {seconds} s ago")
            }
        }
    }
}

impl std::error::Error for LoginRejection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.session_error().map(|error| error as _)
    }
}

async fn load<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Session, LoginRejection> {
    let session = <Session as FromRequestParts<S>>::from_request_parts(parts, state).await;
    session.map_err(|error| LoginRejection(Reason::Failed(error)))
}

fn is_recent(session: &Session, max_age: Duration) -> bool {
    let Some(at) = session.authenticated_at() else {
        return false;
    };
    match SystemTime::now().duration_since(at) {
        Ok(age) => age <= max_age,
        Err(ahead) => ahead.duration() <= CLOCK_SKEW,
    }
}

/// The sign-in page with the way back, for a browser that navigates.
fn location(parts: &Parts, page: &str) -> Option<HeaderValue> {
    if !matches!(parts.method, Method::GET | Method::HEAD) || !accepts_html(&parts.headers) {
        return None;
    }
    let uri = match parts.extensions.get::<OriginalUri>() {
        Some(OriginalUri(uri)) => uri,
        None => &parts.uri,
    };
    // A guard on the sign-in page itself would redirect for ever.
    if uri.path() == page.split('?').next().unwrap_or(page) {
        return None;
    }
    // The path and query only: the target of a request to a proxy also has a host.
    let next = uri.path_and_query().map_or("/", |next| next.as_str());
    let location = if next == "/" || !is_safe(next) {
        page.to_owned()
    } else {
        let separator = if page.contains('?') { '&' } else { '?' };
        format!("{page}{separator}next={}", next_path::encode(next))
    };
    HeaderValue::try_from(location).ok()
}

/// Whether HTML is named in Accept. `*/*` alone is what scripts and tools send.
fn accepts_html(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).iter();
    let mut ranges = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    ranges.any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let is_html = ["text/html", "application/xhtml+xml"]
            .iter()
            .any(|html| media_type.eq_ignore_ascii_case(html));
        let is_refused = |part: &str| {
            let quality = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
            quality.and_then(|quality| quality.trim().parse::<f32>().ok()) == Some(0.0)
        };
        is_html && !parts.any(is_refused)
    })
}

/// RFC 9110, section 15.5.2, asks for a challenge; no scheme for cookies is registered. The parameters are those of RFC 9470.
fn challenge(max_age: Option<u64>) -> HeaderValue {
    match max_age {
        None => HeaderValue::from_static("Cookie"),
        Some(seconds) => HeaderValue::try_from(format!(
            "Cookie error=\"insufficient_user_authentication\", max_age=\"{seconds}\""
        ))
        .expect("digits"),
    }
}
