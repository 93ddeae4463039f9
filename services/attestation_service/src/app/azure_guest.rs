//! `AzureGuest`: attestation of a VM by its vTPM and, under it, by its hardware.
//!
//! The way of a request: [`request`] (read the fields) → [`verify`] (report, attestation key, quote, event log,
//! encryption key; pure) → [`claims`] and [`policy`] → [`seal`] (the token, readable only with the VM's key) and
//! [`flow`], which does all this for the service. The protocol is that of the open client in
//! Azure/confidential-computing-cvm-guest-attestation (`client-library`), version 2.0.
//!
//! What makes the vTPM trustworthy is the hardware report alone: a report of VMPL 0 that binds the attestation key says
//! that the TPM lives inside the VM's boundary. The key's certificate proves nothing by itself.

pub mod claims;
pub mod flow;
pub mod policy;
pub mod policy_evidence;
pub(super) mod refusal;
pub mod request;
pub mod seal;
pub mod verify;
