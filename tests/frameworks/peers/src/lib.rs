//! What the apps have in common: their arguments and the keys that the tests use.

use std::{collections::HashMap, env, net::TcpListener};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// tower-sessions and axum_session cannot list a session's keys.
pub const KEYS: [&str; 5] = ["cart", "theme", "Größe", "n", "visits"];

/// Of tests alone.
pub const KEY: [u8; 64] = [7; 64];

pub struct Arguments(HashMap<String, String>);

impl Arguments {
    pub fn read() -> Self {
        let words: Vec<_> = env::args().skip(1).collect();
        let pairs = words.chunks_exact(2);
        Self(
            pairs
                .map(|pair| (pair[0].clone(), pair[1].clone()))
                .collect(),
        )
    }

    pub fn redis(&self) -> &str {
        &self.0["--redis"]
    }

    pub fn variant(&self) -> &str {
        &self.0["--variant"]
    }

    /// Says where it listens.
    pub fn listen(&self) -> Result<TcpListener, Failure> {
        let listener = TcpListener::bind(("127.0.0.1", self.0["--port"].parse()?))?;
        listener.set_nonblocking(true)?;
        println!("listening on {}", listener.local_addr()?.port());
        Ok(listener)
    }
}
