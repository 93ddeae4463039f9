//! Disk encryption sets: names for tenants' keys.
//!
//! The set's key at the time of a VM's creation becomes part of that VM; another key in the set is for later VMs.

use serde_json::{Value, json};
use uuid::Uuid;

use super::body::{self, compute};
use super::groups::open_group;
use super::names::{self, DES, Place};
use super::refusal::Refusal;
use super::{ControlPlane, now_millis, validation, vaults};
use crate::store::{NewResource, Resource, Tx};

const TYPE: &str = "Microsoft.Compute/diskEncryptionSets";

/// Creates a set or replaces what it says.
pub async fn put(app: &ControlPlane, place: &Place, text: &[u8]) -> Result<Value, Refusal> {
    names::check_name(TYPE, &place.name, 80)?;
    let shaped = body::parse(text, &compute::DISK_ENCRYPTION_SET)?;
    names::check_location(TYPE, shaped["location"].as_str(), &app.config.region)?;
    check_properties(&shaped["properties"])?;
    let mut tx = app.store.begin().await?;
    let group = open_group(&mut tx, &place.subscription, &place.group).await?;
    let existing = tx.resource(&place.key(DES)).await?;
    let desired = desired(existing.as_ref(), &shaped)?;
    check_vault(app, &mut tx, &place.subscription, &desired["properties"]).await?;
    match &existing {
        Some(set) => drop(tx.change_resource(set, &desired, true, now_millis()).await?),
        None => {
            let new = NewResource {
                id: names::resource_id(&group, TYPE, &place.name),
                kind: DES,
                subscription: group.subscription.clone(),
                group_key: group.key.clone(),
                name: place.name.clone(),
                location: app.config.region.clone(),
                incarnation: Uuid::new_v4().to_string(),
                desired,
                reached: 1,
            };
            tx.insert_resource(&new, now_millis()).await?;
        }
    }
    let stored = tx.resource(&place.key(DES)).await?.expect("the row was written in this transaction");
    tx.commit().await?;
    Ok(view(app, &stored))
}

/// Changes labels, identity or key of a set.
pub async fn patch(app: &ControlPlane, place: &Place, text: &[u8]) -> Result<Value, Refusal> {
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
    tx.change_resource(&set, &desired, true, now_millis()).await?;
    let stored = tx.resource(&set.key).await?.expect("the row was read in this transaction");
    tx.commit().await?;
    Ok(view(app, &stored))
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
    if properties["rotationToLatestKeyVersionEnabled"] == json!(true) {
        let message = "Automatic rotation is not offered: a VM is bound to one version of its key.";
        return Err(Refusal::parameter("properties.rotationToLatestKeyVersionEnabled", message));
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

fn disks_of(vms: &[crate::store::VmRow], set_key: &str) -> Vec<String> {
    let uses = |id: &Option<String>| id.as_ref().is_some_and(|id| id.eq_ignore_ascii_case(set_key));
    vms.iter().filter(|vm| uses(&vm.facts.disk_encryption_set)).map(|vm| vm.facts.disk_id.clone()).collect()
}

/// A set.
pub fn view(app: &ControlPlane, set: &Resource) -> Value {
    let mut properties = set.desired["properties"].clone();
    properties["provisioningState"] = json!("Succeeded");
    properties["previousKeys"] = json!([]);
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
    use super::*;

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
