//! The boot region as a seekable stream of the whole disk's length.

use std::io::{self, Read, Seek, SeekFrom};

use super::BootRegion;
use crate::storage::Storage;

/// Reads at disk offsets; bytes of the data segment are an error of kind `PermissionDenied`.
pub struct RegionReader<'a, S> {
    region: &'a mut BootRegion<S>,
    position: u64,
}

impl<'a, S: Storage> RegionReader<'a, S> {
    pub(super) fn new(region: &'a mut BootRegion<S>) -> Self {
        Self { region, position: 0 }
    }
}

impl<S: Storage> Read for RegionReader<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.region.spans().disk || buffer.is_empty() {
            return Ok(0);
        }
        let piece = self.region.spans().locate(self.position).ok_or_else(|| {
            io::Error::new(io::ErrorKind::PermissionDenied, "the data segment is not part of the boot region")
        })?;
        let take = piece.available.min(buffer.len());
        self.region.read_at(self.position, &mut buffer[..take]).map_err(io::Error::other)?;
        self.position += take as u64;
        Ok(take)
    }
}

impl<S: Storage> Seek for RegionReader<'_, S> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(delta) => self.region.spans().disk.checked_add_signed(delta),
            SeekFrom::Current(delta) => self.position.checked_add_signed(delta),
        };
        self.position =
            target.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seek before the start"))?;
        Ok(self.position)
    }
}
