//! Cryptography of the vault, all of it on AWS-LC: sealing at rest, RSA operations, wrapping for release, signing.

pub mod ready;
pub mod rsa;
pub mod seal;
pub mod signer;
pub mod wrap;
