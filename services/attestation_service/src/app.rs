//! What the service does: verbs and decisions, without HTTP and without SQL.
//!
//! The way of a request: [`request`] (read the fields) → [`appraise`] (verify the report, its bindings, its
//! measurement, apply the policy; pure, and the same code that verifies offline) → [`attest`] (nonce, token, decision
//! log).

pub mod access;
pub mod ak_authority;
pub mod ak_certificates;
pub mod appraise;
pub mod attest;
pub mod azure_guest;
pub mod boot_reference;
mod bound_data;
pub mod claims;
pub mod collateral;
pub mod counts;
pub mod draft;
pub mod dry_run;
pub mod fields;
pub mod minimum_tcb;
pub mod nonce;
pub mod platform_policy;
pub mod policies;
pub mod policy_signers;
pub mod provider;
pub mod providers;
pub mod public_key;
pub mod readiness;
pub mod reference;
pub mod reference_document;
pub mod request;
pub mod sample;
pub mod secret_file;
pub mod seen;
pub mod signed_document;
pub mod signing;
pub mod tpm;

use public_api::attestation_policy::AttestationType;

/// The text of the policy that decides where a provider has set none.
pub fn shipped_policy(kind: AttestationType) -> &'static str {
    match kind {
        AttestationType::SevSnpVm => platform_policy::DEFAULT_POLICY,
        AttestationType::AzureGuest => azure_guest::policy::DEFAULT_POLICY,
        AttestationType::Tpm => azure_guest::policy::DEFAULT_TPM_POLICY,
    }
}
