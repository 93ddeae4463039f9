//! What a workload in a confidential VM needs of the platform: evidence of the VM, tokens of the attestation service, keys
//! of the key service; as commands and on a local socket. On a development host also `/dev/sev-guest`.
//!
//! Nothing here is trusted by anybody: whoever relies on evidence verifies it, and keys are released by the key service's
//! decision. The guest may do without this program.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod agent;
pub mod azure_guest;
pub mod evidence;
pub mod failure;
pub mod http;
pub mod printer;
pub mod release;
pub mod serve;
pub mod sev_guest;
pub mod token;
pub mod tpm;
