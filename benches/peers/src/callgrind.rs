//! An app under `valgrind --tool=callgrind`, and where its instructions are.

use std::{
    collections::{BTreeMap, HashMap},
    env, fs,
    path::Path,
    sync::Arc,
};

use tokio::sync::Barrier;

use crate::{
    Failure,
    client::Client,
    process::{free_port, start_app_under},
};

/// Instructions by the crate whose source they stand in.
pub type Places = BTreeMap<String, u64>;

/// Each of `connections` sends `requests` requests, one after the other, each in a session of its own of `size` bytes; 0: in none.
pub async fn run(
    app: &str,
    redis: &str,
    path: &'static str,
    size: usize,
    connections: u64,
    requests: u64,
) -> Result<Places, Failure> {
    let output = env::temp_dir().join(format!("axum-redis-sessions-callgrind-{}", free_port()?));
    let option = format!("--callgrind-out-file={}", output.display());
    let valgrind = ["valgrind", "-q", "--tool=callgrind", &option];
    let (process, address) = start_app_under(&valgrind, app, redis)?;
    let begin = Arc::new(Barrier::new(usize::try_from(connections)?));
    let clients: Vec<_> = (0..connections)
        .map(|_| {
            let (address, begin) = (address.clone(), begin.clone());
            tokio::spawn(async move {
                let mut client = Client::connect(&address).await?;
                let seed = format!("/seed/{size}");
                let mut cookie = match size {
                    0 => String::new(),
                    _ => client
                        .get(&seed, "")
                        .await?
                        .cookie()
                        .ok_or("no cookie")?
                        .to_owned(),
                };
                begin.wait().await;
                for _ in 0..requests {
                    let answer = client.get(path, &cookie).await?;
                    if answer.status != 200 {
                        return Err(format!("{path}: {}", answer.status).into());
                    }
                    if let Some(next) = answer.cookie() {
                        cookie = next.to_owned();
                    }
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    for client in clients {
        client.await??;
    }
    process.end()?;
    let text = fs::read_to_string(&output)?;
    fs::remove_file(&output)?;
    places(&text)
}

/// Reads callgrind's output. The cost of a line counts for the file that the line is in, so code that was inlined counts for the
/// crate that it was written in.
fn places(text: &str) -> Result<Places, Failure> {
    let mut files: HashMap<&str, &str> = HashMap::new();
    let mut functions: HashMap<&str, &str> = HashMap::new();
    let mut places = Places::new();
    let (mut file, mut function) = ("", "");
    let mut call = false;
    for line in text.lines() {
        if let Some((key, value)) = line.split_once('=') {
            match key {
                "fl" | "fi" | "fe" => file = named(&mut files, value),
                "fn" => function = named(&mut functions, value),
                // Names are given once, wherever they first occur.
                "cfi" | "cfl" => drop(named(&mut files, value)),
                "cfn" => drop(named(&mut functions, value)),
                "calls" => call = true,
                _ => {}
            }
            continue;
        }
        let is_cost = line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c));
        if !is_cost {
            continue;
        }
        // After `calls=` stands what the called function took, which is counted there.
        if std::mem::take(&mut call) {
            continue;
        }
        let cost = line.split_whitespace().nth(1).ok_or("no cost")?;
        *places.entry(place(file, function)).or_default() += cost.parse::<u64>()?;
    }
    Ok(places)
}

/// `(7) name` the first time, `(7)` later.
fn named<'a>(names: &mut HashMap<&'a str, &'a str>, value: &'a str) -> &'a str {
    match value.split_once(' ') {
        Some((number, name)) => {
            names.insert(number, name);
            name
        }
        None => names.get(value).copied().unwrap_or(value),
    }
}

fn place(file: &str, function: &str) -> String {
    if let Some((_, path)) = file.split_once("/registry/src/") {
        let directory = path.split('/').nth(1).unwrap_or(path);
        return directory
            .rsplit_once('-')
            .map_or(directory, |(name, _version)| name)
            .to_owned();
    }
    if file.contains("/rustc/") || file.contains("/rustlib/") {
        return "std".to_owned();
    }
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
    if file.starts_with("src/") || Path::new(file).starts_with(bench) {
        return "the app".to_owned();
    }
    if let Some(root) = bench.ancestors().nth(2)
        && let Ok(own) = Path::new(file).strip_prefix(root.join("src"))
    {
        return format!("axum-redis-sessions {}", own.display());
    }
    let function = function.split('\'').next().unwrap_or(function);
    match function {
        name if name.contains("alloc") || name.contains("free") => "malloc and free".to_owned(),
        name if name.contains("mem") => "memory copies".to_owned(),
        _ if file == "???" || file.contains('.') => format!("libc {function}"),
        _ => file.to_owned(),
    }
}
