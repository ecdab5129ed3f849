//! Counts an app's instructions with `valgrind --tool=callgrind`.

use std::{
    collections::{BTreeMap, HashMap},
    env, fs,
    path::Path,
    sync::Arc,
};

use tokio::sync::Barrier;

use crate::{
    Failure, Shape,
    client::Client,
    process::{free_port, start_app_under},
};

/// Instructions by the crate whose source code they come from.
pub type Places = BTreeMap<String, u64>;

/// Sends `requests` requests over each of `connections` connections, one after the other. Each connection has its own session, or none.
pub async fn run(
    app: &str,
    redis: &str,
    path: &'static str,
    session: Option<(Shape, usize)>,
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
                let mut cookie = match session {
                    None => String::new(),
                    Some((shape, size)) => client
                        .get(&format!("/seed/{shape}/{size}"), "")
                        .await?
                        .cookie()
                        .ok_or("the response to /seed sets no session cookie")?
                        .to_owned(),
                };
                begin.wait().await;
                for _ in 0..requests {
                    let response = client.get(path, &cookie).await?;
                    if response.status != 200 {
                        return Err(format!("{path}: {}", response.status).into());
                    }
                    if let Some(next) = response.cookie() {
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

/// Parses callgrind's output. A line's cost is attributed to its source file, so inlined code counts for the crate that it comes
/// from.
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
                // A name is written out only where it first occurs.
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
        // The line after `calls=` is the inclusive cost of the called function, which is counted there.
        if std::mem::take(&mut call) {
            continue;
        }
        let cost = line
            .split_whitespace()
            .nth(1)
            .ok_or("callgrind: a line without a cost")?;
        *places.entry(place(file, function)).or_default() += cost.parse::<u64>()?;
    }
    Ok(places)
}

/// Resolves a compressed name: `(7) name` the first time, `(7)` later.
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
