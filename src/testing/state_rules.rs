//! The rules of a session's state: when a commit has anything to do, and which write the changes call for.

use std::{mem, sync::Arc, time::Duration};

use super::commit_rules::{run, stored};
use crate::{
    ErrorKind, Session,
    clock::unix_secs,
    commit::{
        state::{IdChange, Plan, State, Status},
        write::{DeleteReason, Write, WriteKind},
    },
    record::{Record, UserId},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The state is dirty after `change`, which applies to a stored session.
fn becomes_dirty(change: impl FnOnce(&mut State)) -> bool {
    let (_, session) = stored();
    let mut state = session.cell().state();
    assert!(!state.is_dirty(&session.cell().context), "stored as it is");
    change(&mut state);
    state.is_dirty(&session.cell().context)
}

fn user() -> Option<UserId> {
    Some(UserId::new("zoe").expect("not empty"))
}

fn re_sign(state: &mut State) {
    match &mut state.status {
        Status::Persisted(persisted) => persisted.re_sign_cookie = true,
        _ => panic!("it is stored"),
    }
}

fn assign(state: &mut State) {
    state.changes.assign("b", Some("2".into()));
}

fn plan(session: &Session) -> Plan {
    let planned = session.cell().state().plan(&session.cell().context);
    planned.unwrap_or_else(|error| panic!("{error}"))
}

fn planned_write(session: &Session) -> Arc<Write> {
    match plan(session) {
        Plan::Write(write) => write,
        Plan::Noop => panic!("nothing to write"),
        Plan::Discard => panic!("no session any more"),
    }
}

#[test]
fn each_reason_alone_makes_a_session_dirty() {
    assert!(!becomes_dirty(|_| ()));
    assert!(becomes_dirty(assign));
    assert!(becomes_dirty(State::cycle_id));
    assert!(becomes_dirty(|state| state.base.is_outdated = true));
    assert!(becomes_dirty(re_sign));
    assert!(becomes_dirty(|state| {
        state.base.metadata.permanent = Some(0);
    }));
    assert!(becomes_dirty(|state| state.base.user = user()));
    assert!(becomes_dirty(State::destroy));
    assert!(!becomes_dirty(|state| {
        state.base.user = user();
        state.base.metadata.indexed_at = Some(unix_secs());
    }));
    // No cookie can be sent again.
    assert!(!becomes_dirty(|state| {
        re_sign(state);
        state.headers_sent = true;
    }));
    assert!(!becomes_dirty(|state| {
        re_sign(state);
        state.defers_renewal = true;
    }));
    // A new id of what is not stored is nothing to do; of what is gone it is a change that is lost.
    for (status, expected) in [
        (Status::New { presented: None }, false),
        (Status::Rotated { presented: None }, true),
        (Status::Gone, true),
    ] {
        let name = match status {
            Status::New { .. } => "new",
            _ => "ended",
        };
        assert_eq!(
            becomes_dirty(|state| {
                state.status = status;
                state.cycle_id();
            }),
            expected,
            "{name}"
        );
    }
}

#[test]
fn a_cookie_is_renewed_for_its_signature_or_its_age() {
    let needs_renewal = |change: fn(&mut State)| {
        let (_, session) = stored();
        let mut state = session.cell().state();
        change(&mut state);
        state.cookie_needs_renewal(&session.cell().context)
    };
    assert!(!needs_renewal(|_| ()));
    assert!(needs_renewal(re_sign));
    assert!(needs_renewal(|state| {
        state.base.metadata.permanent = Some(0);
    }));
    assert!(!needs_renewal(|state| {
        state.base.metadata.permanent = Some(unix_secs());
    }));
}

#[test]
fn what_a_dropped_session_loses_is_known() {
    let lost = |status: Option<Status>, change: fn(&mut State)| {
        let (_, session) = stored();
        let mut state = session.cell().state();
        if let Some(status) = status {
            state.status = status;
            state.base = Record::default();
        }
        change(&mut state);
        let lost = state.has_unsaved();
        state.changes.reset();
        state.pending_deletes.clear();
        lost
    };
    let new = || Some(Status::New { presented: None });
    assert!(!lost(None, |_| ()));
    assert!(lost(None, assign));
    assert!(lost(None, |state| state.changes.assign("a", None)));
    assert!(lost(None, State::destroy));
    assert!(!lost(new(), |_| ()));
    assert!(lost(new(), assign));
    // What is empty is not stored.
    assert!(!lost(new(), |state| state.changes.assign("a", None)));
    assert!(lost(new(), |state| {
        state.changes.assign("a", None);
        state.base.user = user();
    }));
}

#[test]
fn a_failed_request_leaves_no_change_and_no_new_id() {
    let (_, session) = stored();
    {
        let mut state = session.cell().state();
        assign(&mut state);
        state.cycle_id();
        state.discard_unsaved();
        assert!(state.changes.is_empty());
        assert_eq!(state.id_change, IdChange::Keep);
        assert!(state.base.contains("a"), "it is stored");
        state.status = Status::New { presented: None };
        state.discard_unsaved();
        assert!(!state.base.contains("a"), "it is not stored");
    }

    let (_, session) = stored();
    let mut state = session.cell().state();
    assign(&mut state);
    state.cycle_id();
    let base = mem::take(&mut state.base);
    state.roll_back(base);
    assert!(state.changes.is_empty());
    assert_eq!(state.id_change, IdChange::Keep);
    assert!(state.base.contains("a"));
}

#[test]
fn changes_of_a_session_that_ended_are_discarded_and_nothing_is_a_noop() {
    for (status, has_new_id, has_change, expected) in [
        ("rotated", false, false, "noop"),
        ("rotated", true, false, "noop"),
        ("rotated", false, true, "discard"),
        ("rotated", true, true, "write"),
        ("gone", false, false, "noop"),
        ("gone", true, false, "discard"),
        ("gone", false, true, "discard"),
        ("gone", true, true, "discard"),
        ("stored", false, false, "noop"),
        ("stored", true, false, "write"),
        ("stored", false, true, "write"),
        ("new", false, true, "write"),
    ] {
        let (_, session) = stored();
        {
            let mut state = session.cell().state();
            match status {
                "rotated" => state.status = Status::Rotated { presented: None },
                "gone" => state.status = Status::Gone,
                "new" => state.status = Status::New { presented: None },
                _ => (),
            }
            if has_new_id {
                state.cycle_id();
            }
            if has_change {
                assign(&mut state);
            }
        }
        let planned = match plan(&session) {
            Plan::Noop => "noop",
            Plan::Discard => "discard",
            Plan::Write(_) => "write",
        };
        assert_eq!(planned, expected, "{status}, {has_new_id}, {has_change}");
        session.cell().state().changes.reset();
    }
}

#[test]
fn a_login_behind_a_tombstone_begins_a_session_of_its_own() {
    for (base_has_user, kept) in [(false, true), (true, false)] {
        let (_, session) = stored();
        {
            let mut state = session.cell().state();
            state.status = Status::Rotated { presented: None };
            state.base.user = user().filter(|_| base_has_user);
        }
        session.log_in("adam").expect("a user");
        session.insert("b", 2).expect("a number");
        let write = planned_write(&session);
        assert!(matches!(write.kind, WriteKind::Create { .. }));
        assert_eq!(write.record.contains("a"), kept, "another user's");
        assert!(write.record.contains("b"));
        assert!(write.is_login && write.adds_to_index);
        session.cell().state().changes.reset();
    }
}

#[test]
fn the_write_is_the_one_that_the_changes_call_for() {
    let (_, session) = stored();
    session.insert("a", 1).expect("a number");
    assert!(matches!(plan(&session), Plan::Noop), "the same value");
    assert!(session.cell().state().changes.is_empty());
    session.insert("a", 2).expect("a number");
    let write = planned_write(&session);
    assert!(matches!(write.kind, WriteKind::Save { .. }));
    assert_eq!(write.kind.name(), "save");
    assert_eq!(write.kind.id(), session.id());
    assert_eq!(write.kind.next_id(), session.id());
    assert!(!write.adds_to_index && !write.is_login, "no user");
    session.cycle_id();
    let write = planned_write(&session);
    assert!(matches!(write.kind, WriteKind::Rotate { .. }));
    assert_eq!(write.kind.name(), "rotate");
    assert_eq!(write.kind.id(), session.id());
    assert_ne!(write.kind.next_id(), session.id());
    assert_eq!(write.record.metadata.permanent, None);
    // An empty session is deleted, also if a new id was asked for.
    session.clear();
    let write = planned_write(&session);
    assert!(matches!(write.kind, WriteKind::Delete { .. }));
    assert_eq!(write.kind.name(), "delete");
    assert_eq!(write.kind.next_id(), None);
    assert!(!write.wrote(
        &session.cell().context,
        session.cell().state().base.stored()
    ));
    session.cell().state().changes.reset();

    // What is outdated is written as it is.
    let (_, session) = stored();
    session.cell().state().base.is_outdated = true;
    let write = planned_write(&session);
    assert!(matches!(write.kind, WriteKind::Save { .. }));
    assert!(write.wrote(&session.cell().context, write.record.stored()));
    assert!(!write.wrote(
        &session.cell().context,
        session.cell().state().base.stored()
    ));

    // A new id of a permanent session has a cookie of its own.
    let (_, session) = stored();
    session.cell().state().base.metadata.permanent = Some(unix_secs() - 60);
    session.cycle_id();
    let sent = planned_write(&session).record.metadata.permanent;
    assert!(sent > Some(unix_secs() - 60));
    session.cell().state().changes.reset();
}

#[test]
fn a_new_id_needs_headers_that_are_not_sent() {
    for is_new in [true, false] {
        let (_, session) = stored();
        {
            let mut state = session.cell().state();
            state.headers_sent = true;
            if is_new {
                state.status = Status::New { presented: None };
            }
            assign(&mut state);
            state.cycle_id();
        }
        let planned = session.cell().state().plan(&session.cell().context);
        let error = planned.err().expect("no cookie can be set");
        assert_eq!(error.kind(), ErrorKind::HeadersSent);
        session.cell().state().changes.reset();
    }
}

#[test]
fn a_former_id_reads_on_only_without_a_user_or_when_the_app_asked() {
    for (name, has_user, with_grace, is_readable) in [
        ("an anonymous one", false, false, true),
        ("a user's", true, false, false),
        ("a user's, with grace", true, true, true),
    ] {
        let (_, session) = stored();
        {
            let mut state = session.cell().state();
            state.base.user = user().filter(|_| has_user);
            match with_grace {
                true => state.cycle_id_with_grace(),
                false => state.cycle_id(),
            }
        }
        let WriteKind::Rotate { tombstone, .. } = &planned_write(&session).kind else {
            panic!("{name}: a new id");
        };
        let text = String::from_utf8(tombstone.to_vec()).expect("text");
        assert_eq!(text.contains("\"a\":1"), is_readable, "{name}: {text}");
        session.cell().state().changes.reset();
    }
}

#[test]
fn an_entry_of_the_index_is_written_when_it_has_to_be() {
    let adds = |change: fn(&Session)| {
        let (_, session) = stored();
        session.log_in("zoe").expect("a user");
        run(session.save()).expect("saved");
        session.insert("b", 2).expect("a number");
        change(&session);
        let write = planned_write(&session);
        session.cell().state().changes.reset();
        if write.adds_to_index {
            let stamped = write.record.metadata.indexed_at;
            assert!(stamped.is_some_and(|at| at + 60 > unix_secs()));
        }
        write.adds_to_index
    };
    assert!(!adds(|_| ()), "written just now");
    assert!(adds(Session::cycle_id));
    assert!(adds(|session| session.set_user("zoe").expect("a user")));
    assert!(adds(|session| {
        session.cell().state().base.metadata.indexed_at = Some(0);
    }));
    // The index has to outlive the session.
    assert!(adds(|session| session.set_idle_timeout(1000 * DAY)));
    assert!(!adds(|session| session.set_idle_timeout(DAY / 24)));
}

#[test]
fn other_presented_ids_end_with_the_session_or_its_id() {
    let shadow = stored().1.id().expect("stored");
    let (_, session) = stored();
    session.cell().state().shadows = vec![shadow];
    session.destroy();
    let mut state = session.cell().state();
    let reasons: Vec<_> = state.pending_deletes.iter().map(|it| it.reason).collect();
    assert_eq!(reasons, [DeleteReason::Destroyed, DeleteReason::Shadow]);
    let id = state.pending_deletes[0].id;
    state.finish_delete(id);
    assert_eq!(state.pending_deletes.len(), 1);
    assert_eq!(state.pending_deletes[0].id, shadow);
    state.pending_deletes.clear();
    drop(state);

    let (_, session) = stored();
    session.cell().state().shadows = vec![shadow];
    session.cycle_id();
    let write = planned_write(&session);
    let mut state = session.cell().state();
    state.apply_saved(write);
    let reasons: Vec<_> = state.pending_deletes.iter().map(|it| it.reason).collect();
    assert_eq!(reasons, [DeleteReason::Superseded]);
    state.pending_deletes.clear();
}
