//! Markdown tables of the measurements.

use std::{collections::BTreeMap, fmt::Write};

use crate::{
    results::{Compare, Growth, Row, Sample, median},
    scenario::SIZES,
};

/// The name of an app in charts and tables.
pub fn label(app: &str) -> &str {
    match app {
        "baseline_typed" => "baseline, typed",
        "baseline_cas" => "baseline, CAS",
        "this_crate" => "this crate",
        "this_crate_cached" => "this crate, local cache",
        "this_crate_encrypted" => "this crate, encrypted",
        "this_crate_metrics" => "this crate, metrics",
        "tower_sessions" => "tower-sessions",
        "actix_session" => "actix-session",
        other => other,
    }
}

/// This crate's goals for CPU time, as ratios to the typed baseline: the scenario, without the local cache and with it.
const GOALS: [(&str, f64, f64); 17] = [
    ("untouched", 1.05, 1.05),
    ("untouched, with a cookie", 1.05, 1.05),
    ("anonymous read", 1.05, 1.05),
    ("read 300 B", 1.05, 0.60),
    ("read 2 kB", 1.05, 0.55),
    ("read 20 kB", 1.00, 0.40),
    ("read 300 B, one string", 1.05, 0.60),
    ("read 2 kB, one string", 1.05, 0.55),
    ("read 20 kB, one string", 1.00, 0.40),
    ("write 300 B", 1.20, 0.90),
    ("write 2 kB", 1.10, 0.85),
    ("write 20 kB", 0.85, 0.70),
    ("write 300 B, one string", 1.20, 0.90),
    ("write 2 kB, one string", 1.10, 0.85),
    ("write 20 kB, one string", 0.85, 0.70),
    ("login 300 B", 1.20, 0.90),
    ("login 300 B, one string", 1.20, 0.90),
];

type Of = fn(&Sample) -> f64;

fn scenarios(compare: &Compare) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for row in &compare.rows {
        if !names.contains(&row.scenario.as_str()) {
            names.push(&row.scenario);
        }
    }
    names
}

fn of_row(row: &Row, of: Of) -> f64 {
    median(row.samples.iter().map(of))
}

fn head(first: &str, columns: impl IntoIterator<Item = String>) -> String {
    let columns: Vec<String> = columns.into_iter().collect();
    let aligned = "--:|".repeat(columns.len());
    format!("| {first} | {} |\n|---|{aligned}\n", columns.join(" | "))
}

fn row(table: &mut String, first: &str, columns: impl IntoIterator<Item = String>) {
    let columns: Vec<String> = columns.into_iter().collect();
    let _ = writeln!(table, "| {first} | {} |", columns.join(" | "));
}

/// CPU time of the app: microseconds of the reference app, and the ratio of each other app to it.
pub fn ratios(compare: &Compare) -> String {
    let reference = compare.reference();
    let others: Vec<&String> = compare
        .apps
        .iter()
        .filter(|app| *app != reference)
        .collect();
    let mut table = head(
        "request",
        [format!("{}, µs", label(reference))]
            .into_iter()
            .chain(others.iter().map(|app| label(app).to_owned())),
    );
    for scenario in scenarios(compare) {
        let micros = compare.row(scenario, reference).map_or_else(
            || "–".to_owned(),
            |row| format!("{:.1}", of_row(row, |sample| sample.app_cpu)),
        );
        let ratios = others.iter().map(|app| {
            let ratio = compare.ratio(scenario, app, |sample| sample.app_cpu);
            let ratio = ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
            match app.as_str() {
                "this_crate" => format!("**{ratio}**"),
                _ => ratio,
            }
        });
        row(
            &mut table,
            scenario,
            [micros].into_iter().chain(ratios.collect::<Vec<_>>()),
        );
    }
    table
}

/// This crate and its goals, of several runs: the median of each run's ratios, and their range.
pub fn goals(runs: &[Compare]) -> String {
    let (base, apps) = ("baseline_typed", ["this_crate", "this_crate_cached"]);
    let mut columns = vec![format!("{}, µs", label(base))];
    for app in apps {
        let app = label(app);
        columns.push(format!("{app}: goal, at most"));
        columns.push(format!("{app}: CPU"));
        columns.push(format!("{app}: requests/s"));
    }
    let mut table = head("request", columns);
    for (scenario, without, with) in GOALS {
        let over_runs = |of: &dyn Fn(&Compare) -> Option<f64>| {
            let mut numbers: Vec<f64> = runs.iter().filter_map(of).collect();
            numbers.sort_by(f64::total_cmp);
            numbers
        };
        let micros =
            over_runs(&|run| Some(of_row(run.row(scenario, base)?, |sample| sample.app_cpu)));
        let mut columns = vec![format!("{:.1}", median(micros))];
        for (app, goal) in apps.into_iter().zip([without, with]) {
            let ratios = over_runs(&|run| run.ratio(scenario, app, |sample| sample.app_cpu));
            let rates = over_runs(&|run| run.ratio(scenario, app, |sample| sample.per_second));
            let (Some(least), Some(most)) = (ratios.first(), ratios.last()) else {
                columns.extend(["–"; 3].map(str::to_owned));
                continue;
            };
            let ratio = median(ratios.iter().copied());
            let mark = if (ratio * 100.0).round() <= goal * 100.0 {
                ""
            } else {
                ", missed"
            };
            columns.push(format!("{goal:.2}"));
            columns.push(format!("{ratio:.2} ({least:.2}–{most:.2}){mark}"));
            columns.push(format!("{:.2}", median(rates)));
        }
        row(&mut table, scenario, columns);
    }
    table
}

/// All measurements, one table per scenario.
pub fn everything(compare: &Compare) -> String {
    let mut text = String::new();
    for scenario in scenarios(compare) {
        let _ = writeln!(text, "**{scenario}**\n");
        text += &head(
            "",
            [
                "app µs",
                "Redis µs",
                "requests/s",
                "p50 µs",
                "p99 µs",
                "commands sent",
                "called by scripts",
                "commands",
            ]
            .map(str::to_owned),
        );
        for app in &compare.apps {
            let Some(measured) = compare.row(scenario, app) else {
                continue;
            };
            let commands = match measured.commands_text.as_str() {
                "" => "–".to_owned(),
                text => format!("`{text}`"),
            };
            row(
                &mut text,
                label(app),
                [
                    format!("{:.1}", of_row(measured, |sample| sample.app_cpu)),
                    format!("{:.1}", of_row(measured, |sample| sample.redis_cpu)),
                    format!("{:.0}", of_row(measured, |sample| sample.per_second)),
                    format!("{:.0}", of_row(measured, |sample| sample.p50)),
                    format!("{:.0}", of_row(measured, |sample| sample.p99)),
                    format!("{:.1}", measured.commands),
                    format!("{:.1}", measured.inner_commands),
                    commands,
                ],
            );
        }
        text.push('\n');
    }
    text
}

/// Lost updates and memory.
pub fn kept_and_memory(compare: &Compare) -> String {
    let increments = compare.increments;
    let mut table = head(
        "",
        [
            format!("increments kept of {increments} in parallel, one process"),
            "two processes".to_owned(),
            "resident memory after the load".to_owned(),
        ]
        .into_iter()
        .chain(SIZES.map(|size| format!("Redis memory per session of {}", bytes(size as f64)))),
    );
    for app in &compare.apps {
        let [one, two] = compare.kept.get(app).copied().unwrap_or_default();
        let resident = compare.resident.get(app).copied().unwrap_or(f64::NAN);
        let none = BTreeMap::new();
        let sizes = compare.session_bytes.get(app).unwrap_or(&none);
        row(
            &mut table,
            label(app),
            [
                one.to_string(),
                two.to_string(),
                format!("{:.1} MB", resident / 1e6),
            ]
            .into_iter()
            .chain(SIZES.map(|size| {
                sizes
                    .get(&size)
                    .map_or_else(|| "–".to_owned(), |size| format!("{size:.0} B"))
            })),
        );
    }
    table
}

/// Cost per request as sessions, connections and shards grow.
pub fn growth(growth: &Growth) -> String {
    let mut table = head(
        "",
        [
            "request",
            "app µs",
            "Redis µs",
            "requests/s",
            "p50 µs",
            "p99 µs",
        ]
        .map(str::to_owned),
    );
    for point in &growth.points {
        let median = |of: Of| median(point.samples.iter().map(of));
        row(
            &mut table,
            &format!(
                "{} {}",
                thousands(point.number),
                plural(&point.what, point.number)
            ),
            [
                format!("{} 300 B", point.scenario),
                format!("{:.1}", median(|sample| sample.app_cpu)),
                format!("{:.1}", median(|sample| sample.redis_cpu)),
                format!("{:.0}", median(|sample| sample.per_second)),
                format!("{:.0}", median(|sample| sample.p50)),
                format!("{:.0}", median(|sample| sample.p99)),
            ],
        );
    }
    table
}

/// The singular for 1.
pub fn plural(what: &str, number: u64) -> &str {
    match number {
        1 => what.trim_end_matches('s'),
        _ => what,
    }
}

/// Memory for many sessions, by size: measured per session, computed for 10⁸.
pub fn sizing(growth: &Growth) -> String {
    const SESSIONS: f64 = 1e8;
    // Half of a 64 GB machine: during a snapshot or a full resynchronization, Redis needs memory for the pages written meanwhile.
    const MASTER: f64 = 32e9;
    let mut table = head(
        "stored text (measured)",
        [
            "Redis memory per session (measured)",
            "overhead (measured)",
            "10⁸ sessions (computed)",
            "masters of 32 GB (computed)",
        ]
        .map(str::to_owned),
    );
    for (length, each) in &growth.bytes {
        let all = each * SESSIONS;
        row(
            &mut table,
            &format!("{length} B"),
            [
                format!("{each:.0} B"),
                format!("{:.0} B", each - *length as f64),
                format!("{:.0} GB", all / 1e9),
                format!("{:.0}", (all / MASTER).ceil()),
            ],
        );
    }
    table
}

/// Requests per second that one core of Redis serves, computed from the CPU time per request.
pub fn rates(growth: &Growth) -> String {
    let mut table = head(
        "request",
        [
            "Redis µs per request at 10⁶ sessions (measured)",
            "requests/s on one core of Redis (computed)",
            "cores for 10⁵ requests/s at 50 % load (computed)",
        ]
        .map(str::to_owned),
    );
    let largest = growth
        .points
        .iter()
        .filter(|point| point.what == "sessions")
        .map(|point| point.number)
        .max();
    for point in &growth.points {
        if point.what != "sessions" || Some(point.number) != largest {
            continue;
        }
        let micros = median(point.samples.iter().map(|sample| sample.redis_cpu));
        row(
            &mut table,
            &format!("{} 300 B", point.scenario),
            [
                format!("{micros:.1}"),
                thousands((1e6 / micros) as u64 / 1_000 * 1_000),
                format!("{:.0}", (micros / 1e6 * 1e5 * 2.0).ceil()),
            ],
        );
    }
    table
}

fn bytes(number: f64) -> String {
    match number {
        small if small < 1e3 => format!("{small:.0} B"),
        large => format!("{:.0} kB", large / 1e3),
    }
}

pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
