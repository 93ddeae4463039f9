//! One VM on the host: a task that observes, plans and executes until the wanted state is reached, and then watches.

mod control;
pub mod dir;
mod execute;
mod guest;
mod plan;
mod report;
mod watch;

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use internal_api::host::{VmSpec, VmState};
use internal_api::paravisor::Failure;
use tokio::sync::watch as channel;
use tokio::task::JoinHandle;

use crate::host::{Host, now};
use crate::metadata::Certificates;
use crate::process::{self, ProcessRef};
use crate::qemu;
use dir::{Record, VmDir};
use plan::{Action, Observed, ParavisorState, QemuSeen, plan};
use watch::{ParavisorSeen, ParavisorWatch, QemuWatch};

/// How often a VM in motion is looked at; a step's end is noticed by that much later.
const BUSY: Duration = Duration::from_millis(20);
/// How often a VM at rest is looked at.
const CALM: Duration = Duration::from_millis(250);

/// Name of the paravisor's configuration; its path also finds a paravisor that is in no record.
const PARAVISOR_CONFIG: &str = "paravisor.toml";
const PARAVISOR_EVENTS: &str = "events.jsonl";
/// Prefix of QEMU's event files.
const QEMU_EVENTS: &str = "qemu-events";

/// A VM's task, as the agent holds it.
pub struct VmHandle {
    wanted: channel::Sender<Option<VmSpec>>,
    state: channel::Receiver<VmState>,
    task: JoinHandle<()>,
}

impl VmHandle {
    /// Starts the task of the VM that `spec` describes. `changed` is told of each new state.
    pub fn start(host: Arc<Host>, dir: VmDir, spec: VmSpec, changed: Arc<tokio::sync::Notify>) -> Self {
        let mut vm = Vm::open(host, dir, spec.clone());
        let (wanted, wanted_now) = channel::channel(Some(spec));
        let (states, state) = channel::channel(vm.report());
        let task = tokio::spawn(async move { vm.run(wanted_now, states, changed).await });
        Self { wanted, state, task }
    }

    /// Changes what is wanted; `None` removes the VM.
    pub fn want(&self, spec: Option<VmSpec>) {
        self.wanted.send_if_modified(|wanted| {
            let differs = *wanted != spec;
            *wanted = spec;
            differs
        });
    }

    /// The newest state.
    pub fn state(&self) -> VmState {
        self.state.borrow().clone()
    }

    /// Whether the VM is gone.
    pub fn ended(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for VmHandle {
    /// The VM runs on; only nobody watches it any more.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The VM behind the task.
struct Vm {
    host: Arc<Host>,
    dir: VmDir,
    record: Record,
    /// The last spec; still there while the VM is being removed.
    spec: VmSpec,
    wanted: bool,
    paravisor: ParavisorWatch,
    qemu: QemuWatch,
    certificates: Arc<Certificates>,
    metadata: Option<JoinHandle<()>>,
    /// Kept open until QEMU has taken the command in it.
    events: Option<File>,
}

impl Vm {
    /// Takes up a VM where the last agent, if there was one, left it.
    fn open(host: Arc<Host>, dir: VmDir, spec: VmSpec) -> Self {
        let mut record = dir.record();
        let running = |record: &Option<ProcessRef>| record.as_ref().is_some_and(ProcessRef::alive);
        // An agent that died between a start and its note left a process that only the process table knows.
        if !running(&record.paravisor) {
            let config = dir.file(PARAVISOR_CONFIG).display().to_string();
            record.paravisor = process::find(&config).or(record.paravisor);
        }
        if !running(&record.qemu) {
            record.qemu = process::find(&qemu::events_argument(&dir.file(QEMU_EVENTS))).or(record.qemu);
        }
        if let Some(port) = record.ssh_port.filter(|_| running(&record.qemu)) {
            host.ports.keep(port);
        }
        let certificates = Certificates::new(host.config.kds_url.clone(), host.http.clone());
        let paravisor = ParavisorWatch::new(dir.file(PARAVISOR_EVENTS));
        let qemu = QemuWatch::new(dir.file(&format!("{QEMU_EVENTS}.out")));
        let (metadata, events) = (None, None);
        let mut vm =
            Self { host, dir, record, spec, wanted: true, paravisor, qemu, certificates, metadata, events };
        vm.take_up_qemu();
        vm
    }

    async fn run(
        &mut self,
        mut wanted: channel::Receiver<Option<VmSpec>>,
        states: channel::Sender<VmState>,
        changed: Arc<tokio::sync::Notify>,
    ) {
        let mut held_until = 0;
        loop {
            let spec = wanted.borrow_and_update().clone();
            let adopted = self.adopt(spec);
            let action = match adopted {
                Ok(()) if now() < held_until => Action::Rest,
                Ok(()) => self.next(),
                Err(failure) => Action::NoteFault(*failure),
            };
            tracing::debug!(vm = self.spec.vm_id, ?action, "next");
            let point = action.point();
            self.host.crash.reach(&format!("before-{point}"));
            if action == Action::Remove && self.remove() {
                self.host.crash.reach("after-remove");
                changed.notify_one();
                return;
            }
            if let Err(failure) = self.execute(&action).await {
                held_until = self.note_fault(*failure);
            }
            self.host.crash.reach(&format!("after-{point}"));
            self.publish(&states, &changed);
            if action == Action::Rest || now() < held_until {
                let _ = tokio::time::timeout(self.pace(), wanted.changed()).await;
            }
        }
    }

    /// Takes over what is wanted and keeps it, so that a later agent goes on without the control plane.
    fn adopt(&mut self, spec: Option<VmSpec>) -> Result<(), Box<Failure>> {
        self.wanted = spec.is_some();
        let Some(spec) = spec else { return Ok(()) };
        if self.dir.spec().as_ref() != Some(&spec) {
            self.dir.create()?;
            self.dir.write_json("spec.json", &spec)?;
            // The paravisor reads the token anew before each use.
            self.dir.write("release-token", spec.release_token.as_bytes())?;
        }
        self.spec = spec;
        Ok(())
    }

    fn next(&mut self) -> Action {
        let seen = self.observe();
        if seen.qemu == QemuSeen::Running {
            self.serve_metadata();
        }
        self.note_key(seen.key_in_use.as_ref());
        plan(self.wanted.then_some(&self.spec), &self.record, &seen)
    }

    /// Processes first, then their words: what an ended process said last is not missed.
    fn observe(&mut self) -> Observed {
        let qemu = self.record.qemu.as_ref().map(ProcessRef::alive);
        let paravisor = self.record.paravisor.as_ref().map(ProcessRef::alive);
        self.qemu.poll();
        if self.qemu.heard {
            self.events = None;
        }
        self.paravisor.poll();
        let seen = &self.paravisor.seen;
        self.certificates.note_evidence(seen.evidence.as_deref());
        let qemu = match qemu {
            None => QemuSeen::Absent,
            Some(true) => QemuSeen::Running,
            Some(false) => QemuSeen::Ended(self.qemu.shutdown),
        };
        let paravisor = match (paravisor, &seen.refused) {
            (None, _) => ParavisorState::Absent,
            (Some(_), Some(failure)) => ParavisorState::Refused(failure.clone()),
            (Some(true), None) if seen.ready => ParavisorState::Ready,
            (Some(true), None) => ParavisorState::Starting,
            (Some(false), None) if seen.stopped => ParavisorState::Stopped,
            (Some(false), None) => ParavisorState::Died,
        };
        let key_in_use = seen.key_in_use.clone();
        Observed { qemu, paravisor, key_in_use, now: now() }
    }

    fn report(&mut self) -> VmState {
        let seen = self.observe();
        let none = ParavisorSeen::default();
        // The words of a paravisor that is gone are no longer news, but its evidence and times are.
        let paravisor = if self.record.paravisor.is_some() { &self.paravisor.seen } else { &none };
        report::state(&self.spec, self.wanted, &self.record, &seen, paravisor)
    }

    fn publish(&mut self, states: &channel::Sender<VmState>, changed: &tokio::sync::Notify) {
        let state = self.report();
        let differs = states.send_if_modified(|last| {
            let differs = *last != state;
            *last = state;
            differs
        });
        if differs {
            changed.notify_one();
        }
    }

    fn pace(&mut self) -> Duration {
        use internal_api::host::VmPhase::{Starting, Stopping};
        let busy = matches!(self.report().phase, Starting | Stopping);
        if busy { BUSY } else { CALM }
    }

    /// Removes the VM's files; `false` when that has to be tried again.
    fn remove(&mut self) -> bool {
        if let Some(metadata) = self.metadata.take() {
            metadata.abort();
        }
        if let Some(port) = self.record.ssh_port {
            self.host.ports.give_back(port);
        }
        self.dir
            .remove()
            .inspect_err(
                |error| tracing::error!(vm = self.spec.vm_id, %error, "cannot remove the VM's files"),
            )
            .is_ok()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if let Some(metadata) = self.metadata.take() {
            metadata.abort();
        }
    }
}

#[cfg(test)]
pub(crate) fn test_spec() -> VmSpec {
    let document = serde_json::json!({
        "version": 1, "vmId": "0D6F2B8C-4E0B-4E57-9B5C-2C7D9A1E3F00",
        "resourceId": "/subscriptions/5ub/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm-1",
        "imageDigest": "00", "provisioningDigest": "00", "securityEncryption": "DiskWithVMGuestState",
        "secureBoot": true, "keyId": "https://kv/keys/k/1", "attestationUrl": "https://maa",
        "trustBundleDigest": "00",
    });
    let data = serde_json::json!({
        "version": 1, "computerName": "vm-1", "adminUsername": "tenant", "sshPublicKeys": ["ssh-ed25519 AAAA"],
    });
    VmSpec {
        vm_id: "0D6F2B8C-4E0B-4E57-9B5C-2C7D9A1E3F00".to_owned(),
        name: "vm-1".to_owned(),
        generation: 1,
        power: internal_api::host::Power::On,
        restarts: 0,
        vcpus: 2,
        memory_mib: 1024,
        image_digest: "00".repeat(32),
        disk_bytes: 4 << 30,
        launch_document: document.to_string(),
        provisioning_data: data.to_string(),
        trust_bundle: "bundle".to_owned(),
        release_token: "token".to_owned(),
    }
}
