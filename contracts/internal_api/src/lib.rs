//! Messages between the control plane, the host agent and the paravisor.
//!
//! What it is: the wanted VM ([`VmSpec`]), the seen VM ([`VmState`]), the launch document that HOST_DATA binds, the
//! paravisor's configuration and its events. What it is not: anything that a tenant sees, and any secret.

pub mod host;
pub mod launch;
pub mod paravisor;

#[cfg(feature = "client")]
pub mod client;
