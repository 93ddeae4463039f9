//! Disk encryption sets: names for tenants' keys.
//!
//! A VM is under the key of its set. When the set gets another key, its running VMs move to that one at once and its stopped
//! ones at their next start, each if the key that it is under lets the new one follow. The change of a set is done when all
//! running VMs have moved.

use internal_api::host::{VmPhase, VmState};
use internal_api::paravisor::Failure;
use serde_json::{Value, json};

use super::body::{self, compute};
use super::groups::{in_group, open_group};
use super::names::{self, DES, Place};
use super::operations::{self, Begun};
use super::refusal::Refusal;
use super::vm::{VmFacts, WantedPower};
use super::{ControlPlane, now_millis, time_text, validation, vaults};
use crate::store::{Resource, StoreError, Tx, Verb, VmRow};

const TYPE: &str = "Microsoft.Compute/diskEncryptionSets";

/// Creates a set or replaces what it says.
pub async fn put(app: &ControlPlane, place: &Place, text: &[u8]) -> Result<Written, Refusal> {
    names::check_name(TYPE, &place.name, 80)?;
    let shaped = body::parse(text, &compute::DISK_ENCRYPTION_SET)?;
    names::check_location(TYPE, shaped["location"].as_str(), &app.config.region)?;
    check_properties(&shaped["properties"])?;
    let mut tx = app.store.begin().await?;
    let group = open_group(&mut tx, &place.subscription, &place.group).await?;
    let existing = tx.resource(&place.key(DES)).await?;
    let desired = desired(existing.as_ref(), &shaped)?;
    check_vault(app, &mut tx, &place.subscription, &desired["properties"]).await?;
    let mut begun = None;
    match &existing {
        Some(set) => begun = Some(change(&mut tx, set, desired).await?),
        None => {
            let new = in_group(app, &group, (TYPE, DES), &place.name, desired);
            tx.insert_resource(&new, now_millis()).await?;
        }
    }
    written(app, tx, &place.key(DES), begun).await
}

/// A set as it was written, and the operation that ends when its VMs have moved, if it was there before.
pub struct Written {
    /// The set.
    pub view: Value,
    /// What to poll.
    pub begun: Option<Begun>,
}

async fn written(
    app: &ControlPlane,
    mut tx: Tx,
    key: &str,
    generation: Option<u64>,
) -> Result<Written, Refusal> {
    let stored = tx.resource(key).await?.expect("the row was written in this transaction");
    let begun = match generation {
        Some(generation) => {
            Some(operations::begin(&mut tx, &stored, generation, Verb::Write, now_millis()).await?)
        }
        None => None,
    };
    let vms = tx.vms().await?;
    tx.commit().await?;
    Ok(Written { view: view(app, &stored, &vms), begun })
}

/// Writes what a set wants now. If that is another key, its VMs want it from now on, and the one before is remembered.
/// Returns the generation.
pub async fn change(tx: &mut Tx, set: &Resource, mut desired: Value) -> Result<u64, StoreError> {
    let key = |of: &Value| of["properties"]["activeKey"].clone();
    let (before, after) = (key(&set.desired), key(&desired));
    desired["previousKeys"] = set.desired.get("previousKeys").cloned().unwrap_or_else(|| json!([]));
    for part in ["rotatedAt", "rotationError"] {
        if desired.get(part).is_none() {
            desired[part] = set.desired.get(part).cloned().unwrap_or_default();
        }
    }
    if before["keyUrl"] == after["keyUrl"] {
        return tx.change_resource(set, &desired, true, now_millis()).await;
    }
    if let Some(previous) = desired["previousKeys"].as_array_mut() {
        previous.retain(|key| key["keyUrl"] != after["keyUrl"]);
        previous.push(before);
    }
    let mut moves = false;
    for vm in tx.vms().await?.iter().filter(|vm| uses(vm, &set.key)) {
        let facts = VmFacts { tenant_key: after["keyUrl"].as_str().map(str::to_owned), ..vm.facts.clone() };
        tx.set_facts(&vm.resource.key, &facts).await?;
        tx.forget_key(&vm.resource.key).await?;
        moves |= is_up(vm);
    }
    tx.change_resource(set, &desired, !moves, now_millis()).await
}

/// How far the VMs of a set are with the set's key.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// Not all running ones are under it.
    Moving,
    /// All running ones are under it.
    Done,
    /// One may not move to it.
    Refused(Failure),
}

/// Judges by what the hosts say of the set's running VMs. Those that are off move when they start.
pub fn progress(vms: &[VmRow], set: &Resource) -> Progress {
    let wanted = set.desired["properties"]["activeKey"]["keyUrl"].as_str();
    let mut progress = Progress::Done;
    for vm in vms.iter().filter(|vm| uses(vm, &set.key) && is_up(vm)) {
        let key = vm.state.as_ref().and_then(|state| state.key.as_ref());
        let refusal = key.and_then(|key| key.not_changed.as_ref()).filter(|failure| !failure.transient);
        match refusal {
            _ if key.is_some_and(|key| Some(key.in_use.as_str()) == wanted) => {}
            Some(failure) if vm.key_id.as_deref() == wanted => return Progress::Refused(failure.clone()),
            _ => progress = Progress::Moving,
        }
    }
    progress
}

/// Whether a VM's guest runs, or is on its way there, as far as its host has said.
fn is_up(vm: &VmRow) -> bool {
    let up = |state: &VmState| matches!(state.phase, VmPhase::Starting | VmPhase::Running | VmPhase::Booted);
    !vm.resource.deleted && vm.desired.power == WantedPower::Running && vm.state.as_ref().is_some_and(up)
}

/// Changes labels, identity or key of a set.
pub async fn patch(app: &ControlPlane, place: &Place, text: &[u8]) -> Result<Written, Refusal> {
    let shaped = body::parse(text, &compute::DISK_ENCRYPTION_SET_UPDATE)?;
    let mut tx = app.store.begin().await?;
    let set = tx.resource(&place.key(DES)).await?;
    let set = set.ok_or_else(|| Refusal::not_found(TYPE, &place.name, &place.group))?;
    let mut desired = set.desired.clone();
    for part in ["tags", "identity"] {
        if let Some(value) = shaped.get(part) {
            desired[part] = value.clone();
        }
    }
    if let Some(changes) = shaped.get("properties").and_then(Value::as_object) {
        if changes.get("encryptionType").is_some_and(|kind| *kind != desired["properties"]["encryptionType"])
        {
            return Err(validation::unchangeable("encryptionType"));
        }
        for (name, value) in changes {
            desired["properties"][name] = value.clone();
        }
        check_properties(&desired["properties"])?;
        check_vault(app, &mut tx, &place.subscription, &desired["properties"]).await?;
    }
    let generation = change(&mut tx, &set, desired).await?;
    written(app, tx, &set.key, Some(generation)).await
}

fn desired(existing: Option<&Resource>, shaped: &Value) -> Result<Value, Refusal> {
    let kept = existing.map(|set| &set.desired["identity"]).cloned();
    let identity =
        shaped.get("identity").cloned().or(kept).unwrap_or_else(|| json!({"type": "SystemAssigned"}));
    Ok(json!({
        "tags": super::groups::tags_of(shaped)?,
        "identity": identity,
        "properties": shaped["properties"],
    }))
}

fn check_properties(properties: &Value) -> Result<(), Refusal> {
    let kind = properties["encryptionType"].as_str();
    if kind != Some("ConfidentialVmEncryptedWithCustomerKey") {
        let message = format!(
            "The encryption type '{}' is not offered by this installation; use 'ConfidentialVmEncryptedWithCustomerKey'.",
            kind.unwrap_or("EncryptionAtRestWithCustomerKey")
        );
        return Err(Refusal::parameter("properties.encryptionType", message));
    }
    let target = "properties.activeKey.keyUrl";
    let url = properties["activeKey"]["keyUrl"].as_str();
    let url = url.ok_or_else(|| validation::missing(target, "activeKey.keyUrl"))?;
    if is_versioned_key_url(url) {
        return Ok(());
    }
    let message =
        format!("'{url}' is not the URL of a key with its version (https://host/keys/name/version).");
    Err(Refusal::parameter(target, message))
}

/// Where this installation has vaults, one that the set names must be of its subscription.
async fn check_vault(
    app: &ControlPlane,
    tx: &mut Tx,
    subscription: &str,
    properties: &Value,
) -> Result<(), Refusal> {
    let named = properties["activeKey"]["sourceVault"]["id"].as_str();
    let url = properties["activeKey"]["keyUrl"].as_str().unwrap_or_default();
    let (Some(id), Some(domain)) = (named, &app.config.keys.vault_domain) else { return Ok(()) };
    let host = url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
    match host.is_some_and(|host| host.ends_with(&format!(".{domain}"))) {
        true => vaults::check_source(tx, subscription, id).await,
        false => Ok(()),
    }
}

fn is_versioned_key_url(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text) else { return false };
    let parts: Vec<&str> = url.path().trim_start_matches('/').split('/').collect();
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    let named = matches!(parts[..], ["keys", name, version] if !name.is_empty() && !version.is_empty());
    url.scheme() == "https" && plain && named
}

/// Deletes a set that no VM uses; `false` if there is none.
pub async fn delete(app: &ControlPlane, place: &Place) -> Result<bool, Refusal> {
    let mut tx = app.store.begin().await?;
    let Some(set) = tx.resource(&place.key(DES)).await? else { return Ok(false) };
    let users = disks_of(&tx.vms().await?, &set.key);
    if let Some(disk) = users.first() {
        let message = format!("The disk encryption set '{}' is in use by the disk '{disk}'.", set.name);
        return Err(Refusal::conflict("OperationNotAllowed", message));
    }
    tx.remove_resource(&set.key).await?;
    tx.commit().await?;
    Ok(true)
}

/// Ids of the disks that a set's key protects.
pub async fn associated(app: &ControlPlane, place: &Place) -> Result<Vec<String>, Refusal> {
    let set = app.store.resource(&place.key(DES)).await?;
    let set = set.ok_or_else(|| Refusal::not_found(TYPE, &place.name, &place.group))?;
    Ok(disks_of(&app.store.vms().await?, &set.key))
}

fn disks_of(vms: &[VmRow], set_key: &str) -> Vec<String> {
    vms.iter().filter(|vm| uses(vm, set_key)).map(|vm| vm.facts.disk_id.clone()).collect()
}

fn uses(vm: &VmRow, set_key: &str) -> bool {
    vm.facts.disk_encryption_set.as_ref().is_some_and(|id| id.eq_ignore_ascii_case(set_key))
}

/// A set. `vms` are all of the installation, or at least those that use it.
pub fn view(app: &ControlPlane, set: &Resource, vms: &[VmRow]) -> Value {
    let mut properties = set.desired["properties"].clone();
    let mut error = set.desired.get("rotationError").cloned().unwrap_or_default();
    properties["provisioningState"] = json!(match progress(vms, set) {
        Progress::Done => "Succeeded",
        Progress::Moving => "Updating",
        Progress::Refused(failure) => {
            error = json!({"code": failure.code, "message": operations::failure_message(&failure)});
            "Failed"
        }
    });
    properties["previousKeys"] = set.desired.get("previousKeys").cloned().unwrap_or_else(|| json!([]));
    if let Some(at) = set.desired["rotatedAt"].as_i64() {
        properties["lastKeyRotationTimestamp"] = json!(time_text(at));
    }
    if !error.is_null() {
        properties["autoKeyRotationError"] = error;
    }
    let mut identity = set.desired["identity"].clone();
    if identity["type"] == json!("SystemAssigned") {
        identity["principalId"] = json!(set.incarnation);
        identity["tenantId"] =
            json!(app.directory.subscription(&set.subscription).map(|found| &found.tenant));
    }
    json!({
        "id": set.id,
        "name": set.name,
        "type": TYPE,
        "location": set.location,
        "tags": set.desired["tags"],
        "identity": identity,
        "properties": properties,
    })
}

#[cfg(test)]
mod tests {
    use internal_api::host::KeyState;

    use super::*;
    use crate::reconcile::fixtures::{state, vm};

    const SET: &str = "/s/des";
    const NEW: &str = "https://keys.test/keys/mine/2";

    fn set() -> Resource {
        let desired = json!({"properties": {"activeKey": {"keyUrl": NEW}}});
        Resource { key: SET.to_owned(), desired, ..vm("set", 1, 1).resource }
    }

    /// A VM of the set whose host says that it is in this phase, under this key.
    fn member(phase: VmPhase, in_use: Option<&str>, not_changed: Option<Failure>) -> VmRow {
        let mut vm = vm("A", 1, 1);
        vm.facts.disk_encryption_set = Some(SET.to_uppercase());
        vm.key_id = Some(NEW.to_owned());
        let key = in_use.map(|in_use| KeyState { in_use: in_use.to_owned(), not_changed, revoked: None });
        vm.state = Some(VmState { key, ..state(1, phase) });
        vm
    }

    #[test]
    fn a_set_is_done_when_all_running_vms_have_moved() {
        let old = Some("https://keys.test/keys/mine/1");
        let moved = member(VmPhase::Booted, Some(NEW), None);
        let moving = member(VmPhase::Booted, old, None);
        let stopped = member(VmPhase::Stopped, old, None);
        let silent = member(VmPhase::Starting, None, None);
        let mut foreign = member(VmPhase::Booted, old, None);
        foreign.facts.disk_encryption_set = Some("/s/other".to_owned());
        let refusal = crate::reconcile::key_service::refused("k", "not named");
        let refused = member(VmPhase::Booted, old, Some(refusal.clone()));
        let passing = Failure { transient: true, ..refusal.clone() };
        let passing = member(VmPhase::Booted, old, Some(passing));
        // Its document does not name the new key yet, so the refusal is of an earlier one.
        let mut stale = refused.clone();
        stale.key_id = Some("https://keys.test/keys/mine/0".to_owned());
        let judge = |vms: &[&VmRow]| progress(&vms.iter().copied().cloned().collect::<Vec<_>>(), &set());
        assert_eq!(judge(&[]), Progress::Done);
        assert_eq!(judge(&[&moved, &stopped, &foreign]), Progress::Done);
        assert_eq!(judge(&[&moved, &moving]), Progress::Moving);
        assert_eq!(judge(&[&silent]), Progress::Moving);
        assert_eq!(judge(&[&passing]), Progress::Moving);
        assert_eq!(judge(&[&stale]), Progress::Moving);
        assert_eq!(judge(&[&moved, &refused]), Progress::Refused(refusal));
    }

    #[test]
    fn only_a_versioned_key_on_https_is_a_key() {
        assert!(is_versioned_key_url("https://localhost:8445/keys/k/0123456789abcdef0123456789abcdef"));
        for url in [
            "http://localhost/keys/k/1",
            "https://localhost/keys/k",
            "https://localhost/keys/k/",
            "https://localhost/keys//1",
            "https://localhost/keys/k/1/release",
            "https://localhost/secrets/k/1",
            "https://localhost/keys/k/1?x=y",
            "https://user@localhost/keys/k/1",
            "keys/k/1",
        ] {
            assert!(!is_versioned_key_url(url), "{url}");
        }
    }
}
