//! Transitions of a connection's state, over connections that nothing is sent over.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{RedisConnectionInfo, aio::MultiplexedConnection};
use tokio::task::yield_now;

use super::{
    connect::Connected,
    connection_state::{AttemptKind, ConnectionState, LastFailure},
    error,
    unanswered::Unanswered,
};
use crate::stats::OpenConnection;

const LONG: Duration = Duration::from_secs(60);

fn failure(age: Duration, backoff: Duration) -> LastFailure {
    LastFailure {
        at: Instant::now().checked_sub(age).expect("the machine is up"),
        backoff,
        error: error::unexpected_reply(),
    }
}

async fn connected() -> Connected {
    let (stream, _) = tokio::io::duplex(64);
    let settings = RedisConnectionInfo::default().set_skip_set_lib_name();
    let opened = MultiplexedConnection::new(&settings, stream).await;
    Connected {
        connection: opened.expect("nothing is sent").0,
        #[cfg(feature = "local-cache")]
        tracking: None,
    }
}

/// The attempt of this number opened its connection. Returns whether that is used.
async fn open(state: &mut ConnectionState, number: u64) -> bool {
    let counted = OpenConnection::new(Arc::default());
    state.opened(number, connected().await, counted)
}

/// With one open connection, number 1.
async fn open_state() -> ConnectionState {
    let mut state = ConnectionState::default();
    state.begin(AttemptKind::Patient, 1);
    assert!(open(&mut state, 1).await);
    state
}

fn unanswered() -> Unanswered {
    Unanswered {
        sent: Instant::now(),
        reply: Box::pin(pending()),
    }
}

fn generation(state: &ConnectionState) -> Option<u64> {
    state.ready().map(|(_, generation)| generation)
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

#[tokio::test]
async fn a_connection_is_used_until_another_one_takes_its_place() {
    let mut state = open_state().await;
    assert!(state.is_open(1) && !state.is_open(2));
    assert!(!state.is_connecting() && state.failure().is_none());
    assert_eq!(generation(&state), Some(1));
    assert!(!open(&mut state, 7).await, "no attempt has this number");
    state.begin(AttemptKind::Patient, 2);
    assert_eq!(generation(&state), Some(1));
    assert!(open(&mut state, 2).await);
    assert_eq!(generation(&state), Some(2));
    // The end of the old connection does not close the new one.
    state.close(1);
    assert_eq!(generation(&state), Some(2));
    state.begin(AttemptKind::Patient, 3);
    state.close(2);
    assert!(!state.is_open(2) && state.is_connecting());
    assert!(open(&mut state, 3).await);
    state.close(3);
    assert!(!state.is_connecting() && state.ready().is_none());
}

#[tokio::test]
async fn a_young_connection_is_not_closed_for_what_the_server_answers() {
    let mut state = open_state().await;
    assert!(state.close_unless_young(7, LONG), "it is another one now");
    assert!(!state.close_unless_young(1, LONG));
    assert!(state.is_open(1));
    assert!(state.close_unless_young(1, Duration::ZERO));
    assert!(!state.is_open(1));
}

#[tokio::test]
async fn a_connection_that_does_not_answer_is_replaced_unless_it_answers_after_all() {
    let mut state = open_state().await;
    assert!(state.watch_reply(7, unanswered()).is_none(), "an old one");
    assert!(state.is_responsive());
    assert!(state.watch_reply(1, unanswered()).is_some());
    assert!(!state.is_responsive() && state.is_open(1));
    assert_eq!(generation(&state), Some(1), "nothing replaces it yet");
    state.begin(AttemptKind::Patient, 2);
    assert_eq!(generation(&state), None, "requests wait for either");
    state.keep(7);
    assert_eq!(generation(&state), None);
    state.keep(1);
    assert_eq!(generation(&state), Some(1));
    assert!(!open(&mut state, 2).await, "the attempt is given up");
}

#[tokio::test]
async fn one_task_waits_for_unanswered_commands_one_after_the_other() {
    let mut state = open_state().await;
    assert!(state.watch_reply(1, unanswered()).is_some());
    assert!(state.watch_reply(1, unanswered()).is_none(), "it waits");
    assert!(state.next_unanswered(7).is_none());
    assert!(state.next_unanswered(1).is_some());
    assert!(!state.is_responsive());
    assert!(state.next_unanswered(1).is_none());
    assert!(state.is_responsive());
    assert!(state.watch_reply(1, unanswered()).is_some());
    state.end_watch(7);
    assert!(!state.is_responsive());
    state.end_watch(1);
    assert!(state.is_responsive());
    state.close(1);
    assert!(!state.is_responsive());
}

/// Some time later: a hedge delay of 250 ms.
#[tokio::test]
async fn an_attempt_that_hangs_is_probed_and_one_that_is_overdue_is_replaced() {
    let mut state = ConnectionState::default();
    state.begin(AttemptKind::Patient, 1);
    assert_eq!(state.due_attempt(Duration::ZERO, Duration::ZERO), None);
    let due = async |state: &mut ConnectionState, connect, probe| loop {
        if let Some(due) = state.due_attempt(connect, probe) {
            return due;
        }
        yield_now().await;
    };
    let probe = due(&mut state, LONG, LONG).await;
    assert_eq!(probe, AttemptKind::Probe);
    state.begin(probe, 2);
    assert_eq!(state.due_attempt(LONG, LONG), None, "both run");
    let overdue = state.due_attempt(Duration::ZERO, LONG);
    assert_eq!(overdue, Some(AttemptKind::Patient));
    assert_eq!(state.due_attempt(LONG, Duration::ZERO), None);
    let again = due(&mut state, LONG, Duration::ZERO).await;
    assert_eq!(again, AttemptKind::Probe);
}

#[tokio::test]
async fn the_first_connection_ends_the_other_attempt() {
    for is_second_first in [false, true] {
        let mut state = ConnectionState::default();
        state.begin(AttemptKind::Patient, 1);
        state.begin(AttemptKind::Probe, 2);
        let tasks = [tokio::spawn(pending::<()>()), tokio::spawn(pending())];
        state.set_task(1, tasks[0].abort_handle());
        state.set_task(2, tasks[1].abort_handle());
        let first = usize::from(is_second_first);
        assert!(open(&mut state, [1, 2][first]).await);
        let [one, two] = tasks;
        let [own, other] = match is_second_first {
            true => [two, one],
            false => [one, two],
        };
        assert!(other.await.expect_err("it was ended").is_cancelled());
        assert!(!own.is_finished());
        own.abort();
    }
}
