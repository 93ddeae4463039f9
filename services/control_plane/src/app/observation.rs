//! What a host's report means: reached generations, failures, absences, evidence.
//!
//! The judgement is pure; [`record`] writes it down in one transaction.

use internal_api::host::{SyncRequest, VmPhase, VmSpec, VmState};
use internal_api::paravisor::Failure;

use super::refusal::Refusal;
use super::vm::WantedPower;
use super::{ControlPlane, now_millis, now_seconds};
use crate::reconcile::reach;
use crate::store::{HostRow, Milestones, Tx, VmRow};

/// Lifetime of a release token. The host gets a new one with each answer; this bounds how long it can start VMs while
/// the control plane is away.
const RELEASE_TOKEN_SECONDS: i64 = 24 * 3600;

/// What a VM's report says about its generations.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing yet.
    Working,
    /// That generation is there.
    Reached(u64),
    /// That generation will not be there.
    Failed(u64, Failure),
}

/// Judges a report. A settled phase fulfils its generation; for the newest one it must also be the phase and the number
/// of restarts that were asked for. Changes since then that the host has nothing to do for are fulfilled with it.
pub fn judge(vm: &VmRow, state: &VmState) -> Verdict {
    let newest = state.generation >= vm.desired.asked;
    let generation = if newest { vm.resource.generation } else { state.generation };
    match state.phase {
        VmPhase::Starting | VmPhase::Stopping => Verdict::Working,
        VmPhase::Failed => Verdict::Failed(generation, reason(state)),
        VmPhase::Running | VmPhase::Booted | VmPhase::Stopped => {
            let on = state.phase != VmPhase::Stopped;
            let wanted_on = vm.desired.power == WantedPower::Running;
            let fulfilled = on == wanted_on && (!on || state.restarts >= vm.desired.restarts);
            if newest && !fulfilled { Verdict::Working } else { Verdict::Reached(generation) }
        }
    }
}

/// Why a VM failed, in the host's words or for want of them.
fn reason(state: &VmState) -> Failure {
    state.failure.clone().unwrap_or_else(|| unexplained(&state.detail))
}

fn unexplained(detail: &str) -> Failure {
    Failure {
        code: "HostReportedFailure".to_owned(),
        claim: "state of the VM on its host".to_owned(),
        expected: "a running VM".to_owned(),
        actual: if detail.is_empty() { "failed, without a reason".to_owned() } else { detail.to_owned() },
        rule: "the host's report".to_owned(),
        remedy: "look at the host agent's log".to_owned(),
        transient: false,
    }
}

/// Notes a host's report. Returns the host's revision.
pub async fn record(app: &ControlPlane, host: &str, request: &SyncRequest) -> Result<u64, Refusal> {
    let now = now_millis();
    let mut tx = app.store.begin().await?;
    let revision = tx.note_host(host, &request.capacity, now).await?;
    for vm in tx.vms_on(host).await? {
        match request.vms.iter().find(|state| state.vm_id == vm.vm_id) {
            Some(state) => note_state(&mut tx, &vm, state, now).await?,
            None => note_absence(&mut tx, &vm, request.known_revision).await?,
        }
    }
    tx.commit().await?;
    reach("after storing a host's report");
    Ok(revision)
}

async fn note_state(tx: &mut Tx, vm: &VmRow, state: &VmState, now: i64) -> Result<(), Refusal> {
    let key = &vm.resource.key;
    let mut bare = VmState { evidence: None, ..state.clone() };
    if state.phase == VmPhase::Failed {
        bare.failure = Some(reason(state));
    }
    if vm.state.as_ref() != Some(&bare) {
        tx.set_state(key, &bare).await?;
    }
    if let Some(evidence) = state.evidence.as_ref().filter(|evidence| vm.evidence.as_ref() != Some(*evidence))
    {
        tx.set_evidence(key, evidence, now).await?;
    }
    note_milestones(tx, vm, state.phase, now).await?;
    match judge(vm, state) {
        Verdict::Working => {}
        Verdict::Reached(generation) if generation > vm.resource.reached => {
            tx.mark_reached(key, generation).await?
        }
        Verdict::Reached(_) => {}
        // A VM that came up and fell later has been provisioned; its state tells the rest.
        Verdict::Failed(generation, failure)
            if generation > vm.resource.reached && generation <= vm.resource.generation =>
        {
            tx.mark_failed(&vm.resource, generation, &failure, now).await?;
        }
        Verdict::Failed(..) => {}
    }
    Ok(())
}

async fn note_milestones(tx: &mut Tx, vm: &VmRow, phase: VmPhase, now: i64) -> Result<(), Refusal> {
    let mut milestones = vm.milestones.clone();
    let names: &[&str] = match phase {
        VmPhase::Running => &["running"],
        VmPhase::Booted => &["running", "booted"],
        _ => &[],
    };
    for name in names {
        milestones.entry((*name).to_owned()).or_insert(now);
    }
    if milestones != vm.milestones {
        tx.set_milestones(&vm.resource.key, &milestones).await?;
    }
    Ok(())
}

/// A VM that shall go and is not in the report is gone, if the host had heard of its removal when it reported.
async fn note_absence(tx: &mut Tx, vm: &VmRow, known_revision: u64) -> Result<(), Refusal> {
    if removed(vm, known_revision) && !vm.absent {
        tx.set_absent(&vm.resource.key).await?;
    }
    Ok(())
}

fn removed(vm: &VmRow, known_revision: u64) -> bool {
    vm.resource.deleted && vm.removed_revision.is_some_and(|revision| known_revision >= revision)
}

/// Adds a milestone that is reached now, unless it was reached before.
pub async fn milestone(
    tx: &mut Tx,
    vm: &VmRow,
    name: &str,
    now: i64,
) -> Result<(), crate::store::StoreError> {
    let mut milestones: Milestones = vm.milestones.clone();
    milestones.entry(name.to_owned()).or_insert(now);
    tx.set_milestones(&vm.resource.key, &milestones).await
}

/// What a host shall have. Tokens are minted here, fresh for each answer.
pub async fn assignments(app: &ControlPlane, host: &str) -> Result<(u64, Vec<VmSpec>), Refusal> {
    let (revision, vms) = app.store.assignments(host).await?;
    let mut specs = Vec::with_capacity(vms.len());
    for vm in vms.iter().filter(|vm| !vm.resource.deleted) {
        specs.extend(spec(vm, release_token(app, vm).await?));
    }
    Ok((revision, specs))
}

/// The token that a VM gets its key with. In a named vault the VM is the disk encryption set that names the key: whoever gives
/// the set's identity a role there lets its VMs have the key.
async fn release_token(app: &ControlPlane, vm: &VmRow) -> Result<String, Refusal> {
    let (client, now) = (vm.vm_id.to_ascii_lowercase(), now_seconds());
    let key = vm.facts.tenant_key.as_deref().unwrap_or_default();
    let Some(audience) = app.config.keys.named_audience_of(key) else {
        let roles = ["Key Vault Crypto Service Release User".to_owned()];
        let (home, audience) = (app.directory.home(), &app.config.keys.audience);
        return Ok(app.tokens.mint(home, &client, audience, &roles, now, RELEASE_TOKEN_SECONDS));
    };
    let subscription = app.directory.subscription(&vm.resource.subscription);
    let tenant = subscription.map_or(app.directory.home(), |found| found.tenant.as_str());
    let mut claims = app.tokens.claims(tenant, &client, &audience, &[], now, RELEASE_TOKEN_SECONDS);
    if let Some(id) = &vm.facts.disk_encryption_set
        && let Some(set) = app.store.resource(&id.to_ascii_lowercase()).await?
    {
        claims.sub.clone_from(&set.incarnation);
        claims.oid = set.incarnation;
    }
    Ok(app.tokens.sign(&claims))
}

fn spec(vm: &VmRow, release_token: String) -> Option<VmSpec> {
    Some(VmSpec {
        vm_id: vm.vm_id.clone(),
        name: vm.resource.name.clone(),
        generation: vm.desired.asked,
        power: vm.desired.power.power(),
        restarts: vm.desired.restarts,
        vcpus: vm.facts.vcpus,
        memory_mib: vm.facts.memory_mib,
        image_digest: vm.facts.image_digest.clone(),
        disk_bytes: vm.facts.disk_bytes,
        launch_document: vm.launch_document.clone()?,
        provisioning_data: vm.provisioning_data.clone(),
        trust_bundle: vm.trust_bundle.clone()?,
        release_token,
    })
}

/// Whether a host is there: it reported not long ago.
pub fn is_recent(host: &HostRow, now: i64, timeout_seconds: u32) -> bool {
    now - host.synced_at <= i64::from(timeout_seconds) * 1000
}

#[cfg(test)]
#[path = "observation_tests.rs"]
mod tests;
