//! The host's disk file, written past its page cache (direct I/O) where its file system can do that.
//!
//! Ciphertext in the page cache would only push other things out, cost a copy, and leave the disk idle until the sync.

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

use nix::fcntl::OFlag;

use super::ProvisionError;

const PAGE: usize = 4096;

pub(super) struct Target<'a> {
    disk: &'a File,
    direct: Option<File>,
}

impl<'a> Target<'a> {
    pub(super) fn new(disk: &'a File) -> Self {
        let path = format!("/proc/self/fd/{}", disk.as_raw_fd());
        let direct = File::options().write(true).custom_flags(OFlag::O_DIRECT.bits()).open(path).ok();
        Self { disk, direct }
    }

    /// Writes bytes of a [`PageBuffer`]; both ends on the disk are multiples of 4096.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), ProvisionError> {
        let written = match &self.direct {
            // Some file systems allow opening for direct I/O, but not every write; the plain way says what is wrong.
            Some(direct) => match direct.write_all_at(bytes, offset) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.disk.write_all_at(bytes, offset)
                }
                other => other,
            },
            None => self.disk.write_all_at(bytes, offset),
        };
        written.map_err(|source| ProvisionError::WriteDisk { offset, source })
    }
}

/// Bytes whose first one is page-aligned.
pub(super) struct PageBuffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl PageBuffer {
    /// Zeros.
    pub(super) fn new(length: usize) -> Self {
        let bytes = vec![0; length + PAGE];
        let start = bytes.as_ptr().align_offset(PAGE).min(PAGE);
        Self { bytes, start, length }
    }
}

impl Deref for PageBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }
}

impl DerefMut for PageBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}
