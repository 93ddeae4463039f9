//! Whether settings of a named vault can be, and whether they can follow the earlier ones. Pure.

use public_api::key_roles::KeyRole;
use public_api::vaults::{VaultAccess, VaultAccessPolicy, VaultRoleAssignment, VaultSettings};
use uuid::Uuid;

use crate::app::{AppError, validate};
use crate::config::RecoveryConfig;
use crate::token::permission::Permission;

/// Most assignments or policies of a vault. Source: Key Vault documentation allows 1024 access policies.
const MAX_ENTRIES: usize = 1024;
const MAX_RESOURCE_ID: usize = 500;
const MAX_SKU: usize = 40;

/// Checks settings.
pub fn check(settings: &VaultSettings) -> Result<(), AppError> {
    guid("tenantId", &settings.tenant_id)?;
    resource(&settings.resource)?;
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain(&settings.sku) || settings.sku.len() > MAX_SKU {
        return Err(AppError::bad("sku", "expected a short name"));
    }
    if !RecoveryConfig::DAYS.contains(&settings.soft_delete_retention_in_days) {
        return Err(AppError::bad("softDeleteRetentionInDays", "expected 7 to 90"));
    }
    match &settings.access {
        VaultAccess::RoleAssignments { assignments } => {
            few(assignments.len())?;
            assignments.iter().try_for_each(assignment)
        }
        VaultAccess::AccessPolicies { policies } => {
            few(policies.len())?;
            policies.iter().try_for_each(policy)?;
            alone(policies)
        }
    }
}

/// Checks the resource that a vault belongs to.
pub fn resource(resource: &public_api::vaults::VaultResource) -> Result<(), AppError> {
    guid("resource.incarnation", &resource.incarnation)?;
    let plain = resource.id.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if plain && resource.id.starts_with("/subscriptions/") && resource.id.len() <= MAX_RESOURCE_ID {
        return Ok(());
    }
    Err(AppError::bad("resource.id", "expected a Resource Manager id"))
}

/// Checks a change of a vault's settings. The same resource is meant.
pub fn check_change(before: &VaultSettings, after: &VaultSettings) -> Result<(), AppError> {
    let fixed = |name: &str| Err(AppError::bad(name, "it is fixed when the vault is made"));
    if !before.tenant_id.eq_ignore_ascii_case(&after.tenant_id) {
        return fixed("tenantId");
    }
    if before.kind != after.kind {
        return fixed("kind");
    }
    if before.soft_delete_retention_in_days != after.soft_delete_retention_in_days {
        return fixed("softDeleteRetentionInDays");
    }
    if before.purge_protection && !after.purge_protection {
        return Err(AppError::bad("purgeProtection", "it is never taken back"));
    }
    Ok(())
}

fn few(number: usize) -> Result<(), AppError> {
    match number <= MAX_ENTRIES {
        true => Ok(()),
        false => Err(AppError::bad("access", format!("at most {MAX_ENTRIES} entries"))),
    }
}

fn assignment(assignment: &VaultRoleAssignment) -> Result<(), AppError> {
    guid("access.assignments.principalId", &assignment.principal_id)?;
    if KeyRole::by_id(&assignment.role_definition_id).is_none() {
        return Err(AppError::bad("access.assignments.roleDefinitionId", "it is no built-in role over keys"));
    }
    match assignment.scope.strip_prefix("/keys/") {
        Some(name) => validate::name(name).map_err(|_| scope()),
        None if assignment.scope == "/" => Ok(()),
        None => Err(scope()),
    }
}

fn scope() -> AppError {
    AppError::bad("access.assignments.scope", "expected / or /keys/{name}")
}

fn policy(policy: &VaultAccessPolicy) -> Result<(), AppError> {
    guid("access.policies.objectId", &policy.object_id)?;
    match policy.keys.iter().find(|name| !Permission::is_policy_name(name)) {
        None => Ok(()),
        Some(_) => Err(AppError::bad("access.policies.keys", "expected Key Vault's key permissions")),
    }
}

/// One principal with two policies would have whichever is found first.
fn alone(policies: &[VaultAccessPolicy]) -> Result<(), AppError> {
    let mut objects: Vec<String> =
        policies.iter().map(|policy| policy.object_id.to_ascii_lowercase()).collect();
    objects.sort_unstable();
    match objects.windows(2).any(|pair| pair[0] == pair[1]) {
        true => Err(AppError::bad("access.policies", "a principal has one policy")),
        false => Ok(()),
    }
}

fn guid(target: &str, text: &str) -> Result<(), AppError> {
    match Uuid::try_parse(text) {
        Ok(parsed) if parsed.to_string().eq_ignore_ascii_case(text) => Ok(()),
        _ => Err(AppError::bad(target, "expected a GUID")),
    }
}
