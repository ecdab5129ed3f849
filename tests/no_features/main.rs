//! What must hold without axum. `tests/run.sh` runs these tests with `--no-default-features` as well.

mod config;
mod tower;
