//! What a route needs: Key Vault's own permissions, and how each is called in an access policy, as a data action of a role,
//! and among the app roles of the default vault.
//!
//! Sources: Key Vault REST, `KeyPermissions` of Microsoft.KeyVault; Azure RBAC documentation, "Azure permissions for
//! Security", Microsoft.KeyVault; Key Vault documentation, "Local RBAC built-in roles for Managed HSM".

use public_api::vaults::VaultKind;

/// A permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Read a key's public part.
    Get,
    /// List keys.
    List,
    /// Make a key, or a new version with other properties.
    Create,
    /// Change attributes, tags, policy.
    Update,
    /// Bring a key along.
    Import,
    /// Delete a key; it can be recovered.
    Delete,
    /// Read a deleted key.
    GetDeleted,
    /// List deleted keys.
    ListDeleted,
    /// Recover a deleted key.
    Recover,
    /// Destroy a deleted key.
    Purge,
    /// Back a key up.
    Backup,
    /// Restore a key; of the vault, not of one key.
    Restore,
    /// `encrypt`
    Encrypt,
    /// `decrypt`
    Decrypt,
    /// `wrapkey`
    WrapKey,
    /// `unwrapkey`
    UnwrapKey,
    /// `sign`
    Sign,
    /// `verify`
    Verify,
    /// A new version like the newest.
    Rotate,
    /// Read a rotation policy.
    GetRotationPolicy,
    /// Set a rotation policy.
    SetRotationPolicy,
    /// `release`
    Release,
    /// Put the newest released generation of a VM's guest state back.
    ResetGeneration,
    /// Random bytes.
    Random,
    /// Read the decision log.
    Log,
    /// Read metrics, from another machine.
    Metrics,
    /// Make, change and remove named vaults; says nothing about keys.
    ManageVaults,
}

/// Everything but release and named vaults.
const OFFICER: &str = "Key Vault Crypto Officer";
/// Reading and using.
const USER: &str = "Key Vault Crypto User";
/// Release only.
const RELEASE_USER: &str = "Key Vault Crypto Service Release User";
/// Metrics only.
const MONITORING_READER: &str = "Monitoring Reader";
/// Named vaults only.
const OPERATOR: &str = "Casemate Vault Operator";

/// Names in access policies, and data actions in vaults and managed HSMs behind `Microsoft.KeyVault/vaults/` and
/// `Microsoft.KeyVault/managedHsm/`. The last three rows are ours.
#[rustfmt::skip]
const NAMES: &[(Permission, &str, &str, &str)] = &[
    (Permission::Get, "get", "keys/read", "keys/read/action"),
    (Permission::List, "list", "keys/read", "keys/read/action"),
    (Permission::Create, "create", "keys/create/action", "keys/create"),
    (Permission::Update, "update", "keys/update/action", "keys/write/action"),
    (Permission::Import, "import", "keys/import/action", "keys/import/action"),
    (Permission::Delete, "delete", "keys/delete", "keys/delete"),
    (Permission::GetDeleted, "get", "keys/read", "keys/deletedKeys/read/action"),
    (Permission::ListDeleted, "list", "keys/read", "keys/deletedKeys/read/action"),
    (Permission::Recover, "recover", "keys/recover/action", "keys/deletedKeys/recover/action"),
    (Permission::Purge, "purge", "keys/purge/action", "keys/deletedKeys/delete"),
    (Permission::Backup, "backup", "keys/backup/action", "keys/backup/action"),
    (Permission::Restore, "restore", "keys/restore/action", "keys/restore/action"),
    (Permission::Encrypt, "encrypt", "keys/encrypt/action", "keys/encrypt/action"),
    (Permission::Decrypt, "decrypt", "keys/decrypt/action", "keys/decrypt/action"),
    (Permission::WrapKey, "wrapKey", "keys/wrap/action", "keys/wrap/action"),
    (Permission::UnwrapKey, "unwrapKey", "keys/unwrap/action", "keys/unwrap/action"),
    (Permission::Sign, "sign", "keys/sign/action", "keys/sign/action"),
    (Permission::Verify, "verify", "keys/verify/action", "keys/verify/action"),
    (Permission::Rotate, "rotate", "keys/rotate/action", "keys/rotate/action"),
    (Permission::GetRotationPolicy, "getrotationpolicy", "keyrotationpolicies/read", "keys/read/action"),
    (Permission::SetRotationPolicy, "setrotationpolicy", "keyrotationpolicies/write", "keys/write/action"),
    (Permission::Release, "release", "keys/release/action", "keys/release/action"),
    (Permission::Random, "", "rng/action", "rng/action"),
    (Permission::ResetGeneration, "", "keys/generations/write/action", "keys/generations/write/action"),
    (Permission::Log, "", "log/action", "log/action"),
    (Permission::Metrics, "", "metrics/action", "metrics/action"),
];

impl Permission {
    /// The name in access policies; none for what no policy can give.
    pub fn policy_name(self) -> Option<&'static str> {
        let (_, name, ..) = NAMES.iter().find(|(permission, ..)| *permission == self)?;
        (!name.is_empty()).then_some(name)
    }

    /// Whether an access policy can name this permission, in any case; `all` is one of the names.
    pub fn is_policy_name(text: &str) -> bool {
        let known = |name: &str| !name.is_empty() && name.eq_ignore_ascii_case(text);
        text.eq_ignore_ascii_case("all") || NAMES.iter().any(|(_, name, ..)| known(name))
    }

    /// The data action in full; none for what no role over a vault can give.
    pub fn data_action(self, kind: VaultKind) -> Option<String> {
        let (_, _, vault, hsm) = NAMES.iter().find(|(permission, ..)| *permission == self)?;
        Some(match kind {
            VaultKind::Vault => format!("Microsoft.KeyVault/vaults/{vault}"),
            VaultKind::ManagedHsm => format!("Microsoft.KeyVault/managedHsm/{hsm}"),
        })
    }

    /// The app roles that have it in the default vault (names of Azure's built-in roles).
    pub fn app_roles(self) -> &'static [&'static str] {
        match self {
            Self::Get
            | Self::GetRotationPolicy
            | Self::Encrypt
            | Self::Decrypt
            | Self::WrapKey
            | Self::UnwrapKey
            | Self::Sign
            | Self::Verify
            | Self::Random => &[OFFICER, USER],
            Self::Release => &[RELEASE_USER],
            Self::Metrics => &[OFFICER, MONITORING_READER],
            Self::ManageVaults => &[OPERATOR],
            Self::List
            | Self::Create
            | Self::Update
            | Self::Import
            | Self::Delete
            | Self::GetDeleted
            | Self::ListDeleted
            | Self::Recover
            | Self::Purge
            | Self::Backup
            | Self::Restore
            | Self::Rotate
            | Self::SetRotationPolicy
            | Self::ResetGeneration
            | Self::Log => &[OFFICER],
        }
    }

    /// Of the app roles the one that has the least beside it.
    pub fn least_role(self) -> &'static str {
        self.app_roles().last().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_role_over_a_vault_and_no_access_policy_makes_an_operator_and_none_of_an_operator_reads_keys() {
        assert_eq!(Permission::ManageVaults.data_action(VaultKind::Vault), None);
        assert_eq!(Permission::ManageVaults.policy_name(), None);
        for (permission, ..) in NAMES {
            assert!(!permission.app_roles().contains(&OPERATOR), "{permission:?}");
        }
    }

    #[test]
    fn an_access_policy_names_what_key_vault_names() {
        for name in ["get", "WRAPKEY", "unwrapKey", "release", "getrotationpolicy", "all"] {
            assert!(Permission::is_policy_name(name), "{name}");
        }
        for name in ["", "log", "rng", "metrics", "manage", "resetGeneration", "get "] {
            assert!(!Permission::is_policy_name(name), "{name}");
        }
    }
}
