//! What a confidential VM's TPM says, and what it will say: TPM 2.0 command framing, quotes, the TCG event log, the
//! HCL attestation report, and the prediction of a boot's PCRs from its disk and its firmware variables.
//!
//! Everything here is a function of bytes that the caller hands in, or of one stream; there is no network, no clock and
//! no TPM device. The bytes come from a guest, a host or a peer: parsers refuse what they do not know, and never panic.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod attest;
pub mod authenticode;
mod bytes;
mod certificate;
pub mod certify;
pub mod command;
pub mod esp;
pub mod event_log;
pub mod gpt;
pub mod guid;
pub mod hcl;
pub mod key;
pub mod measured_boot;
pub mod pcr;
pub mod predict;
pub mod public_area;
pub mod quote;
pub mod vars;

pub use attest::Clock;
pub use key::RsaPublic;
pub use pcr::PcrBank;
