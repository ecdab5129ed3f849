use std::sync::Arc;

use reqwest::{
    RequestBuilder, Url,
    cookie::{CookieStore, Jar},
    header::{HeaderMap, HeaderValue, SET_COOKIE},
};

use super::{PATIENCE, secrets};

/// An HTTP client with a browser's redirects and cookie jar: Path, Domain, Secure and expiry are respected (loopback counts as secure, as it
/// does in browsers), and cookies are rejected as browsers do. Clones share the jar, like tabs.
#[derive(Clone)]
pub struct Browser {
    client: reqwest::Client,
    cookies: Arc<Cookies>,
}

/// The response after all redirects.
pub struct Page {
    pub url: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub set_cookies: Vec<String>,
    pub body: String,
}

impl Browser {
    pub fn new() -> Self {
        let cookies = Arc::new(Cookies::default());
        let client = reqwest::Client::builder()
            .cookie_provider(cookies.clone())
            // A proxy from the environment cannot reach our loopback.
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .expect("a client");
        Self { client, cookies }
    }

    pub async fn get(&self, url: impl AsRef<str>) -> Page {
        Self::send(self.client.get(url.as_ref())).await
    }

    pub async fn post(&self, url: impl AsRef<str>, form: &[(&str, &str)]) -> Page {
        Self::send(self.client.post(url.as_ref()).form(form)).await
    }

    /// The value of the cookie that would be sent to `url`.
    pub fn cookie(&self, url: &str, name: &str) -> Option<String> {
        let header = self.cookies.cookies(&url.parse::<Url>().expect("a URL"))?;
        let pairs = header.to_str().expect("text").split("; ");
        pairs
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    }

    /// Another browser with a copy of the cookies.
    pub fn fork(&self, url: &str) -> Self {
        let fork = Self::new();
        let url = url.parse::<Url>().expect("a URL");
        if let Some(header) = self.cookies.cookies(&url) {
            for pair in header.to_str().expect("text").split("; ") {
                fork.cookies
                    .0
                    .add_cookie_str(&format!("{pair}; Path=/; Secure"), &url);
            }
        }
        fork
    }

    async fn send(request: RequestBuilder) -> Page {
        let response = request.send().await.expect("an answer");
        let headers = response.headers().clone();
        let set_cookies = headers.get_all(SET_COOKIE).iter();
        let page = Page {
            url: response.url().to_string(),
            status: response.status().as_u16(),
            set_cookies: set_cookies
                .map(|line| line.to_str().expect("text").to_owned())
                .collect(),
            body: response.text().await.expect("a body"),
            headers,
        };
        // Anybody may read the text of an error.
        assert!(
            page.status < 400 || !secrets::has_secret(&page.body),
            "{}",
            page.body
        );
        page
    }
}

/// A jar that rejects what browsers reject: `reqwest`'s own would keep any `__Host-` cookie.
#[derive(Default)]
struct Cookies(Jar);

impl CookieStore for Cookies {
    fn set_cookies(&self, lines: &mut dyn Iterator<Item = &HeaderValue>, url: &Url) {
        let mut taken = lines.filter(|line| is_taken(line.to_str().unwrap_or_default()));
        self.0.set_cookies(&mut taken, url);
    }

    fn cookies(&self, url: &Url) -> Option<HeaderValue> {
        self.0.cookies(url)
    }
}

/// The checks of RFC 6265bis, section 5.7, beyond RFC 6265, and of CHIPS for partitioned cookies.
fn is_taken(line: &str) -> bool {
    let mut parts = line.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default().to_ascii_lowercase();
    let attributes: Vec<String> = parts.map(str::to_ascii_lowercase).collect();
    let has = |attribute: &str| attributes.iter().any(|other| other == attribute);

    let needs_secure = name.starts_with("__secure-")
        || name.starts_with("__host-")
        || has("samesite=none")
        || has("partitioned");
    let is_of_this_host = has("path=/") && !attributes.iter().any(|a| a.starts_with("domain="));
    (has("secure") || !needs_secure) && (is_of_this_host || !name.starts_with("__host-"))
}
