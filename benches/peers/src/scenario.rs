//! What is asked of each app.

use std::{fs, path::Path};

use crate::{Failure, client::Client};

pub struct Scenario {
    pub name: &'static str,
    pub path: &'static str,
    /// Bytes of the sessions whose cookies are sent; none are without.
    pub size: Option<usize>,
    /// Each answer brings a new cookie.
    pub rotates: bool,
    /// Measured in the same rounds as the one before it, with which it is compared.
    pub beside_last: bool,
}

const fn scenario(name: &'static str, path: &'static str, size: Option<usize>) -> Scenario {
    Scenario {
        name,
        path,
        size,
        rotates: false,
        beside_last: false,
    }
}

const fn beside_last(scenario: Scenario) -> Scenario {
    Scenario {
        beside_last: true,
        ..scenario
    }
}

pub const SIZES: [usize; 3] = [300, 2_000, 20_000];

pub const SCENARIOS: [Scenario; 12] = [
    scenario("no layer", "/bare", None),
    beside_last(scenario("untouched", "/untouched", None)),
    scenario("no layer, with a cookie", "/bare", Some(300)),
    beside_last(scenario(
        "untouched, with a cookie",
        "/untouched",
        Some(300),
    )),
    scenario("anonymous read", "/read", None),
    scenario("read 300 B", "/read", Some(300)),
    scenario("read 2 kB", "/read", Some(2_000)),
    scenario("read 20 kB", "/read", Some(20_000)),
    scenario("write 300 B", "/write", Some(300)),
    scenario("write 2 kB", "/write", Some(2_000)),
    scenario("write 20 kB", "/write", Some(20_000)),
    Scenario {
        rotates: true,
        ..scenario("login 300 B", "/login", Some(300))
    },
];

/// Begins so many sessions, by asking the app for them, so that each is in the app's own format. Their cookies.
pub async fn seed(address: &str, size: usize, sessions: u64) -> Result<Vec<String>, Failure> {
    let clients: Vec<_> = (0..SEEDERS)
        .map(|seeder| {
            let (address, path) = (address.to_owned(), format!("/seed/{size}"));
            tokio::spawn(async move {
                let mut client = Client::connect(&address).await?;
                let mut cookies = Vec::new();
                for _ in (seeder..sessions).step_by(SEEDERS as usize) {
                    let answer = client.get(&path, "").await?;
                    let cookie = answer.cookie().ok_or("a session without a cookie")?;
                    cookies.push(cookie.to_owned());
                }
                Ok::<_, Failure>(cookies)
            })
        })
        .collect();
    let mut cookies = Vec::new();
    for client in clients {
        cookies.extend(client.await??);
    }
    Ok(cookies)
}

const SEEDERS: u64 = 8;

/// One cookie a line.
pub fn write_cookies(path: &Path, cookies: &[String]) -> Result<(), Failure> {
    fs::write(path, cookies.join("\n"))?;
    Ok(())
}
