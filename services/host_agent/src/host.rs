//! What all VMs of the host share.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use internal_api::host::{Accelerator, HostCapacity, HostChip, VmSpec};
use internal_api::paravisor::Failure;
use snp::launch::CpuModel;

use crate::config::Config;
use crate::crash::CrashPlan;
use crate::launch::SecureProcessor;
use crate::ports::Ports;
use crate::{failure, image};

/// The host.
pub struct Host {
    /// Configuration.
    pub config: Config,
    /// How guest code is run.
    pub accelerator: Accelerator,
    /// Model whose signature is measured.
    pub cpu: CpuModel,
    /// The secure processor.
    pub processor: Box<dyn SecureProcessor>,
    /// Its chip, once it was seen.
    pub chip: OnceLock<HostChip>,
    /// Where to crash, in crash tests.
    pub crash: CrashPlan,
    /// SSH ports.
    pub ports: Ports,
    /// HTTP client without an identity, for the key distribution service.
    pub http: reqwest::Client,
    /// This program, for QEMU's metadata forward.
    pub forwarder: PathBuf,
}

impl Host {
    /// What the host offers.
    pub fn capacity(&self) -> HostCapacity {
        HostCapacity {
            region: self.config.region.clone(),
            platform: self.config.platform,
            accelerator: self.accelerator,
            vcpus: self.config.vcpus,
            memory_mib: self.config.memory_mib,
            chip: self.chip.get().cloned(),
        }
    }

    /// Finds the image of `spec`.
    pub fn image(&self, spec: &VmSpec) -> Result<image::Image, Box<Failure>> {
        image::find(&self.config.image_dir, &spec.image_digest)
    }

    /// A port for SSH.
    pub fn take_port(&self, former: Option<u16>) -> Result<u16, Box<Failure>> {
        self.ports.take(former).ok_or_else(|| {
            let [first, last] = self.config.ssh_ports;
            let expected = format!("a free loopback port from {first} to {last}");
            failure::transient("NoFreePort", "forward SSH to the guest", &expected, "all are taken")
        })
    }
}

/// Unix milliseconds.
pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Removes a file that may be missing, such as a socket of a former start.
pub fn remove_stale(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a stale file could not be removed");
    }
}
