//! `POST /attest/AzureGuest`: a forger who can make everything, a real TPM with a client's own library, and recorded
//! evidence of Azure.

mod attestation_keys;
pub mod forger;
mod negatives;
mod policies;
mod recorded;
mod swtpm;
mod tokens;
