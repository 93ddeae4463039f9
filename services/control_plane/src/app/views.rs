//! Resources as Resource Manager shows them.

use internal_api::host::{HostCapacity, Platform, VmPhase};
use public_api::encoding::from_base64_any;
use serde_json::{Value, json};

use super::observation::is_recent;
use super::operations::failure_message;
use super::state::{ProvisioningState, power_state, provisioning_state};
use super::{ControlPlane, now_millis, time_text};
use crate::store::{HostRow, Resource, StoreError, VmRow};

/// The provisioning state of a VM.
pub fn vm_state(vm: &VmRow) -> ProvisioningState {
    let resource = &vm.resource;
    provisioning_state(resource.deleted, resource.generation, resource.reached, vm.failure.is_some())
}

/// All hosts, and which of them report.
#[derive(Clone, Debug)]
pub struct Hosts {
    rows: Vec<HostRow>,
    now: i64,
    timeout_seconds: u32,
}

impl Hosts {
    /// The hosts as they are now.
    pub async fn read(app: &ControlPlane) -> Result<Self, StoreError> {
        let timeout_seconds = app.config.hosts.timeout_seconds;
        Ok(Self { rows: app.store.hosts().await?, now: now_millis(), timeout_seconds })
    }

    fn of(&self, vm: &VmRow) -> Option<&HostRow> {
        let name = vm.host.as_ref()?;
        self.rows.iter().find(|host| host.name == *name)
    }

    /// What to say of a VM whose host is silent: nothing that it last said need be true any more.
    fn silence(&self, vm: &VmRow) -> Option<String> {
        let host = self.of(vm).filter(|host| !is_recent(host, self.now, self.timeout_seconds))?;
        Some(format!("host {} has not reported since {}", host.name, time_text(host.synced_at)))
    }
}

/// A virtual machine; with `instance_view` the view is shown in it.
pub fn vm(vm: &VmRow, hosts: &Hosts, instance_view: bool) -> Value {
    let mut properties = vm.desired.properties.clone();
    properties["vmId"] = json!(vm.vm_id.to_ascii_lowercase());
    properties["provisioningState"] = json!(vm_state(vm).text());
    properties["timeCreated"] = json!(time_text(vm.resource.created_at));
    properties["storageProfile"]["osDisk"]["managedDisk"]["id"] = json!(vm.facts.disk_id);
    if let Some(key) = &vm.facts.recovery_key {
        properties["casemate"]["recoveryKey"] = json!(key);
    }
    merge(&mut properties["casemate"], &casemate(vm, hosts));
    if instance_view {
        properties["instanceView"] = self::instance_view(vm, hosts);
    }
    json!({
        "id": vm.resource.id,
        "name": vm.resource.name,
        "type": "Microsoft.Compute/virtualMachines",
        "location": vm.resource.location,
        "tags": vm.desired.tags,
        "properties": properties,
    })
}

fn merge(target: &mut Value, more: &Value) {
    if !target.is_object() {
        *target = json!({});
    }
    if let (Some(target), Some(more)) = (target.as_object_mut(), more.as_object()) {
        target.extend(more.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
}

/// Our labels: what Azure's shape has no place for.
fn casemate(vm: &VmRow, hosts: &Hosts) -> Value {
    let state = vm.state.as_ref();
    let failure = shown_failure(vm);
    json!({
        "trustRoot": trust_root(vm, hosts),
        "host": vm.host,
        "hostPhase": state.map(|state| state.phase),
        "detail": detail(vm, hosts),
        "failure": failure,
        "sshPort": state.and_then(|state| state.ssh_port),
        "timings": state.map(|state| &state.timings),
        "milestones": vm.milestones,
        "keyId": vm.key_id,
        "key": key(vm),
        "imageDigest": vm.facts.image_digest,
        "evidence": vm.evidence_at.map(|at| json!({
            "receivedAt": time_text(at),
            "url": format!("{}/attestationEvidence", vm.resource.id),
        })),
    })
}

/// The key that the VM shall be under and the one that its guest state is under.
fn key(vm: &VmRow) -> Value {
    let told = vm.state.as_ref().and_then(|state| state.key.as_ref());
    let in_use = told.map(|key| key.in_use.as_str());
    let state = match (vm.key_id.as_deref(), told) {
        (_, Some(key)) if key.revoked.is_some() => "revoked",
        (Some(wanted), Some(key)) if key.in_use != wanted && key.not_changed.is_some() => "refused",
        (Some(wanted), Some(key)) if key.in_use != wanted => "changing",
        (_, Some(_)) => "inUse",
        (_, None) => "unknown",
    };
    let failure = told.and_then(|key| key.revoked.as_ref().or(key.not_changed.as_ref()));
    json!({"wanted": vm.key_id, "inUse": in_use, "state": state, "failure": failure})
}

fn detail(vm: &VmRow, hosts: &Hosts) -> String {
    if !vm.waiting.is_empty() {
        return vm.waiting.clone();
    }
    let said = vm.state.as_ref().map(|state| state.detail.clone());
    hosts.silence(vm).or(said).unwrap_or_default()
}

/// The newest refusal: of the wanted generation, or what the host says about a VM that failed after it had come up.
fn shown_failure(vm: &VmRow) -> Option<&internal_api::paravisor::Failure> {
    let host = vm.state.as_ref().filter(|state| state.phase == VmPhase::Failed);
    host.and_then(|state| state.failure.as_ref()).or(vm.failure.as_ref().map(|row| &row.failure))
}

/// `development`, `amd`, or nothing while neither host nor evidence is known. If they differ, the weaker one counts.
pub fn trust_root(vm: &VmRow, hosts: &Hosts) -> Option<&'static str> {
    let platform = hosts.of(vm).map(|host| platform_root(&host.capacity));
    let token = vm.evidence.as_deref().and_then(evidence_root);
    match (platform, token) {
        (Some("development"), _) | (_, Some("development")) => Some("development"),
        (platform, token) => token.or(platform),
    }
}

fn platform_root(capacity: &HostCapacity) -> &'static str {
    match capacity.platform {
        Platform::SevSnp => "amd",
        Platform::Development => "development",
    }
}

/// The claim of the bundle's token, for display only: nobody decides by an unverified token.
fn evidence_root(bundle: &str) -> Option<&'static str> {
    let bundle: Value = serde_json::from_str(bundle).ok()?;
    let payload = bundle.get("token")?.as_str()?.split('.').nth(1)?;
    let claims: Value = serde_json::from_slice(&from_base64_any(payload).ok()?).ok()?;
    match claims.get(public_api::attestation::CLAIM_TRUST_ROOT)?.as_str()? {
        "amd" => Some("amd"),
        _ => Some("development"),
    }
}

/// The instance view: `[0]` provisioning, `[1]` power, then what only we have.
pub fn instance_view(vm: &VmRow, hosts: &Hosts) -> Value {
    let mut statuses = vec![provisioning_status(vm), power_status(vm)];
    if let Some(state) = &vm.state {
        let phase = serde_json::to_value(state.phase).expect("an enum of words");
        let code = format!("CasemateHostPhase/{}", phase.as_str().unwrap_or_default());
        statuses.push(json!({"code": code, "level": "Info", "displayStatus": state.detail}));
    }
    if let Some(silence) = hosts.silence(vm) {
        statuses.push(json!({"code": "CasemateHost/silent", "level": "Warning", "displayStatus": silence}));
    }
    match trust_root(vm, hosts) {
        Some("development") => statuses.push(json!({
            "code": "CasemateTrustRoot/development",
            "level": "Warning",
            "displayStatus": "Development trust root: not isolated from the operator",
        })),
        Some(root) => {
            let code = format!("CasemateTrustRoot/{root}");
            statuses.push(json!({"code": code, "level": "Info", "displayStatus": "AMD trust root"}));
        }
        None => {}
    }
    if let Some(failure) = shown_failure(vm) {
        statuses.push(json!({
            "code": format!("CasemateFailure/{}", failure.code),
            "level": "Error",
            "displayStatus": failure.claim,
            "message": failure_message(failure),
        }));
    }
    json!({
        "computerName": vm.desired.properties["osProfile"]["computerName"],
        "hyperVGeneration": "V2",
        "bootDiagnostics": {},
        "disks": [{
            "name": vm.desired.properties["storageProfile"]["osDisk"]["name"],
            "statuses": [provisioning_status(vm)],
        }],
        "statuses": statuses,
    })
}

fn provisioning_status(vm: &VmRow) -> Value {
    let state = vm_state(vm).text();
    let (code, level) = match &vm.failure {
        Some(row) if state == "Failed" => (format!("ProvisioningState/failed/{}", row.failure.code), "Error"),
        _ => (format!("ProvisioningState/{}", state.to_ascii_lowercase()), "Info"),
    };
    let display = format!("Provisioning {}", state.to_ascii_lowercase());
    json!({"code": code, "level": level, "displayStatus": display, "time": time_text(vm.resource.changed_at)})
}

fn power_status(vm: &VmRow) -> Value {
    let (code, display) = power_state(vm.desired.power, vm.state.as_ref().map(|state| state.phase));
    json!({"code": format!("PowerState/{code}"), "level": "Info", "displayStatus": display})
}

/// A resource group.
pub fn group(group: &Resource) -> Value {
    let state = if group.deleted { "Deleting" } else { "Succeeded" };
    json!({
        "id": group.id,
        "name": group.name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": group.location,
        "tags": group.desired["tags"],
        "properties": {"provisioningState": state},
    })
}
