//! `PUT` on a VM that exists: what may change, what must not.
//!
//! The body is laid over what is shown, so that a client may send the whole VM back or only a part. What the launch
//! document, the key's policy or the disk hold on to is fixed.

use serde_json::{Map, Value, json};

use super::operations::Begun;
use super::refusal::Refusal;
use super::validation::{self, Security};
use super::vm::{VmDesired, VmFacts, WantedPower};
use super::vm_body::VmProperties;
use super::vm_references::{check_interfaces, check_os_disk};
use super::vms::{change, refuse_if_deleting};
use super::{ControlPlane, body, names, vm_keys};
use crate::store::{Tx, Verb, VmRow};

const TYPE: &str = "Microsoft.Compute/virtualMachines";

/// Changes what can be changed of a VM; everything else must be as it was.
pub async fn update(app: &ControlPlane, tx: &mut Tx, vm: VmRow, shaped: &Value) -> Result<Begun, Refusal> {
    refuse_if_deleting(&vm.resource)?;
    let location = shaped.get("location").and_then(Value::as_str).or(Some(&app.config.region));
    names::check_location(TYPE, location, &app.config.region)?;
    let mut given = shaped.get("properties").cloned().unwrap_or_else(|| json!({}));
    check_custom_data(&vm, &mut given)?;
    let mut merged = shown_with_fixed(&vm);
    overlay(&mut merged, &given);
    check_fixed(&shown_with_fixed(&vm), &merged)?;
    let typed: VmProperties = body::typed(&merged)?;
    let security = validation::security(&typed)?;
    check_os_disk(&typed)?;
    check_interfaces(tx, &vm.resource.subscription, &typed.network_profile.network_interfaces).await?;
    let mut vm = vm;
    vm.facts = vm_keys::choose(tx, &vm, security.disk_encryption_set.as_deref()).await?;
    let resized = resize(tx, &vm, &security).await?;
    if let Some(properties) = merged.as_object_mut() {
        properties.remove("casemate");
    }
    vm_keys::show(&mut merged, &vm.facts);
    let tags = shaped.get("tags").and_then(Value::as_object).cloned();
    let desired = VmDesired {
        tags: tags.unwrap_or_else(|| vm.desired.tags.clone()),
        properties: merged,
        ..vm.desired.clone()
    };
    change(tx, &vm, desired, !resized, Verb::Write).await
}

/// The stored properties, with the recovery key, which is kept among the facts.
fn shown_with_fixed(vm: &VmRow) -> Value {
    let mut properties = vm.desired.properties.clone();
    if let Some(key) = &vm.facts.recovery_key {
        properties["casemate"] = json!({"recoveryKey": key});
    }
    properties
}

/// Lays `given` over `base`: objects member by member, everything else as a whole.
fn overlay(base: &mut Value, given: &Value) {
    match (base, given) {
        (Value::Object(base), Value::Object(given)) => {
            for (name, value) in given {
                overlay(base.entry(name.clone()).or_insert_with(|| Value::Object(Map::new())), value);
            }
        }
        (base, given) => *base = given.clone(),
    }
}

/// What the launch document, the key's policy or the disk hold on to.
const FIXED: [&str; 10] = [
    "storageProfile/imageReference",
    "storageProfile/osDisk/name",
    "storageProfile/osDisk/createOption",
    "storageProfile/osDisk/diskSizeGB",
    "storageProfile/osDisk/managedDisk/securityProfile/securityEncryptionType",
    "osProfile/computerName",
    "osProfile/adminUsername",
    "osProfile/linuxConfiguration/ssh",
    "securityProfile",
    "casemate/recoveryKey",
];

fn check_fixed(before: &Value, after: &Value) -> Result<(), Refusal> {
    for path in FIXED {
        let pointer = format!("/{path}");
        if !same(before.pointer(&pointer), after.pointer(&pointer)) {
            return Err(validation::unchangeable(&path.replace('/', ".")));
        }
    }
    Ok(())
}

/// Equal but for the case of text (ids, names) and a key's trailing newline.
fn same(left: Option<&Value>, right: Option<&Value>) -> bool {
    match (left, right) {
        (Some(Value::String(left)), Some(Value::String(right))) => {
            left.trim().eq_ignore_ascii_case(right.trim())
        }
        (Some(Value::Object(left)), Some(Value::Object(right))) => {
            left.keys().chain(right.keys()).all(|name| same(left.get(name), right.get(name)))
        }
        (Some(Value::Array(left)), Some(Value::Array(right))) => {
            left.len() == right.len()
                && left.iter().zip(right).all(|(left, right)| same(Some(left), Some(right)))
        }
        (left, right) => left == right,
    }
}

/// Custom data is never shown, so it is compared with what was bound, and not kept a second time.
fn check_custom_data(vm: &VmRow, given: &mut Value) -> Result<(), Refusal> {
    let Some(profile) = given.get_mut("osProfile").and_then(Value::as_object_mut) else { return Ok(()) };
    if profile.contains_key("adminPassword") {
        return Err(validation::unchangeable("osProfile.adminPassword"));
    }
    let Some(custom_data) = profile.remove("customData") else { return Ok(()) };
    let bound: Value = serde_json::from_str(&vm.provisioning_data).unwrap_or_default();
    match bound.get("customData") == Some(&custom_data) {
        true => Ok(()),
        false => Err(validation::unchangeable("osProfile.customData")),
    }
}

/// Changes the size of a VM that is off. Says whether it did.
async fn resize(tx: &mut Tx, vm: &VmRow, security: &Security) -> Result<bool, Refusal> {
    if security.size.name == vm.facts.size {
        return Ok(false);
    }
    if vm.desired.power == WantedPower::Running {
        let message = format!(
            "Unable to resize the VM '{}' while it runs: stop or deallocate it first.",
            vm.resource.name
        );
        return Err(Refusal::conflict("OperationNotAllowed", message).at("properties.hardwareProfile.vmSize"));
    }
    let facts = VmFacts {
        size: security.size.name.clone(),
        vcpus: security.size.vcpus,
        memory_mib: security.size.memory_mib,
        ..vm.facts.clone()
    };
    tx.set_facts(&vm.resource.key, &facts).await?;
    Ok(true)
}
