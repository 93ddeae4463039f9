//! As much of ext4 as is needed to know its size and which blocks are free (Linux documentation, "ext4 Data Structures
//! and Algorithms"): superblock, group descriptors, block bitmaps.
//!
//! A block counts as free only if that is certain: whatever is not understood counts as used.

use std::ops::Range;

use super::ImageError;

/// Where the superblock starts.
pub(crate) const SUPERBLOCK_OFFSET: u64 = 1024;
/// How much of it is read.
pub(crate) const SUPERBLOCK_BYTES: usize = 1024;
/// The only block size with which a LUKS2 volume of 4096-byte sectors can be mounted everywhere.
pub(crate) const BLOCK_BYTES: u64 = 4096;

const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_META_BG: u32 = 0x10;
const INCOMPAT_64BIT: u32 = 0x80;
const RO_COMPAT_BIGALLOC: u32 = 0x200;
const GROUP_BLOCK_UNINIT: u16 = 0x2;
const STATE_CLEAN: u16 = 1;

/// What is needed of the superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    blocks: u64,
    blocks_per_group: u64,
    inode_table_blocks: u64,
    reserved_descriptor_blocks: u64,
    descriptor_bytes: usize,
    /// Clean, and with bitmaps that mean what this module thinks.
    bitmaps_are_usable: bool,
}

impl Superblock {
    pub(crate) fn parse(bytes: &[u8; SUPERBLOCK_BYTES]) -> Result<Self, ImageError> {
        let wrong = |what| Err(ImageError::FileSystem(what));
        if number16(bytes, 0x38) != 0xef53 {
            return wrong("it is not ext4");
        }
        if number32(bytes, 0x18) != 2 {
            return wrong("its blocks are not of 4096 bytes, which LUKS2 sectors of 4096 bytes need");
        }
        let (incompat, ro_compat) = (number32(bytes, 0x60), number32(bytes, 0x64));
        let wide = incompat & INCOMPAT_64BIT != 0;
        let high = if wide { u64::from(number32(bytes, 0x150)) << 32 } else { 0 };
        let descriptor_bytes = if wide { usize::from(number16(bytes, 0xfe)) } else { 32 };
        let (blocks_per_group, inodes_per_group) =
            (u64::from(number32(bytes, 0x20)), u64::from(number32(bytes, 0x28)));
        if blocks_per_group == 0 || !matches!(descriptor_bytes, 32 | 64) {
            return wrong("its superblock is damaged");
        }
        let not_understood = incompat & (INCOMPAT_RECOVER | INCOMPAT_META_BG) != 0
            || ro_compat & RO_COMPAT_BIGALLOC != 0
            || blocks_per_group > 8 * BLOCK_BYTES;
        Ok(Self {
            blocks: high | u64::from(number32(bytes, 4)),
            blocks_per_group,
            inode_table_blocks: (inodes_per_group * u64::from(number16(bytes, 0x58))).div_ceil(BLOCK_BYTES),
            reserved_descriptor_blocks: u64::from(number16(bytes, 0xce)),
            descriptor_bytes,
            bitmaps_are_usable: !not_understood && number16(bytes, 0x3a) == STATE_CLEAN,
        })
    }

    /// Size of the file system.
    pub(crate) fn bytes(&self) -> u64 {
        self.blocks.saturating_mul(BLOCK_BYTES)
    }

    fn groups(&self) -> u64 {
        self.blocks.div_ceil(self.blocks_per_group)
    }

    fn descriptor_blocks(&self) -> u64 {
        (self.groups() * self.descriptor_bytes as u64).div_ceil(BLOCK_BYTES)
    }
}

/// Reads at an offset of the file system.
pub(crate) trait ReadAt {
    type Error;
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error>;
}

/// Tells free blocks from used ones, reading one group's bitmap at a time.
pub(crate) struct FreeBlocks {
    superblock: Superblock,
    descriptors: Vec<Descriptor>,
    /// The group whose bitmap is in memory.
    group: Option<(u64, Vec<u8>)>,
}

#[derive(Clone, Copy)]
struct Descriptor {
    block_bitmap: u64,
    inode_bitmap: u64,
    inode_table: u64,
    uninit: bool,
}

impl FreeBlocks {
    /// Reads superblock and group descriptors. `None` if nothing can be said: then every block counts as used.
    pub(crate) fn read<R: ReadAt>(reader: &mut R) -> Result<Option<Self>, R::Error> {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        reader.read_at(SUPERBLOCK_OFFSET, &mut bytes)?;
        let Ok(superblock) = Superblock::parse(&bytes) else { return Ok(None) };
        if !superblock.bitmaps_are_usable {
            return Ok(None);
        }
        let Ok(groups) = usize::try_from(superblock.groups()) else { return Ok(None) };
        let mut table = vec![0; groups * superblock.descriptor_bytes];
        reader.read_at(BLOCK_BYTES, &mut table)?;
        let descriptors = table.chunks_exact(superblock.descriptor_bytes).map(Descriptor::parse).collect();
        Ok(Some(Self { superblock, descriptors, group: None }))
    }

    /// Whether the file system has no use for this block. Blocks behind its end are free.
    pub(crate) fn is_free<R: ReadAt>(&mut self, block: u64, reader: &mut R) -> Result<bool, R::Error> {
        if block >= self.superblock.blocks {
            return Ok(true);
        }
        let group = block / self.superblock.blocks_per_group;
        let bit = usize::try_from(block % self.superblock.blocks_per_group)
            .expect("a group has 32768 blocks at most");
        if self.group.as_ref().is_none_or(|(loaded, _)| *loaded != group) {
            let bitmap = self.load(group, reader)?;
            self.group = Some((group, bitmap));
        }
        let (_, bitmap) = self.group.as_ref().expect("just loaded");
        Ok(bitmap[bit / 8] >> (bit % 8) & 1 == 0)
    }

    fn load<R: ReadAt>(&self, group: u64, reader: &mut R) -> Result<Vec<u8>, R::Error> {
        let index = usize::try_from(group).expect("groups were counted as usize");
        let descriptor = self.descriptors[index];
        if descriptor.uninit {
            return Ok(self.bitmap_of_uninitialised(group));
        }
        let mut bitmap = vec![0; usize::try_from(BLOCK_BYTES).expect("4096")];
        if descriptor.block_bitmap >= self.superblock.blocks {
            bitmap.fill(0xff);
            return Ok(bitmap);
        }
        reader.read_at(descriptor.block_bitmap * BLOCK_BYTES, &mut bitmap)?;
        Ok(bitmap)
    }

    /// A group whose bitmap was never written holds metadata only: its possible copies of superblock and descriptors,
    /// and any group's bitmaps and inode table that lie in it.
    fn bitmap_of_uninitialised(&self, group: u64) -> Vec<u8> {
        let superblock = &self.superblock;
        let first = group * superblock.blocks_per_group;
        let own = first..first + superblock.blocks_per_group;
        let mut bitmap = vec![0; usize::try_from(BLOCK_BYTES).expect("4096")];
        let copies = 1 + superblock.descriptor_blocks() + superblock.reserved_descriptor_blocks;
        mark(&mut bitmap, &own, first..first + copies);
        for other in &self.descriptors {
            mark(&mut bitmap, &own, other.block_bitmap..other.block_bitmap.saturating_add(1));
            mark(&mut bitmap, &own, other.inode_bitmap..other.inode_bitmap.saturating_add(1));
            let end = other.inode_table.saturating_add(superblock.inode_table_blocks);
            mark(&mut bitmap, &own, other.inode_table..end);
        }
        bitmap
    }
}

fn mark(bitmap: &mut [u8], own: &Range<u64>, used: Range<u64>) {
    for block in used.start.max(own.start)..used.end.min(own.end) {
        let bit = usize::try_from(block - own.start).expect("a group has 32768 blocks at most");
        bitmap[bit / 8] |= 1 << (bit % 8);
    }
}

impl Descriptor {
    fn parse(bytes: &[u8]) -> Self {
        let wide = |low: usize, high: usize| {
            let high = if bytes.len() == 64 { u64::from(number32(bytes, high)) << 32 } else { 0 };
            high | u64::from(number32(bytes, low))
        };
        Self {
            block_bitmap: wide(0x0, 0x20),
            inode_bitmap: wide(0x4, 0x24),
            inode_table: wide(0x8, 0x28),
            uninit: number16(bytes, 0x12) & GROUP_BLOCK_UNINIT != 0,
        }
    }
}

fn number16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn number32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
