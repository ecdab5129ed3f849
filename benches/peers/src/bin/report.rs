//! Renders the charts and the tables of `src/docs/performance.md`, and the `measured` block of README if there is one, from the results
//! of `compare`, `growth`, `instructions` and `allocations` in `benches/peers/results`.
//!
//! ```sh
//! target/peers/release/report
//! ```

use std::{fs, path::Path};

use peers::{
    CURRENT_THREAD, Failure,
    report::{
        chart::{Chart, Series},
        data_uri, put, put_if_marked, root,
        tables::{self, label, plural, thousands},
    },
    results::{self, Compare, Growth, Sample, median},
};
use plotters::style::RGBColor;

fn main() -> Result<(), Failure> {
    let root = root()?;
    let (readme, page) = (root.join("README.md"), root.join("src/docs/performance.md"));
    let charts = root.join("src/docs/charts");
    fs::create_dir_all(&charts)?;
    if let Some(compare) = results::load::<Compare>("compare.json")? {
        draw(&charts, "cpu", &cpu_chart(&compare))?;
        draw(&charts, "rate", &rate_chart(&compare))?;
        put_if_marked(&readme, "measured", &readme_block(&compare))?;
        put(&page, "ratios", &tables::ratios(&compare))?;
        put(&page, "kept", &tables::kept_and_memory(&compare))?;
        put(&page, "everything", &tables::everything(&compare))?;
        put(&page, "run", &run(&compare))?;
        let mut runs = results::load_earlier()?;
        runs.push(compare);
        put(&page, "goals", &tables::goals(&runs))?;
    }
    if let Some(growth) = results::load::<Growth>("growth.json")? {
        draw(&charts, "growth", &growth_chart(&growth))?;
        let text = format!(
            "{}\nMedian of {} rounds of {} seconds, on {}.",
            tables::growth(&growth),
            growth.rounds,
            growth.seconds,
            growth.machine
        );
        put(&page, "growth", &text)?;
        put(&page, "sizing", &tables::sizing(&growth))?;
        put(&page, "rates", &tables::rates(&growth))?;
    }
    for name in ["instructions", "allocations"] {
        if let Ok(table) = fs::read_to_string(results::path(&format!("{name}.md"))) {
            put(&page, name, &table)?;
        }
    }
    write_links(&charts)
}

fn run(compare: &Compare) -> String {
    format!(
        "Measured on {}: {} rounds of {} s per app, in turns; {} connections, {} sessions; {}.",
        compare.machine,
        compare.rounds,
        compare.seconds,
        compare.connections,
        compare.sessions,
        match compare.runtime.as_str() {
            CURRENT_THREAD => "every app on one thread",
            _ => "every app on Tokio's multi-threaded runtime",
        }
    )
}

/// One chart and one line. The tables are in `src/docs/performance.md`.
fn readme_block(compare: &Compare) -> String {
    // Fewer rounds are for trying things out and must not be taken for a result.
    let provisional = if compare.rounds < 5 {
        "*Provisional: from a short run.*\n\n"
    } else {
        ""
    };
    format!(
        "{provisional}![CPU time of a request, relative to a hand-written server][cpu]\n\n\
         The application's CPU time per request, relative to a server written by hand (GET, a serde struct, SETEX): the median of {} rounds on {}.\n",
        compare.rounds, compare.machine,
    )
}

fn color(app: &str) -> RGBColor {
    match app {
        "baseline_typed" => RGBColor(80, 84, 92),
        "baseline" => RGBColor(120, 124, 132),
        "baseline_cas" => RGBColor(176, 180, 188),
        "this_crate" => RGBColor(20, 90, 200),
        "this_crate_cached" => RGBColor(110, 175, 240),
        "this_crate_encrypted" => RGBColor(150, 60, 60),
        "this_crate_metrics" => RGBColor(60, 160, 170),
        "tower_sessions" => RGBColor(225, 135, 40),
        "actix_session" => RGBColor(70, 160, 90),
        _ => RGBColor(160, 100, 180),
    }
}

fn series(compare: &Compare) -> Vec<Series> {
    let series = compare.apps.iter().map(|app| Series {
        name: label(app).to_owned(),
        color: color(app),
    });
    series.collect()
}

fn groups(compare: &Compare, of: fn(&Sample) -> f64) -> Vec<(String, Vec<Option<f64>>)> {
    let mut groups: Vec<(String, Vec<Option<f64>>)> = Vec::new();
    for row in &compare.rows {
        // The tables have all of them.
        let is_drawn =
            !row.scenario.starts_with("no layer") && !row.scenario.ends_with("one string");
        if !is_drawn || groups.iter().any(|(name, _)| *name == row.scenario) {
            continue;
        }
        let ratios = compare
            .apps
            .iter()
            .map(|app| compare.ratio(&row.scenario, app, of));
        groups.push((row.scenario.clone(), ratios.collect()));
    }
    groups
}

fn cpu_chart(compare: &Compare) -> Chart {
    Chart {
        title: format!(
            "CPU time of the app per request, relative to the {} (lower is better)",
            label(compare.reference())
        ),
        series: series(compare),
        groups: groups(compare, |sample| sample.app_cpu),
        max: 3.0,
        line: Some(1.0),
        decimals: 2,
    }
}

fn rate_chart(compare: &Compare) -> Chart {
    Chart {
        title: format!(
            "Requests per second, relative to the {} (higher is better)",
            label(compare.reference())
        ),
        series: series(compare),
        groups: groups(compare, |sample| sample.per_second),
        max: 2.0,
        line: Some(1.0),
        decimals: 2,
    }
}

fn growth_chart(growth: &Growth) -> Chart {
    let names = ["read", "write"];
    let mut groups: Vec<(String, Vec<Option<f64>>)> = Vec::new();
    for point in &growth.points {
        let name = format!(
            "{} {}",
            thousands(point.number),
            plural(&point.what, point.number)
        );
        let micros = median(point.samples.iter().map(|sample| sample.app_cpu));
        if groups.last().is_none_or(|(last, _)| *last != name) {
            groups.push((name, vec![None; names.len()]));
        }
        if let (Some((_, numbers)), Some(place)) = (
            groups.last_mut(),
            names.iter().position(|name| *name == point.scenario),
        ) {
            numbers[place] = Some(micros);
        }
    }
    let numbers = groups.iter().flat_map(|(_, numbers)| numbers).flatten();
    let max = numbers.copied().fold(1.0, f64::max);
    Chart {
        title: "CPU time of this crate's app per request, in microseconds (300 B)".into(),
        series: vec![
            Series {
                name: "read".into(),
                color: RGBColor(20, 90, 200),
            },
            Series {
                name: "write".into(),
                color: RGBColor(225, 135, 40),
            },
        ],
        groups,
        max,
        line: None,
        decimals: 1,
    }
}

fn draw(directory: &Path, name: &str, chart: &Chart) -> Result<(), Failure> {
    fs::write(directory.join(format!("{name}.svg")), chart.svg()?)?;
    Ok(())
}

/// Writes link definitions with the charts as data URIs, for pages in rustdoc. Of several definitions of a name Markdown uses the first, so
/// these, included before the text, take precedence over the file names at its end.
fn write_links(charts: &Path) -> Result<(), Failure> {
    let mut links = String::new();
    for name in ["cpu", "rate", "growth"] {
        if let Ok(svg) = fs::read_to_string(charts.join(format!("{name}.svg"))) {
            links += &format!("[{name}]: {}\n", data_uri(&svg));
        }
    }
    fs::write(charts.join("links.md"), links + "\n")?;
    Ok(())
}
