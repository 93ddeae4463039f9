//! What reports mean, as a table; and that no order of them loses or invents a generation.

use proptest::prelude::*;

use super::*;
use crate::reconcile::fixtures::{state, vm};

fn wanted(power: WantedPower, generation: u64, asked: u64, restarts: u64) -> VmRow {
    let mut row = vm("vm", 1, 1);
    row.resource.generation = generation;
    row.desired.power = power;
    row.desired.asked = asked;
    row.desired.restarts = restarts;
    row
}

#[test]
fn a_report_fulfils_what_it_says_and_no_more() {
    use VmPhase as P;
    use WantedPower as W;
    for (power, generation, asked, restarts, reported, phase, expected) in [
        (W::Running, 1, 1, 0, 1, P::Starting, Some(0)),
        (W::Running, 1, 1, 0, 1, P::Running, Some(1)),
        (W::Running, 1, 1, 0, 1, P::Booted, Some(1)),
        (W::Running, 1, 1, 0, 1, P::Stopped, Some(0)),
        (W::Running, 1, 1, 0, 1, P::Failed, None),
        // The newest change asked nothing of the host: it comes with the one before.
        (W::Running, 5, 3, 0, 3, P::Booted, Some(5)),
        // The host is still at the change before the newest.
        (W::Stopped, 4, 4, 0, 3, P::Booted, Some(3)),
        (W::Stopped, 4, 4, 0, 4, P::Booted, Some(0)),
        (W::Stopped, 4, 4, 0, 4, P::Stopping, Some(0)),
        (W::Deallocated, 4, 4, 0, 4, P::Stopped, Some(4)),
        // A restart that was asked for and not carried out.
        (W::Running, 2, 2, 1, 2, P::Booted, Some(0)),
    ] {
        let row = wanted(power, generation, asked, restarts);
        let found = match judge(&row, &state(reported, phase)) {
            Verdict::Working => Some(0),
            Verdict::Reached(generation) => Some(generation),
            Verdict::Failed(..) => None,
        };
        assert_eq!(found, expected, "{power:?} {generation} {asked} {reported} {phase:?}");
    }
}

#[test]
fn a_failure_without_a_reason_gets_one() {
    let row = wanted(WantedPower::Running, 1, 1, 0);
    let report = VmState { detail: "qemu exited".into(), ..state(1, VmPhase::Failed) };
    let Verdict::Failed(1, failure) = judge(&row, &report) else { panic!("not a failure") };
    assert_eq!((failure.code.as_str(), failure.actual.as_str()), ("HostReportedFailure", "qemu exited"));
}

#[test]
fn absence_counts_only_after_the_host_heard_of_the_removal() {
    let mut row = wanted(WantedPower::Running, 2, 1, 0);
    row.removed_revision = Some(7);
    assert!(!removed(&row, 7), "it shall stay");
    row.resource.deleted = true;
    assert!(!removed(&row, 6));
    assert!(removed(&row, 7));
    row.removed_revision = None;
    assert!(!removed(&row, 7), "it never left the assignments");
}

proptest! {
    #[test]
    fn no_report_reaches_a_generation_that_nobody_asked_for(
        generation in 1_u64..20, asked in 1_u64..20, reported in 0_u64..25, phase in 0_usize..6, restarts in 0_u64..3,
    ) {
        let asked = asked.min(generation);
        let phases = [
            VmPhase::Starting, VmPhase::Running, VmPhase::Booted, VmPhase::Stopping, VmPhase::Stopped, VmPhase::Failed,
        ];
        let row = wanted(WantedPower::Running, generation, asked, restarts);
        match judge(&row, &state(reported, phases[phase])) {
            Verdict::Working => {}
            Verdict::Reached(reached) | Verdict::Failed(reached, _) => prop_assert!(reached <= generation),
        }
    }
}
