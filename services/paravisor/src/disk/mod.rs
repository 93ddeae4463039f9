//! Block devices that the VM sees.

pub mod config_drive;
pub mod hole;
pub mod os_disk;
pub mod plain_disk;

use std::io;

/// A block device of fixed size. Ranges are checked by the caller ([`check_range`]) before any call.
pub trait BlockDevice: Send + Sync {
    /// Bytes.
    fn size(&self) -> u64;
    /// Whether writing is refused.
    fn read_only(&self) -> bool;
    /// Fills `buffer` from `offset`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `data` at `offset`.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Makes a range read as zeros; `keep_space` forbids holes.
    fn write_zeroes(&self, offset: u64, length: u64, keep_space: bool) -> io::Result<()>;
    /// Says that a range is not needed any more; it may read as anything afterwards.
    fn discard(&self, offset: u64, length: u64) -> io::Result<()>;
    /// Returns when everything written before is durable.
    fn flush(&self) -> io::Result<()>;
}

/// Whether `length` bytes at `offset` lie within `size`.
pub fn check_range(offset: u64, length: u64, size: u64) -> bool {
    offset.checked_add(length).is_some_and(|end| end <= size)
}
