//! Each VM that shall run gets a host of its region with room for it, or the reasons why there is none.
//!
//! A host counts while it reports. If every host that reports is too small or too full the VM's creation fails at once, as
//! it does on Azure; if none reports, the VM waits a while, because a host agent may just be restarting.

use std::collections::BTreeMap;

use internal_api::host::{Platform, VmPhase};
use internal_api::paravisor::Failure;

use super::{PassError, Reconcilers};
use crate::app::now_millis;
use crate::app::observation::{is_recent, milestone};
use crate::app::vm::WantedPower;
use crate::store::{HostRow, VmRow};

/// What placement goes by.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Milliseconds since 1970.
    pub now: i64,
    /// A host that was silent for longer is not there.
    pub host_timeout_seconds: u32,
    /// How long a VM waits for a host.
    pub placement_timeout_seconds: u32,
    /// Whether hosts with a software secure processor may be used.
    pub allow_development: bool,
}

/// What to do for a VM without a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Put it there.
    Place(String),
    /// No host now.
    Wait(String),
    /// No host for it.
    Fail(Box<Failure>),
}

/// Cores and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Room {
    vcpus: u32,
    memory_mib: u64,
}

/// Whether a VM holds its place: deallocated ones give it up once they are off.
fn holds_place(vm: &VmRow) -> bool {
    let off = match &vm.state {
        Some(state) => matches!(state.phase, VmPhase::Stopped | VmPhase::Failed),
        None => vm.launch_document.is_none(),
    };
    !vm.absent && (vm.desired.power != WantedPower::Deallocated || !off)
}

fn used(host: &str, vms: &[VmRow], but: &str) -> Room {
    let here = |vm: &&VmRow| vm.host.as_deref() == Some(host) && vm.resource.key != but && holds_place(vm);
    vms.iter().filter(here).fold(Room::default(), |room, vm| Room {
        vcpus: room.vcpus + vm.facts.vcpus,
        memory_mib: room.memory_mib + vm.facts.memory_mib,
    })
}

/// Why a host has no room for a VM, given all VMs.
pub fn shortage(host: &HostRow, vms: &[VmRow], vm: &VmRow) -> Option<String> {
    lacks(host, used(&host.name, vms, &vm.resource.key), vm)
}

fn lacks(host: &HostRow, used: Room, vm: &VmRow) -> Option<String> {
    let free_vcpus = host.capacity.vcpus.saturating_sub(used.vcpus);
    let free_memory = host.capacity.memory_mib.saturating_sub(used.memory_mib);
    let (name, size, capacity) = (&host.name, &vm.facts.size, &host.capacity);
    if vm.facts.vcpus > free_vcpus {
        let (wanted, all) = (vm.facts.vcpus, capacity.vcpus);
        return Some(format!("host {name}: {size} needs {wanted} vCPUs, {free_vcpus} of {all} are free"));
    }
    if vm.facts.memory_mib > free_memory {
        let (wanted, all) = (vm.facts.memory_mib, capacity.memory_mib);
        return Some(format!(
            "host {name}: {size} needs {wanted} MiB of memory, {free_memory} of {all} are free"
        ));
    }
    None
}

fn unfit(host: &HostRow, vm: &VmRow, rules: &Rules) -> Option<String> {
    let name = &host.name;
    if !host.capacity.region.eq_ignore_ascii_case(&vm.resource.location) {
        return Some(format!("host {name} is in the region {}", host.capacity.region));
    }
    if host.capacity.platform == Platform::Development && !rules.allow_development {
        return Some(format!("host {name} has a development root, which this installation does not allow"));
    }
    None
}

/// Plans for all VMs at once, oldest first; a step counts for those after it.
pub fn plan(vms: &[VmRow], hosts: &[HostRow], rules: &Rules) -> Vec<(String, Step)> {
    let mut taken: BTreeMap<&str, Room> = BTreeMap::new();
    let mut steps = Vec::new();
    for vm in vms.iter().filter(|vm| wants_place(vm)) {
        let step = place(vm, vms, hosts, rules, &taken);
        if let Step::Place(name) = &step
            && let Some(host) = hosts.iter().find(|host| host.name == *name)
        {
            let room = taken.entry(&host.name).or_default();
            room.vcpus += vm.facts.vcpus;
            room.memory_mib += vm.facts.memory_mib;
        }
        steps.push((vm.resource.key.clone(), step));
    }
    steps
}

fn wants_place(vm: &VmRow) -> bool {
    let wanted = !vm.resource.deleted && vm.failure.is_none() && vm.desired.power == WantedPower::Running;
    vm.host.is_none() && wanted
}

fn place(vm: &VmRow, vms: &[VmRow], hosts: &[HostRow], rules: &Rules, taken: &BTreeMap<&str, Room>) -> Step {
    let mut reasons = Vec::new();
    let mut best: Option<(u64, &HostRow)> = None;
    let mut somebody = false;
    for host in hosts {
        if !is_recent(host, rules.now, rules.host_timeout_seconds) {
            reasons.push(format!("host {} does not report", host.name));
            continue;
        }
        somebody = true;
        let mut used = used(&host.name, vms, &vm.resource.key);
        let more = taken.get(host.name.as_str()).copied().unwrap_or_default();
        used = Room { vcpus: used.vcpus + more.vcpus, memory_mib: used.memory_mib + more.memory_mib };
        if let Some(reason) = unfit(host, vm, rules).or_else(|| lacks(host, used, vm)) {
            reasons.push(reason);
            continue;
        }
        let free = host.capacity.memory_mib.saturating_sub(used.memory_mib);
        if best.is_none_or(|(most, _)| free > most) {
            best = Some((free, host));
        }
    }
    match best {
        Some((_, host)) => Step::Place(host.name.clone()),
        None if somebody || waited_long(vm, rules) => Step::Fail(Box::new(no_room(vm, &reasons))),
        None => Step::Wait(waiting(&reasons)),
    }
}

fn waited_long(vm: &VmRow, rules: &Rules) -> bool {
    rules.now - vm.resource.changed_at > i64::from(rules.placement_timeout_seconds) * 1000
}

fn waiting(reasons: &[String]) -> String {
    if reasons.is_empty() {
        return "waiting for a host: none has reported yet".to_owned();
    }
    format!("waiting for a host: {}", reasons.join("; "))
}

fn no_room(vm: &VmRow, reasons: &[String]) -> Failure {
    let actual = if reasons.is_empty() { "no host has ever reported".to_owned() } else { reasons.join("; ") };
    Failure {
        code: "AllocationFailed".to_owned(),
        claim: format!("a host for {}", vm.facts.size),
        expected: format!(
            "a reporting host in '{}' with {} vCPUs and {} MiB of memory free",
            vm.resource.location, vm.facts.vcpus, vm.facts.memory_mib
        ),
        actual,
        rule: "placement".to_owned(),
        remedy:
            "choose a smaller size, stop or delete other VMs, or start a host agent; then start the VM again"
                .to_owned(),
        transient: true,
    }
}

/// Runs once over all VMs.
pub async fn run(reconcilers: &Reconcilers) -> Result<(), PassError> {
    let config = &reconcilers.app.config;
    let vms = reconcilers.app.store.vms().await?;
    if !vms.iter().any(wants_place) {
        return Ok(());
    }
    let hosts = reconcilers.app.store.hosts().await?;
    let rules = Rules {
        now: now_millis(),
        host_timeout_seconds: config.hosts.timeout_seconds,
        placement_timeout_seconds: config.hosts.placement_timeout_seconds,
        allow_development: config.allow_development_roots,
    };
    for (key, step) in plan(&vms, &hosts, &rules) {
        let vm = vms.iter().find(|vm| vm.resource.key == key).expect("the plan is about these VMs");
        execute(reconcilers, vm, step).await?;
    }
    Ok(())
}

async fn execute(reconcilers: &Reconcilers, vm: &VmRow, step: Step) -> Result<(), PassError> {
    match step {
        Step::Wait(reason) => reconcilers.wait(vm, &reason).await,
        Step::Fail(failure) => reconcilers.fail(vm, &failure).await,
        Step::Place(host) => {
            reconcilers.probe.at("before noting the host")?;
            let mut tx = reconcilers.app.store.begin().await?;
            tx.set_host(&vm.resource.key, &host).await?;
            tx.set_waiting(&vm.resource.key, "").await?;
            milestone(&mut tx, vm, "placed", now_millis()).await?;
            tx.commit().await?;
            reconcilers.probe.at("after noting the host")?;
            Ok(())
        }
    }
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
