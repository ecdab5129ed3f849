//! Requests without a browser: to an app without a socket, on each store; and over a socket, with any Cookie headers.

// Each test binary uses a part of it. It is not in `support`, which the crate's own tests include.
#![allow(dead_code, unreachable_pub)]

use std::{future::poll_fn, pin::pin, task::Poll};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, Response, StatusCode, header},
};
use axum_redis_sessions::RedisSessionLayer;
use tower::ServiceExt;

use crate::support::{app::Address, server::Server};

/// Runs `test` with a layer on each store.
pub async fn on_each_store<F: Future<Output = ()>>(test: impl Fn(RedisSessionLayer) -> F) {
    test(RedisSessionLayer::in_memory()).await;
    let server = Server::start().await;
    test(RedisSessionLayer::new(server.client())).await;
    test(
        RedisSessionLayer::new(server.client())
            .with_prefix("lww:")
            .with_last_write_wins(),
    )
    .await;
}

pub async fn send(app: &Router, path: &str, cookie: Option<&str>) -> Response<Body> {
    let mut request = Request::builder().uri(path);
    if let Some(cookie) = cookie {
        request = request.header(header::COOKIE, cookie);
    }
    app.clone()
        .oneshot(request.body(Body::empty()).expect("a request"))
        .await
        .expect("infallible")
}

/// The one Set-Cookie line, if there is any.
pub fn set_cookie(response: &Response<Body>) -> Option<String> {
    assert!(
        response
            .headers()
            .get_all(header::SET_COOKIE)
            .iter()
            .count()
            <= 1
    );
    Some(
        response
            .headers()
            .get(header::SET_COOKIE)?
            .to_str()
            .expect("text")
            .to_owned(),
    )
}

/// `name=value` of a Set-Cookie line.
pub fn pair(line: &str) -> &str {
    line.split(';').next().expect("a cookie")
}

pub async fn text(response: Response<Body>) -> String {
    let bytes = to_bytes(response.into_body(), 1 << 20)
        .await
        .expect("a body in memory");
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// The cookie of the session that a request to `path` begins.
pub async fn begin(app: &Router, path: &str) -> String {
    let response = send(app, path, None).await;
    assert_eq!(response.status(), StatusCode::OK);
    pair(&set_cookie(&response).expect("a new session")).to_owned()
}

/// Polls the future at most `times` times, and drops it if it is not ready by then.
pub async fn polled<F: Future>(future: F, times: u32) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = times;
    poll_fn(|task| match future.as_mut().poll(task) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => {
            left -= 1;
            if left == 0 {
                Poll::Ready(None)
            } else {
                Poll::Pending
            }
        }
    })
    .await
}

/// A response over a socket.
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Reply {
    pub fn values(&self, name: &str) -> Vec<&str> {
        let values = self.headers.get_all(name).iter();
        values.map(|value| value.to_str().expect("text")).collect()
    }

    /// `name=value` of the one cookie that is set.
    pub fn cookie(&self) -> Option<String> {
        let lines = self.values("set-cookie");
        assert!(lines.len() <= 1, "{lines:?}");
        let pair = pair(lines.first()?);
        (!pair.ends_with('=')).then(|| pair.to_owned())
    }

    /// Whether it removes the cookie, and does nothing else.
    pub fn removes_cookie(&self) -> bool {
        let lines = self.values("set-cookie");
        matches!(lines[..], [line] if line.contains("Max-Age=0"))
    }
}

/// Sends a request with these Cookie headers.
pub async fn ask(app: &Address, path: &str, cookies: &[&str]) -> Reply {
    let client = reqwest::Client::builder().no_proxy();
    let mut request = client.build().expect("a client").get(app.url(path));
    for cookie in cookies {
        request = request.header(header::COOKIE, *cookie);
    }
    let response = request.send().await.expect("a response");
    Reply {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.text().await.expect("a body"),
    }
}

/// The cookie of the session that a request to `path` begins.
pub async fn begin_at(app: &Address, path: &str) -> String {
    let reply = ask(app, path, &[]).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.cookie().expect("a new session")
}
