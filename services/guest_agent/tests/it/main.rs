//! The guest agent against real peers: a TPM (swtpm), a software secure processor, a kernel as CUSE shows it.

mod kernel;
mod processor;
mod serve;
mod sev_guest;
mod swtpm;
mod tpm;
