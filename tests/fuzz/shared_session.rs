#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| axum_redis_sessions::testing::fuzzing_shared::shared_session(input));
