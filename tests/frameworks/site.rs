//! One address for two apps: a path begins with the app that answers it.

use std::time::Duration;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{Response, StatusCode, header},
};
use axum_redis_sessions::RedisSessionLayer;
use reqwest::Url;
use serde_json::{Map, Value};

use crate::{
    ours::routes,
    process::{Framework, Process},
    support::{
        app::{Address, serve},
        browser::{Browser, Page},
        server::Server,
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The app of this crate.
    Ours,
    /// The framework's.
    Theirs,
}

impl Side {
    pub fn other(self) -> Self {
        match self {
            Self::Ours => Self::Theirs,
            Self::Theirs => Self::Ours,
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

/// A Redis server, an app of a framework and one of this crate, and a reverse proxy before them.
pub struct Site {
    proxy: Address,
    // The fields are dropped in this order: the apps before their server.
    _ours: Address,
    _theirs: Process,
    pub redis: Server,
    pub framework: Framework,
}

impl Site {
    pub async fn start(
        framework: Framework,
        layer: impl FnOnce(RedisSessionLayer) -> RedisSessionLayer,
    ) -> Self {
        let redis = Server::start().await;
        let theirs = Process::start(framework, &redis);
        // A busy machine must not cause an error.
        let ours = RedisSessionLayer::new(redis.client()).with_deadline(PATIENCE);
        let ours = serve(routes(layer(ours))).await;
        let addresses = Backends {
            client: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client"),
            ours: ours.url(""),
            theirs: format!("http://127.0.0.1:{}", theirs.port()),
        };
        let proxy = serve(Router::new().fallback(forward).with_state(addresses)).await;
        Self {
            proxy,
            _ours: ours,
            _theirs: theirs,
            redis,
            framework,
        }
    }

    pub fn url(&self, side: Side, path: &str) -> String {
        match side {
            Side::Ours => self.proxy.url(&format!("/ours{path}")),
            Side::Theirs => self.proxy.url(&format!("/theirs{path}")),
        }
    }

    pub fn visitor(&self) -> Visitor<'_> {
        Visitor {
            site: self,
            browser: Browser::new(),
        }
    }

    /// As if it had just been started.
    pub async fn clear(&self) {
        self.redis.command::<String>(&["FLUSHALL"]).await;
    }

    /// The sessions end by their TTL.
    pub async fn expire(&self) {
        let keys: Vec<String> = self.redis.command(&["KEYS", "*"]).await;
        for key in keys {
            self.redis.command::<()>(&["PEXPIRE", &key, "0"]).await;
        }
    }

    /// What the framework stores, and what this crate left in its place.
    pub async fn their_keys(&self) -> Vec<String> {
        let keys: Vec<String> = self.redis.command(&["KEYS", self.framework.keys()]).await;
        let is_ours = |key: &str| key.starts_with("ours:");
        keys.into_iter().filter(|key| !is_ours(key)).collect()
    }
}

#[derive(Clone)]
struct Backends {
    client: reqwest::Client,
    ours: String,
    theirs: String,
}

/// Passes a request on to the app that its path names, and the response back.
async fn forward(State(backends): State<Backends>, request: Request) -> Response<Body> {
    let path = request.uri().path_and_query().expect("a path").as_str();
    let url = match (path.strip_prefix("/ours"), path.strip_prefix("/theirs")) {
        (Some(path), _) => format!("{}{path}", backends.ours),
        (_, Some(path)) => format!("{}{path}", backends.theirs),
        (None, None) => return status(StatusCode::NOT_FOUND),
    };
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.expect("a small body");
    let mut passed = backends.client.request(parts.method, url).body(body);
    for (name, value) in &parts.headers {
        if name != header::HOST && name != header::CONTENT_LENGTH {
            passed = passed.header(name, value);
        }
    }
    let Ok(answer) = passed.send().await else {
        return status(StatusCode::BAD_GATEWAY);
    };
    let mut response = status(answer.status());
    for (name, value) in answer.headers() {
        if name != header::TRANSFER_ENCODING && name != header::CONNECTION {
            response.headers_mut().append(name, value.clone());
        }
    }
    *response.body_mut() = answer.bytes().await.expect("a body").into();
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

/// Somebody with a browser.
pub struct Visitor<'a> {
    pub site: &'a Site,
    pub browser: Browser,
}

impl<'a> Visitor<'a> {
    /// The keys of the session, without those of the framework.
    pub async fn keys(&self, side: Side) -> Map<String, Value> {
        let page = self.browser.get(self.site.url(side, "/")).await;
        serde_json::from_str(&ok(page)).expect("an object")
    }

    pub async fn user(&self, side: Side) -> Option<String> {
        let page = self.browser.get(self.site.url(side, "/user")).await;
        serde_json::from_str(&ok(page)).expect("a user")
    }

    pub async fn set(&self, side: Side, key: &str, value: &Value) {
        let mut url: Url = self.site.url(side, "/set").parse().expect("a URL");
        // Percent-encodes.
        let path = url.path_segments_mut();
        path.expect("a path").extend([key, &value.to_string()]);
        ok(self.browser.post(url, &[]).await);
    }

    pub async fn remove(&self, side: Side, key: &str) {
        self.post(side, &format!("/remove/{key}")).await;
    }

    pub async fn log_in(&self, side: Side, user: &str) {
        self.post(side, &format!("/login/{user}")).await;
    }

    pub async fn log_out(&self, side: Side) {
        self.post(side, "/logout").await;
    }

    pub async fn set_permanent(&self, side: Side, is_permanent: bool) {
        self.post(side, &format!("/permanent/{is_permanent}")).await;
    }

    pub async fn is_permanent(&self, side: Side) -> bool {
        self.yes_or_no(side, "/permanent").await
    }

    pub async fn yes_or_no(&self, side: Side, path: &str) -> bool {
        let page = self.browser.get(self.site.url(side, path)).await;
        serde_json::from_str(&ok(page)).expect("yes or no")
    }

    pub async fn post(&self, side: Side, path: &str) -> String {
        ok(self.browser.post(self.site.url(side, path), &[]).await)
    }

    pub fn cookie(&self, name: &str) -> Option<String> {
        self.browser.cookie(&self.site.url(Side::Ours, "/"), name)
    }

    /// The cookie that the framework set.
    pub fn their_cookie(&self) -> Option<String> {
        self.cookie(self.site.framework.cookie_name())
    }

    /// The same cookies in another browser, which from then on has its own.
    pub fn fork(&self) -> Visitor<'a> {
        Visitor {
            site: self.site,
            browser: self.browser.fork(&self.site.url(Side::Ours, "/")),
        }
    }
}

fn ok(page: Page) -> String {
    assert_eq!(page.status, 200, "{}: {}", page.url, page.body);
    page.body
}
