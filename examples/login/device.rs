//! What a person can tell a browser by: its name, the system it runs on, where it is.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// What the app attaches to a session at its beginning.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Device {
    /// Such as `Firefox on Windows`. Never what the browser itself wrote, which can be anything and of any length.
    pub(crate) label: String,
    pub(crate) is_handheld: bool,
    /// Where the login came from. Behind a proxy that is the proxy, and the app reads the header that its proxy sets.
    pub(crate) address: String,
}

impl Device {
    pub(crate) fn new(user_agent: &str, address: String) -> Self {
        let (system, is_handheld) = first(SYSTEMS, user_agent).unwrap_or(("", false));
        let (browser, ()) = first(BROWSERS, user_agent).unwrap_or(("", ()));
        let label = match (browser, system) {
            ("", "") => "Unknown device".to_owned(),
            ("", system) => system.to_owned(),
            (browser, "") => browser.to_owned(),
            (browser, system) => format!("{browser} on {system}"),
        };
        Self {
            label,
            is_handheld,
            address,
        }
    }
}

/// Such as `5 minutes ago`.
pub(crate) fn ago(moment: SystemTime) -> String {
    // A clock that was set back, or another node's, may say that it is yet to come.
    let since = SystemTime::now()
        .duration_since(moment)
        .unwrap_or(Duration::ZERO);
    let minutes = since.as_secs() / 60;
    let (count, unit) = match minutes {
        0 => return "just now".to_owned(),
        1..60 => (minutes, "minute"),
        60..1440 => (minutes / 60, "hour"),
        _ => (minutes / 1440, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}

type Table<T> = &'static [(&'static str, &'static str, T)];

/// The first whose word is in the header. Browsers name others, whom they take after, so the order counts.
fn first<T: Copy>(table: Table<T>, user_agent: &str) -> Option<(&'static str, T)> {
    let mut found = table
        .iter()
        .filter(|(word, ..)| user_agent.contains(word))
        .map(|&(_, name, more)| (name, more));
    found.next()
}

const BROWSERS: Table<()> = &[
    ("Edg", "Edge", ()),
    ("OPR/", "Opera", ()),
    ("SamsungBrowser/", "Samsung Internet", ()),
    ("Firefox/", "Firefox", ()),
    ("FxiOS/", "Firefox", ()),
    ("Chrome/", "Chrome", ()),
    ("CriOS/", "Chrome", ()),
    ("Safari/", "Safari", ()),
    ("curl/", "curl", ()),
];

const SYSTEMS: Table<bool> = &[
    ("iPhone", "iPhone", true),
    ("iPad", "iPad", true),
    ("Android", "Android", true),
    ("Windows", "Windows", false),
    ("Mac OS X", "macOS", false),
    ("CrOS", "ChromeOS", false),
    ("Linux", "Linux", false),
];
