//! AMD SEV-SNP evidence: formats, launch digest, certificate chains and the verification of attestation reports.
//!
//! What it is: a pure library. Bytes, trust anchors, revocation lists and the time are arguments; the same input gives
//! the same answer on every machine. What it is not: anything that opens a file or a socket, asks a clock, or decides
//! a policy (which measurement, which minimum firmware): that is the caller's, on a [`VerifiedReport`].
//!
//! Formats follow AMD's "SEV Secure Nested Paging Firmware ABI Specification" (publication 56860, called *ABI* below),
//! and its "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification" (57230, *KDS*).

mod bytes;
mod cache;
mod certificate;
pub mod chain;
mod consistency;
pub mod crl;
mod ecdsa;
mod error;
mod explain;
pub mod extensions;
pub mod id_block;
pub mod kds;
pub mod launch;
mod pem;
mod policy;
mod product;
pub mod psp;
pub mod report;
mod roots;
mod tcb;
mod verify;

pub use cache::{EvidenceError, VerifiedChains};
pub use chain::{CertChain, ChainDer, ChainError};
pub use crl::{CrlError, CrlScope, Crls, Revocation};
pub use error::{CertificateRole, VerifyError};
pub use explain::Explanation;
pub use policy::{GuestPolicy, PlatformInfo};
pub use product::{CpuIdentity, Product, Silicon, UnknownProduct};
pub use report::{Report, ReportError, SigningKey};
pub use roots::{AnchorError, RootId, TrustAnchors, TrustRoot, amd_ark_der, amd_ask_der};
pub use tcb::{TcbBytes, TcbVersion};
pub use verify::{VerifiedChain, VerifiedReport, verify, verify_chain, verify_report};

/// Seconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime(pub i64);

impl std::fmt::Display for UnixTime {
    /// RFC 3339 where the calendar reaches, else the bare number of seconds.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = u64::try_from(self.0).ok().map(std::time::Duration::from_secs);
        match time.and_then(|since| der::DateTime::from_unix_duration(since).ok()) {
            Some(time) => write!(f, "{time}"),
            None => write!(f, "{} s", self.0),
        }
    }
}
