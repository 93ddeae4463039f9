//! Placement, as tables.

use super::*;
use crate::reconcile::fixtures::{NOW, host, state, vm};
use crate::store::FailureRow;

const RULES: Rules =
    Rules { now: NOW, host_timeout_seconds: 90, placement_timeout_seconds: 300, allow_development: true };

fn step(vms: &[VmRow], hosts: &[HostRow], rules: &Rules) -> Step {
    plan(vms, hosts, rules).pop().expect("one VM wants a place").1
}

fn reason(step: Step) -> String {
    match step {
        Step::Fail(failure) => failure.actual,
        Step::Wait(reason) => reason,
        Step::Place(host) => panic!("placed on {host}"),
    }
}

#[test]
fn the_emptiest_host_gets_the_vm_and_earlier_steps_count() {
    let hosts = [host("a", 4, 4096), host("b", 4, 3072)];
    let vms = [vm("1", 1, 2048), vm("2", 1, 2048), vm("3", 1, 2048), vm("4", 1, 2048)];
    let placed: Vec<Step> = plan(&vms, &hosts, &RULES).into_iter().map(|(_, step)| step).collect();
    assert_eq!(placed[0], Step::Place("a".into()));
    assert_eq!(placed[1], Step::Place("b".into()));
    assert_eq!(placed[2], Step::Place("a".into()));
    assert!(matches!(placed[3], Step::Fail(_)));
}

#[test]
fn each_reason_is_named() {
    let small = reason(step(&[vm("1", 2, 8192)], &[host("a", 4, 2048)], &RULES));
    assert_eq!(small, "host a: Size needs 8192 MiB of memory, 2048 of 2048 are free");
    let cores = reason(step(&[vm("1", 8, 1024)], &[host("a", 4, 2048)], &RULES));
    assert_eq!(cores, "host a: Size needs 8 vCPUs, 4 of 4 are free");
    let mut elsewhere = host("a", 4, 2048);
    elsewhere.capacity.region = "mars".into();
    assert_eq!(reason(step(&[vm("1", 1, 1024)], &[elsewhere], &RULES)), "host a is in the region mars");
}

#[test]
fn a_development_host_is_not_used_where_only_amd_is_trusted() {
    let rules = Rules { allow_development: false, ..RULES };
    let refused = reason(step(&[vm("1", 1, 1024)], &[host("a", 4, 2048)], &rules));
    assert_eq!(refused, "host a has a development root, which this installation does not allow");
    let mut real = host("a", 4, 2048);
    real.capacity.platform = Platform::SevSnp;
    assert_eq!(step(&[vm("1", 1, 1024)], &[real], &rules), Step::Place("a".into()));
}

#[test]
fn a_silent_host_is_waited_for_until_the_time_is_up() {
    let mut silent = host("a", 4, 2048);
    silent.synced_at = RULES.now - 90_001;
    let wanted = vm("1", 1, 1024);
    let wait = step(std::slice::from_ref(&wanted), &[silent.clone()], &RULES);
    assert_eq!(wait, Step::Wait("waiting for a host: host a does not report".into()));
    assert_eq!(
        step(std::slice::from_ref(&wanted), &[], &RULES),
        Step::Wait("waiting for a host: none has reported yet".into())
    );
    let late = Rules { now: RULES.now + 300_001, ..RULES };
    assert!(matches!(step(&[wanted], &[silent], &late), Step::Fail(_)));
}

#[test]
fn only_vms_that_shall_run_and_have_no_host_are_placed() {
    let mut vms = vec![vm("placed", 1, 1), vm("deleted", 1, 1), vm("failed", 1, 1), vm("off", 1, 1)];
    vms[0].host = Some("a".into());
    vms[1].resource.deleted = true;
    let failure = no_room(&vms[2], &[]);
    vms[2].failure = Some(FailureRow { generation: 1, failure, at: 0 });
    vms[3].desired.power = WantedPower::Deallocated;
    assert_eq!(plan(&vms, &[host("a", 4, 2048)], &RULES), []);
}

#[test]
fn a_deallocated_vm_gives_up_its_place_once_it_is_off() {
    let mut old = vm("old", 4, 2048);
    old.host = Some("a".into());
    let hosts = [host("a", 4, 2048)];
    let new = vm("new", 4, 2048);
    let judge = |old: &VmRow| step(&[old.clone(), new.clone()], &hosts, &RULES);
    old.state = Some(state(1, VmPhase::Running));
    assert!(matches!(judge(&old), Step::Fail(_)));
    old.desired.power = WantedPower::Deallocated;
    assert!(matches!(judge(&old), Step::Fail(_)));
    old.state = Some(state(1, VmPhase::Stopped));
    assert_eq!(judge(&old), Step::Place("a".into()));
    old.desired.power = WantedPower::Stopped;
    assert!(matches!(judge(&old), Step::Fail(_)));
    assert!(shortage(&hosts[0], &[old.clone()], &new).is_some());
    assert_eq!(shortage(&hosts[0], &[old.clone()], &old), None);
}
