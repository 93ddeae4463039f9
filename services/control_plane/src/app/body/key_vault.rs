//! The tables of Microsoft.KeyVault's and Microsoft.Authorization's bodies, from the models of `azure-mgmt-keyvault` 14.1 and
//! `azure-mgmt-authorization` 4.0.

use super::table::{EnumType, Kind, ObjectType, absent, flag, member, object, shown, text};

/// `PUT` of a vault.
pub static VAULT: ObjectType = ObjectType {
    name: "VaultCreateOrUpdateParameters",
    members: &[
        shown("id"),
        shown("name"),
        shown("type"),
        shown("systemData"),
        text("location"),
        member("tags", Kind::Labels),
        object("properties", &VAULT_PROPERTIES),
    ],
};

/// `PATCH` of a vault.
pub static VAULT_UPDATE: ObjectType = ObjectType {
    name: "VaultPatchParameters",
    members: &[member("tags", Kind::Labels), object("properties", &VAULT_PROPERTIES)],
};

static VAULT_PROPERTIES: ObjectType = ObjectType {
    name: "VaultProperties",
    members: &[
        text("tenantId"),
        object("sku", &SKU),
        member("accessPolicies", Kind::List(&POLICY)),
        shown("vaultUri"),
        shown("hsmPoolResourceId"),
        shown("provisioningState"),
        shown("privateEndpointConnections"),
        shown("casemate"),
        flag("enabledForDeployment"),
        flag("enabledForDiskEncryption"),
        flag("enabledForTemplateDeployment"),
        flag("enableSoftDelete"),
        member("softDeleteRetentionInDays", Kind::Int),
        flag("enableRbacAuthorization"),
        member("createMode", Kind::Enum(&CREATE_MODE)),
        flag("enablePurgeProtection"),
        object("networkAcls", &NETWORK_RULES),
        member("publicNetworkAccess", Kind::Enum(&PUBLIC_ACCESS)),
    ],
};

static CREATE_MODE: EnumType = EnumType { name: "CreateMode", values: &["default", "recover"] };
static PUBLIC_ACCESS: EnumType = EnumType { name: "PublicNetworkAccess", values: &["Enabled"] };
static SKU: ObjectType = ObjectType { name: "Sku", members: &[text("family"), text("name")] };

/// Who may come from where is the operator's business, so only what lets everybody in is taken.
static NETWORK_RULES: ObjectType = ObjectType {
    name: "NetworkRuleSet",
    members: &[
        text("bypass"),
        member("defaultAction", Kind::Enum(&DEFAULT_ACTION)),
        absent("ipRules"),
        absent("virtualNetworkRules"),
        absent("serviceTags"),
    ],
};
static DEFAULT_ACTION: EnumType = EnumType { name: "NetworkRuleAction", values: &["Allow"] };

static POLICY: Kind = Kind::Object(&ACCESS_POLICY);
static ACCESS_POLICY: ObjectType = ObjectType {
    name: "AccessPolicyEntry",
    members: &[
        text("tenantId"),
        text("objectId"),
        absent("applicationId"),
        object("permissions", &PERMISSIONS),
    ],
};
static PERMISSIONS: ObjectType = ObjectType {
    name: "Permissions",
    members: &[
        member("keys", Kind::List(&Kind::Text)),
        member("secrets", Kind::Any),
        member("certificates", Kind::Any),
        member("storage", Kind::Any),
    ],
};

/// `PUT` of `accessPolicies/{add|replace|remove}`.
pub static ACCESS_POLICIES: ObjectType = ObjectType {
    name: "VaultAccessPolicyParameters",
    members: &[
        shown("id"),
        shown("name"),
        shown("type"),
        shown("location"),
        object("properties", &ACCESS_POLICIES_PROPERTIES),
    ],
};
static ACCESS_POLICIES_PROPERTIES: ObjectType = ObjectType {
    name: "VaultAccessPolicyProperties",
    members: &[member("accessPolicies", Kind::List(&POLICY))],
};

/// `PUT` and `PATCH` of a managed HSM.
pub static MANAGED_HSM: ObjectType = ObjectType {
    name: "ManagedHsm",
    members: &[
        shown("id"),
        shown("name"),
        shown("type"),
        shown("systemData"),
        text("location"),
        object("sku", &SKU),
        member("tags", Kind::Labels),
        absent("identity"),
        object("properties", &HSM_PROPERTIES),
    ],
};

static HSM_PROPERTIES: ObjectType = ObjectType {
    name: "ManagedHsmProperties",
    members: &[
        text("tenantId"),
        member("initialAdminObjectIds", Kind::List(&Kind::Text)),
        shown("hsmUri"),
        shown("statusMessage"),
        shown("provisioningState"),
        shown("securityDomainProperties"),
        shown("scheduledPurgeDate"),
        shown("privateEndpointConnections"),
        shown("casemate"),
        flag("enableSoftDelete"),
        member("softDeleteRetentionInDays", Kind::Int),
        flag("enablePurgeProtection"),
        member("createMode", Kind::Enum(&CREATE_MODE)),
        object("networkAcls", &NETWORK_RULES),
        member("publicNetworkAccess", Kind::Enum(&PUBLIC_ACCESS)),
        absent("regions"),
    ],
};

/// `POST .../checkNameAvailability`.
pub static CHECK_NAME: ObjectType =
    ObjectType { name: "VaultCheckNameAvailabilityParameters", members: &[text("name"), text("type")] };

/// `PUT` of a role assignment.
pub static ROLE_ASSIGNMENT: ObjectType = ObjectType {
    name: "RoleAssignmentCreateParameters",
    members: &[shown("id"), shown("name"), shown("type"), object("properties", &ROLE_ASSIGNMENT_PROPERTIES)],
};
static ROLE_ASSIGNMENT_PROPERTIES: ObjectType = ObjectType {
    name: "RoleAssignmentProperties",
    members: &[
        shown("scope"),
        shown("createdOn"),
        shown("updatedOn"),
        shown("createdBy"),
        shown("updatedBy"),
        text("roleDefinitionId"),
        text("principalId"),
        text("principalType"),
        text("description"),
        absent("condition"),
        absent("conditionVersion"),
        absent("delegatedManagedIdentityResourceId"),
    ],
};
