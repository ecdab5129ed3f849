//! Tests that do not need axum. `tests/run.sh` also runs them with `--no-default-features`.

mod config;
mod tower;
