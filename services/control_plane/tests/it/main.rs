//! The control plane as a whole: real HTTPS, real database, real tokens, a simulated host agent, a key service that
//! keeps its keys in memory, and, where providers are made, the attestation service itself.

mod attestation;
mod attestation_providers;
mod authorisation;
mod binary;
mod bodies;
mod clients;
mod crashes;
mod hosts;
mod installation;
mod key_double;
mod key_service;
mod lifecycle;
mod resources;
mod sign_in;
mod vaults;
mod vm_keys;
