//! axum-redis-sessions
