//! The measurements, as stored in `results/`. The command `report` renders charts and tables from them.

use std::{collections::BTreeMap, env, fs, io, path::PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{CURRENT_THREAD, Failure, redis_info};

#[derive(Serialize, Deserialize, Clone)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    /// Name and version of the Redis or Valkey server.
    pub server: String,
}

#[derive(Serialize, Deserialize)]
pub struct Compare {
    pub machine: Machine,
    pub rounds: u64,
    pub seconds: u64,
    pub connections: u64,
    pub sessions: u64,
    /// The Tokio runtime of the apps: `multi_thread` or `current_thread`.
    #[serde(default = "current_thread")]
    pub runtime: String,
    pub apps: Vec<String>,
    pub rows: Vec<Row>,
    /// By app: how many of the parallel increments of one session were kept, with one process and with two.
    pub kept: BTreeMap<String, [u64; 2]>,
    pub increments: u64,
    /// By app: resident memory after all rounds, in bytes.
    pub resident: BTreeMap<String, f64>,
    /// By app and size: memory in Redis per session, in bytes.
    pub session_bytes: BTreeMap<String, BTreeMap<usize, f64>>,
}

/// An app in a scenario.
#[derive(Serialize, Deserialize)]
pub struct Row {
    pub scenario: String,
    pub app: String,
    pub commands: f64,
    pub inner_commands: f64,
    pub commands_text: String,
    /// One per round.
    pub samples: Vec<Sample>,
}

/// One round.
#[derive(Serialize, Deserialize, Clone)]
pub struct Sample {
    /// Microseconds per request.
    pub app_cpu: f64,
    pub redis_cpu: f64,
    pub per_second: f64,
    pub p50: f64,
    pub p99: f64,
    /// Calls per request that Redis counted, including those by scripts.
    pub calls: f64,
}

#[derive(Serialize, Deserialize)]
pub struct Growth {
    pub machine: Machine,
    pub rounds: u64,
    pub seconds: u64,
    pub points: Vec<Point>,
    /// Length of the stored text, and memory in Redis per session of that length, in bytes.
    pub bytes: Vec<(usize, f64)>,
}

#[derive(Serialize, Deserialize)]
pub struct Point {
    /// `sessions`, `connections` or `shards`.
    pub what: String,
    pub number: u64,
    pub scenario: String,
    pub samples: Vec<Sample>,
}

impl Compare {
    pub fn row(&self, scenario: &str, app: &str) -> Option<&Row> {
        self.rows
            .iter()
            .find(|row| row.scenario == scenario && row.app == app)
    }

    /// The app that the others are compared with: the typed baseline, or in older results the untyped one.
    pub fn reference(&self) -> &str {
        match self.apps.iter().any(|app| app == "baseline_typed") {
            true => "baseline_typed",
            false => "baseline",
        }
    }

    /// The median over the rounds of the ratio to the reference app in the same round.
    pub fn ratio(&self, scenario: &str, app: &str, of: fn(&Sample) -> f64) -> Option<f64> {
        let row = self.row(scenario, app)?;
        let base = self.row(scenario, self.reference())?;
        let ratios = row.samples.iter().zip(&base.samples);
        Some(median(ratios.map(|(one, base)| of(one) / of(base))))
    }
}

fn current_thread() -> String {
    CURRENT_THREAD.to_owned()
}

pub fn median(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.into_iter().collect();
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Machine {
    pub fn this(connection: &mut redis::Connection) -> Result<Self, Failure> {
        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        let cpu = cpus
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1))
            .unwrap_or("an unknown CPU");
        // Valkey also reports `redis_version`, the version that it is compatible with.
        let valkey = redis_info::info(connection, "valkey_version").ok();
        let server = if valkey.is_some() { "Valkey" } else { "Redis" };
        let version = match valkey {
            Some(version) => version,
            None => redis_info::info(connection, "redis_version")?,
        };
        Ok(Self {
            cpu: cpu.to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            server: format!("{server} {version}"),
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {} cores, {}", self.cpu, self.cores, self.server)
    }
}

/// Returns the path of a results file, in `benches/peers/results` or in the directory that `RESULTS` names.
pub fn path(name: &str) -> PathBuf {
    env::var_os("RESULTS")
        .map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/results")),
            PathBuf::from,
        )
        .join(name)
}

pub fn save(name: &str, results: &impl Serialize) -> Result<(), Failure> {
    let path = path(name);
    fs::create_dir_all(path.parent().ok_or("a results file without a directory")?)?;
    fs::write(path, serde_json::to_string_pretty(results)? + "\n")?;
    Ok(())
}

/// Loads earlier runs: copies of `compare.json` named `earlier-1.json`, `earlier-2.json` and so on.
pub fn load_earlier() -> Result<Vec<Compare>, Failure> {
    let mut earlier = Vec::new();
    while let Some(run) = load(&format!("earlier-{}.json", earlier.len() + 1))? {
        earlier.push(run);
    }
    Ok(earlier)
}

/// Loads a results file; `None` if it does not exist.
pub fn load<T: DeserializeOwned>(name: &str) -> Result<Option<T>, Failure> {
    match fs::read(path(name)) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
