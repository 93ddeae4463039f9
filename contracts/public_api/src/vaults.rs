//! Named vaults of the key service: what the control plane tells it of each. These routes are ours; Azure has none of them in
//! public.

use serde::{Deserialize, Serialize};

/// Which of Azure's two services a vault is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum VaultKind {
    /// `Microsoft.KeyVault/vaults`.
    #[default]
    Vault,
    /// `Microsoft.KeyVault/managedHSMs`.
    ManagedHsm,
}

/// The Resource Manager resource that a vault belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VaultResource {
    /// `/subscriptions/{guid}/resourceGroups/{group}/providers/Microsoft.KeyVault/vaults/{name}`.
    pub id: String,
    /// GUID of this life of the name.
    pub incarnation: String,
}

/// A role of a principal over a vault or over one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VaultRoleAssignment {
    /// `oid` of the principal's tokens.
    pub principal_id: String,
    /// GUID of one of [`crate::key_roles::KEY_ROLES`].
    pub role_definition_id: String,
    /// `/` for the whole vault, `/keys/{name}` for one key.
    pub scope: String,
}

/// What a principal may do to every key of a vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VaultAccessPolicy {
    /// `oid` of the principal's tokens.
    pub object_id: String,
    /// Names of Key Vault's key permissions, `release` among them; `all` is all but `purge` and `release`.
    pub keys: Vec<String>,
}

/// Who may do what. One of the two models decides, never both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "model", rename_all = "camelCase", deny_unknown_fields)]
pub enum VaultAccess {
    /// `enableRbacAuthorization`: role assignments.
    RoleAssignments {
        /// All that hold for the vault and its keys, those inherited from above included.
        assignments: Vec<VaultRoleAssignment>,
    },
    /// The vault's access policies.
    AccessPolicies {
        /// One for each principal.
        policies: Vec<VaultAccessPolicy>,
    },
}

/// Body of `PUT /casemate/vaults/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VaultSettings {
    /// Whose vault it is.
    pub resource: VaultResource,
    /// GUID of the tenant whose tokens it takes; never changes.
    pub tenant_id: String,
    /// Never changes.
    #[serde(default)]
    pub kind: VaultKind,
    /// `standard`, `premium`, or `Standard_B1` and the like of a managed HSM; a label.
    pub sku: String,
    /// Days for which a deleted key, and the deleted vault itself, can be recovered: 7 to 90; never changes.
    pub soft_delete_retention_in_days: i32,
    /// Whether nobody may destroy a deleted key or the deleted vault before its time; never taken back.
    #[serde(default)]
    pub purge_protection: bool,
    /// Who may do what.
    pub access: VaultAccess,
}

/// When a vault was deleted, and when it will be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VaultDeletion {
    /// Unix seconds.
    pub deleted_date: i64,
    /// Unix seconds.
    pub scheduled_purge_date: i64,
}

/// A vault as the key service shows it to the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VaultView {
    /// In lower case.
    pub name: String,
    /// `https://{name}.{domain}[:port]`.
    pub url: String,
    /// What it was told last.
    pub settings: VaultSettings,
    /// Of a deleted one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion: Option<VaultDeletion>,
}
