//! Sites beside the app's.

use axum::{
    Router,
    extract::Query,
    http::HeaderMap,
    response::Html,
    routing::{any, get},
};

use crate::chromium::COOKIE;

/// A page with a POST form and a GET form, whose target is in the query.
pub fn forms() -> Router {
    async fn page(Query(query): Query<Vec<(String, String)>>) -> Html<String> {
        let to = &query[0].1;
        Html(format!(
            "<form method=post action='{to}'><button>Post</button></form><form action='{to}'><button>Look</button></form>"
        ))
    }
    Router::new().route("/", get(page))
}

/// Replies with the site that a request came from, and whether it had the session.
pub fn echo() -> Router {
    async fn page(headers: HeaderMap) -> Html<String> {
        let text = |name: &str| {
            headers
                .get(name)
                .map_or("", |value| value.to_str().expect("text"))
        };
        let with = if text("cookie").contains(COOKIE) {
            "with"
        } else {
            "without"
        };
        Html(format!(
            "<p>{} {with} the session</p>",
            text("sec-fetch-site")
        ))
    }
    Router::new().route("/", any(page))
}
