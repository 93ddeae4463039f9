//! Virtual machines: create, update, label, delete.

use serde_json::{Value, json};
use uuid::Uuid;

use super::body::{self, compute};
use super::groups::open_group;
use super::images::Image;
use super::names::{self, DISK, Place, VM};
use super::operations::{self, Begun};
use super::refusal::Refusal;
use super::validation;
use super::vm::{VmDesired, VmFacts, WantedPower, disk_security_type};
use super::vm_body::{VmBody, VmProperties};
use super::vm_references::{
    check_image, check_interfaces, check_os_disk, find_image, recovery_key, tenant_key,
};
use super::{ControlPlane, launch, now_millis, os_profile, vm_update};
use crate::reconcile::reach;
use crate::store::{NewResource, Resource, Tx, Verb, VmRow};

const TYPE: &str = "Microsoft.Compute/virtualMachines";

/// An accepted `PUT`.
#[derive(Clone, Debug, PartialEq)]
pub struct Put {
    /// What to poll.
    pub begun: Begun,
    /// Whether the VM is new.
    pub created: bool,
}

/// Creates a VM, or changes what can be changed of one.
pub async fn put(app: &ControlPlane, place: &Place, text: &[u8]) -> Result<Put, Refusal> {
    names::check_name(TYPE, &place.name, 64)?;
    let shaped = body::parse(text, &compute::VIRTUAL_MACHINE)?;
    let mut tx = app.store.begin().await?;
    let group = open_group(&mut tx, &place.subscription, &place.group).await?;
    let existing = tx.vm(&place.key(VM)).await?;
    let put = match existing {
        Some(vm) => {
            let begun = vm_update::update(app, &mut tx, vm, &shaped).await?;
            Put { begun, created: false }
        }
        None => Put { begun: create(app, &mut tx, &group, &place.name, &shaped).await?, created: true },
    };
    tx.commit().await?;
    reach("after storing a VM");
    Ok(put)
}

async fn create(
    app: &ControlPlane,
    tx: &mut Tx,
    group: &Resource,
    name: &str,
    shaped: &Value,
) -> Result<Begun, Refusal> {
    let typed: VmBody = body::typed(shaped)?;
    names::check_location(TYPE, typed.location.as_deref(), &app.config.region)?;
    let properties = &typed.properties;
    let security = validation::security(properties)?;
    let os_profile = properties.os_profile.as_ref();
    let os_profile = os_profile.ok_or_else(|| validation::missing("properties.osProfile", "osProfile"))?;
    let provisioning = os_profile::provisioning(os_profile, name)?;
    check_os_disk(properties)?;
    let image = find_image(app, tx, &group.subscription, properties).await?;
    check_image(&image, &security)?;
    check_interfaces(tx, &group.subscription, &properties.network_profile.network_interfaces).await?;
    let vm_id = Uuid::new_v4().to_string().to_ascii_uppercase();
    let disk = new_disk(tx, group, name, &vm_id, properties).await?;
    let facts = VmFacts {
        size: security.size.name.clone(),
        vcpus: security.size.vcpus,
        memory_mib: security.size.memory_mib,
        image_digest: image.digest.clone(),
        disk_bytes: disk_bytes(properties, &image)?,
        encryption: security.encryption,
        secure_boot: security.secure_boot,
        disk_id: disk.id.clone(),
        tenant_key: tenant_key(tx, &group.subscription, security.disk_encryption_set.as_deref()).await?,
        platform_key: security.disk_encryption_set.is_none(),
        disk_encryption_set: security.disk_encryption_set,
        recovery_key: properties.casemate.recovery_key.clone().map(recovery_key).transpose()?,
    };
    let mut shown = shaped.get("properties").cloned().unwrap_or_else(|| json!({}));
    complete(&mut shown, &provisioning.computer_name, &disk, &facts);
    let desired = VmDesired {
        tags: typed.tags.clone(),
        properties: shown,
        power: WantedPower::Running,
        restarts: 0,
        asked: 1,
    };
    let now = now_millis();
    let new = NewResource {
        id: names::resource_id(group, TYPE, name),
        kind: VM,
        subscription: group.subscription.clone(),
        group_key: group.key.clone(),
        name: name.to_owned(),
        location: app.config.region.clone(),
        incarnation: vm_id.clone(),
        desired: serde_json::to_value(&desired).expect("the type has only string keys"),
        reached: 0,
    };
    tx.insert_resource(&new, now).await?;
    let key = new.id.to_ascii_lowercase();
    tx.insert_vm(&key, &vm_id, &facts, &launch::provisioning_text(&provisioning), now).await?;
    tx.insert_resource(&disk_resource(disk, &new, &facts), now).await?;
    let resource = tx.resource(&key).await?.expect("the row was written in this transaction");
    operations::begin(tx, &resource, 1, Verb::Write, now).await
}

/// Takes secrets out of what is shown, and puts in what the platform chose.
fn complete(shown: &mut Value, computer_name: &str, disk: &NewDisk, facts: &VmFacts) {
    if let Some(profile) = shown.get_mut("osProfile").and_then(Value::as_object_mut) {
        profile.remove("customData");
        profile.insert("computerName".to_owned(), json!(computer_name));
    }
    if let Some(properties) = shown.as_object_mut() {
        properties.remove("casemate");
    }
    shown["hardwareProfile"]["vmSize"] = json!(facts.size);
    let os_disk = &mut shown["storageProfile"]["osDisk"];
    os_disk["name"] = json!(disk.name);
    os_disk["osType"] = json!("Linux");
    os_disk["createOption"] = json!("FromImage");
    os_disk["deleteOption"] = json!("Delete");
    os_disk["diskSizeGB"] = json!(facts.disk_bytes.div_ceil(1 << 30));
    if os_disk.get("caching").is_none() {
        os_disk["caching"] = json!("ReadWrite");
    }
}

fn disk_bytes(properties: &VmProperties, image: &Image) -> Result<u64, Refusal> {
    let Some(gib) = properties.storage_profile.os_disk.disk_size_gb else { return Ok(image.size_bytes) };
    let bytes = u64::try_from(gib).unwrap_or(0) << 30;
    if bytes >= image.size_bytes && gib <= 4095 {
        return Ok(bytes);
    }
    let message = format!(
        "The specified disk size {gib} GB is not between the size of the corresponding disk in the VM image \
         ({} GB) and 4095 GB.",
        image.size_bytes.div_ceil(1 << 30)
    );
    Err(Refusal::parameter("properties.storageProfile.osDisk.diskSizeGB", message))
}

struct NewDisk {
    id: String,
    name: String,
}

async fn new_disk(
    tx: &mut Tx,
    group: &Resource,
    vm_name: &str,
    vm_id: &str,
    properties: &VmProperties,
) -> Result<NewDisk, Refusal> {
    let given = properties.storage_profile.os_disk.name.clone().filter(|name| !name.is_empty());
    let name = given
        .unwrap_or_else(|| format!("{vm_name}_OsDisk_1_{}", vm_id.replace('-', "").to_ascii_lowercase()));
    names::check_name("Microsoft.Compute/disks", &name, 128)?;
    let id = names::resource_id(group, "Microsoft.Compute/disks", &name);
    if tx.resource(&id.to_ascii_lowercase()).await?.is_some() {
        let message = format!(
            "Disk {name} already exists in resource group {}. Only CreateOption.Attach is supported.",
            group.name.to_ascii_uppercase()
        );
        return Err(
            Refusal::conflict("ConflictingUserInput", message).at("properties.storageProfile.osDisk.name")
        );
    }
    Ok(NewDisk { id, name })
}

/// `securityProfile` of the disk's resource.
pub fn disk_security(facts: &VmFacts) -> Value {
    let security_type = disk_security_type(facts.encryption, facts.disk_encryption_set.is_some());
    let mut security = json!({"securityType": security_type});
    if let Some(set) = &facts.disk_encryption_set {
        security["secureVMDiskEncryptionSetId"] = json!(set);
    }
    security
}

fn disk_resource(disk: NewDisk, vm: &NewResource, facts: &VmFacts) -> NewResource {
    let security = disk_security(facts);
    NewResource {
        id: disk.id,
        kind: DISK,
        name: disk.name,
        incarnation: Uuid::new_v4().to_string(),
        desired: json!({
            "tags": {},
            "managedBy": vm.id,
            "properties": {
                "osType": "Linux",
                "hyperVGeneration": "V2",
                "creationData": {"createOption": "FromImage"},
                "diskSizeGB": facts.disk_bytes.div_ceil(1 << 30),
                "diskSizeBytes": facts.disk_bytes,
                "securityProfile": security,
            },
        }),
        reached: 1,
        ..vm.clone()
    }
}

/// Replaces a VM's labels.
pub async fn patch(app: &ControlPlane, place: &Place, text: &[u8]) -> Result<Begun, Refusal> {
    let shaped = body::parse(text, &compute::VIRTUAL_MACHINE_UPDATE)?;
    let mut tx = app.store.begin().await?;
    let vm = find(&mut tx, place).await?;
    refuse_if_deleting(&vm.resource)?;
    let mut desired = vm.desired.clone();
    if let Some(tags) = shaped.get("tags").and_then(Value::as_object) {
        desired.tags = tags.clone();
    }
    let begun = change(&mut tx, &vm, desired, true, Verb::Write).await?;
    tx.commit().await?;
    Ok(begun)
}

/// Writes a new wanted state and its operation. `quiet` says that the host has nothing to do for it; what failed before is
/// tried again all the same.
pub async fn change(
    tx: &mut Tx,
    vm: &VmRow,
    desired: VmDesired,
    quiet: bool,
    verb: Verb,
) -> Result<Begun, Refusal> {
    let now = now_millis();
    let ask = !quiet || vm.failure.is_some();
    let asked = if ask { vm.resource.generation + 1 } else { desired.asked };
    let desired = VmDesired { asked, ..desired };
    let value = serde_json::to_value(&desired).expect("the type has only string keys");
    let generation = tx.change_resource(&vm.resource, &value, !ask, now).await?;
    match (&vm.host, vm.launch_document.is_some()) {
        (Some(host), true) if ask => drop(tx.bump_revision(host).await?),
        // No host has it yet, so it is as off as it can be; a later start goes on where its creation stopped.
        (_, false) if desired.power != WantedPower::Running => {
            tx.mark_reached(&vm.resource.key, generation).await?
        }
        _ => {}
    }
    operations::begin(tx, &vm.resource, generation, verb, now).await
}

/// Deletes a VM; `None` if there is none. With `force`, nobody waits for its host: a host that comes back finds the VM
/// missing from its assignments and removes it then.
pub async fn delete(app: &ControlPlane, place: &Place, force: bool) -> Result<Option<Begun>, Refusal> {
    let mut tx = app.store.begin().await?;
    let Some(vm) = tx.vm(&place.key(VM)).await? else { return Ok(None) };
    let now = now_millis();
    let generation = mark_vm_deleted(&mut tx, &vm, force, now).await?;
    let begun = operations::begin(&mut tx, &vm.resource, generation, Verb::Delete, now).await?;
    tx.commit().await?;
    reach("after marking a VM deleted");
    Ok(Some(begun))
}

/// Says that a VM shall go away: its host hears of it with the next answer.
pub async fn mark_vm_deleted(tx: &mut Tx, vm: &VmRow, force: bool, now: i64) -> Result<u64, Refusal> {
    let key = &vm.resource.key;
    let mut generation = vm.resource.generation;
    if !vm.resource.deleted {
        generation = tx.mark_deleted(&vm.resource, now).await?;
        if let (Some(host), true) = (&vm.host, vm.launch_document.is_some()) {
            let revision = tx.bump_revision(host).await?;
            tx.set_removed(key, revision).await?;
        }
    }
    if force || vm.launch_document.is_none() {
        tx.set_absent(key).await?;
    }
    Ok(generation)
}

/// The VM of a request.
pub async fn find(tx: &mut Tx, place: &Place) -> Result<VmRow, Refusal> {
    tx.vm(&place.key(VM)).await?.ok_or_else(|| Refusal::not_found(TYPE, &place.name, &place.group))
}

/// 409 while a resource is on its way out.
pub fn refuse_if_deleting(resource: &Resource) -> Result<(), Refusal> {
    if !resource.deleted {
        return Ok(());
    }
    let message = format!("The resource '{}' is being deleted; wait until that is done.", resource.name);
    Err(Refusal::conflict("OperationNotAllowed", message))
}
