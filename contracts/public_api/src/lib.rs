//! Every type that an outsider sends to Casemate or receives from it.
//!
//! What it is: shapes, units and spellings, with the document each was taken from. What it is not: business rules,
//! storage, trust decisions. The typed client stands behind the feature `client`.

pub mod assignment;
pub mod attestation;
pub mod attestation_keys;
pub mod attestation_policy;
pub mod collateral;
pub mod decision_log;
pub mod denial;
pub mod encoding;
pub mod jwk;
pub mod key_generations;
pub mod key_import;
pub mod key_operations;
pub mod key_roles;
pub mod key_rotation;
pub mod keys;
pub mod resource_id;
pub mod vaults;

#[cfg(feature = "client")]
pub mod client;

pub use denial::Denial;
