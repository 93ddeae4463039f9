//! Vaults and managed HSMs: the wish in the control plane; a reconciler makes each at the key service, tells it who may do what,
//! and deletes it there with its resource.
//!
//! A name is part of the vault's host, so it is unique in the whole installation. The key service keeps a deleted vault for
//! its days, and its name with it; the resource is gone, and comes back with `createMode: recover`.

use public_api::resource_id::ResourceId;
use public_api::vaults::{VaultAccess, VaultKind, VaultResource, VaultRoleAssignment, VaultSettings};
use serde_json::{Value, json};

use super::attestation_providers::settled;
use super::body::table::ObjectType;
use super::body::{self, key_vault as shapes};
use super::groups::{in_group, open_group, tags_of};
use super::names::{self, MANAGED_HSM, Place, ROLE_ASSIGNMENT, VAULT};
use super::operations::{failure_message, failure_refusal};
use super::refusal::{Kind, Refusal};
use super::vault_properties::{self as properties, Given};
use super::{ControlPlane, now_millis, validation, vms};
use crate::store::{FailureRow, NewResource, Resource, Tx};

/// Most vaults of one subscription.
const MAX_OF_SUBSCRIPTION: usize = 100;
/// From this version on a vault's permissions are role assignments where nothing is said.
const RBAC_BY_DEFAULT: &str = "2026-02-01";
/// The role that `initialAdminObjectIds` get: Managed HSM Administrator.
const HSM_ADMINISTRATOR: &str = "a290e904-7015-4bba-90c8-60543313cdb4";

/// Vaults, or managed HSMs.
#[derive(Debug)]
pub struct Family {
    /// Which.
    pub kind: VaultKind,
    /// The type as Resource Manager writes it.
    pub name: &'static str,
    /// The type as the store has it.
    pub key: &'static str,
    shapes: [&'static ObjectType; 2],
}

/// `Microsoft.KeyVault/vaults`
pub static VAULTS: Family = Family {
    kind: VaultKind::Vault,
    name: "Microsoft.KeyVault/vaults",
    key: VAULT,
    shapes: [&shapes::VAULT, &shapes::VAULT_UPDATE],
};

/// `Microsoft.KeyVault/managedHSMs`
pub static MANAGED_HSMS: Family = Family {
    kind: VaultKind::ManagedHsm,
    name: "Microsoft.KeyVault/managedHSMs",
    key: MANAGED_HSM,
    shapes: [&shapes::MANAGED_HSM, &shapes::MANAGED_HSM],
};

/// The family of a stored resource.
pub fn family(resource: &Resource) -> &'static Family {
    if resource.kind == MANAGED_HSM { &MANAGED_HSMS } else { &VAULTS }
}

impl Family {
    fn domain<'a>(&self, app: &'a ControlPlane) -> Result<&'a str, Refusal> {
        let keys = &app.config.keys;
        let domain = match self.kind {
            VaultKind::Vault => &keys.vault_domain,
            VaultKind::ManagedHsm => &keys.managed_hsm_domain,
        };
        domain.as_deref().ok_or_else(|| {
            let message = format!(
                "{} are not offered by this installation: its configuration names no domain for them.",
                self.name
            );
            Refusal::new(Kind::BadRequest, "ResourceTypeNotOffered", message)
        })
    }
}

/// Creates or replaces; says whether it is new.
pub async fn put(
    app: &ControlPlane,
    family: &'static Family,
    place: &Place,
    (text, version): (&[u8], &str),
) -> Result<(Value, bool), Refusal> {
    family.domain(app)?;
    check_name(family, &place.name)?;
    let shaped = body::parse(text, family.shapes[0])?;
    names::check_location(family.name, shaped["location"].as_str(), &app.config.region)?;
    let given = shaped.get("properties").ok_or_else(|| validation::missing("properties", "properties"))?;
    let rbac = version >= RBAC_BY_DEFAULT;
    let tenant = tenant_of(app, &place.subscription)?;
    let mut tx = app.store.begin().await?;
    let group = open_group(&mut tx, &place.subscription, &place.group).await?;
    let existing = tx.resource(&place.key(family.key)).await?;
    let before = existing.as_ref().map(|vault| &vault.desired);
    let recover = given["createMode"] == json!("recover");
    let mut desired = json!({
        "tags": tags_of(&shaped)?,
        "recover": recover,
        "properties": wanted(family, (&shaped, Given::Whole), before, (&tenant, rbac), recover)?,
    });
    if family.kind == VaultKind::ManagedHsm {
        let sku = shaped.get("sku").ok_or_else(|| validation::missing("sku", "sku"))?;
        desired["sku"] = properties::sku_of("sku", sku, ("B", &["Standard_B1", "Custom_B32"]))?;
    }
    match &existing {
        Some(vault) => {
            vms::refuse_if_deleting(vault)?;
            tx.change_resource(vault, &desired, false, now_millis()).await?;
        }
        None => {
            check_free(&mut tx, &group.subscription, &place.name).await?;
            let new = NewResource {
                reached: 0,
                ..in_group(app, &group, (family.name, family.key), &place.name, desired)
            };
            tx.insert_resource(&new, now_millis()).await?;
        }
    }
    tx.commit().await?;
    Ok((shown_when_settled(app, family, place).await?, existing.is_none()))
}

/// A recovered vault has the properties that it had; a request that recovers says none of them.
fn wanted(
    family: &Family,
    (shaped, how): (&Value, Given),
    before: Option<&Value>,
    defaults: (&str, bool),
    recover: bool,
) -> Result<Value, Refusal> {
    let mut given = shaped.get("properties").cloned().unwrap_or_else(|| json!({}));
    if recover && family.kind == VaultKind::Vault && given.get("sku").is_none() {
        given["sku"] = json!({"family": "A", "name": "standard"});
    }
    properties::normal(family.kind, (&given, how), before.map(|before| &before["properties"]), defaults)
}

/// Changes what is said; the rest stays.
pub async fn patch(
    app: &ControlPlane,
    family: &'static Family,
    place: &Place,
    text: &[u8],
) -> Result<Value, Refusal> {
    let shaped = body::parse(text, family.shapes[1])?;
    let tenant = tenant_of(app, &place.subscription)?;
    let mut tx = app.store.begin().await?;
    let vault = found(tx.resource(&place.key(family.key)).await?, family, place)?;
    vms::refuse_if_deleting(&vault)?;
    let mut desired = vault.desired.clone();
    if let Some(tags) = shaped.get("tags") {
        desired["tags"] = tags.clone();
    }
    let rbac = desired["properties"]["enableRbacAuthorization"] == json!(true);
    desired["properties"] =
        wanted(family, (&shaped, Given::Part), Some(&vault.desired), (&tenant, rbac), false)?;
    tx.change_resource(&vault, &desired, false, now_millis()).await?;
    tx.commit().await?;
    shown_when_settled(app, family, place).await
}

/// What `PUT .../accessPolicies/{operation}` does to the policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyChange {
    /// Adds permissions to those that an object has.
    Add,
    /// The permissions of these objects are these.
    Replace,
    /// Takes permissions away.
    Remove,
}

/// Changes the access policies of some objects; the policies of the others stay.
pub async fn change_policies(
    app: &ControlPlane,
    place: &Place,
    change: PolicyChange,
    text: &[u8],
) -> Result<Value, Refusal> {
    let shaped = body::parse(text, &shapes::ACCESS_POLICIES)?;
    let tenant = tenant_of(app, &place.subscription)?;
    let given = shaped["properties"]["accessPolicies"].clone();
    properties::check_policies(&given, &tenant)?;
    let mut tx = app.store.begin().await?;
    let vault = found(tx.resource(&place.key(VAULT)).await?, &VAULTS, place)?;
    vms::refuse_if_deleting(&vault)?;
    let mut desired = vault.desired.clone();
    let mut policies = properties::access_policies(&desired["properties"]);
    for policy in properties::access_policies(&json!({"accessPolicies": given})) {
        let own = policies.iter().position(|own| own.object_id == policy.object_id);
        let has = |keys: &[String], name: &String| keys.iter().any(|own| own.eq_ignore_ascii_case(name));
        match (own, change) {
            (Some(own), PolicyChange::Add) => {
                let new = policy
                    .keys
                    .into_iter()
                    .filter(|name| !has(&policies[own].keys, name))
                    .collect::<Vec<_>>();
                policies[own].keys.extend(new);
            }
            (Some(own), PolicyChange::Replace) => policies[own] = policy,
            (Some(own), PolicyChange::Remove) => policies[own].keys.retain(|name| !has(&policy.keys, name)),
            (None, PolicyChange::Remove) => {}
            (None, _) => policies.push(policy),
        }
    }
    policies.retain(|policy| !policy.keys.is_empty());
    let shown = policies.iter().map(|policy| {
        json!({"tenantId": tenant, "objectId": policy.object_id, "permissions": {"keys": policy.keys}})
    });
    let shown: Vec<Value> = shown.collect();
    desired["properties"]["accessPolicies"] = json!(shown);
    tx.change_resource(&vault, &desired, false, now_millis()).await?;
    tx.commit().await?;
    shown_when_settled(app, &VAULTS, place).await?;
    Ok(json!({
        "id": format!("{}/accessPolicies/", vault.id),
        "type": "Microsoft.KeyVault/vaults/accessPolicies",
        "properties": {"accessPolicies": shown},
    }))
}

/// Says that a vault shall go away. Nothing if there is none, else whether it is gone already.
pub async fn delete(app: &ControlPlane, family: &Family, place: &Place) -> Result<Option<bool>, Refusal> {
    let key = place.key(family.key);
    let mut tx = app.store.begin().await?;
    let Some(vault) = tx.resource(&key).await? else { return Ok(None) };
    if !vault.deleted {
        tx.mark_deleted(&vault, now_millis()).await?;
    }
    tx.commit().await?;
    let left = settled(app, &key, |now, _| now.incarnation != vault.incarnation).await?;
    Ok(Some(left.is_none_or(|(left, _)| left.incarnation != vault.incarnation)))
}

/// A vault.
pub async fn get(app: &ControlPlane, family: &'static Family, place: &Place) -> Result<Value, Refusal> {
    let vault = found(app.store.resource(&place.key(family.key)).await?, family, place)?;
    shown(app, &vault).await
}

/// A vault as it is shown.
pub async fn shown(app: &ControlPlane, vault: &Resource) -> Result<Value, Refusal> {
    let failure = app.store.failure(&vault.incarnation, vault.generation).await?;
    Ok(view(app, vault, failure.as_ref()))
}

/// Whether a name is free in the control plane. The key service knows of deleted vaults beside.
pub async fn is_taken(tx: &mut Tx, name: &str) -> Result<bool, Refusal> {
    Ok(tx.is_name_taken(VAULT, name).await? || tx.is_name_taken(MANAGED_HSM, name).await?)
}

fn found(vault: Option<Resource>, family: &Family, place: &Place) -> Result<Resource, Refusal> {
    vault.ok_or_else(|| Refusal::not_found(family.name, &place.name, &place.group))
}

fn tenant_of(app: &ControlPlane, subscription: &str) -> Result<String, Refusal> {
    let found = app.directory.subscription(subscription).map(|found| found.tenant.clone());
    found.ok_or_else(|| Refusal::bad("The subscription has no tenant."))
}

/// The vault's name at the key service.
pub fn service_name(vault: &Resource) -> String {
    vault.name.to_ascii_lowercase()
}

/// The resource of a vault as the key service is told it.
pub fn resource_of(vault: &Resource) -> VaultResource {
    VaultResource { id: vault.id.clone(), incarnation: vault.incarnation.clone() }
}

/// What the key service is told of a vault; `assignments` are all of its subscription.
pub fn settings(vault: &Resource, assignments: &[Resource]) -> VaultSettings {
    let properties = &vault.desired["properties"];
    let kind = family(vault).kind;
    let by_roles = kind == VaultKind::ManagedHsm || properties["enableRbacAuthorization"] == json!(true);
    let access = match by_roles {
        true => VaultAccess::RoleAssignments { assignments: effective(vault, assignments) },
        false => VaultAccess::AccessPolicies { policies: properties::access_policies(properties) },
    };
    let sku = if kind == VaultKind::ManagedHsm { &vault.desired["sku"] } else { &properties["sku"] };
    let days = properties["softDeleteRetentionInDays"].as_i64().and_then(|days| i32::try_from(days).ok());
    VaultSettings {
        resource: resource_of(vault),
        tenant_id: properties["tenantId"].as_str().unwrap_or_default().to_owned(),
        kind,
        sku: sku["name"].as_str().unwrap_or_default().to_owned(),
        soft_delete_retention_in_days: days.unwrap_or_default(),
        purge_protection: properties["enablePurgeProtection"] == json!(true),
        access,
    }
}

/// The assignments at the vault, above it and at its keys, and the first administrators of a managed HSM.
fn effective(vault: &Resource, assignments: &[Resource]) -> Vec<VaultRoleAssignment> {
    let admins = vault.desired["properties"]["initialAdminObjectIds"].as_array();
    let first = admins.into_iter().flatten().filter_map(Value::as_str).map(|id| VaultRoleAssignment {
        principal_id: id.to_owned(),
        role_definition_id: HSM_ADMINISTRATOR.to_owned(),
        scope: "/".to_owned(),
    });
    let given = assignments.iter().filter(|one| one.kind == ROLE_ASSIGNMENT).filter_map(|one| {
        let text = |name: &str| one.desired[name].as_str().unwrap_or_default();
        Some(VaultRoleAssignment {
            principal_id: text("principalId").to_owned(),
            role_definition_id: text("role").to_owned(),
            scope: scope_within(&vault.key, &text("scope").to_ascii_lowercase())?,
        })
    });
    first.chain(given).collect()
}

/// What a scope of Resource Manager is within a vault; nothing if it is elsewhere. Both in lower case.
pub fn scope_within(vault: &str, scope: &str) -> Option<String> {
    match vault.strip_prefix(scope) {
        Some("") => return Some("/".to_owned()),
        Some(rest) if rest.starts_with('/') => return Some("/".to_owned()),
        _ => {}
    }
    let below = scope.strip_prefix(vault)?;
    let name = below.strip_prefix("/keys/")?;
    (!name.is_empty() && !name.contains('/')).then(|| below.to_owned())
}

fn view(app: &ControlPlane, vault: &Resource, failure: Option<&FailureRow>) -> Value {
    let family = family(vault);
    let mut properties = vault.desired["properties"].clone();
    let host = family.domain(app).map(|domain| app.config.keys.authority(domain)).unwrap_or_default();
    let url = format!("https://{}.{host}/", service_name(vault));
    properties["provisioningState"] = json!(state(vault, failure.is_some()));
    if let Some(failure) = failure {
        properties["casemate"] = json!({"detail": failure_message(&failure.failure)});
    }
    let mut view = json!({
        "id": vault.id,
        "name": vault.name,
        "type": family.name,
        "location": vault.location,
        "tags": vault.desired["tags"],
    });
    match family.kind {
        VaultKind::Vault => properties["vaultUri"] = json!(url),
        VaultKind::ManagedHsm => {
            properties["hsmUri"] = json!(url);
            properties["statusMessage"] = json!("The managed HSM is provisioned and ready to use.");
            let message = "This service has no security domain: its master key is the operator's.";
            properties["securityDomainProperties"] =
                json!({"activationStatus": "Active", "activationStatusMessage": message});
            view["sku"] = vault.desired["sku"].clone();
        }
    }
    view["properties"] = properties;
    view
}

fn state(vault: &Resource, failed: bool) -> &'static str {
    match (vault.deleted, vault.reached >= vault.generation, failed) {
        (true, ..) => "Deleting",
        (false, true, _) => "Succeeded",
        (false, false, true) => "Failed",
        _ => "Updating",
    }
}

async fn shown_when_settled(
    app: &ControlPlane,
    family: &'static Family,
    place: &Place,
) -> Result<Value, Refusal> {
    let done = |now: &Resource, failed: bool| failed || now.reached >= now.generation;
    let found = settled(app, &place.key(family.key), done).await?;
    let (vault, failure) = found.ok_or_else(|| Refusal::not_found(family.name, &place.name, &place.group))?;
    match &failure {
        Some(failure) if vault.reached < vault.generation => Err(failure_refusal(&failure.failure)),
        _ => Ok(view(app, &vault, failure.as_ref())),
    }
}

/// As hosts are named. Source: Key Vault documentation, vault name.
pub fn check_name(family: &Family, name: &str) -> Result<(), Refusal> {
    let fits = (3..=24).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && !name.ends_with('-')
        && !name.contains("--")
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if fits {
        return Ok(());
    }
    let message = format!(
        "The vault name '{name}' is invalid. A {} name must be between 3-24 alphanumeric characters. The name must begin with \
         a letter, end with a letter or digit, and not contain consecutive hyphens.",
        family.name
    );
    Err(Refusal::new(Kind::BadRequest, "VaultNameNotValid", message).at("name"))
}

async fn check_free(tx: &mut Tx, subscription: &str, name: &str) -> Result<(), Refusal> {
    if is_taken(tx, name).await? {
        let message = format!(
            "The vault name '{name}' is already in use. Vault names are unique in the whole installation; choose another one."
        );
        return Err(Refusal::conflict("VaultAlreadyExists", message).at("name"));
    }
    let subscription = subscription.to_ascii_lowercase();
    let number = tx.resources_of(VAULT, &subscription).await?.len()
        + tx.resources_of(MANAGED_HSM, &subscription).await?.len();
    if number >= MAX_OF_SUBSCRIPTION {
        let message = format!(
            "The subscription has {MAX_OF_SUBSCRIPTION} vaults, and may not have more; delete one first."
        );
        return Err(Refusal::conflict("QuotaExceeded", message));
    }
    Ok(())
}

/// A vault of ours that an id of the same subscription names, if the id is that of a vault of ours at all.
pub async fn check_source(tx: &mut Tx, subscription: &str, id: &str) -> Result<(), Refusal> {
    let parsed = id.parse::<ResourceId>().ok();
    let is_vault =
        parsed.and_then(|id| id.resource_type()).is_some_and(|kind| kind.eq_ignore_ascii_case(VAULT));
    if !is_vault || tx.referenced(VAULT, subscription, id).await?.is_some() {
        return Ok(());
    }
    let message = format!("The vault '{id}' was not found in the subscription.");
    Err(Refusal::parameter("properties.activeKey.sourceVault.id", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_holds_for_the_vault_and_its_keys_and_nothing_beside() {
        let group = "/subscriptions/s/resourcegroups/rg";
        let vault = format!("{group}/providers/microsoft.keyvault/vaults/one");
        let within = |scope: &str| scope_within(&vault, scope);
        for scope in ["/subscriptions/s", group, &vault] {
            assert_eq!(within(scope).as_deref(), Some("/"), "{scope}");
        }
        assert_eq!(within(&format!("{vault}/keys/k")).as_deref(), Some("/keys/k"));
        for scope in [
            "/subscriptions/".to_owned(),
            "/subscriptions/s/resourcegroups/r".to_owned(),
            format!("{vault}2"),
            format!("{vault}/keys"),
            format!("{vault}/keys/"),
            format!("{vault}/keys/k/v"),
            format!("{vault}/secrets/k"),
            format!("{group}/providers/microsoft.keyvault/vaults/on"),
        ] {
            assert_eq!(within(&scope), None, "{scope}");
        }
    }
}
