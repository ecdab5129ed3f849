use std::sync::Arc;

use reqwest::{
    RequestBuilder, Url,
    cookie::{CookieStore, Jar},
    header::{HeaderMap, SET_COOKIE},
};

/// A browser as far as cookies and redirects go: a jar that heeds Path, Domain, Secure and expiry (loopback counts as secure, as it
/// does in browsers). Clones share the jar, like two tabs.
#[derive(Clone)]
pub struct Browser {
    client: reqwest::Client,
    jar: Arc<Jar>,
}

pub struct Page {
    pub status: u16,
    pub headers: HeaderMap,
    pub set_cookies: Vec<String>,
    pub body: String,
}

impl Browser {
    pub fn new() -> Self {
        let jar = Arc::new(Jar::default());
        let client = reqwest::Client::builder()
            .cookie_provider(jar.clone())
            .build()
            .expect("a client");
        Self { client, jar }
    }

    pub async fn get(&self, url: impl AsRef<str>) -> Page {
        Self::send(self.client.get(url.as_ref())).await
    }

    pub async fn post(&self, url: impl AsRef<str>, form: &[(&str, &str)]) -> Page {
        Self::send(self.client.post(url.as_ref()).form(form)).await
    }

    /// The value of the cookie that would be sent to `url`.
    pub fn cookie(&self, url: &str, name: &str) -> Option<String> {
        let header = self.jar.cookies(&url.parse::<Url>().expect("a URL"))?;
        let pairs = header.to_str().expect("text").split("; ");
        pairs
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    }

    /// Another browser with the same cookies, which from here on go their own way.
    pub fn fork(&self, url: &str) -> Self {
        let fork = Self::new();
        let url = url.parse::<Url>().expect("a URL");
        if let Some(header) = self.jar.cookies(&url) {
            for pair in header.to_str().expect("text").split("; ") {
                fork.jar
                    .add_cookie_str(&format!("{pair}; Path=/; Secure"), &url);
            }
        }
        fork
    }

    async fn send(request: RequestBuilder) -> Page {
        let response = request.send().await.expect("an answer");
        let headers = response.headers().clone();
        let set_cookies = headers.get_all(SET_COOKIE).iter();
        Page {
            status: response.status().as_u16(),
            set_cookies: set_cookies
                .map(|line| line.to_str().expect("text").to_owned())
                .collect(),
            body: response.text().await.expect("a body"),
            headers,
        }
    }
}
