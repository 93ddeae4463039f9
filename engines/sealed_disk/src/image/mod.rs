//! Guest images: what lies where in one, and the manifest that pins every byte of it.
//!
//! An image can be encrypted in place of its first boot when it has a GUID partition table, one EFI system partition and
//! one root partition whose ext4 leaves 16 MiB free at the partition's end: the file system moves up behind the LUKS2
//! header, and nothing has to shrink.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use uuid::Uuid;

use crate::boot_region::Spans;
use crate::luks2;

pub(crate) mod ext4;
pub(crate) mod gpt;
mod manifest;

pub use gpt::Partition;
pub use manifest::{CHUNK_BYTES, ChunkDigest, Facts, Manifest};

/// EFI system partition.
pub const ESP_TYPE: Uuid = Uuid::from_u128(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b);
/// Root partition for x86-64 (Discoverable Partitions Specification).
pub const ROOT_TYPE: Uuid = Uuid::from_u128(0x4f68bce3_e8cd_4db1_96e7_fbcaf984b709);
/// Any Linux file system: taken as root if it is the only one and no partition has [`ROOT_TYPE`].
pub const LINUX_TYPE: Uuid = Uuid::from_u128(0x0fc63daf_8483_4772_8e79_3d69d8477de4);

/// Why an image cannot be used, or a manifest not be understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The image could not be read.
    #[error("reading the image")]
    Io(#[from] io::Error),
    /// No GUID partition table, or a damaged one.
    #[error("the image has no usable GUID partition table: {0}")]
    PartitionTable(&'static str),
    /// Something lies behind the image's end.
    #[error(
        "the image is cut off, or its partition table damaged: {field} is byte {last}, the image has {size} bytes"
    )]
    CutOff {
        /// The field of the partition table that says so.
        field: String,
        /// The last byte that must be there.
        last: u64,
        /// Size of the image.
        size: u64,
    },
    /// The partition is missing or not unique.
    #[error("the image needs exactly one {what}, it has {found}")]
    Partitions {
        /// Which kind.
        what: &'static str,
        /// How many.
        found: usize,
    },
    /// The root partition's place or size does not fit.
    #[error("the image's root partition cannot be encrypted in place: {0}")]
    RootPartition(String),
    /// The root file system is not ext4 in a form that is understood.
    #[error("the image's root file system cannot be used: {0}")]
    FileSystem(&'static str),
    /// The manifest is not one.
    #[error("the image manifest is malformed: {0}")]
    Manifest(String),
    /// The disk is smaller than the image.
    #[error("the disk has {disk} bytes, the image needs {image}")]
    DiskTooSmall {
        /// Size of the disk.
        disk: u64,
        /// Size of the image.
        image: u64,
    },
}

/// What lies where in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// All partitions by number.
    pub partitions: Vec<Partition>,
    /// Number of the EFI system partition.
    pub esp: u32,
    /// Number of the root partition.
    pub root: u32,
    /// Bytes of the root file system.
    pub filesystem_bytes: u64,
}

impl Layout {
    /// Reads partition table and root file system, and checks that the image can be encrypted in place.
    pub fn discover(image: &File) -> Result<Self, ImageError> {
        let size = image.metadata()?.len();
        let mut head = vec![0; gpt::HEAD_BYTES];
        read(image, 0, &mut head, ImageError::PartitionTable("the image is too short for one"))?;
        let table = gpt::Gpt::parse(&head, size)?;
        table.check_backup(size)?;
        let partitions = table.partitions;
        let esp = only(&partitions, "EFI system partition", &[ESP_TYPE])?;
        let root = only(&partitions, "root partition", &[ROOT_TYPE, LINUX_TYPE])?;
        let mut superblock = [0; ext4::SUPERBLOCK_BYTES];
        let place = root.start + ext4::SUPERBLOCK_OFFSET;
        read(image, place, &mut superblock, ImageError::FileSystem("the image ends before its superblock"))?;
        let filesystem_bytes = ext4::Superblock::parse(&superblock)?.bytes();
        let (esp, root) = (esp.number, root.number);
        let layout = Self { esp, root, filesystem_bytes, partitions: partitions.clone() };
        layout.check()?;
        Ok(layout)
    }

    /// The root partition.
    pub fn root(&self) -> &Partition {
        self.partition(self.root).expect("checked when the layout was made")
    }

    /// The EFI system partition.
    pub fn esp(&self) -> &Partition {
        self.partition(self.esp).expect("checked when the layout was made")
    }

    fn partition(&self, number: u32) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.number == number)
    }

    /// Everything that provisioning relies on.
    fn check(&self) -> Result<(), ImageError> {
        let missing = |what| ImageError::Partitions { what, found: 0 };
        self.partition(self.esp).ok_or(missing("EFI system partition"))?;
        let root = self.partition(self.root).ok_or(missing("root partition"))?;
        if !root.start.is_multiple_of(4096) || !root.bytes.is_multiple_of(4096) {
            return Err(ImageError::RootPartition(
                "its start or size is not a multiple of 4096 bytes".into(),
            ));
        }
        if !self.filesystem_bytes.is_multiple_of(4096) {
            return Err(ImageError::FileSystem("its size is not a multiple of 4096 bytes"));
        }
        if self.filesystem_bytes.saturating_add(luks2::DATA_OFFSET) > root.bytes {
            return Err(ImageError::RootPartition(format!(
                "its file system takes {} of {} bytes; 16 MiB at the end must be free for the LUKS2 header",
                self.filesystem_bytes, root.bytes
            )));
        }
        Ok(())
    }
}

/// What lies where on a VM's OS disk, which may be larger than its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskLayout {
    /// Size of the disk.
    pub disk_bytes: u64,
    /// Start of the root partition: the LUKS2 header.
    pub header_start: u64,
    /// Start of the ciphertext on the host's disk file: 16 MiB behind `header_start`.
    pub data_start: u64,
    /// End of the ciphertext: the root partition's end (grown to the disk if it is the last partition).
    pub data_end: u64,
}

impl DiskLayout {
    /// The disk ranges that the boot region holds: all but the ciphertext.
    pub fn spans(&self) -> Spans {
        Spans { head: self.data_start, tail: self.data_end, disk: self.disk_bytes }
    }
}

fn only<'a>(
    partitions: &'a [Partition],
    what: &'static str,
    types: &[Uuid],
) -> Result<&'a Partition, ImageError> {
    for kind in types {
        let found: Vec<_> = partitions.iter().filter(|partition| partition.type_guid == *kind).collect();
        match found[..] {
            [] => continue,
            [one] => return Ok(one),
            _ => return Err(ImageError::Partitions { what, found: found.len() }),
        }
    }
    Err(ImageError::Partitions { what, found: 0 })
}

fn read(file: &File, offset: u64, buffer: &mut [u8], short: ImageError) -> Result<(), ImageError> {
    file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => short,
        _ => ImageError::Io(error),
    })
}
