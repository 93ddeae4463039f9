//! devkit's guest on a paravisor in process.

use std::io;
use std::sync::Arc;

use devkit::guest::Devices;
use devkit::guest::disk::Disk;
pub use devkit::guest::{NoVolume, pcrs};
use paravisor::disk::BlockDevice;
use paravisor::flow::start::Running;
use paravisor::tpm::server::TpmDevice as _;

/// A guest of a running paravisor.
pub type Guest<'a> = devkit::guest::Guest<Direct<'a>>;

/// The devices themselves, without sockets.
pub struct Direct<'a>(&'a Running);

impl<'a> From<&'a Running> for Direct<'a> {
    fn from(running: &'a Running) -> Self {
        Self(running)
    }
}

impl Devices for Direct<'_> {
    fn power_on(&self) -> bool {
        self.0.tpm().lock().unwrap().power_on()
    }

    fn tpm(&self, command: &[u8]) -> Vec<u8> {
        self.0.tpm().lock().unwrap().command(command)
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(OsDisk(self.0.disk()))
    }
}

/// The VM's disk as its guest has it.
pub struct OsDisk(pub Arc<dyn BlockDevice>);

impl Disk for OsDisk {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(data, offset)
    }
}
