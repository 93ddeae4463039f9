//! The attestation service from outside: evidence of a software secure processor, and of AMD's silicon, against the
//! whole router; attacks are named after what the attacker does.

mod attacks;
mod azure_guest;
mod boot_references;
mod clients;
mod collateral;
mod discovery;
mod hardware;
mod kds;
mod minimum_tcb;
mod nonces;
mod offline;
mod operations;
mod policies;
mod process;
mod providers;
mod references;
mod requests;
mod revocation;
mod support;
mod tenants;
mod tokens;
mod tpm;
