//! Cryptography of the vault, all of it on AWS-LC: sealing at rest, the operations of each kind of key, wrapping for
//! release, signing answers.

pub mod ec;
pub mod error;
pub mod import;
pub mod kind;
pub mod master;
pub mod oct;
pub mod opened;
pub mod ready;
pub mod rsa;
pub mod seal;
pub mod sign;
pub mod signer;
pub mod wrap;
