//! The plan as a table: what is wanted, what is seen, what is done next.

use proptest::prelude::*;

use super::*;
use crate::vm::dir::{Fault, KeyAsked};
use crate::vm::test_spec;

const NOW: u64 = 1_000_000;

fn seen(qemu: QemuSeen, paravisor: ParavisorState) -> Observed {
    Observed { qemu, paravisor, key_in_use: None, now: NOW }
}

fn refusal(transient: bool) -> Failure {
    Failure { transient, ..*failure::transient("PolicyRefused", "", "", "") }
}

fn fault(generation: u64, transient: bool, retry_at: u64) -> Option<Fault> {
    Some(Fault { generation, count: 1, retry_at, failure: refusal(transient) })
}

fn on() -> VmSpec {
    VmSpec { generation: 3, ..test_spec() }
}

fn off() -> VmSpec {
    VmSpec { power: Power::Off, ..on() }
}

#[test]
fn a_new_vm_is_launched_then_started_then_settled() {
    let record = Record::default();
    let with_context = Record { context: Some(1), ..Record::default() };
    let next = |record: &Record, qemu, paravisor| plan(Some(&on()), record, &seen(qemu, paravisor));
    assert_eq!(next(&record, QemuSeen::Absent, ParavisorState::Absent), Action::Launch);
    assert_eq!(next(&with_context, QemuSeen::Absent, ParavisorState::Starting), Action::Rest);
    assert_eq!(next(&with_context, QemuSeen::Absent, ParavisorState::Ready), Action::StartQemu);
    assert_eq!(next(&with_context, QemuSeen::Running, ParavisorState::Ready), Action::Settle);
    let reached = Record { reached: 3, ..with_context };
    assert_eq!(next(&reached, QemuSeen::Running, ParavisorState::Ready), Action::Rest);
}

#[test]
fn a_context_without_a_paravisor_is_given_back_before_a_new_launch() {
    let record = Record { context: Some(1), ..Record::default() };
    let absent = seen(QemuSeen::Absent, ParavisorState::Absent);
    assert_eq!(plan(Some(&on()), &record, &absent), Action::Decommission);
}

#[test]
fn a_guest_without_its_paravisor_is_ended() {
    for paravisor in
        [ParavisorState::Absent, ParavisorState::Died, ParavisorState::Stopped, ParavisorState::Starting]
    {
        let next = plan(Some(&on()), &Record::default(), &seen(QemuSeen::Running, paravisor.clone()));
        assert_eq!(next, Action::EndQemu, "{paravisor:?}");
    }
}

#[test]
fn a_refused_guest_is_ended_and_the_refusal_noted() {
    let refused = ParavisorState::Refused(refusal(false));
    let record = Record::default();
    let next = |qemu| plan(Some(&on()), &record, &seen(qemu, refused.clone()));
    assert_eq!(next(QemuSeen::Running), Action::EndQemu);
    assert_eq!(next(QemuSeen::Ended(Some(Shutdown::Host))), Action::NoteQemuEnd);
    assert_eq!(next(QemuSeen::Absent), Action::NoteFault(refusal(false)));
}

#[test]
fn a_lasting_fault_stays_until_the_generation_changes() {
    let absent = seen(QemuSeen::Absent, ParavisorState::Absent);
    let failed = Record { fault: fault(3, false, 0), ..Record::default() };
    assert_eq!(plan(Some(&on()), &failed, &absent), Action::Settle);
    let settled = Record { reached: 3, ..failed };
    assert_eq!(plan(Some(&on()), &settled, &absent), Action::Rest);
    let newer = VmSpec { generation: 4, ..on() };
    assert_eq!(plan(Some(&newer), &settled, &absent), Action::Launch);
}

#[test]
fn a_passing_fault_is_tried_again_when_its_time_has_come() {
    let absent = seen(QemuSeen::Absent, ParavisorState::Absent);
    let waiting = Record { fault: fault(3, true, NOW + 1), ..Record::default() };
    assert_eq!(plan(Some(&on()), &waiting, &absent), Action::Rest);
    let due = Record { fault: fault(3, true, NOW), ..Record::default() };
    assert_eq!(plan(Some(&on()), &due, &absent), Action::Launch);
}

#[test]
fn power_off_asks_waits_and_switches_off() {
    let running = seen(QemuSeen::Running, ParavisorState::Ready);
    let next = |record: &Record| plan(Some(&off()), record, &running);
    assert_eq!(next(&Record::default()), Action::PowerDown);
    assert_eq!(next(&Record { stop_deadline: Some(NOW + 1), ..Record::default() }), Action::Rest);
    let deaf = Record { stop_deadline: Some(NOW + 1), press_again_at: Some(NOW), ..Record::default() };
    assert_eq!(next(&deaf), Action::PowerDown);
    assert_eq!(next(&Record { stop_deadline: Some(NOW), ..deaf }), Action::EndQemu);
}

#[test]
fn a_stopped_guest_is_told_to_the_paravisor_and_its_context_given_back() {
    let record = Record { context: Some(1), ..Record::default() };
    let told = Record { told_stopped: true, stop_deadline: Some(NOW + 1), ..record.clone() };
    let next = |record: &Record, paravisor| plan(Some(&off()), record, &seen(QemuSeen::Absent, paravisor));
    assert_eq!(next(&record, ParavisorState::Ready), Action::TellStopped);
    assert_eq!(next(&told, ParavisorState::Ready), Action::Rest);
    assert_eq!(next(&told, ParavisorState::Stopped), Action::ForgetParavisor);
    assert_eq!(next(&record, ParavisorState::Absent), Action::Decommission);
    assert_eq!(next(&Record::default(), ParavisorState::Absent), Action::Settle);
}

#[test]
fn a_paravisor_that_does_not_stop_in_time_is_ended() {
    let told = Record { told_stopped: true, stop_deadline: Some(NOW), ..Record::default() };
    let ready = seen(QemuSeen::Absent, ParavisorState::Ready);
    assert_eq!(plan(Some(&off()), &told, &ready), Action::EndParavisor);
    assert_eq!(plan(Some(&on()), &told, &ready), Action::EndParavisor);
}

#[test]
fn a_guest_that_switched_itself_off_stays_off_until_it_is_started() {
    let ended = seen(QemuSeen::Ended(Some(Shutdown::GuestOff)), ParavisorState::Ready);
    assert_eq!(plan(Some(&on()), &Record::default(), &ended), Action::NoteGuestOff);
    let noted = Record { guest_off: Some(3), ..Record::default() };
    let ready = seen(QemuSeen::Absent, ParavisorState::Ready);
    assert_eq!(plan(Some(&on()), &noted, &ready), Action::TellStopped);
    let started = VmSpec { generation: 4, ..on() };
    assert_eq!(plan(Some(&started), &noted, &ready), Action::StartQemu);
}

#[test]
fn a_reset_is_told_to_the_paravisor_before_qemu_starts_again() {
    let ended = seen(QemuSeen::Ended(Some(Shutdown::GuestReset)), ParavisorState::Ready);
    assert_eq!(plan(Some(&on()), &Record::default(), &ended), Action::NoteQemuEnd);
    let pending = Record { reset_pending: true, ..Record::default() };
    let ready = seen(QemuSeen::Absent, ParavisorState::Ready);
    assert_eq!(plan(Some(&on()), &pending, &ready), Action::TellReset);
}

#[test]
fn a_restart_powers_the_guest_down_and_starts_it_again() {
    let spec = VmSpec { restarts: 1, ..on() };
    let next = |record: &Record, qemu| plan(Some(&spec), record, &seen(qemu, ParavisorState::Ready));
    assert_eq!(next(&Record::default(), QemuSeen::Running), Action::PowerDown);
    let off = QemuSeen::Ended(Some(Shutdown::GuestOff));
    assert_eq!(next(&Record::default(), off), Action::NoteQemuEnd);
    let done = Record { restarts: 1, reached: 3, ..Record::default() };
    assert_eq!(next(&done, QemuSeen::Running), Action::Rest);
}

#[test]
fn a_vm_that_shall_be_gone_is_ended_and_removed() {
    let record = Record { context: Some(1), ..Record::default() };
    let next = |record: &Record, qemu, paravisor| plan(None, record, &seen(qemu, paravisor));
    assert_eq!(next(&record, QemuSeen::Running, ParavisorState::Ready), Action::EndQemu);
    assert_eq!(next(&record, QemuSeen::Ended(None), ParavisorState::Ready), Action::EndParavisor);
    assert_eq!(next(&record, QemuSeen::Ended(None), ParavisorState::Absent), Action::Decommission);
    assert_eq!(next(&Record::default(), QemuSeen::Absent, ParavisorState::Died), Action::Remove);
}

/// A world in which every action succeeds at once: what the executor does, without the processes.
fn carry_out(action: &Action, spec: &VmSpec, record: &mut Record, seen: &mut Observed) {
    match action {
        Action::Rest => seen.now += 100_000,
        Action::Settle => record.reached = spec.generation,
        Action::Launch => (record.context, seen.paravisor) = (Some(1), ParavisorState::Ready),
        Action::ChangeKey(key_id) => seen.key_in_use = Some(key_id.clone()),
        Action::TellReset => record.reset_pending = false,
        Action::StartQemu => (seen.qemu, record.restarts) = (QemuSeen::Running, spec.restarts),
        Action::PowerDown => {
            record.stop_deadline = Some(seen.now + 1);
            seen.qemu = QemuSeen::Ended(Some(Shutdown::GuestOff));
        }
        Action::EndQemu => seen.qemu = QemuSeen::Ended(Some(Shutdown::Host)),
        Action::NoteGuestOff => (record.guest_off, seen.qemu) = (Some(spec.generation), QemuSeen::Absent),
        Action::NoteQemuEnd => {
            (record.reset_pending, record.stop_deadline, seen.qemu) = (true, None, QemuSeen::Absent);
        }
        Action::TellStopped => {
            (record.told_stopped, seen.paravisor) = (true, ParavisorState::Stopped);
        }
        Action::EndParavisor | Action::ForgetParavisor => {
            (record.told_stopped, record.reset_pending, record.stop_deadline) = (false, false, None);
            seen.paravisor = ParavisorState::Absent;
        }
        Action::NoteFault(failure) => {
            let (generation, failure) = (spec.generation, failure.clone());
            record.fault = Some(Fault { generation, count: 1, retry_at: seen.now + 1000, failure });
            seen.paravisor = ParavisorState::Absent;
        }
        Action::Decommission => record.context = None,
        Action::Remove => {}
    }
}

fn qemus() -> impl Strategy<Value = QemuSeen> {
    prop_oneof![
        Just(QemuSeen::Absent),
        Just(QemuSeen::Running),
        Just(QemuSeen::Ended(None)),
        Just(QemuSeen::Ended(Some(Shutdown::GuestOff))),
        Just(QemuSeen::Ended(Some(Shutdown::GuestReset))),
        Just(QemuSeen::Ended(Some(Shutdown::Host))),
    ]
}

fn paravisors() -> impl Strategy<Value = ParavisorState> {
    prop_oneof![
        Just(ParavisorState::Absent),
        Just(ParavisorState::Ready),
        Just(ParavisorState::Stopped),
        Just(ParavisorState::Died),
        any::<bool>().prop_map(|transient| ParavisorState::Refused(refusal(transient))),
    ]
}

prop_compose! {
    fn records()(
        reached in 0..4_u64, restarts in 0..3_u64, context in proptest::option::of(Just(1_u64)),
        reset_pending: bool, told_stopped: bool, guest_off in proptest::option::of(0..4_u64),
        stop_deadline in proptest::option::of(Just(NOW + 1)), faulty: bool, transient: bool,
    ) -> Record {
        let fault = if faulty { fault(3, transient, NOW + 5) } else { None };
        Record { reached, restarts, context, reset_pending, told_stopped, guest_off, stop_deadline, fault,
            ..Record::default() }
    }
}

proptest! {
    /// From whatever a crash has left behind, the plan comes to rest in the wanted state.
    #[test]
    fn every_start_ends_in_the_wanted_state(
        mut record in records(), qemu in qemus(), paravisor in paravisors(), power: bool, restarts in 0..3_u64,
    ) {
        let spec = VmSpec { power: if power { Power::On } else { Power::Off }, restarts, ..on() };
        let mut world = seen(qemu, paravisor);
        for _ in 0..40 {
            let action = plan(Some(&spec), &record, &world);
            carry_out(&action, &spec, &mut record, &mut world);
        }
        prop_assert_eq!(plan(Some(&spec), &record, &world), Action::Rest);
        prop_assert_eq!(record.reached, spec.generation);
        if wants_on(&spec, &record) {
            prop_assert_eq!(&world.qemu, &QemuSeen::Running);
            prop_assert_eq!(&world.paravisor, &ParavisorState::Ready);
        } else {
            prop_assert_eq!(&world.qemu, &QemuSeen::Absent);
            prop_assert_eq!(&world.paravisor, &ParavisorState::Absent);
            prop_assert_eq!(record.context, None);
        }
    }

    /// A removal always comes to its end, with nothing left running.
    #[test]
    fn every_removal_ends(mut record in records(), qemu in qemus(), paravisor in paravisors()) {
        let mut world = seen(qemu, paravisor);
        for _ in 0..10 {
            let action = plan(None, &record, &world);
            carry_out(&action, &on(), &mut record, &mut world);
        }
        prop_assert_eq!(plan(None, &record, &world), Action::Remove);
        prop_assert!(world.qemu != QemuSeen::Running && record.context.is_none());
    }
}

#[test]
fn a_running_guest_moves_to_the_key_that_the_launch_document_names() {
    let spec = on();
    let wanted = wanted_key(&spec).expect("a key");
    let record = Record { reached: 3, ..Record::default() };
    let next = |record: &Record, key_in_use: Option<&str>| {
        let key_in_use = key_in_use.map(str::to_owned);
        let seen = Observed { key_in_use, ..seen(QemuSeen::Running, ParavisorState::Ready) };
        plan(Some(&spec), record, &seen)
    };
    assert_eq!(next(&record, Some(&wanted)), Action::Rest);
    assert_eq!(next(&record, None), Action::Rest, "a paravisor that names no key is not asked");
    assert_eq!(next(&record, Some("other")), Action::ChangeKey(wanted.clone()));
    let asked = |key_id: &str, retry_at| Record {
        key_asked: Some(KeyAsked { key_id: key_id.to_owned(), retry_at }),
        ..record.clone()
    };
    assert_eq!(next(&asked(&wanted, NOW + 1), Some("other")), Action::Rest, "it is given time");
    assert_eq!(next(&asked(&wanted, NOW), Some("other")), Action::ChangeKey(wanted.clone()));
    assert_eq!(next(&asked("older", NOW + 1), Some("other")), Action::ChangeKey(wanted.clone()));
    // What the VM shall do first, it does first.
    let unsettled = Record { reached: 2, ..record.clone() };
    assert_eq!(next(&unsettled, Some("other")), Action::Settle);
    let stopping =
        Observed { key_in_use: Some("other".to_owned()), ..seen(QemuSeen::Running, ParavisorState::Ready) };
    assert_eq!(plan(Some(&off()), &record, &stopping), Action::PowerDown);
}
