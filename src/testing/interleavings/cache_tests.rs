use super::{
    Op,
    cache::{A, B, Mix, explore, mix},
};
use crate::cache::Broken;

const INSERT_A: Op = Op::Insert("a", 1);
const INSERT_B: Op = Op::Insert("b", 2);

fn hold(name: &str, mixes: &[Mix<'_>]) -> usize {
    let mut orders = 0;
    for mix in mixes {
        let explored = explore(*mix).unwrap_or_else(|violation| panic!("{name}: {violation}"));
        println!("{name}: {:?}: {explored} orders", mix.requests);
        orders += explored;
    }
    println!("{name}: {orders} orders");
    orders
}

const READ_AND_INSERT: &[(usize, Op)] = &[(A, Op::Read), (B, INSERT_B), (A, Op::Read)];
const UPDATES: &[(usize, Op)] = &[(A, Op::Update), (B, Op::Update), (A, Op::Read)];
const INSERT_AND_DESTROY: &[(usize, Op)] = &[(A, INSERT_A), (B, Op::Destroy), (A, Op::Read)];
const OWN_DESTROY: &[(usize, Op)] = &[(A, Op::Destroy), (A, Op::Read), (A, Op::Read)];
const OWN_CYCLE: &[(usize, Op)] = &[(A, Op::Cycle), (A, Op::Read), (A, Op::Read)];
const OWN_INSERTS: &[(usize, Op)] = &[(A, INSERT_A), (A, INSERT_B), (A, Op::Read)];
const OWN_INSERT: &[(usize, Op)] = &[(A, INSERT_A), (B, INSERT_B), (A, Op::Read), (A, Op::Read)];
const READS: &[(usize, Op)] = &[(A, Op::Read), (A, Op::Read), (A, Op::Read)];

#[test]
fn a_node_serves_nothing_older_than_it_was_told() {
    let mixes = [
        READ_AND_INSERT,
        UPDATES,
        INSERT_AND_DESTROY,
        OWN_DESTROY,
        OWN_CYCLE,
        OWN_INSERTS,
    ]
    .map(mix);
    assert!(hold("cold", &mixes) > 5_000);
    let warm = mixes.map(|mix| Mix {
        is_warm: true,
        ..mix
    });
    assert!(hold("warm", &warm) > 1_000);
}

#[test]
fn two_nodes_with_caches_serve_nothing_older_than_they_were_told() {
    let mixes = [READ_AND_INSERT, INSERT_AND_DESTROY].map(|requests| Mix {
        b_has_cache: true,
        ..mix(requests)
    });
    assert!(hold("both", &mixes) > 1_000);
}

#[test]
fn setting_the_ttl_is_a_change_like_any_other() {
    let mixes = [READS, OWN_DESTROY].map(|requests| Mix {
        is_touch_due: true,
        b_has_cache: true,
        ..mix(requests)
    });
    assert!(hold("touches", &mixes) > 1_000);
}

#[test]
fn nothing_is_served_past_an_ended_connection() {
    let mixes = [READS, &OWN_INSERTS[1..]].map(|requests| Mix {
        disconnects: true,
        ..mix(requests)
    });
    assert!(hold("disconnects", &mixes) > 1_000);
}

#[test]
fn nothing_is_served_past_its_ttl() {
    let mixes = [READS, &OWN_INSERTS[1..]].map(|requests| Mix {
        expires: true,
        ..mix(requests)
    });
    assert!(hold("expiry", &mixes) > 100);
}

#[test]
fn a_cache_without_one_of_its_rules_is_found_out() {
    let in_mix = |requests, change: fn(&mut Mix<'static>)| {
        let mut mix = mix(requests);
        change(&mut mix);
        mix
    };
    let none = |_: &mut Mix<'_>| ();
    for (broken, mix, expected) in [
        (
            Broken::NoFence,
            in_mix(READ_AND_INSERT, none),
            "was told of",
        ),
        (
            Broken::UnfencedWrite,
            in_mix(OWN_INSERT, |mix| mix.is_warm = true),
            "was told of",
        ),
        (
            Broken::UntrackedWrite,
            in_mix(&OWN_INSERT[..3], none),
            "was told of",
        ),
        (Broken::SilentEnd, in_mix(OWN_DESTROY, none), "was told of"),
        (
            Broken::KeepAtDisconnect,
            in_mix(READS, |mix| mix.disconnects = true),
            "past an ended connection",
        ),
        (
            Broken::IgnoreTtl,
            in_mix(READS, |mix| mix.expires = true),
            "was told of",
        ),
    ] {
        let broken_mix = Mix {
            broken: Some(broken),
            ..mix
        };
        let violation = explore(broken_mix).expect_err("a mutant that lives");
        println!("{broken:?}: {violation}\n");
        assert!(violation.contains(expected), "{violation}");
    }
}
