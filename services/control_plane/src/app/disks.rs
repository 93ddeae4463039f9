//! Disks: the OS disks of VMs. They are made and removed with their VM; nothing else makes a disk here.

use serde_json::{Value, json};

use super::body::{self, compute};
use super::names::{DISK, Place, VM};
use super::refusal::{Kind, Refusal};
use super::vm::WantedPower;
use super::vms::{change, refuse_if_deleting};
use super::{ControlPlane, now_millis, time_text, vm_keys};
use crate::store::{Resource, Tx, Verb, VmRow};

const TYPE: &str = "Microsoft.Compute/disks";

/// A disk.
pub async fn get(app: &ControlPlane, place: &Place) -> Result<Value, Refusal> {
    let disk = app.store.resource(&place.key(DISK)).await?;
    let disk = disk.ok_or_else(|| Refusal::not_found(TYPE, &place.name, &place.group))?;
    let owner = app.store.vm(&owner_key(&disk)).await?;
    Ok(view(&disk, owner.as_ref()))
}

/// Replaces a disk's labels, or the key that its VM is under.
pub async fn patch(app: &ControlPlane, place: &Place, text: &[u8]) -> Result<Value, Refusal> {
    let shaped = body::parse(text, &compute::DISK_UPDATE)?;
    let mut tx = app.store.begin().await?;
    let find = async |tx: &mut Tx| {
        let disk = tx.resource(&place.key(DISK)).await?;
        disk.ok_or_else(|| Refusal::not_found(TYPE, &place.name, &place.group))
    };
    let disk = find(&mut tx).await?;
    if let Some(profile) = shaped.pointer("/properties/securityProfile") {
        change_key(&mut tx, &disk, profile).await?;
    }
    let disk = find(&mut tx).await?;
    let mut desired = disk.desired.clone();
    if let Some(tags) = shaped.get("tags") {
        desired["tags"] = tags.clone();
    }
    tx.change_resource(&disk, &desired, true, now_millis()).await?;
    tx.commit().await?;
    get(app, place).await
}

async fn change_key(tx: &mut Tx, disk: &Resource, profile: &Value) -> Result<(), Refusal> {
    let Some(mut vm) = tx.vm(&owner_key(disk)).await? else { return Ok(()) };
    refuse_if_deleting(&vm.resource)?;
    let set = vm_keys::asked_of_disk(&vm, profile)?;
    vm.facts = vm_keys::choose(tx, &vm, set.as_deref()).await?;
    let mut desired = vm.desired.clone();
    vm_keys::show(&mut desired.properties, &vm.facts);
    change(tx, &vm, desired, true, Verb::Write).await.map(drop)
}

/// `PUT` of a disk is refused: it would promise storage that nobody can attach.
pub fn put(place: &Place) -> Refusal {
    let message = format!(
        "The disk '{}' cannot be created by itself: this installation has OS disks only, and they are created with their \
         virtual machine.",
        place.name
    );
    Refusal::new(Kind::BadRequest, "OperationNotAllowed", message)
}

/// A disk that exists belongs to a VM, so there is nothing that may be deleted alone; `false` if there is no such disk.
pub async fn delete(app: &ControlPlane, place: &Place) -> Result<bool, Refusal> {
    let Some(disk) = app.store.resource(&place.key(DISK)).await? else { return Ok(false) };
    let owner = disk.desired["managedBy"].as_str().unwrap_or_default();
    let message = format!("Disk {} is attached to VM {owner}.", disk.name);
    Err(Refusal::conflict("OperationNotAllowed", message))
}

/// Key of the VM that a disk belongs to.
pub fn owner_key(disk: &Resource) -> String {
    disk.desired["managedBy"].as_str().unwrap_or_default().to_ascii_lowercase()
}

/// A disk as it is shown.
pub fn view(disk: &Resource, owner: Option<&VmRow>) -> Value {
    debug_assert!(owner.is_none_or(|owner| owner.resource.kind == VM));
    let mut properties = disk.desired["properties"].clone();
    let reserved = owner.is_some_and(|owner| owner.desired.power == WantedPower::Deallocated);
    properties["diskState"] = json!(if reserved { "Reserved" } else { "Attached" });
    properties["provisioningState"] = json!("Succeeded");
    properties["timeCreated"] = json!(time_text(disk.created_at));
    properties["uniqueId"] = json!(disk.incarnation);
    json!({
        "id": disk.id,
        "name": disk.name,
        "type": TYPE,
        "location": disk.location,
        "tags": disk.desired["tags"],
        "managedBy": disk.desired["managedBy"],
        "properties": properties,
    })
}
