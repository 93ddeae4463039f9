//! What to do next for one VM: a pure function of what shall be, what the host did and what it sees.
//!
//! ```text
//!            Launch            (paravisor: ready)     StartQemu
//!   nothing ───────► paravisor ──────────────► sealed ─────────► guest runs
//!      ▲                 │ refused, died          ▲  TellReset       │ reset, killed
//!      │                 ▼                        └──────────────────┤
//!      └── Decommission ◄─ ForgetParavisor ◄─ stopped ◄─ TellStopped ◄┘ power off
//! ```
//!
//! One step at a time: the caller executes it, observes and plans again. A crash anywhere is a re-run.

use internal_api::host::{Power, VmSpec};
use internal_api::launch::LaunchDocument;
use internal_api::paravisor::Failure;

use super::dir::Record;
use crate::failure;
use crate::qmp::Shutdown;

/// What the host sees of a VM's processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// QEMU.
    pub qemu: QemuSeen,
    /// The paravisor.
    pub paravisor: ParavisorState,
    /// The key that the guest state is under, if the paravisor said it.
    pub key_in_use: Option<String>,
    /// Unix milliseconds.
    pub now: u64,
}

/// QEMU as seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QemuSeen {
    /// None was started, or its end was dealt with.
    Absent,
    /// Runs.
    Running,
    /// Has ended; `None` when it did not say why.
    Ended(Option<Shutdown>),
}

/// The paravisor as seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParavisorState {
    /// None was started, or its end was dealt with.
    Absent,
    /// Runs, but its sockets do not listen yet.
    Starting,
    /// Runs; QEMU may start.
    Ready,
    /// Has ended after a clean stop.
    Stopped,
    /// Has ended, or is about to, because the VM must not run.
    Refused(Failure),
    /// Has ended without a word.
    Died,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing to do until something changes.
    Rest,
    /// The wanted state is reached: note its generation.
    Settle,
    /// Get the image, write the launch files, get a launch context, start the paravisor.
    Launch,
    /// Ask the paravisor to move the guest state to this key.
    ChangeKey(String),
    /// Tell the paravisor that the guest was reset.
    TellReset,
    /// Start QEMU.
    StartQemu,
    /// Ask the guest to power off.
    PowerDown,
    /// End QEMU.
    EndQemu,
    /// Note that the guest has switched itself off.
    NoteGuestOff,
    /// Note that QEMU has ended and may be started again.
    NoteQemuEnd,
    /// Tell the paravisor that the guest has stopped.
    TellStopped,
    /// End the paravisor.
    EndParavisor,
    /// Note that the paravisor has ended.
    ForgetParavisor,
    /// Note why the VM does not run, and end what is left of the paravisor.
    NoteFault(Failure),
    /// Give the launch context back.
    Decommission,
    /// Remove the VM's files.
    Remove,
}

impl Action {
    /// Names the action in a fault plan.
    pub fn point(&self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Settle => "settle",
            Self::Launch => "launch",
            Self::ChangeKey(_) => "change-key",
            Self::TellReset => "tell-reset",
            Self::StartQemu => "start-qemu",
            Self::PowerDown => "power-down",
            Self::EndQemu => "end-qemu",
            Self::NoteGuestOff => "note-guest-off",
            Self::NoteQemuEnd => "note-qemu-end",
            Self::TellStopped => "tell-stopped",
            Self::EndParavisor => "end-paravisor",
            Self::ForgetParavisor => "forget-paravisor",
            Self::NoteFault(_) => "note-fault",
            Self::Decommission => "decommission",
            Self::Remove => "remove",
        }
    }
}

/// The next step towards `desired`; `None` means that the VM shall be gone.
pub fn plan(desired: Option<&VmSpec>, record: &Record, seen: &Observed) -> Action {
    let Some(spec) = desired else { return plan_removal(record, seen) };
    match seen.qemu {
        QemuSeen::Running => plan_running(spec, record, seen),
        QemuSeen::Ended(reason) => plan_ended(spec, record, reason),
        QemuSeen::Absent if wants_on(spec, record) => plan_start(record, seen),
        QemuSeen::Absent => plan_stopped(spec, record, seen),
    }
}

/// Whether the VM shall run: wanted on, not switched off by itself, not failed for good.
pub fn wants_on(spec: &VmSpec, record: &Record) -> bool {
    let failed = record.fault.as_ref();
    let failed = failed.is_some_and(|fault| fault.generation == spec.generation && !fault.failure.transient);
    spec.power == Power::On && record.guest_off != Some(spec.generation) && !failed
}

fn wants_restart(spec: &VmSpec, record: &Record) -> bool {
    spec.restarts > record.restarts
}

fn plan_removal(record: &Record, seen: &Observed) -> Action {
    if seen.qemu == QemuSeen::Running {
        return Action::EndQemu;
    }
    if !matches!(seen.paravisor, ParavisorState::Absent | ParavisorState::Stopped | ParavisorState::Died) {
        return Action::EndParavisor;
    }
    if record.context.is_some() { Action::Decommission } else { Action::Remove }
}

fn plan_running(spec: &VmSpec, record: &Record, seen: &Observed) -> Action {
    // A guest without its paravisor has neither disk nor TPM, and one that was refused must not run on.
    if seen.paravisor != ParavisorState::Ready {
        return Action::EndQemu;
    }
    if wants_on(spec, record) && !wants_restart(spec, record) {
        return if record.reached == spec.generation { plan_key(spec, record, seen) } else { Action::Settle };
    }
    match record.stop_deadline {
        None => Action::PowerDown,
        Some(deadline) if seen.now >= deadline => Action::EndQemu,
        // A guest in its firmware or its initramfs does not hear the button.
        Some(_) if record.press_again_at.is_some_and(|at| seen.now >= at) => Action::PowerDown,
        Some(_) => Action::Rest,
    }
}

/// The launch document of the next start may name another key than the one in use: then the running guest moves to it.
fn plan_key(spec: &VmSpec, record: &Record, seen: &Observed) -> Action {
    let wanted =
        wanted_key(spec).filter(|wanted| seen.key_in_use.as_ref().is_some_and(|used| used != wanted));
    let Some(wanted) = wanted else { return Action::Rest };
    let asked = record.key_asked.as_ref();
    match asked.is_some_and(|asked| asked.key_id == wanted && seen.now < asked.retry_at) {
        true => Action::Rest,
        false => Action::ChangeKey(wanted),
    }
}

/// The key that the launch document names.
pub fn wanted_key(spec: &VmSpec) -> Option<String> {
    serde_json::from_str(&spec.launch_document).ok().map(|document: LaunchDocument| document.key_id)
}

fn plan_ended(spec: &VmSpec, record: &Record, reason: Option<Shutdown>) -> Action {
    let by_itself = wants_on(spec, record) && !wants_restart(spec, record);
    match reason {
        Some(Shutdown::GuestOff) if by_itself => Action::NoteGuestOff,
        _ => Action::NoteQemuEnd,
    }
}

fn plan_start(record: &Record, seen: &Observed) -> Action {
    let waits = record.fault.as_ref().is_some_and(|fault| seen.now < fault.retry_at);
    match &seen.paravisor {
        ParavisorState::Refused(failure) => Action::NoteFault(failure.clone()),
        ParavisorState::Stopped => Action::ForgetParavisor,
        ParavisorState::Died => Action::NoteFault(*died()),
        ParavisorState::Starting => Action::Rest,
        // It was told to stop when the VM was wanted off: it is on its way out.
        ParavisorState::Ready if record.told_stopped => overdue(record, seen),
        ParavisorState::Ready if waits => Action::Rest,
        ParavisorState::Ready if record.reset_pending => Action::TellReset,
        ParavisorState::Ready => Action::StartQemu,
        ParavisorState::Absent if record.context.is_some() => Action::Decommission,
        ParavisorState::Absent if waits => Action::Rest,
        ParavisorState::Absent => Action::Launch,
    }
}

fn plan_stopped(spec: &VmSpec, record: &Record, seen: &Observed) -> Action {
    match &seen.paravisor {
        ParavisorState::Starting => Action::EndParavisor,
        ParavisorState::Ready if record.told_stopped => overdue(record, seen),
        ParavisorState::Ready => Action::TellStopped,
        ParavisorState::Stopped | ParavisorState::Refused(_) | ParavisorState::Died => {
            Action::ForgetParavisor
        }
        ParavisorState::Absent if record.context.is_some() => Action::Decommission,
        ParavisorState::Absent if record.reached == spec.generation => Action::Rest,
        ParavisorState::Absent => Action::Settle,
    }
}

/// A paravisor that was told to stop and is given time for it.
fn overdue(record: &Record, seen: &Observed) -> Action {
    match record.stop_deadline {
        Some(deadline) if seen.now < deadline => Action::Rest,
        _ => Action::EndParavisor,
    }
}

fn died() -> Box<Failure> {
    failure::transient(
        "ParavisorDied",
        "run the paravisor",
        "a paravisor that runs as long as the VM",
        "it ended without saying why; see paravisor.log",
    )
}

#[cfg(test)]
mod tests;
