//! What the service does: verbs and decisions, without HTTP and without SQL.
//!
//! The way of a request: [`request`] (read the fields) → [`appraise`] (verify the report, its bindings, its
//! measurement, apply the policy; pure, and the same code that verifies offline) → [`attest`] (nonce, token, decision
//! log).

pub mod ak_authority;
pub mod ak_certificates;
pub mod appraise;
pub mod attest;
pub mod azure_guest;
pub mod claims;
pub mod draft;
pub mod fields;
pub mod nonce;
pub mod platform_policy;
pub mod reference;
pub mod request;
pub mod secret_file;
pub mod token;
pub mod tpm;
