//! The requests that every app is measured with.

use std::{fs, path::Path};

use crate::{Failure, Shape, client::Client};

pub struct Scenario {
    pub name: &'static str,
    pub path: &'static str,
    /// The sessions whose cookies are sent; no cookie if `None`.
    pub session: Option<(Shape, usize)>,
    /// Whether each response sets a new cookie.
    pub rotates: bool,
    /// Whether it is measured in the same rounds as the scenario before it, with which it is compared.
    pub with_previous: bool,
}

const fn scenario(
    name: &'static str,
    path: &'static str,
    session: Option<(Shape, usize)>,
) -> Scenario {
    Scenario {
        name,
        path,
        session,
        rotates: false,
        with_previous: false,
    }
}

const fn with_previous(scenario: Scenario) -> Scenario {
    Scenario {
        with_previous: true,
        ..scenario
    }
}

const fn rotates(scenario: Scenario) -> Scenario {
    Scenario {
        rotates: true,
        ..scenario
    }
}

const fn fields(size: usize) -> Option<(Shape, usize)> {
    Some((Shape::Fields, size))
}

const fn text(size: usize) -> Option<(Shape, usize)> {
    Some((Shape::Text, size))
}

pub const SIZES: [usize; 3] = [300, 2_000, 20_000];

/// Sizes without a shape in the name are sessions of many small fields.
pub const SCENARIOS: [Scenario; 19] = [
    scenario("no layer", "/bare", None),
    with_previous(scenario("untouched", "/untouched", None)),
    scenario("no layer, with a cookie", "/bare", fields(300)),
    with_previous(scenario(
        "untouched, with a cookie",
        "/untouched",
        fields(300),
    )),
    scenario("anonymous read", "/read", None),
    scenario("read 300 B", "/read", fields(300)),
    scenario("read 2 kB", "/read", fields(2_000)),
    scenario("read 20 kB", "/read", fields(20_000)),
    scenario("read 300 B, one string", "/read", text(300)),
    scenario("read 2 kB, one string", "/read", text(2_000)),
    scenario("read 20 kB, one string", "/read", text(20_000)),
    scenario("write 300 B", "/write", fields(300)),
    scenario("write 2 kB", "/write", fields(2_000)),
    scenario("write 20 kB", "/write", fields(20_000)),
    scenario("write 300 B, one string", "/write", text(300)),
    scenario("write 2 kB, one string", "/write", text(2_000)),
    scenario("write 20 kB, one string", "/write", text(20_000)),
    rotates(scenario("login 300 B", "/login", fields(300))),
    rotates(scenario("login 300 B, one string", "/login", text(300))),
];

/// Creates sessions through the app, so each is in the app's own format. Returns their cookies.
pub async fn seed(
    address: &str,
    (shape, size): (Shape, usize),
    sessions: u64,
) -> Result<Vec<String>, Failure> {
    let clients: Vec<_> = (0..SEEDERS)
        .map(|seeder| {
            let (address, path) = (address.to_owned(), format!("/seed/{shape}/{size}"));
            tokio::spawn(async move {
                let mut client = Client::connect(&address).await?;
                let mut cookies = Vec::new();
                for _ in (seeder..sessions).step_by(SEEDERS as usize) {
                    let response = client.get(&path, "").await?;
                    let cookie = response
                        .cookie()
                        .ok_or("the response to /seed sets no session cookie")?;
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

/// Writes one cookie a line.
pub fn write_cookies(path: &Path, cookies: &[String]) -> Result<(), Failure> {
    fs::write(path, cookies.join("\n"))?;
    Ok(())
}
