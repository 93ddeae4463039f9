//! The table of points: where each process crashes, phase by phase. An undisturbed life must pass exactly these.

use std::collections::BTreeSet;

use crate::site::VM;

/// A phase of a VM's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Create,
    Stop,
    Start,
    Delete,
}

impl Phase {
    /// In the order of a life.
    pub const ALL: [Self; 4] = [Self::Create, Self::Stop, Self::Start, Self::Delete];

    /// What a client says.
    pub fn command(self) -> &'static [&'static str] {
        match self {
            Self::Create => &["vm", "create", VM, "--image", "small"],
            Self::Stop => &["vm", "stop", VM],
            Self::Start => &["vm", "start", VM],
            Self::Delete => &["vm", "delete", VM],
        }
    }

    fn orders(self) -> &'static [&'static str] {
        match self {
            Self::Create => CREATE,
            Self::Stop => STOP,
            Self::Start => START,
            Self::Delete => DELETE,
        }
    }
}

/// Nothing is under way at these: they are passed all the time.
const AT_REST: [&str; 3] =
    ["host-agent: before-rest", "host-agent: after-rest", "soft-pspd: after PlatformStatus"];

/// Every phase with every order.
pub fn all() -> impl Iterator<Item = (Phase, &'static str)> {
    Phase::ALL.into_iter().flat_map(|phase| phase.orders().iter().map(move |order| (phase, *order)))
}

/// An order in the form of the fault plan. `2 a: b` is the third time at that point; the first needs no number.
pub fn written(order: &str) -> String {
    if order.starts_with(|first: char| first.is_ascii_digit()) {
        order.to_owned()
    } else {
        format!("0 {order}")
    }
}

fn point(order: &str) -> &str {
    order.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start()
}

/// The process that an order is about.
pub fn process(order: &str) -> &str {
    point(order).split(": ").next().unwrap_or_default()
}

/// Points that were reached without being in the table, and the other way round.
pub fn compare(phase: Phase, reached: &[String]) -> Vec<String> {
    let reached: BTreeSet<&str> =
        reached.iter().map(String::as_str).filter(|p| !AT_REST.contains(p)).collect();
    let table: BTreeSet<&str> = phase.orders().iter().map(|order| point(order)).collect();
    let unknown =
        reached.difference(&table).map(|point| format!("{phase:?}: \"{point}\" is not in the table"));
    let missed = table.difference(&reached).map(|point| format!("{phase:?}: \"{point}\" was not reached"));
    unknown.chain(missed).collect()
}

const CREATE: &[&str] = &[
    "control-plane: after noting the host",
    "control-plane: after noting the key",
    "control-plane: after noting the launch document",
    "control-plane: after storing a VM",
    "control-plane: after storing a host's report",
    "control-plane: after the platform key",
    "control-plane: before noting the host",
    "control-plane: before noting the launch document",
    "control-plane: before the platform key",
    "1 control-plane: after storing a host's report",
    "2 control-plane: after storing a host's report",
    "keys: after recording a release",
    "keys: after storing a key",
    "keys: before recording a release",
    "keys: before storing a key",
    "1 keys: before recording a release",
    "1 keys: after recording a release",
    "attestation: after recording a verdict",
    "attestation: after using up a nonce",
    "attestation: before recording a verdict",
    "1 attestation: after recording a verdict",
    "1 attestation: after using up a nonce",
    "soft-pspd: after LaunchFinish",
    "soft-pspd: after LaunchStart",
    "soft-pspd: after LaunchUpdate",
    "soft-pspd: after a guest's request",
    "3 soft-pspd: after LaunchUpdate",
    "1 soft-pspd: after a guest's request",
    "2 soft-pspd: after a guest's request",
    "host-agent: after-launch",
    "host-agent: after-settle",
    "host-agent: after-start-qemu",
    "host-agent: before-launch",
    "host-agent: before-settle",
    "host-agent: before-start-qemu",
    "host-agent: context-made",
    "host-agent: paravisor-started",
    "host-agent: qemu-started",
    "paravisor: after AdvanceGeneration",
    "paravisor: after Attest",
    "paravisor: after CheckLaunch",
    "paravisor: after EncryptDisk",
    "paravisor: after ProvisionTpm",
    "paravisor: after ReleaseKey",
    "paravisor: after Seal",
    "paravisor: after writing a start's generation",
    "paravisor: before AdvanceGeneration",
    "paravisor: before Attest",
    "paravisor: before CheckLaunch",
    "paravisor: before EncryptDisk",
    "paravisor: before ProvisionTpm",
    "paravisor: before ReleaseKey",
    "paravisor: before Seal",
    "paravisor: before a boot",
    "paravisor: before saying ready",
    "paravisor: before saying that the volume was opened",
];
const STOP: &[&str] = &[
    "control-plane: after storing a change of power",
    "control-plane: after storing a host's report",
    "keys: after recording a release",
    "keys: before recording a release",
    "attestation: after recording a verdict",
    "attestation: after using up a nonce",
    "attestation: before recording a verdict",
    "soft-pspd: after Decommission",
    "soft-pspd: after a guest's request",
    "host-agent: after-decommission",
    "host-agent: after-forget-paravisor",
    "host-agent: after-note-qemu-end",
    "host-agent: after-power-down",
    "host-agent: after-settle",
    "host-agent: after-tell-stopped",
    "host-agent: before-decommission",
    "host-agent: before-forget-paravisor",
    "host-agent: before-note-qemu-end",
    "host-agent: before-power-down",
    "host-agent: before-settle",
    "host-agent: before-tell-stopped",
    "paravisor: after telling of a stop",
    "paravisor: after writing a stop's generation",
    "paravisor: before writing a stop's generation",
];
const START: &[&str] = &[
    "control-plane: after storing a change of power",
    "control-plane: after storing a host's report",
    "keys: after recording a release",
    "keys: before recording a release",
    "1 keys: before recording a release",
    "1 keys: after recording a release",
    "attestation: after recording a verdict",
    "attestation: after using up a nonce",
    "attestation: before recording a verdict",
    "1 attestation: after recording a verdict",
    "soft-pspd: after LaunchFinish",
    "soft-pspd: after LaunchStart",
    "soft-pspd: after LaunchUpdate",
    "soft-pspd: after a guest's request",
    "1 soft-pspd: after a guest's request",
    "host-agent: after-launch",
    "host-agent: after-settle",
    "host-agent: after-start-qemu",
    "host-agent: before-launch",
    "host-agent: before-settle",
    "host-agent: before-start-qemu",
    "host-agent: context-made",
    "host-agent: paravisor-started",
    "host-agent: qemu-started",
    "paravisor: after AdvanceGeneration",
    "paravisor: after Attest",
    "paravisor: after CheckLaunch",
    "paravisor: after OpenState",
    "paravisor: after ReleaseKey",
    "paravisor: after Seal",
    "paravisor: after writing a start's generation",
    "paravisor: before AdvanceGeneration",
    "paravisor: before Attest",
    "paravisor: before CheckLaunch",
    "paravisor: before OpenState",
    "paravisor: before ReleaseKey",
    "paravisor: before Seal",
    "paravisor: before a boot",
    "paravisor: before saying ready",
    "paravisor: before saying that the volume was opened",
];
const DELETE: &[&str] = &[
    "control-plane: after deleting the platform key",
    "control-plane: after marking a VM deleted",
    "control-plane: after removing the rows",
    "control-plane: after storing a host's report",
    "control-plane: before deleting the platform key",
    "1 control-plane: after storing a host's report",
    "keys: after deleting a key",
    "keys: before deleting a key",
    "soft-pspd: after Decommission",
    "host-agent: after-decommission",
    "host-agent: after-end-paravisor",
    "host-agent: after-end-qemu",
    "host-agent: after-remove",
    "host-agent: before-decommission",
    "host-agent: before-end-paravisor",
    "host-agent: before-end-qemu",
    "host-agent: before-remove",
];
