//! Which key a VM shall be under: its set's, or its platform key. The change itself is the reconcilers' and the VM's.

use serde_json::{Value, json};

use super::names::DISK;
use super::refusal::{Kind, Refusal};
use super::vm::VmFacts;
use super::vm_references::tenant_key;
use super::vms::disk_security;
use crate::store::{Tx, VmRow};

/// Notes that a VM shall be under the key of this set, or under its platform key. Returns its facts from now on.
pub async fn choose(tx: &mut Tx, vm: &VmRow, set: Option<&str>) -> Result<VmFacts, Refusal> {
    if same(vm.facts.disk_encryption_set.as_deref(), set) {
        return Ok(vm.facts.clone());
    }
    let facts = VmFacts {
        tenant_key: tenant_key(tx, &vm.resource.subscription, set).await?,
        disk_encryption_set: set.map(str::to_owned),
        platform_key: vm.facts.platform_key || vm.facts.tenant_key.is_none() || set.is_none(),
        ..vm.facts.clone()
    };
    tx.set_facts(&vm.resource.key, &facts).await?;
    tx.forget_key(&vm.resource.key).await?;
    if let Some(disk) =
        tx.resource(&facts.disk_id.to_ascii_lowercase()).await?.filter(|disk| disk.kind == DISK)
    {
        let mut desired = disk.desired.clone();
        desired["properties"]["securityProfile"] = disk_security(&facts);
        tx.change_resource(&disk, &desired, true, super::now_millis()).await?;
    }
    Ok(facts)
}

fn same(left: Option<&str>, right: Option<&str>) -> bool {
    match (left, right) {
        (Some(left), Some(right)) => left.eq_ignore_ascii_case(right),
        (left, right) => left == right,
    }
}

/// Shows the choice in a VM's properties.
pub fn show(properties: &mut Value, facts: &VmFacts) {
    let profile = &mut properties["storageProfile"]["osDisk"]["managedDisk"]["securityProfile"];
    match (&facts.disk_encryption_set, profile.as_object_mut()) {
        (Some(set), _) => profile["diskEncryptionSet"] = json!({"id": set}),
        (None, Some(profile)) => drop(profile.remove("diskEncryptionSet")),
        (None, None) => {}
    }
}

/// The set that a disk's `securityProfile` asks for, with the way of encryption that it must say.
pub fn asked_of_disk(vm: &VmRow, profile: &Value) -> Result<Option<String>, Refusal> {
    let set = profile["secureVMDiskEncryptionSetId"].as_str().map(str::to_owned);
    let facts = VmFacts { disk_encryption_set: set.clone(), ..vm.facts.clone() };
    let expected = disk_security(&facts)["securityType"].clone();
    let possible = set.is_none()
        || vm.facts.encryption == internal_api::launch::SecurityEncryption::DiskWithVMGuestState;
    if possible && profile["securityType"] == expected {
        return Ok(set);
    }
    let message = format!(
        "A disk's securityType cannot be changed to {}; with a disk encryption set it is \
         'ConfidentialVM_DiskEncryptedWithCustomerKey', without one the platform key's of the same encryption.",
        profile["securityType"]
    );
    Err(Refusal::new(Kind::BadRequest, "InvalidParameter", message)
        .at("properties.securityProfile.securityType"))
}
