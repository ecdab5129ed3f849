//! Which changes are left after a save, and what they are replayed on.

use std::time::Duration;

use super::commit_rules::stored;
use crate::record::{Decoded, Record};

#[test]
fn changes_are_discarded_up_to_the_one_that_was_stored() {
    let (_, session) = stored();
    let mut state = session.cell().state();
    let changes = &mut state.changes;
    changes.assign("b", Some("2".into()));
    let first = changes.seq();
    changes.assign("c", Some("3".into()));
    let base = Record::default();
    changes.discard_through(first);
    assert_eq!(changes.keys(&base).collect::<Vec<_>>(), ["c"]);
    changes.clear();
    let cleared = changes.seq();
    assert!(!changes.is_empty());
    changes.discard_through(cleared - 1);
    assert!(!changes.is_empty());
    changes.discard_through(cleared);
    assert!(changes.is_empty());
    let seq = changes.seq();
    changes.assign("d", Some("4".into()));
    changes.reset();
    assert!(changes.is_empty());
    assert!(changes.seq() > seq + 1, "a number never means two changes");
    drop(state);

    // Of two updates the one that is not stored yet runs again.
    for (stored_updates, replayed) in [(0, "111"), (1, "110"), (2, "100")] {
        let add = |n: u64| move |old: Option<u64>| old.unwrap_or(0) + n;
        assert!(!session.cell().state().changes.has_non_idempotent());
        let begun = session.cell().state().changes.seq();
        session.update("n", add(1)).expect("a number");
        session.update("n", add(10)).expect("a number");
        let mut state = session.cell().state();
        assert!(state.changes.has_non_idempotent());
        state.changes.discard_through(begun + stored_updates);
        if stored_updates == 2 {
            assert!(state.changes.is_empty());
            continue;
        }
        let theirs = r#"{"_rev":"ffffffffffffffff","n":100}"#;
        let Ok(Decoded::Session(base)) = Record::decode(&theirs.into()) else {
            panic!("a session");
        };
        let changes = state.changes.replayed_on(&base).expect("numbers");
        assert_eq!(
            changes.value(&base, "n").as_deref(),
            Some(replayed.as_bytes())
        );
        state.changes.reset();
    }

    // A stored assignment makes the update build on what is stored.
    session.insert("m", 1).expect("a number");
    let assigned = session.cell().state().changes.seq();
    session
        .update("m", |m: Option<u64>| m.unwrap_or(0) + 1)
        .expect("a number");
    let mut state = session.cell().state();
    assert!(
        !state.changes.has_non_idempotent(),
        "it builds on its own value"
    );
    state.changes.discard_through(assigned - 1);
    assert!(!state.changes.has_non_idempotent());
    state.changes.discard_through(assigned);
    assert!(state.changes.has_non_idempotent());
    state.changes.reset();
}

#[test]
fn changes_of_metadata_are_discarded_with_the_others() {
    let (_, session) = stored();
    session.set_idle_timeout(Duration::from_secs(100));
    let first = session.cell().state().changes.seq();
    session.set_absolute_timeout(Duration::from_secs(1000));
    let mut state = session.cell().state();
    let base = Record::default();
    state.changes.discard_through(first);
    assert!(!state.changes.is_empty());
    let left = state.changes.metadata(&base);
    assert_eq!(left.idle_timeout, None);
    assert_eq!(left.absolute_timeout, Some(1_000_000));
    state.changes.discard_through(first + 1);
    assert!(state.changes.is_empty());
}
