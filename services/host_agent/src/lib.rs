//! The host agent: runs the VMs that the control plane assigned to this host, measures what it launches, and reports
//! what it sees.
//!
//! It handles ciphertext only. Keys, the guest's TPM and the guest's boot chain are the paravisor's; the agent starts it,
//! starts QEMU beside it, and carries messages. Nothing that it says is believed by a tenant: what matters is in the
//! launch digest, in HOST_DATA, or under the paravisor's MAC.
//!
//! VMs outlive the agent. It finds them again by what it wrote down and by the process table.

mod accelerator;
mod agent;
mod chip;
mod config;
mod crash;
mod failure;
mod forward;
mod host;
mod image;
mod launch;
mod metadata;
mod ports;
mod process;
mod qemu;
mod qmp;
mod vm;

pub use accelerator::{ProbeResult, probe};
pub use agent::{AgentError, drain, run};
pub use config::{AcceleratorChoice, Config, ConfigError};
pub use forward::forward;
