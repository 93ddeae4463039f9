//! Azure's built-in roles over keys, with the data actions of each.
//!
//! Sources: Azure RBAC documentation, "Azure built-in roles for Security" (Key Vault roles); Azure Key Vault documentation,
//! "Local RBAC built-in roles for Managed HSM". Actions on secrets and certificates are left out: nobody here has any. One action
//! is added: `keys/generations/write/action` of a managed HSM, which is ours, is a crypto officer's as it is in a vault.

/// A built-in role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRole {
    /// GUID of the role definition.
    pub id: &'static str,
    /// `roleName`.
    pub name: &'static str,
    /// For people.
    pub description: &'static str,
    /// What it may do with data; `*` stands for any text.
    pub data_actions: &'static [&'static str],
}

/// The roles that an assignment can name.
pub const KEY_ROLES: &[KeyRole] = &[
    KeyRole {
        id: "00482a5a-887f-4fb3-b363-3b7fe8e74483",
        name: "Key Vault Administrator",
        description: "Everything with the keys of a vault, and its decision log.",
        data_actions: &["Microsoft.KeyVault/vaults/*"],
    },
    KeyRole {
        id: "14b46e9e-c2b7-41b4-b07b-48a6ebf60603",
        name: "Key Vault Crypto Officer",
        description: "Any action on the keys of a vault, except managing permissions.",
        data_actions: &[
            "Microsoft.KeyVault/vaults/keys/*",
            "Microsoft.KeyVault/vaults/keyrotationpolicies/*",
        ],
    },
    KeyRole {
        id: "12338af0-0e69-4776-bea7-57ae8d297424",
        name: "Key Vault Crypto User",
        description: "Cryptographic operations with keys.",
        data_actions: &[
            "Microsoft.KeyVault/vaults/keys/read",
            "Microsoft.KeyVault/vaults/keys/update/action",
            "Microsoft.KeyVault/vaults/keys/backup/action",
            "Microsoft.KeyVault/vaults/keys/encrypt/action",
            "Microsoft.KeyVault/vaults/keys/decrypt/action",
            "Microsoft.KeyVault/vaults/keys/wrap/action",
            "Microsoft.KeyVault/vaults/keys/unwrap/action",
            "Microsoft.KeyVault/vaults/keys/sign/action",
            "Microsoft.KeyVault/vaults/keys/verify/action",
        ],
    },
    KeyRole {
        id: "e147488a-f6f5-4113-8e2d-b22465e65bf6",
        name: "Key Vault Crypto Service Encryption User",
        description: "Reading the metadata of keys, wrapping and unwrapping.",
        data_actions: &[
            "Microsoft.KeyVault/vaults/keys/read",
            "Microsoft.KeyVault/vaults/keys/wrap/action",
            "Microsoft.KeyVault/vaults/keys/unwrap/action",
        ],
    },
    KeyRole {
        id: "08bbd89e-9f13-488c-ac41-acfcb10c90ab",
        name: "Key Vault Crypto Service Release User",
        description: "Releasing keys.",
        data_actions: &["Microsoft.KeyVault/vaults/keys/release/action"],
    },
    KeyRole {
        id: "21090545-7ca7-4776-b22c-e363652d74d2",
        name: "Key Vault Reader",
        description: "Reading the metadata of a vault's keys.",
        data_actions: &["Microsoft.KeyVault/vaults/*/read"],
    },
    KeyRole {
        id: "a290e904-7015-4bba-90c8-60543313cdb4",
        name: "Managed HSM Administrator",
        description: "Everything about the pool itself, and nothing with its keys.",
        data_actions: &[
            "Microsoft.KeyVault/managedHsm/roleAssignments/read/action",
            "Microsoft.KeyVault/managedHsm/roleDefinitions/read/action",
            "Microsoft.KeyVault/managedHsm/log/action",
        ],
    },
    KeyRole {
        id: "515eb02d-2335-4d2d-92f2-b1cbdf9c3778",
        name: "Managed HSM Crypto Officer",
        description: "Purging and recovering deleted keys.",
        data_actions: &[
            "Microsoft.KeyVault/managedHsm/keys/deletedKeys/read/action",
            "Microsoft.KeyVault/managedHsm/keys/deletedKeys/delete",
            "Microsoft.KeyVault/managedHsm/keys/deletedKeys/recover/action",
            "Microsoft.KeyVault/managedHsm/keys/export/action",
            "Microsoft.KeyVault/managedHsm/keys/generations/write/action",
        ],
    },
    KeyRole {
        id: "21dbd100-6940-42c2-9190-5d6cb909625b",
        name: "Managed HSM Crypto User",
        description: "Everything with keys but purging and recovering deleted ones.",
        data_actions: &[
            "Microsoft.KeyVault/managedHsm/keys/read/action",
            "Microsoft.KeyVault/managedHsm/keys/write/action",
            "Microsoft.KeyVault/managedHsm/keys/rotate/action",
            "Microsoft.KeyVault/managedHsm/keys/create",
            "Microsoft.KeyVault/managedHsm/keys/delete",
            "Microsoft.KeyVault/managedHsm/keys/import/action",
            "Microsoft.KeyVault/managedHsm/keys/release/action",
            "Microsoft.KeyVault/managedHsm/keys/backup/action",
            "Microsoft.KeyVault/managedHsm/keys/restore/action",
            "Microsoft.KeyVault/managedHsm/keys/encrypt/action",
            "Microsoft.KeyVault/managedHsm/keys/decrypt/action",
            "Microsoft.KeyVault/managedHsm/keys/wrap/action",
            "Microsoft.KeyVault/managedHsm/keys/unwrap/action",
            "Microsoft.KeyVault/managedHsm/keys/sign/action",
            "Microsoft.KeyVault/managedHsm/keys/verify/action",
            "Microsoft.KeyVault/managedHsm/rng/action",
        ],
    },
    KeyRole {
        id: "33413926-3206-4cdd-b39a-83574fe37a17",
        name: "Managed HSM Crypto Service Encryption User",
        description: "Reading the metadata of keys, wrapping and unwrapping.",
        data_actions: &[
            "Microsoft.KeyVault/managedHsm/keys/read/action",
            "Microsoft.KeyVault/managedHsm/keys/wrap/action",
            "Microsoft.KeyVault/managedHsm/keys/unwrap/action",
        ],
    },
    KeyRole {
        id: "21dbd100-6940-42c2-9190-5d6cb909625c",
        name: "Managed HSM Crypto Service Release User",
        description: "Releasing keys.",
        data_actions: &["Microsoft.KeyVault/managedHsm/keys/release/action"],
    },
    KeyRole {
        id: "2c18b078-7c48-4d3a-af88-5a3a1b3f82b3",
        name: "Managed HSM Crypto Auditor",
        description: "Reading the metadata of keys, not using them.",
        data_actions: &[
            "Microsoft.KeyVault/managedHsm/keys/read/action",
            "Microsoft.KeyVault/managedHsm/keys/deletedKeys/read/action",
        ],
    },
    KeyRole {
        id: "7b127d3c-77bd-4e3e-bbe0-dbb8971fa7f8",
        name: "Managed HSM Backup",
        description: "Backing up single keys.",
        data_actions: &["Microsoft.KeyVault/managedHsm/keys/backup/action"],
    },
];

impl KeyRole {
    /// The role with this GUID, in any case.
    pub fn by_id(id: &str) -> Option<&'static Self> {
        KEY_ROLES.iter().find(|role| role.id.eq_ignore_ascii_case(id))
    }

    /// Whether it has a data action such as `Microsoft.KeyVault/vaults/keys/read`. Actions are compared without regard to
    /// case.
    pub fn permits(&self, action: &str) -> bool {
        self.data_actions.iter().any(|pattern| matches(pattern, action))
    }
}

/// Whether an action fits a pattern with at most one `*`, as the built-in roles have them.
fn matches(pattern: &str, action: &str) -> bool {
    let (pattern, action) = (pattern.to_ascii_lowercase(), action.to_ascii_lowercase());
    match pattern.split_once('*') {
        None => pattern == action,
        Some((before, after)) => action
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .is_some_and(|any| !any.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_guids_and_nobody_has_two() {
        let mut ids: Vec<_> = KEY_ROLES.iter().map(|role| role.id).collect();
        for id in &ids {
            assert_eq!(uuid::Uuid::try_parse(id).map(|id| id.to_string()).as_deref(), Ok(*id));
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), KEY_ROLES.len());
    }

    #[test]
    fn a_star_stands_for_some_text_and_a_role_permits_nothing_beside_its_actions() {
        let permits = |name: &str, action: &str| {
            let role = KEY_ROLES.iter().find(|role| role.name == name).expect("a role");
            role.permits(&format!("Microsoft.KeyVault/{action}"))
        };
        for (role, action, expected) in [
            ("Key Vault Administrator", "vaults/keys/purge/action", true),
            ("Key Vault Administrator", "managedHsm/keys/create", false),
            ("Key Vault Administrator", "vaults/", false),
            ("Key Vault Crypto Officer", "VAULTS/KEYS/release/action", true),
            ("Key Vault Crypto Officer", "vaults/log/action", false),
            ("Key Vault Crypto User", "vaults/keys/create/action", false),
            ("Key Vault Crypto Officer", "vaults/keys/generations/write/action", true),
            ("Key Vault Crypto User", "vaults/keys/generations/write/action", false),
            ("Key Vault Crypto Service Release User", "vaults/keys/generations/write/action", false),
            ("Key Vault Reader", "vaults/keys/generations/write/action", false),
            ("Managed HSM Crypto Officer", "managedHsm/keys/generations/write/action", true),
            ("Managed HSM Crypto User", "managedHsm/keys/generations/write/action", false),
            ("Managed HSM Administrator", "managedHsm/keys/generations/write/action", false),
            ("Key Vault Crypto User", "vaults/keys/release/action", false),
            ("Key Vault Crypto Service Release User", "vaults/keys/read", false),
            ("Key Vault Reader", "vaults/keys/read", true),
            ("Key Vault Reader", "vaults/keys/read/action", false),
            ("Managed HSM Administrator", "managedHsm/keys/read/action", false),
            ("Managed HSM Crypto User", "managedHsm/keys/deletedKeys/delete", false),
        ] {
            assert_eq!(permits(role, action), expected, "{role} {action}");
        }
    }
}
