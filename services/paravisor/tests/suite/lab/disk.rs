//! The boot partition of a running VM, as the guest mounts it.

use std::sync::Arc;

use paravisor::disk::BlockDevice;

use super::guest::OsDisk;

/// The boot partition.
pub struct Esp;

impl Esp {
    pub fn mount(disk: Arc<dyn BlockDevice>) -> devkit::guest::disk::Esp {
        devkit::guest::disk::Esp::mount(Arc::new(OsDisk(disk)))
    }
}
