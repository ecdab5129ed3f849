//! Transitions of a connection's state that need no connection.

use std::time::{Duration, Instant};

use super::{
    connection_state::{AttemptKind, ConnectionState, LastFailure},
    error,
};

const LONG: Duration = Duration::from_secs(60);

fn failure(age: Duration, backoff: Duration) -> LastFailure {
    LastFailure {
        at: Instant::now().checked_sub(age).expect("the machine is up"),
        backoff,
        error: error::unexpected_reply(),
    }
}

#[test]
fn a_failure_is_current_while_the_connection_rests() {
    for (name, age, backoff, is_connecting, expected) in [
        ("just failed", 0, LONG, false, true),
        ("the rest is over", 5, Duration::from_secs(1), false, false),
        ("the rest goes on", 5, LONG, false, true),
        ("another attempt runs", 0, Duration::ZERO, true, true),
        ("an attempt runs for long", 5, LONG, true, false),
    ] {
        let failure = failure(Duration::from_secs(age), backoff);
        assert_eq!(failure.is_current(is_connecting), expected, "{name}");
    }
}

#[tokio::test]
async fn one_attempt_runs_at_a_time_and_its_failure_is_known() {
    let mut state = ConnectionState::default();
    let due = |state: &mut ConnectionState| state.due_attempt(LONG, LONG);
    assert_eq!(due(&mut state), Some(AttemptKind::Patient));
    assert!(!state.is_connecting() && state.failure().is_none());
    state.begin(AttemptKind::Patient, 1);
    assert!(state.is_connecting());
    assert!(!state.is_open(1));
    assert!(state.ready().is_none());
    assert_eq!(due(&mut state), None, "it runs");
    // The end of an attempt that is not the present one changes nothing.
    state.attempt_failed(7, failure(Duration::ZERO, LONG));
    assert!(state.is_connecting() && state.failure().is_none());
    state.close(1);
    assert!(state.is_connecting(), "there is nothing to close");
    state.attempt_failed(1, failure(Duration::ZERO, LONG));
    assert!(!state.is_connecting());
    assert!(state.failure().is_some());
    assert_eq!(due(&mut state), Some(AttemptKind::Patient));

    // The failure stays known while the next attempt runs.
    state.begin(AttemptKind::Patient, 2);
    assert!(state.is_connecting() && state.failure().is_some());
    state.begin(AttemptKind::Probe, 3);
    state.attempt_ended(2);
    assert!(state.is_connecting(), "the other one runs");
    state.attempt_ended(3);
    assert!(!state.is_connecting());
}

#[tokio::test]
async fn an_attempt_that_takes_the_place_of_another_one_ends_it() {
    let mut state = ConnectionState::default();
    state.begin(AttemptKind::Patient, 1);
    let task = tokio::spawn(std::future::pending::<()>());
    state.set_task(7, task.abort_handle());
    state.set_task(1, task.abort_handle());
    state.begin(AttemptKind::Patient, 2);
    assert!(task.await.expect_err("it was ended").is_cancelled());
    state.attempt_ended(1);
    assert!(state.is_connecting(), "the second one runs");
    state.attempt_ended(2);
    assert!(!state.is_connecting());
}
