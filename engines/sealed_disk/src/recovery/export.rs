//! From a document, a boot region and a disk file to one plain disk. All checks come first; then bytes are copied.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use uuid::Uuid;

use super::Contents;
use crate::boot_region::{BootRegion, BootRegionError, CHUNK_BYTES, Spans};
use crate::image::ext4::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, Superblock};
use crate::luks2::{self, CheckedHeader, DATA_OFFSET, HeaderRefusal};
use crate::secret::{Passphrase, VolumeKey};
use crate::xts::Xts;

const HEADER_BYTES: usize = luks2::COPIES_BYTES + luks2::MAX_KEYSLOTS * luks2::AREA_BYTES;
const SECTOR: usize = 4096;

/// Why nothing is exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A file could not be read or written.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The boot region is not the one that the document names.
    #[error("reading the boot region")]
    Region(#[from] BootRegionError),
    /// The document's numbers contradict each other.
    #[error("the document's layout is not one of a disk")]
    Layout,
    /// The disk file is shorter or longer than the disk.
    #[error("the disk file has {actual} bytes, the disk has {expected}")]
    DiskSize {
        /// Size of the disk.
        expected: u64,
        /// Size of the file.
        actual: u64,
    },
    /// Authentic, but not as the VM's own start would accept it.
    #[error("what the guest made of its disk")]
    Damaged(#[from] Damage),
}

/// What the guest itself (not the host) may have brought about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The header is not of the allowed form.
    #[error("the LUKS2 header is not of the allowed form")]
    Header(#[from] HeaderRefusal),
    /// The header is another volume's.
    #[error("the LUKS2 header has the UUID {found} instead of {expected}")]
    OtherVolume {
        /// The VM's volume.
        expected: Uuid,
        /// The header's.
        found: Uuid,
    },
    /// The recovery passphrase opens nothing.
    #[error("no keyslot of the LUKS2 header opens with the recovery passphrase")]
    NoKeyslot,
    /// The data do not begin with the root file system under the volume key: another disk, or an overwritten one.
    #[error("the data do not begin with a file system of this volume key")]
    OtherDisk,
}

/// A disk that was checked and can be written.
pub struct Export<'a> {
    disk: &'a File,
    region: BootRegion<&'a File>,
    header_start: u64,
    /// Both copies, if they had to be made equal after an interrupted write.
    repaired: Option<Vec<u8>>,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Size of the image.
    pub bytes: u64,
    /// Start of the LUKS2 volume in it.
    pub volume_start: u64,
    /// End of the LUKS2 volume in it.
    pub volume_end: u64,
}

impl<'a> Export<'a> {
    /// Opens the boot region and checks every byte of it, and the size of the disk file. Reads no data.
    pub fn open(
        vm_id: Uuid,
        contents: &Contents,
        region: &'a File,
        disk: &'a File,
    ) -> Result<Self, ExportError> {
        let region = BootRegion::open(region, vm_id, &contents.region_key, &contents.table)?;
        let Spans { head, disk: expected, .. } = *region.spans();
        let actual = disk.metadata().map_err(io_error("looking at the disk file"))?.len();
        if actual != expected {
            return Err(ExportError::DiskSize { expected, actual });
        }
        if contents.header_start.checked_add(DATA_OFFSET) != Some(head) {
            return Err(ExportError::Layout);
        }
        region.verify()?;
        Ok(Self { disk, region, header_start: contents.header_start, repaired: None })
    }

    /// Checks what only the guest can have changed: the header's form and volume, that the recovery passphrase opens it, and
    /// that the ciphertext is this volume's.
    pub fn check(&mut self, luks_uuid: Uuid, passphrase: &Passphrase) -> Result<(), ExportError> {
        let mut header = vec![0; HEADER_BYTES];
        self.region.read_at(self.header_start, &mut header)?;
        let repaired = luks2::repair(&mut header).map_err(Damage::from)?;
        let checked = luks2::check(&header).map_err(Damage::from)?;
        if checked.uuid != luks_uuid {
            return Err(Damage::OtherVolume { expected: luks_uuid, found: checked.uuid }.into());
        }
        let key = checked.unlock(&header, passphrase).map_err(|_| Damage::NoKeyslot)?;
        self.check_data(&checked, &key)?;
        header.truncate(luks2::COPIES_BYTES);
        self.repaired = repaired.then_some(header);
        Ok(())
    }

    fn check_data(&self, header: &CheckedHeader, key: &VolumeKey) -> Result<(), ExportError> {
        let mut sector = vec![0; SECTOR];
        let start = self.region.spans().head;
        self.disk.read_exact_at(&mut sector, start).map_err(io_error("reading the disk file"))?;
        let xts = Xts::new(key.expose()).map_err(|_| Damage::OtherDisk)?;
        xts.decrypt_in_place(&mut sector, 0, header.sector_size.bytes());
        let place = usize::try_from(SUPERBLOCK_OFFSET).expect("1024");
        let superblock = sector[place..place + SUPERBLOCK_BYTES].try_into().expect("of this length");
        Superblock::parse(&superblock).map_err(|_| Damage::OtherDisk)?;
        Ok(())
    }

    /// Writes the disk into an empty file, with holes where there is nothing.
    pub fn write(mut self, to: &File) -> Result<Exported, ExportError> {
        let Spans { head, tail, disk } = *self.region.spans();
        to.set_len(disk).map_err(io_error("making the image"))?;
        self.copy_region(0..head, to)?;
        self.copy_region(tail..disk, to)?;
        if let Some(header) = &self.repaired {
            to.write_all_at(header, self.header_start).map_err(io_error("writing the image"))?;
        }
        copy_sparse(self.disk, head..tail, to)?;
        to.sync_all().map_err(io_error("writing the image"))?;
        Ok(Exported { bytes: disk, volume_start: self.header_start, volume_end: tail })
    }

    fn copy_region(&mut self, range: Range<u64>, to: &File) -> Result<(), ExportError> {
        let mut buffer = vec![0; CHUNK_BYTES];
        for (offset, length) in pieces(range, CHUNK_BYTES) {
            let part = &mut buffer[..length];
            self.region.read_at(offset, part)?;
            write_unless_zero(to, offset, part)?;
        }
        Ok(())
    }
}

fn io_error(doing: &'static str) -> impl Fn(io::Error) -> ExportError {
    move |source| ExportError::Io { doing, source }
}

/// Offset and length of each piece of a range.
fn pieces(range: Range<u64>, most: usize) -> impl Iterator<Item = (u64, usize)> {
    let end = range.end;
    range
        .step_by(most)
        .map(move |offset| (offset, usize::try_from(end - offset).unwrap_or(usize::MAX).min(most)))
}

fn write_unless_zero(to: &File, offset: u64, bytes: &[u8]) -> Result<(), ExportError> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    to.write_all_at(bytes, offset).map_err(io_error("writing the image"))
}

/// Copies what is there; holes stay holes.
fn copy_sparse(from: &File, range: Range<u64>, to: &File) -> Result<(), ExportError> {
    let mut buffer = vec![0; 1 << 20];
    let mut at = range.start;
    while let Some(extent) = next_data(from, at, range.end).map_err(io_error("reading the disk file"))? {
        at = extent.end;
        for (offset, length) in pieces(extent, buffer.len()) {
            let part = &mut buffer[..length];
            from.read_exact_at(part, offset).map_err(io_error("reading the disk file"))?;
            write_unless_zero(to, offset, part)?;
        }
    }
    Ok(())
}

/// The next bytes that are there, from `at` and before `end`.
fn next_data(file: &File, at: u64, end: u64) -> io::Result<Option<Range<u64>>> {
    let seek = |at: u64, whence| -> io::Result<Option<u64>> {
        let at = i64::try_from(at).map_err(io::Error::other)?;
        match lseek(file, at, whence) {
            Err(Errno::ENXIO) => Ok(None),
            found => Ok(Some(u64::try_from(found?).map_err(io::Error::other)?)),
        }
    };
    if at >= end {
        return Ok(None);
    }
    let Some(start) = seek(at, Whence::SeekData)?.filter(|start| *start < end) else { return Ok(None) };
    let stop = seek(start, Whence::SeekHole)?.unwrap_or(end).min(end);
    Ok(Some(start..stop))
}
