//! The properties of vaults and managed HSMs, as requests and rows have them.
//!
//! What is not said is Azure's default where that is the safe one; what would have to mean something here and does not (firewall
//! rules, a vault without soft delete) is refused, not ignored.

use public_api::vaults::{VaultAccessPolicy, VaultKind};
use serde_json::{Value, json};
use uuid::Uuid;

use super::refusal::Refusal;
use super::validation;

/// Days where nothing is said. Source: Key Vault documentation, soft delete.
const DAYS: i64 = 90;
/// Names of key permissions. Source: `KeyPermissions` of Microsoft.KeyVault.
const KEY_PERMISSIONS: [&str; 21] = [
    "all",
    "encrypt",
    "decrypt",
    "wrapKey",
    "unwrapKey",
    "sign",
    "verify",
    "get",
    "list",
    "create",
    "update",
    "import",
    "delete",
    "backup",
    "restore",
    "recover",
    "purge",
    "release",
    "rotate",
    "getrotationpolicy",
    "setrotationpolicy",
];

/// What a change may do to properties that were stored before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// `PUT`: what is not said gets its default, but for what never changes.
    Whole,
    /// `PATCH`: what is not said stays.
    Part,
}

/// Brings the `properties` of a request, which have the table's shape, into what the row keeps. `rbac` is the default of
/// `enableRbacAuthorization`.
pub fn normal(
    kind: VaultKind,
    (given, how): (&Value, Given),
    before: Option<&Value>,
    (tenant, rbac): (&str, bool),
) -> Result<Value, Refusal> {
    refuse_what_cannot_be(given, tenant)?;
    let kept = |name: &str| match how {
        Given::Part => before.and_then(|before| before.get(name)).cloned(),
        Given::Whole => None,
    };
    let value = |name: &str| given.get(name).cloned().or_else(|| kept(name));
    let days = days(given, before)?;
    let protected = before.is_some_and(|before| before["enablePurgeProtection"] == json!(true));
    if protected && given.get("enablePurgeProtection") == Some(&json!(false)) {
        let message = "The property \"enablePurgeProtection\" cannot be set to false. Enabling the purge protection for a \
                       vault is an irreversible action.";
        return Err(Refusal::parameter("properties.enablePurgeProtection", message));
    }
    let protect = protected || given.get("enablePurgeProtection") == Some(&json!(true));
    let mut properties = json!({
        "tenantId": tenant,
        "enableSoftDelete": true,
        "softDeleteRetentionInDays": days,
        "publicNetworkAccess": "Enabled",
    });
    if protect {
        properties["enablePurgeProtection"] = json!(true);
    }
    match kind {
        VaultKind::Vault => {
            let policies = value("accessPolicies").unwrap_or_else(|| json!([]));
            check_policies(&policies, tenant)?;
            properties["accessPolicies"] = policies;
            properties["enableRbacAuthorization"] = value("enableRbacAuthorization").unwrap_or(json!(rbac));
            for name in ["enabledForDeployment", "enabledForDiskEncryption", "enabledForTemplateDeployment"] {
                properties[name] = value(name).unwrap_or(json!(false));
            }
            let sku = value("sku").ok_or_else(|| validation::missing("properties.sku", "sku"))?;
            properties["sku"] = sku_of("properties.sku", &sku, ("A", &["standard", "premium"]))?;
        }
        VaultKind::ManagedHsm => {
            let first = before.map(|before| before["initialAdminObjectIds"].clone());
            let admins = given.get("initialAdminObjectIds").cloned();
            properties["initialAdminObjectIds"] = admins_of(first, admins)?;
        }
    }
    Ok(properties)
}

fn refuse_what_cannot_be(given: &Value, tenant: &str) -> Result<(), Refusal> {
    if given.get("enableSoftDelete") == Some(&json!(false)) {
        let message = "The property \"enableSoftDelete\" can be set to false only for creating new vault. Enabling the soft \
                       delete functionality is an irreversible action: every vault has it.";
        return Err(Refusal::parameter("properties.enableSoftDelete", message));
    }
    match given.get("tenantId").and_then(Value::as_str) {
        Some(other) if !other.eq_ignore_ascii_case(tenant) => {
            let message = format!(
                "The tenant '{other}' is not the subscription's; a vault takes tokens of its own tenant only."
            );
            Err(Refusal::parameter("properties.tenantId", message))
        }
        _ => Ok(()),
    }
}

fn days(given: &Value, before: Option<&Value>) -> Result<i64, Refusal> {
    let target = "properties.softDeleteRetentionInDays";
    let (asked, first) = (
        given.get("softDeleteRetentionInDays").and_then(Value::as_i64),
        before.and_then(|before| before["softDeleteRetentionInDays"].as_i64()),
    );
    let days = asked.or(first).unwrap_or(DAYS);
    if first.is_some_and(|first| first != days) {
        let message =
            "The property \"softDeleteRetentionInDays\" has been set already and it can't be modified.";
        return Err(Refusal::parameter(target, message));
    }
    match (7..=90).contains(&days) {
        true => Ok(days),
        false => Err(Refusal::parameter(target, "Soft delete retention must be between 7 and 90 days.")),
    }
}

/// A SKU in the specification's spelling.
pub fn sku_of(target: &str, sku: &Value, (family, names): (&str, &[&str])) -> Result<Value, Refusal> {
    let text = |name: &str| sku[name].as_str().unwrap_or_default();
    let name = names.iter().find(|name| name.eq_ignore_ascii_case(text("name")));
    match name.filter(|_| text("family").eq_ignore_ascii_case(family)) {
        Some(name) => Ok(json!({"family": family, "name": name})),
        None => {
            let message = format!("The SKU must be of family '{family}' and one of: {}.", names.join(", "));
            Err(Refusal::parameter(target, message))
        }
    }
}

fn admins_of(first: Option<Value>, given: Option<Value>) -> Result<Value, Refusal> {
    let target = "properties.initialAdminObjectIds";
    match (first, given) {
        (Some(first), Some(given)) if first != given => Err(validation::unchangeable(target)),
        (Some(first), _) => Ok(first),
        (None, given) => {
            let ids = given.as_ref().and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            if ids.is_empty() {
                return Err(validation::missing(target, "initialAdminObjectIds"));
            }
            ids.iter().try_for_each(|id| guid(target, id.as_str().unwrap_or_default()))?;
            Ok(json!(ids))
        }
    }
}

/// Checks access policies.
pub fn check_policies(policies: &Value, tenant: &str) -> Result<(), Refusal> {
    let target = "properties.accessPolicies";
    for policy in policies.as_array().map(Vec::as_slice).unwrap_or_default() {
        guid(target, policy["objectId"].as_str().unwrap_or_default())?;
        if policy["tenantId"].as_str().is_some_and(|other| !other.eq_ignore_ascii_case(tenant)) {
            return Err(Refusal::parameter(target, "An access policy is for objects of the vault's tenant."));
        }
        let keys = policy["permissions"]["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
        let known = |name: &&Value| {
            let name = name.as_str().unwrap_or_default();
            KEY_PERMISSIONS.iter().any(|known| known.eq_ignore_ascii_case(name))
        };
        if let Some(unknown) = keys.iter().find(|name| !known(name)) {
            let message = format!("{unknown} is no key permission; use: {}.", KEY_PERMISSIONS.join(", "));
            return Err(Refusal::parameter(target, message));
        }
    }
    Ok(())
}

/// Access policies as the key service is told them: one for each object, with the permissions of all its entries.
pub fn access_policies(properties: &Value) -> Vec<VaultAccessPolicy> {
    let mut policies: Vec<VaultAccessPolicy> = Vec::new();
    for entry in properties["accessPolicies"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let object_id = entry["objectId"].as_str().unwrap_or_default().to_ascii_lowercase();
        let keys = entry["permissions"]["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
        let keys = keys.iter().filter_map(Value::as_str).map(str::to_owned);
        match policies.iter_mut().find(|policy| policy.object_id == object_id) {
            Some(policy) => policy.keys.extend(keys),
            None => policies.push(VaultAccessPolicy { object_id, keys: keys.collect() }),
        }
    }
    policies
}

/// Checks an object id.
pub fn guid(target: &str, text: &str) -> Result<(), Refusal> {
    match Uuid::try_parse(text) {
        Ok(id) if id.to_string().eq_ignore_ascii_case(text) => Ok(()),
        _ => Err(Refusal::parameter(target, format!("'{text}' is not a GUID."))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "11111111-1111-1111-1111-111111111111";

    fn vault(given: Value, before: Option<&Value>) -> Result<Value, Refusal> {
        normal(VaultKind::Vault, (&given, Given::Whole), before, (TENANT, true))
    }

    #[test]
    fn defaults_are_safe_and_what_is_promised_stays() {
        let sku = json!({"family": "a", "name": "Premium"});
        let first = vault(json!({"sku": sku, "enablePurgeProtection": true}), None).unwrap();
        assert_eq!(first["sku"], json!({"family": "A", "name": "premium"}));
        assert_eq!(
            (&first["enableRbacAuthorization"], &first["softDeleteRetentionInDays"]),
            (&json!(true), &json!(90))
        );
        let again = vault(json!({"sku": sku}), Some(&first)).unwrap();
        assert_eq!(again["enablePurgeProtection"], true, "it is not forgotten by a PUT that does not say it");
        for (given, target) in [
            (json!({"sku": sku, "enablePurgeProtection": false}), "enablePurgeProtection"),
            (json!({"sku": sku, "softDeleteRetentionInDays": 7}), "softDeleteRetentionInDays"),
            (json!({"sku": sku, "enableSoftDelete": false}), "enableSoftDelete"),
            (json!({"sku": sku, "tenantId": "22222222-2222-2222-2222-222222222222"}), "tenantId"),
            (json!({"sku": {"family": "B", "name": "premium"}}), "sku"),
            (json!({"sku": sku, "accessPolicies": [{"objectId": "x"}]}), "accessPolicies"),
            (
                json!({"sku": sku, "accessPolicies": [{"objectId": TENANT, "permissions": {"keys": ["fly"]}}]}),
                "accessPolicies",
            ),
        ] {
            let refusal = vault(given.clone(), Some(&first)).unwrap_err();
            assert_eq!(refusal.target.as_deref(), Some(format!("properties.{target}").as_str()), "{given}");
        }
    }

    #[test]
    fn two_policies_of_one_object_are_one() {
        let entry = |keys: Value| json!({"objectId": TENANT.to_uppercase(), "permissions": {"keys": keys}});
        let policies =
            access_policies(&json!({"accessPolicies": [entry(json!(["get"])), entry(json!(["list"]))]}));
        assert_eq!(
            policies,
            [VaultAccessPolicy { object_id: TENANT.to_owned(), keys: vec!["get".into(), "list".into()] }]
        );
    }
}
