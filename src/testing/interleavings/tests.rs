use super::{Mix, Op, Shadow, explore};
use crate::testing::stepped::Protocol;

const INSERT_A: Op = Op::Insert("a", 1);
const INSERT_B: Op = Op::Insert("b", 2);
const AGAIN_A: Op = Op::Insert("a", 3);
const LOG_IN: Op = Op::LogIn(42);
const REPLACE: Op = Op::Replace("new", 7);

/// Explores each, and says how many orders there were.
fn hold(name: &str, mixes: &[Mix]) -> usize {
    let mut orders = 0;
    for mix in mixes {
        orders += explore(*mix).unwrap_or_else(|violation| panic!("{violation}"));
    }
    println!("{name}: {orders} orders");
    orders
}

fn at_once(ops: &[[Op; 3]]) -> Vec<Mix> {
    ops.iter().map(|ops| Mix::new(*ops)).collect()
}

#[test]
fn every_order_of_three_requests_keeps_the_rules() {
    let orders = [
        hold(
            "insert and insert",
            &at_once(&[
                [INSERT_A, INSERT_B, Op::Read],
                [INSERT_A, AGAIN_A, INSERT_B],
            ]),
        ),
        hold(
            "update and update",
            &at_once(&[
                [Op::Update, Op::Update, Op::Read],
                [Op::Update, Op::Update, Op::Update],
            ]),
        ),
        hold(
            "insert and destroy",
            &at_once(&[
                [INSERT_A, Op::Destroy, Op::Read],
                [INSERT_A, Op::Destroy, INSERT_B],
                [INSERT_A, Op::Destroy, Op::Destroy],
            ]),
        ),
        hold(
            "insert and cycle_id",
            &at_once(&[
                [INSERT_A, LOG_IN, Op::Read],
                [INSERT_A, LOG_IN, INSERT_B],
                [Op::Update, Op::Cycle, Op::Update],
            ]),
        ),
        hold(
            "cycle_id and cycle_id",
            &at_once(&[
                [LOG_IN, LOG_IN, Op::Read],
                [LOG_IN, LOG_IN, INSERT_A],
                [LOG_IN, Op::LogIn(43), LOG_IN],
            ]),
        ),
        hold(
            "destroy and cycle_id",
            &at_once(&[
                [Op::Destroy, LOG_IN, Op::Read],
                [Op::Destroy, LOG_IN, INSERT_A],
                [Op::Destroy, LOG_IN, LOG_IN],
            ]),
        ),
        hold(
            "clear and update",
            &at_once(&[
                [REPLACE, Op::Update, Op::Read],
                [REPLACE, Op::Update, INSERT_A],
                [REPLACE, Op::Replace("new", 8), Op::Update],
            ]),
        ),
        hold(
            "becoming empty",
            &at_once(&[
                [Op::Remove("base"), INSERT_A, Op::Read],
                [Op::Remove("base"), Op::Update, INSERT_A],
                [Op::Remove("base"), LOG_IN, INSERT_A],
            ]),
        ),
    ];
    let orders: usize = orders.iter().sum();
    println!("{orders} orders in all");
    assert!(orders >= 30_000, "{orders}");
}

#[test]
fn a_session_that_expires_at_any_moment_is_not_revived() {
    let mixes = at_once(&[
        [INSERT_A, INSERT_B, Op::Read],
        [Op::Update, LOG_IN, Op::Read],
        [Op::Destroy, INSERT_A, Op::Read],
    ]);
    let mixes: Vec<_> = mixes
        .into_iter()
        .map(|mix| Mix {
            expiry: true,
            ..mix
        })
        .collect();
    assert!(hold("expiry", &mixes) > 10_000);
}

#[test]
fn a_request_that_is_sent_at_any_moment_keeps_the_rules() {
    let mixes = at_once(&[
        [INSERT_A, LOG_IN, Op::Update],
        [LOG_IN, Op::Destroy, INSERT_A],
        [Op::Destroy, INSERT_A, LOG_IN],
    ]);
    let mixes: Vec<_> = mixes
        .into_iter()
        .map(|mix| Mix { late: true, ..mix })
        .collect();
    assert!(hold("sent late", &mixes) > 10_000);
}

#[test]
fn a_rotation_in_two_steps_keeps_the_rules() {
    let mixes = at_once(&[
        [LOG_IN, INSERT_A, Op::Read],
        [LOG_IN, Op::Destroy, Op::Read],
        [LOG_IN, LOG_IN, Op::Read],
    ]);
    let mixes: Vec<_> = mixes
        .into_iter()
        .map(|mix| Mix {
            protocol: Protocol::TwoStepRotation,
            ..mix
        })
        .collect();
    assert!(hold("two steps", &mixes) > 5_000);
}

#[test]
fn a_crash_between_the_two_steps_of_a_rotation_leaves_the_session() {
    let mixes = at_once(&[[LOG_IN, INSERT_A, Op::Read], [LOG_IN, LOG_IN, Op::Read]]);
    let mixes: Vec<_> = mixes
        .into_iter()
        .map(|mix| Mix {
            protocol: Protocol::TwoStepRotation,
            crash: true,
            ..mix
        })
        .collect();
    assert!(hold("crash", &mixes) > 5_000);
}

#[test]
fn a_connection_that_breaks_at_any_step_loses_nothing_and_counts_nothing_twice() {
    let mixes = at_once(&[
        [Op::Update, Op::Update, Op::Read],
        [INSERT_A, Op::Update, Op::Read],
        [LOG_IN, INSERT_A, Op::Read],
        [INSERT_A, Op::Destroy, Op::Read],
    ]);
    let mixes: Vec<_> = mixes
        .into_iter()
        .map(|mix| Mix { fault: true, ..mix })
        .collect();
    assert!(hold("faults", &mixes) > 20_000);
}

#[test]
fn a_request_that_fails_saves_nothing_but_a_logout() {
    let mixes = at_once(&[
        [Op::FailedInsert("a", 1), INSERT_B, Op::Read],
        [Op::FailedInsert("a", 1), LOG_IN, Op::Update],
        [Op::FailedLogIn(42), INSERT_A, Op::Read],
        [Op::FailedLogIn(42), LOG_IN, INSERT_A],
        [Op::FailedDestroy, INSERT_A, Op::Read],
        [Op::FailedDestroy, LOG_IN, Op::FailedInsert("a", 1)],
    ]);
    assert!(hold("failed requests", &mixes) > 2_000);
    let mutant = Mix {
        saves_failures: true,
        ..mixes[0]
    };
    let violation = explore(mutant).expect_err("a mutant that lives");
    assert!(
        violation.contains("a failed request had an effect"),
        "{violation}"
    );
}

#[test]
fn a_rotated_id_reads_what_an_anonymous_session_held_and_nothing_of_a_users() {
    let mixes = at_once(&[
        [LOG_IN, Op::Read, Op::Read],
        [LOG_IN, Op::Read, INSERT_A],
        [LOG_IN, LOG_IN, Op::Read],
        [Op::Cycle, Op::Read, Op::Update],
    ]);
    let with_user = mixes.iter().map(|mix| Mix {
        with_user: true,
        ..*mix
    });
    let mixes: Vec<_> = with_user.chain(mixes.clone()).collect();
    assert!(hold("grace", &mixes) > 4_000);
    for (protocol, expected) in [
        (
            Protocol::GraceLetsWritesThrough,
            "a late request on a tombstone had an effect",
        ),
        (Protocol::GraceShowsUsers, "read Some"),
    ] {
        let violation = explore(Mix {
            protocol,
            with_user: true,
            ..Mix::new([LOG_IN, INSERT_A, Op::Read])
        });
        let violation = violation.expect_err("a mutant that lives");
        println!("{protocol:?}: {violation}\n");
        assert!(violation.contains(expected), "{violation}");
    }
}

#[test]
fn of_several_presented_ids_a_logout_ends_all_and_a_login_sticks() {
    let mut mixes = Vec::new();
    for shadow in [Shadow::Unknown, Shadow::Live] {
        for ops in [
            [Op::Destroy, INSERT_A, Op::Read],
            [Op::FailedDestroy, INSERT_A, Op::FailedInsert("b", 2)],
            [LOG_IN, INSERT_A, Op::Read],
        ] {
            mixes.push(Mix {
                shadow: Some(shadow),
                ..Mix::new(ops)
            });
        }
    }
    assert!(hold("several ids", &mixes) > 1_000);
}

#[test]
fn a_protocol_that_is_broken_on_purpose_is_found_out() {
    for (protocol, ops, expected) in [
        (
            Protocol::PlainSetex,
            [INSERT_A, INSERT_B, Op::Read],
            "should be",
        ),
        (
            Protocol::PlainSetex,
            [Op::Update, Op::Update, Op::Read],
            "should be",
        ),
        (
            Protocol::PlainSetex,
            [INSERT_A, Op::Destroy, Op::Read],
            "saved into a session that had ended",
        ),
        (
            Protocol::RetireBeforeCreate,
            [LOG_IN, INSERT_A, Op::Read],
            "dropped, though its session is there",
        ),
        (
            Protocol::DestroyDeletesTombstones,
            [LOG_IN, Op::Destroy, INSERT_A],
            "a logout's cookie",
        ),
    ] {
        let violation = explore(Mix {
            protocol,
            ..Mix::new(ops)
        })
        .expect_err("a mutant that lives");
        println!("{protocol:?}: {violation}\n");
        assert!(violation.contains(expected), "{violation}");
    }
    let crash = Mix {
        protocol: Protocol::RetireBeforeCreate,
        crash: true,
        ..Mix::new([LOG_IN, Op::Read, Op::Read])
    };
    let violation = explore(crash).expect_err("a mutant that lives");
    assert!(
        violation.contains("a crash lost the session"),
        "{violation}"
    );
}
