//! Guest-state generations of a key: `GET /keys/{name}/generations` and `PUT /keys/{name}/generations/{vmId}`.
//!
//! An extension of Casemate; Key Vault has no such routes.

use serde::{Deserialize, Serialize};

/// The generation that was released last for one VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct VmGeneration {
    /// The VM: a GUID in capitals.
    pub vm_id: String,
    /// The next release is of this generation or of the one after it.
    pub generation: u64,
}

/// Answer of `GET /keys/{name}/generations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GenerationListResult {
    /// Every VM whose guest state the key has released, by the VM's id.
    pub value: Vec<VmGeneration>,
}

/// Body of `PUT /keys/{name}/generations/{vmId}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GenerationResetParameters {
    /// What it is now; the reset is refused if it is something else.
    pub from: u64,
    /// The generation of the guest state that shall be released again; lower than `from`.
    pub to: u64,
}

/// Answer of `PUT /keys/{name}/generations/{vmId}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct GenerationResetResult {
    /// The VM: a GUID in capitals.
    pub vm_id: String,
    /// What it is now.
    pub generation: u64,
    /// The names of all keys whose newest generation of this VM was put back: this one, and those that the guest state was
    /// moved from or to.
    pub keys: Vec<String>,
}
