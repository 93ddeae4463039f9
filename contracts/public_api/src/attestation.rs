//! Azure Attestation messages: `POST /attest/SevSnpVm` and the token that comes back.
//!
//! Source: Azure/azure-rest-api-specs `specification/attestation/data-plane`, version 2022-08-01; claim names from the
//! claim-sets page of the Azure Attestation documentation. Claims named `x-casemate-*` are ours.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::encoding::base64url;

/// Claim: `amd` or `development`. It is in every token and cannot be removed by a policy.
pub const CLAIM_TRUST_ROOT: &str = "x-casemate-trust-root";
/// Claim: SHA-256 (hex) of the root certificate's DER.
pub const CLAIM_TRUST_ROOT_ID: &str = "x-casemate-trust-root-id";
/// Claim: `server` when the nonce was issued by this service and used for the first time, else `client` or `none`.
pub const CLAIM_NONCE_SOURCE: &str = "x-casemate-nonce-source";
/// Claim: AMD product name, for example `Milan`.
pub const CLAIM_PRODUCT: &str = "x-casemate-product";
/// Claim: hex chip id, or `masked`.
pub const CLAIM_CHIP_ID: &str = "x-casemate-chip-id";
/// Claim: the name of the reference value that the launch measurement equals.
pub const CLAIM_REFERENCE: &str = "x-casemate-reference";

/// Claim: the name of the image whose boot chain the paravisor sealed the disk's key to.
pub const CLAIM_BOOT_REFERENCE: &str = "x-casemate-boot-reference";

/// Data whose hash the report carries, and how the token shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AttachedData {
    /// The bytes, hashed exactly as they stand.
    #[serde(with = "base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub data: Vec<u8>,
    /// `JSON` (shown as an object) or `Binary` (shown as base64url).
    pub data_type: DataType,
}

/// How attached data is shown in the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum DataType {
    /// Parsed and shown as an object.
    #[serde(alias = "json", alias = "Json")]
    JSON,
    /// Shown as base64url.
    #[serde(alias = "binary")]
    Binary,
}

/// Body of `POST /attest/SevSnpVm`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AttestSevSnpVmRequest {
    /// Base64url of the UTF-8 JSON of [`SevSnpEvidence`].
    #[serde(with = "base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub report: Vec<u8>,
    /// Its SHA-256 is the first half of REPORT_DATA; the second half is zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_data: Option<AttachedData>,
    /// Its SHA-256 is HOST_DATA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_time_data: Option<AttachedData>,
    /// Echoed in the token. A string; some clients send a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Value>,
    /// A policy to try; the answer is then an unsigned result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft_policy_for_attestation: Option<String>,
}

/// The inner JSON of [`AttestSevSnpVmRequest::report`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SevSnpEvidence {
    /// The 1,184 bytes of the report.
    #[serde(with = "base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub snp_report: Vec<u8>,
    /// PEM of VCEK or VLEK, then ASK, then ARK.
    #[serde(with = "base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub vcek_cert_chain: Vec<u8>,
    /// Endorsements of utility VMs; accepted and ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endorsements: Option<String>,
}

/// Answer of the attestation routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AttestResponse {
    /// A JWS in compact form.
    pub token: String,
}

/// Answer of `POST /nonces`: a value that this service accepts once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct NonceResponse {
    /// 64 lower-case hex characters.
    pub nonce: String,
    /// Unix seconds.
    pub expires_on: i64,
}

/// The claims of a token, in the order in which the service wrote them.
pub type Claims = Map<String, Value>;

/// The runtime claims that a paravisor binds into REPORT_DATA when it asks for its keys.
///
/// `keys` holds one RSA key, `HCLTransferKey`, with `key_ops: ["encrypt"]`: released keys are wrapped to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct ParavisorRuntimeClaims {
    /// The transfer key.
    pub keys: Vec<crate::jwk::Jwk>,
    /// What the VM is configured to be (the HCL report's `vm-configuration`).
    pub vm_configuration: Value,
    /// The guest state that these keys are wanted for.
    pub guest_state: GuestStateClaim,
    /// The PCRs predicted for the boot to come, hex by PCR number, and what they were predicted from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_chain: Option<BootChainClaim>,
    /// Fingerprint (SHA-256, hex) of the key of the VM's recovery document, if the tenant named a recovery key: whoever keeps
    /// this evidence recognises a recovery document that somebody else made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_document_key: Option<String>,
    /// The nonce of `POST /nonces`, so that the report is fresh.
    pub nonce: String,
}

/// Which guest state of which VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GuestStateClaim {
    /// Upper-case GUID; equals `vmId` of the launch document.
    pub vm_id: String,
    /// 0 before the first provisioning; grows by one at each start and at each clean stop.
    pub generation: u64,
}

/// The boot chain that the paravisor predicted and sealed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BootChainClaim {
    /// `systemd-boot`, `grub` or `uki`.
    pub loader: String,
    /// Identifier of the chosen entry, for example `debian-6.12.117+deb13-cloud-amd64.conf`.
    pub entry: String,
    /// The kernel's version as the entry states it.
    pub version: String,
    /// SHA-256 bank, lower-case hex by PCR number.
    pub pcrs: std::collections::BTreeMap<u8, String>,
}

/// Everything needed to verify a VM offline, as stored by the control plane and by `casemate vm evidence`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvidenceBundle {
    /// Format version: 1.
    pub version: u32,
    /// The 1,184 bytes of the report.
    #[serde(with = "base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub snp_report: Vec<u8>,
    /// PEM of VCEK or VLEK, ASK, ARK.
    pub certificate_chain: String,
    /// The runtime claims, byte for byte.
    #[serde(with = "base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub runtime_data: Vec<u8>,
    /// The launch document, byte for byte.
    #[serde(with = "base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub init_time_data: Vec<u8>,
    /// The token that the attestation service gave for it.
    pub token: String,
}
