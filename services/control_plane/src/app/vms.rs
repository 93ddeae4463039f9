//! Virtual machines: create, update, label, delete.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::body::{self, compute};
use super::groups::open_group;
use super::images::Image;
use super::names::{self, DES, DISK, NIC, Place, VM};
use super::operations::{self, Begun};
use super::refusal::{Kind, Refusal};
use super::validation::{self, Security};
use super::vm::{VmDesired, VmFacts, WantedPower, disk_security_type};
use super::vm_body::{ImageReference, SubResource, VmBody, VmProperties};
use super::{ControlPlane, launch, now_millis, os_profile};
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
            let begun = update(app, &mut tx, vm, &shaped).await?;
            Put { begun, created: false }
        }
        None => Put { begun: create(app, &mut tx, &group, &place.name, &shaped).await?, created: true },
    };
    tx.commit().await?;
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

fn check_os_disk(properties: &VmProperties) -> Result<(), Refusal> {
    let disk = &properties.storage_profile.os_disk;
    let path = |name: &str| format!("properties.storageProfile.osDisk.{name}");
    match disk.create_option.as_deref() {
        Some("FromImage") => {}
        None => return Err(validation::missing(&path("createOption"), "osDisk.createOption")),
        Some(other) => {
            let message =
                format!("The value '{other}' is not offered for osDisk.createOption; use 'FromImage'.");
            return Err(Refusal::parameter(&path("createOption"), message));
        }
    }
    if disk.os_type.as_deref() == Some("Windows") {
        return Err(Refusal::parameter(
            &path("osType"),
            "Windows images are not offered by this installation.",
        ));
    }
    if disk.delete_option.as_deref() == Some("Detach") {
        let message = "The value 'Detach' is not offered for osDisk.deleteOption: an OS disk is encrypted for its VM \
            and goes with it. Leave it out or use 'Delete'.";
        return Err(Refusal::parameter(&path("deleteOption"), message));
    }
    Ok(())
}

async fn find_image(
    app: &ControlPlane,
    tx: &mut Tx,
    subscription: &str,
    properties: &VmProperties,
) -> Result<Image, Refusal> {
    let target = "properties.storageProfile.imageReference";
    let reference = properties.storage_profile.image_reference.as_ref();
    let reference = reference.ok_or_else(|| validation::missing(target, "imageReference"))?;
    let found = match reference {
        ImageReference { id: Some(id), .. } => {
            super::image_resources::resolve(app, tx, subscription, id).await?
        }
        ImageReference {
            publisher: Some(publisher),
            offer: Some(offer),
            sku: Some(sku),
            version: Some(version),
            ..
        } => app.catalogue.by_urn(publisher, offer, sku, version)?,
        _ => {
            let message =
                "An image reference needs either 'id', or 'publisher', 'offer', 'sku' and 'version'.";
            return Err(Refusal::parameter(target, message));
        }
    };
    found.ok_or_else(|| no_image(reference).at(target))
}

fn no_image(reference: &ImageReference) -> Refusal {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let message = match &reference.id {
        Some(id) => format!("The image '{id}' was not found."),
        None => format!(
            "The platform image '{}:{}:{}:{}' is not available. Verify that all fields in the storage profile are correct.",
            text(&reference.publisher),
            text(&reference.offer),
            text(&reference.sku),
            text(&reference.version)
        ),
    };
    Refusal::new(Kind::NotFound, "ImageNotFound", message)
}

/// An image is made for one way of encryption: its initramfs unlocks the root by TPM, or it does not.
fn check_image(image: &Image, security: &Security) -> Result<(), Refusal> {
    let encrypted = security.encryption == internal_api::launch::SecurityEncryption::DiskWithVMGuestState;
    if encrypted == image.disk_encrypted {
        return Ok(());
    }
    let security_type = disk_security_type(security.encryption, security.disk_encryption_set.is_some());
    let message = format!("SecurityType '{security_type}' is not supported by given image.");
    Err(Refusal::parameter("securityProfile.securityType", message))
}

async fn check_interfaces(
    tx: &mut Tx,
    subscription: &str,
    interfaces: &[SubResource],
) -> Result<(), Refusal> {
    let target = "properties.networkProfile.networkInterfaces";
    if interfaces.len() > 1 {
        let message = "The number of network interfaces exceeds the maximum allowed for the VM size (1).";
        return Err(Refusal::parameter(target, message));
    }
    for interface in interfaces {
        let id =
            interface.id.as_deref().ok_or_else(|| validation::missing(target, "networkInterfaces.id"))?;
        if tx.referenced(NIC, subscription, id).await?.is_none() {
            let message = format!(
                "Resource {id} referenced by the virtual machine was not found. Please make sure that the referenced resource exists, and that both resources are in the same region."
            );
            return Err(Refusal::new(Kind::BadRequest, "InvalidResourceReference", message).at(target));
        }
    }
    Ok(())
}

/// The tenant's key, from the disk encryption set.
async fn tenant_key(tx: &mut Tx, subscription: &str, set: Option<&str>) -> Result<Option<String>, Refusal> {
    let Some(id) = set else { return Ok(None) };
    let target = "properties.storageProfile.osDisk.managedDisk.securityProfile.diskEncryptionSet.id";
    let Some(found) = tx.referenced(DES, subscription, id).await? else {
        let message = format!("The disk encryption set '{id}' was not found.");
        return Err(Refusal::new(Kind::BadRequest, "InvalidResourceReference", message).at(target));
    };
    let properties = &found.desired["properties"];
    if properties["encryptionType"] != json!("ConfidentialVmEncryptedWithCustomerKey") {
        let message = format!(
            "The disk encryption set '{id}' must have the encryption type 'ConfidentialVmEncryptedWithCustomerKey' to be used in a disk's security profile."
        );
        return Err(Refusal::parameter(target, message));
    }
    Ok(properties["activeKey"]["keyUrl"].as_str().map(str::to_owned))
}

fn recovery_key(pem: String) -> Result<String, Refusal> {
    let text = pem.trim();
    let inner = text
        .strip_prefix("-----BEGIN PUBLIC KEY-----")
        .and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----"))
        .map(|inner| inner.split_whitespace().collect::<String>());
    let der = inner.and_then(|inner| public_api::encoding::from_base64_any(&inner).ok());
    match der.filter(|der| aws_lc_rs::rsa::PublicEncryptingKey::from_der(der).is_ok()) {
        Some(_) => Ok(pem),
        None => {
            let message = "The recovery key must be an RSA public key (SubjectPublicKeyInfo) in PEM.";
            Err(Refusal::parameter("properties.casemate.recoveryKey", message))
        }
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

fn disk_resource(disk: NewDisk, vm: &NewResource, facts: &VmFacts) -> NewResource {
    let security_type = disk_security_type(facts.encryption, facts.disk_encryption_set.is_some());
    let mut security = json!({"securityType": security_type});
    if let Some(set) = &facts.disk_encryption_set {
        security["secureVMDiskEncryptionSetId"] = json!(set);
    }
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

async fn update(app: &ControlPlane, tx: &mut Tx, vm: VmRow, shaped: &Value) -> Result<Begun, Refusal> {
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
    let resized = resize(tx, &vm, &security).await?;
    if let Some(properties) = merged.as_object_mut() {
        properties.remove("casemate");
    }
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
    "storageProfile/osDisk/managedDisk/securityProfile",
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
