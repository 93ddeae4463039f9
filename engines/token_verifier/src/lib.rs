//! Tokens of pinned issuers: reading a JWS, finding the issuer's key, checking signature and times, and saying why not.
//!
//! Signatures are checked by `jsonwebtoken`; what is done here is choosing the key and naming the reason of a refusal. What
//! a token's claims permit is the business of the service that asks.

pub mod bearer;
pub mod jwks;
pub mod jws;
mod refusal;
mod remembered;
pub mod rsa;
mod verify;

pub use jwks::{Jwks, JwksError, JwksSource, SourceError};
pub use refusal::{Refusal, refusal};
pub use verify::{CLOCK_SKEW, Issuer, TokenError, VerifiedToken, missing, shown, verify};
