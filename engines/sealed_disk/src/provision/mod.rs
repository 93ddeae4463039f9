//! Encrypting an image onto a VM's disk before its first boot.
//!
//! Each chunk of the image is read once, verified against the manifest, encrypted in the same buffer and written: the
//! bytes that were checked are the bytes that are used, whatever the host does to the image meanwhile. Partition table,
//! boot partition, LUKS2 header and backup table go into the [`BootRegion`]; the host's disk file gets ciphertext only,
//! between [`DiskLayout::data_start`] and [`DiskLayout::data_end`].
//!
//! Ciphertext of zeros is not zeros, so a hole may stay a hole only where nobody reads it: where the file system inside
//! says that the block is free. That shows the host which blocks of a public image are in use; [`Holes::WriteAll`]
//! avoids it.

use std::fs::File;
use std::io;

use crate::boot_region::{BootRegion, BootRegionError};
use crate::image::gpt::{Gpt, HEAD_BYTES};
use crate::image::{DiskLayout, ImageError, Manifest};
use crate::secret::VolumeKey;
use crate::storage::Storage;
use crate::xts::{WeakKey, Xts};

mod data;
mod target;
mod verified;

use verified::VerifiedImage;

/// What to do with blocks that are zeros in the image and free in its file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holes {
    /// Leave them as holes on the disk.
    SkipFree,
    /// Encrypt and write every block up to the data segment's end.
    WriteAll,
}

/// One disk to make.
pub struct Job<'a, S> {
    /// The raw image.
    pub image: &'a File,
    /// Its manifest, already matched with the digest that the launch document names.
    pub manifest: &'a Manifest,
    /// The disk file on the host; emptied first.
    pub disk: &'a File,
    /// From [`Manifest::disk_layout`].
    pub layout: DiskLayout,
    /// A new region over [`DiskLayout::spans`]; the caller flushes it.
    pub boot: &'a mut BootRegion<S>,
    /// Key of the data segment.
    pub volume_key: &'a VolumeKey,
    /// From [`crate::luks2::Format::write`], with sectors of 4096 bytes.
    pub luks_header: &'a [u8],
    /// Whether free blocks are left out.
    pub holes: Holes,
}

/// How far the work is, in bytes of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Done.
    pub done: u64,
    /// In all.
    pub total: u64,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Ciphertext written to the disk file.
    pub written: u64,
    /// Bytes left as holes.
    pub skipped: u64,
}

/// Why a disk was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// The image could not be read.
    #[error("reading the image at offset {offset}")]
    ReadImage {
        /// Where.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The image ends too early.
    #[error("the image is truncated: its manifest names bytes at offset {offset}")]
    ImageTruncated {
        /// Where.
        offset: u64,
    },
    /// The image is not the one of the manifest.
    #[error("the image is not the one of its manifest: the bytes at offset {offset} have another digest")]
    ImageChanged {
        /// Start of the chunk.
        offset: u64,
    },
    /// The disk file could not be written.
    #[error("writing the encrypted disk at offset {offset}")]
    WriteDisk {
        /// Where.
        offset: u64,
        /// What the system said (`StorageFull` if the host's disk is full).
        source: io::Error,
    },
    /// The boot region could not be written.
    #[error("writing the boot region")]
    BootRegion(#[from] BootRegionError),
    /// Partition table or layout.
    #[error("laying out the disk")]
    Image(#[from] ImageError),
    /// The volume key cannot be used.
    #[error("the volume key cannot be used")]
    WeakKey(#[from] WeakKey),
}

/// Makes the disk. The disk file is synced when this returns; boot region and guest state are the caller's to commit.
///
/// Uses the calling thread and one more, and a few MiB of memory whatever the image's size. Writes past the page cache
/// where the file system allows it: the ciphertext is not read again soon.
pub fn encrypt_image<S: Storage + Send>(
    job: Job<'_, S>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Summary, ProvisionError> {
    let Job { image, manifest, disk, layout, boot, volume_key, luks_header, holes } = job;
    let xts = Xts::new(volume_key.expose())?;
    let write_disk = |source| ProvisionError::WriteDisk { offset: 0, source };
    disk.set_len(0).and_then(|()| disk.set_len(layout.disk_bytes)).map_err(write_disk)?;
    let source = VerifiedImage { image, manifest };
    let target = target::Target::new(disk);
    let work = data::Work::new(source, &target, layout, &xts, holes, progress);
    let summary = std::thread::scope(|scope| {
        let other = scope.spawn(|| work.run());
        let boot = write_boot_region(source, &layout, boot, luks_header).inspect_err(|_| work.stop());
        let own = work.run();
        let other = other.join().expect("encrypting does not panic");
        boot?;
        Ok::<_, ProvisionError>(own?.plus(other?))
    })?;
    disk.sync_data().map_err(write_disk)?;
    Ok(summary)
}

impl Summary {
    fn plus(self, other: Self) -> Self {
        Self { written: self.written + other.written, skipped: self.skipped + other.skipped }
    }
}

/// Everything outside the data segment.
fn write_boot_region<S: Storage>(
    source: VerifiedImage<'_>,
    layout: &DiskLayout,
    boot: &mut BootRegion<S>,
    luks_header: &[u8],
) -> Result<(), ProvisionError> {
    let size = source.manifest.size;
    copy(source, 0..layout.header_start, boot)?;
    boot.write_at(layout.header_start, luks_header)?;
    if layout.disk_bytes == size {
        return copy(source, layout.data_end..size, boot);
    }
    // What lies between the image's root partition and its backup table stays, if the partition did not grow over it.
    let backup_start = size.saturating_sub(33 * 512);
    if layout.data_end < backup_start {
        copy(source, layout.data_end..backup_start, boot)?;
    }
    let mut head = vec![0; HEAD_BYTES];
    boot.read_at(0, &mut head)?;
    let grown = Gpt::parse(&head, size)?.grow(source.manifest.root, layout.data_end, layout.disk_bytes);
    boot.write_at(0, &grown.head)?;
    boot.write_at(layout.disk_bytes - grown.backup.len() as u64, &grown.backup)?;
    Ok(())
}

fn copy<S: Storage>(
    source: VerifiedImage<'_>,
    range: std::ops::Range<u64>,
    boot: &mut BootRegion<S>,
) -> Result<(), ProvisionError> {
    let mut buffer = source.buffer();
    for index in source.chunks_of(&range) {
        if source.manifest.is_zeros(index) {
            continue;
        }
        let chunk = source.manifest.chunk_range(index);
        let bytes = source.read(index, &mut buffer)?;
        let (start, end) = (range.start.max(chunk.start), range.end.min(chunk.end));
        let cut = |offset: u64| usize::try_from(offset - chunk.start).expect("1 MiB at most");
        boot.write_at(start, &bytes[cut(start)..cut(end)])?;
    }
    Ok(())
}
