//! Certificates for the attestation keys of vTPMs: `POST /attestationKeyCertificates` of the attestation service.
//!
//! The evidence is that of `SevSnpVm`: a report of VMPL 0 whose REPORT_DATA binds runtime claims with exactly one RSA key
//! `HCLAkPub`. Asking again gives a new certificate; the authority stays.

use serde::{Deserialize, Serialize};

use crate::attestation::AttachedData;
use crate::encoding::base64url;

/// Body of `POST /attestationKeyCertificates`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AttestationKeyCertificateRequest {
    /// UTF-8 JSON of [`crate::attestation::SevSnpEvidence`].
    #[serde(with = "base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub report: Vec<u8>,
    /// The runtime claims that the report binds; JSON.
    pub runtime_data: AttachedData,
    /// TPM2B_PUBLIC of the key: the key `HCLAkPub` of the claims, made by the platform's template.
    #[serde(with = "base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub attestation_key: Vec<u8>,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AttestationKeyCertificateResponse {
    /// DER of the certificate.
    #[serde(with = "base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub certificate: Vec<u8>,
    /// DER of the authority's own certificate.
    #[serde(with = "base64url")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub authority: Vec<u8>,
}
