//! Tokens: reading a JWS, checking it under the keys of a pinned issuer, and the two kinds that the vault takes.
//!
//! Signatures are checked by `jsonwebtoken`; what is done here is choosing the key and naming the reason of a refusal.

pub mod caller;
pub mod evidence;
pub mod jwks;
mod jws;
mod verify;

pub use verify::{Issuer, TokenError, shown};
