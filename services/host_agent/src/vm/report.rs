//! A VM's state as told to the control plane.

use std::collections::BTreeMap;

use internal_api::host::{KeyState, VmPhase, VmSpec, VmState};
use internal_api::paravisor::Step;

use super::dir::Record;
use super::plan::{Observed, ParavisorState, QemuSeen, wanted_key, wants_on};
use super::watch::ParavisorSeen;

/// The state of the VM that `spec` (or, when it shall be gone, its last spec) describes.
pub fn state(
    spec: &VmSpec,
    wanted: bool,
    record: &Record,
    seen: &Observed,
    paravisor: &ParavisorSeen,
) -> VmState {
    let on = wanted && wants_on(spec, record);
    let phase = phase(on, spec, record, seen, paravisor);
    let fault = record.fault.as_ref().filter(|fault| fault.generation == spec.generation);
    let reached = record.reached == spec.generation || phase == VmPhase::Failed;
    VmState {
        vm_id: spec.vm_id.clone(),
        generation: if reached { spec.generation } else { record.reached },
        restarts: record.restarts,
        phase,
        detail: detail(phase, wanted, record, paravisor),
        failure: fault.filter(|_| phase == VmPhase::Failed).map(|fault| fault.failure.clone()),
        ssh_port: record.ssh_port.filter(|_| matches!(phase, VmPhase::Running | VmPhase::Booted)),
        evidence: paravisor.evidence.clone(),
        timings: timings(record, paravisor),
        key: key(spec, record, paravisor),
    }
}

fn key(spec: &VmSpec, record: &Record, paravisor: &ParavisorSeen) -> Option<KeyState> {
    let in_use = paravisor.key_in_use.as_ref().or(record.key_in_use.as_ref())?.clone();
    let wanted = wanted_key(spec);
    let not_changed = paravisor.key_not_changed.as_ref().filter(|(key, _)| wanted.as_ref() == Some(key));
    let not_changed = not_changed.map(|(_, failure)| failure.clone());
    Some(KeyState { in_use, not_changed, revoked: paravisor.key_revoked.clone() })
}

fn phase(on: bool, spec: &VmSpec, record: &Record, seen: &Observed, paravisor: &ParavisorSeen) -> VmPhase {
    // Not before its launch context is given back is a VM down: whoever waits for it may end the agent then.
    let gone =
        seen.qemu == QemuSeen::Absent && seen.paravisor == ParavisorState::Absent && record.context.is_none();
    let failed = record.fault.as_ref();
    let failed = failed.is_some_and(|fault| fault.generation == spec.generation && !fault.failure.transient);
    match seen.qemu {
        _ if !on && failed && gone => VmPhase::Failed,
        _ if !on && gone => VmPhase::Stopped,
        _ if !on => VmPhase::Stopping,
        QemuSeen::Running if paravisor.volumes_opened > record.volumes_before => VmPhase::Booted,
        QemuSeen::Running => VmPhase::Running,
        _ => VmPhase::Starting,
    }
}

fn detail(phase: VmPhase, wanted: bool, record: &Record, paravisor: &ParavisorSeen) -> String {
    let fault = record.fault.as_ref();
    match phase {
        _ if !wanted => "being removed".to_owned(),
        VmPhase::Starting => match (paravisor.step, fault) {
            (Some(step), _) => with_progress(words(step), paravisor.progress),
            (None, Some(fault)) => {
                format!("trying again after: {}: {}", fault.failure.code, fault.failure.actual)
            }
            (None, None) => "getting the image and the launch context".to_owned(),
        },
        VmPhase::Running => "the guest is booting".to_owned(),
        VmPhase::Booted if paravisor.key_revoked.is_some() => {
            "running; its key was revoked, and it will be stopped".to_owned()
        }
        VmPhase::Booted => match paravisor.tampering.last() {
            Some(what) => format!("running; the host's storage was tampered with: {what}"),
            None => "running".to_owned(),
        },
        VmPhase::Stopping => "the guest is powering off".to_owned(),
        VmPhase::Stopped if record.guest_off.is_some() => "the guest switched itself off".to_owned(),
        VmPhase::Stopped => "stopped".to_owned(),
        VmPhase::Failed => fault.map_or_else(String::new, |fault| fault.failure.actual.clone()),
    }
}

fn with_progress(words: &str, progress: Option<(u64, u64)>) -> String {
    match progress {
        Some((done, total)) if total > 0 => format!("{words}, {} %", done.saturating_mul(100) / total),
        _ => words.to_owned(),
    }
}

fn words(step: Step) -> &'static str {
    match step {
        Step::CheckLaunch => "checking the launch document",
        Step::Attest => "attesting",
        Step::ReleaseKey => "asking for the key",
        Step::OpenState => "opening the guest state",
        Step::ProvisionTpm => "making the vTPM",
        Step::EncryptDisk => "encrypting the OS disk",
        Step::Seal => "sealing the disk key",
        Step::ChangeKey => "getting the key that follows",
        Step::AdvanceGeneration => "advancing the generation of the guest state",
    }
}

/// The host's own steps, the paravisor's, and what the latter come to by kind.
fn timings(record: &Record, paravisor: &ParavisorSeen) -> BTreeMap<String, u64> {
    let mut timings = record.timings.clone();
    for (step, millis) in &paravisor.millis {
        let kind = match step {
            Step::CheckLaunch | Step::Attest => "attest",
            Step::ReleaseKey | Step::ChangeKey | Step::AdvanceGeneration => "release",
            Step::OpenState | Step::ProvisionTpm | Step::EncryptDisk | Step::Seal => "provision",
        };
        *timings.entry(kind.to_owned()).or_default() += millis;
        let name = match step {
            Step::ProvisionTpm => "provisionTpm",
            Step::EncryptDisk => "encryptDisk",
            Step::Seal => "seal",
            _ => continue,
        };
        *timings.entry(name.to_owned()).or_default() += millis;
    }
    timings
}

#[cfg(test)]
mod tests {
    use internal_api::host::Power;

    use super::*;
    use crate::failure;
    use crate::vm::dir::Fault;
    use crate::vm::test_spec;

    fn seen(qemu: QemuSeen, paravisor: ParavisorState) -> Observed {
        Observed { qemu, paravisor, key_in_use: None, now: 0 }
    }

    #[test]
    fn phases_follow_what_is_seen() {
        let spec = test_spec();
        let record = Record { ssh_port: Some(22200), ..Record::default() };
        let report = |paravisor: &ParavisorSeen, qemu, state_of| {
            state(&spec, true, &record, &seen(qemu, state_of), paravisor)
        };
        let progress = ParavisorSeen {
            step: Some(Step::EncryptDisk),
            progress: Some((42, 100)),
            ..ParavisorSeen::default()
        };
        let starting = report(&progress, QemuSeen::Absent, ParavisorState::Starting);
        assert_eq!(starting.phase, VmPhase::Starting);
        assert_eq!(starting.detail, "encrypting the OS disk, 42 %");
        assert_eq!(starting.ssh_port, None);
        let quiet = ParavisorSeen::default();
        let running = report(&quiet, QemuSeen::Running, ParavisorState::Ready);
        assert_eq!((running.phase, running.ssh_port), (VmPhase::Running, Some(22200)));
        let opened = ParavisorSeen { volumes_opened: 1, ..quiet };
        assert_eq!(report(&opened, QemuSeen::Running, ParavisorState::Ready).phase, VmPhase::Booted);
    }

    #[test]
    fn a_volume_opened_in_a_former_boot_does_not_count() {
        let record = Record { volumes_before: 1, ..Record::default() };
        let opened = ParavisorSeen { volumes_opened: 1, ..ParavisorSeen::default() };
        let report =
            state(&test_spec(), true, &record, &seen(QemuSeen::Running, ParavisorState::Ready), &opened);
        assert_eq!(report.phase, VmPhase::Running);
    }

    #[test]
    fn a_lasting_fault_is_reported_with_its_generation() {
        let spec = test_spec();
        let failure = *failure::lasting("DiskFull", "c", "e", "a", "r");
        let fault = Fault { generation: spec.generation, count: 1, retry_at: 0, failure };
        let record = Record { fault: Some(fault), ..Record::default() };
        let seen = seen(QemuSeen::Absent, ParavisorState::Absent);
        let report = state(&spec, true, &record, &seen, &ParavisorSeen::default());
        assert_eq!((report.phase, report.generation), (VmPhase::Failed, spec.generation));
        assert_eq!(report.failure.expect("a failure").code, "DiskFull");
    }

    #[test]
    fn the_key_is_told_with_why_it_is_not_the_wanted_one() {
        let spec = test_spec();
        let seen = seen(QemuSeen::Running, ParavisorState::Ready);
        let key =
            |record: &Record, paravisor: &ParavisorSeen| state(&spec, true, record, &seen, paravisor).key;
        let quiet = ParavisorSeen::default();
        assert_eq!(key(&Record::default(), &quiet), None);
        let noted = Record { key_in_use: Some("old".to_owned()), ..Record::default() };
        assert_eq!(key(&noted, &quiet).expect("a key").in_use, "old");
        let failure = *failure::lasting("SuccessorNotNamed", "c", "e", "a", "r");
        let refused = |asked: &str| {
            let key_not_changed = Some((asked.to_owned(), failure.clone()));
            let said = ParavisorSeen { key_in_use: Some("old".to_owned()), key_not_changed, ..quiet.clone() };
            key(&noted, &said).expect("a key").not_changed
        };
        assert_eq!(refused("https://kv/keys/k/1"), Some(failure.clone()));
        assert_eq!(refused("https://kv/keys/k/0"), None, "nobody asks for that one any more");
        let revoked = ParavisorSeen { key_revoked: Some(failure.clone()), volumes_opened: 1, ..quiet };
        let report = state(&spec, true, &noted, &seen, &revoked);
        assert_eq!(report.key.expect("a key").revoked, Some(failure));
        assert!(report.detail.contains("revoked"), "{}", report.detail);
    }

    #[test]
    fn off_is_stopping_until_nothing_runs() {
        let spec = VmSpec { power: Power::Off, ..test_spec() };
        let phase = |qemu, paravisor| {
            let seen = seen(qemu, paravisor);
            state(&spec, true, &Record::default(), &seen, &ParavisorSeen::default()).phase
        };
        assert_eq!(phase(QemuSeen::Running, ParavisorState::Ready), VmPhase::Stopping);
        assert_eq!(phase(QemuSeen::Absent, ParavisorState::Ready), VmPhase::Stopping);
        assert_eq!(phase(QemuSeen::Absent, ParavisorState::Stopped), VmPhase::Stopping);
        assert_eq!(phase(QemuSeen::Absent, ParavisorState::Absent), VmPhase::Stopped);
    }
}
