//! When a key is renewed by itself: `GET` and `PUT /keys/{name}/rotationpolicy`.
//!
//! Source: Azure/azure-rest-api-specs `specification/keyvault/data-plane`, `KeyRotationPolicy`. Durations are ISO 8601
//! (`P90D`, `P1Y6M`).

use serde::{Deserialize, Serialize};

/// The policy of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyRotationPolicy {
    /// The policy's URL; set by the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What happens when.
    #[serde(default)]
    pub lifetime_actions: Vec<LifetimeAction>,
    /// How long new versions are good for.
    #[serde(default)]
    pub attributes: RotationPolicyAttributes,
}

/// One thing that happens at one time of a version's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LifetimeAction {
    /// When.
    pub trigger: LifetimeTrigger,
    /// What.
    pub action: LifetimeActionType,
}

/// Exactly one of the two members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LifetimeTrigger {
    /// So long after the version was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_after_create: Option<String>,
    /// So long before the version expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_before_expiry: Option<String>,
}

/// `{"type": "Rotate"}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LifetimeActionType {
    /// `Rotate` or `Notify`; clients write either in any case.
    #[serde(rename = "type")]
    pub kind: String,
}

/// What the policy says about versions that it makes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RotationPolicyAttributes {
    /// A new version expires so long after it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry_time: Option<String>,
    /// Unix seconds; set by the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<i64>,
    /// Unix seconds; set by the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<i64>,
}
