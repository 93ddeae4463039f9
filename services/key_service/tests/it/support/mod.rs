//! Doubles at the edges: token issuers with keys of their own, a clock that is set by hand, a vault in a folder.

pub mod issuer;
pub mod jwk;
pub mod postgres;
pub mod program;
pub mod softhsm;
pub mod unwrap;
pub mod vault;
pub mod vaults;
