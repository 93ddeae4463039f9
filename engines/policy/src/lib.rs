//! The two policy languages of Casemate, as pure functions: parse, check, evaluate, explain.
//!
//! [`language`] is the attestation-policy language of Azure Attestation (versions 1.0 to 1.2): which evidence is
//! permitted and which claims the token shows. [`release`] is the key-release policy of Key Vault: which token gets a
//! key. What this crate is not: it knows no report format, no signature, no clock and no network. Both evaluations do
//! bounded work on hostile input, and both can only say yes through a value that nobody else can make.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod language;
mod query;
pub mod release;
