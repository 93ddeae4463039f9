//! Tokens of the attestation service.
//!
//! `SevSnpVm`: the report at VMPL 0 and the runtime claims that it binds. `AzureGuest` (see [`crate::azure_guest`]): the
//! same, and the TPM's quote, the event log and a key that only this boot of this VM can use.

use public_api::attestation::{
    AttachedData, AttestResponse, AttestSevSnpVmRequest, DataType, SevSnpEvidence,
};
use serde_json::Value;

use crate::evidence::Evidence;
use crate::failure::Failure;
use crate::http::Client;

/// API version that this program sends.
const API_VERSION: &str = "2022-08-01";

/// The request for a token of type `SevSnpVm`.
///
/// # Errors
/// None that the caller could bring about.
pub fn sev_snp_vm_request(
    evidence: &Evidence,
    nonce: Option<&str>,
) -> Result<AttestSevSnpVmRequest, Failure> {
    let inner = SevSnpEvidence {
        snp_report: evidence.snp_report.clone(),
        vcek_cert_chain: evidence.certificates.clone().into_bytes(),
        endorsements: None,
    };
    let report =
        serde_json::to_vec(&inner).map_err(|error| Failure::us("writing the evidence").because(error))?;
    Ok(AttestSevSnpVmRequest {
        report,
        runtime_data: Some(AttachedData { data: evidence.runtime_claims.clone(), data_type: DataType::JSON }),
        init_time_data: None,
        nonce: nonce.map(Value::from),
        draft_policy_for_attestation: None,
    })
}

/// Presents the evidence and returns the token.
///
/// # Errors
/// The service's refusal, or no answer.
pub fn sev_snp_vm(
    client: &Client,
    service: &str,
    evidence: &Evidence,
    nonce: Option<&str>,
) -> Result<String, Failure> {
    let url = format!("{}/attest/SevSnpVm?api-version={API_VERSION}", service.trim_end_matches('/'));
    let answer: AttestResponse = client.post(&url, None, &sev_snp_vm_request(evidence, nonce)?)?;
    Ok(answer.token)
}
