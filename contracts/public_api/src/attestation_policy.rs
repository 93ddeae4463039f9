//! Attestation policies and providers: attestation types, and the messages beyond Azure's (history, dry run, roll-out).
//!
//! Azure's own routes carry policies as JWS texts; source: the "policy" and "policyCertificates" operations of
//! Azure/azure-rest-api-specs `specification/attestation/data-plane`, version 2022-08-01.

use serde::{Deserialize, Serialize};

use crate::Denial;

/// What kind of evidence is attested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum AttestationType {
    /// A report of an SEV-SNP secure processor.
    SevSnpVm,
    /// A virtual TPM's quote, event log and keys, with the report that binds them.
    AzureGuest,
    /// A TPM's quote alone.
    Tpm,
}

impl AttestationType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::SevSnpVm, Self::AzureGuest, Self::Tpm];

    /// As it stands in paths.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SevSnpVm => "SevSnpVm",
            Self::AzureGuest => "AzureGuest",
            Self::Tpm => "Tpm",
        }
    }

    /// From a path segment, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }
}

/// Who may set the policies of a provider (`trustModel` of `Microsoft.Attestation/attestationProviders`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum TrustModel {
    /// Whoever has the role; a policy may be unsigned, or signed by any key.
    #[default]
    #[serde(rename = "AAD")]
    Aad,
    /// Only the holders of the provider's policy signing certificates: an unsigned policy is refused.
    Isolated,
}

/// Signature algorithm of a provider's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum TokenAlgorithm {
    /// RSA-2048, PKCS #1 v1.5, SHA-256.
    #[default]
    RS256,
    /// ECDSA on P-384, SHA-384.
    ES384,
}

impl TokenAlgorithm {
    /// As in `alg`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::ES384 => "ES384",
        }
    }
}

/// Whether attesting with a TPM's quote alone needs a bearer token (`tpmAttestationAuthentication`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum TpmAttestationAuthentication {
    /// Anybody may.
    #[default]
    Disabled,
    /// Whoever may read the provider.
    Enabled,
}

/// The Resource Manager resource that a provider belongs to: whoever may read or change the resource may read or change the
/// provider's policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProviderResource {
    /// `/subscriptions/{guid}/resourceGroups/{group}/providers/Microsoft.Attestation/attestationProviders/{name}`.
    pub id: String,
    /// GUID of this life of the name: a resource that is made again is another one.
    pub incarnation: String,
}

/// Body of `PUT /providers/{name}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProviderSettings {
    /// Fixed when the provider is made.
    #[serde(default)]
    pub trust_model: TrustModel,
    /// Base64 of the DER of the first policy signing certificates; needed for [`TrustModel::Isolated`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_signing_certificates: Vec<String>,
    /// Algorithm of new tokens.
    #[serde(default)]
    pub token_algorithm: TokenAlgorithm,
    /// See [`TpmAttestationAuthentication`].
    #[serde(default)]
    pub tpm_attestation_authentication: TpmAttestationAuthentication,
    /// None where an administrator of the service made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<ProviderResource>,
}

/// Answer of the provider routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProviderView {
    /// 3 to 24 lower-case letters, digits and hyphens; `default` is the one at the root.
    pub name: String,
    /// Base address, and the `iss` of its tokens.
    pub attest_uri: String,
    /// See [`TrustModel`].
    pub trust_model: TrustModel,
    /// Algorithm of new tokens.
    pub token_algorithm: TokenAlgorithm,
    /// See [`TpmAttestationAuthentication`].
    pub tpm_attestation_authentication: TpmAttestationAuthentication,
    /// See [`ProviderSettings::resource`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<ProviderResource>,
    /// Unix seconds.
    pub created_on: i64,
}

/// What a version of a policy is to the provider now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum PolicyState {
    /// It decides.
    Active,
    /// It is tried beside the active one; what it would refuse is logged, and not refused.
    Staged,
    /// It decided once, or was staged and withdrawn.
    Former,
}

/// One version of a policy. Version 0 is the one that the service ships.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyVersion {
    /// Counted from 1 for each provider and attestation type.
    pub version: u64,
    /// See [`PolicyState`].
    pub state: PolicyState,
    /// `x-ms-policy-hash` of tokens that it decides.
    pub policy_hash: String,
    /// SHA-256 thumbprint (hex) of the certificate that signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// The caller who set it.
    pub set_by: String,
    /// Unix seconds.
    pub set_on: i64,
    /// The text.
    pub text: String,
}

/// Answer of `POST /policies/{type}:dryRun`: what the policy would say to the evidence that is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DryRun {
    /// Hash of the policy that was tried.
    pub policy_hash: String,
    /// How many pieces of evidence it was tried on: the newest one of each VM.
    pub evaluated: u64,
    /// How many it permits.
    pub permitted: u64,
    /// Those that it treats otherwise than the active policy does.
    pub changes: Vec<DryRunChange>,
}

/// Evidence that two policies treat differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DryRunChange {
    /// The VM, as the decision log names it.
    pub subject: String,
    /// When the evidence was seen, Unix seconds.
    pub seen_on: i64,
    /// Why the active policy refuses; absent if it permits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_now: Option<Denial>,
    /// Why the tried policy would refuse; absent if it would permit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_then: Option<Denial>,
}

/// Answer of `GET /policies/{type}/difference?from=N&to=M`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyDifference {
    /// The older version.
    pub from: u64,
    /// The newer version.
    pub to: u64,
    /// In unified form; empty if they are equal.
    pub difference: String,
}
