//! The attestation service from outside: evidence of a software secure processor, and of AMD's silicon, against the
//! whole router; attacks are named after what the attacker does.

mod attacks;
mod azure_guest;
mod discovery;
mod hardware;
mod nonces;
mod offline;
mod process;
mod requests;
mod revocation;
mod support;
mod tokens;
mod tpm;
