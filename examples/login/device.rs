//! A description of a browser that its user recognises: name, operating system and address.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// Stored in the session at login.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Device {
    /// For example `Firefox on Windows`. Never the User-Agent header itself, which can have any content and length.
    pub(crate) label: String,
    pub(crate) is_handheld: bool,
    /// The client's address at login. Behind a reverse proxy, read the header that the proxy sets instead.
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

/// For example `5 minutes ago`.
pub(crate) fn ago(time: SystemTime) -> String {
    // The time may be in the future if a clock was set back or belongs to another server.
    let since = SystemTime::now()
        .duration_since(time)
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

/// The first row whose word is in the header. User-Agent headers also name other browsers, so the order matters.
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
