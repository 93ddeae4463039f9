//! GUID partition tables (UEFI specification, section 5.3) with 512-byte blocks: read, and grown to a larger disk.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ImageError;
use crate::crypto::crc32;

/// Protective MBR, header and 128 entries: what [`Gpt::parse`] needs from the disk's start.
pub(crate) const HEAD_BYTES: usize = 34 * BLOCK;
const BLOCK: usize = 512;
const BLOCK_U64: u64 = 512;
const HEADER_BYTES: usize = 92;
const ENTRY_BYTES: usize = 128;
const MAX_ENTRIES: usize = 128;
const ENTRIES_AT: usize = 2 * BLOCK;
/// Partitions that grow end at a multiple of this.
const ALIGNMENT: u64 = 1 << 20;

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Partition {
    /// Number in the table, from 1.
    pub number: u32,
    /// What it is for.
    pub type_guid: Uuid,
    /// Its own id.
    pub unique_guid: Uuid,
    /// First byte on the disk.
    pub start: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Its name.
    pub name: String,
}

impl Partition {
    /// One past the last byte.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes)
    }
}

/// A parsed table with the bytes it came from.
pub(crate) struct Gpt {
    pub(crate) partitions: Vec<Partition>,
    head: Vec<u8>,
    entries_bytes: usize,
}

/// The changed bytes of a table that was grown.
pub(crate) struct GrownGpt {
    /// For the disk's start.
    pub(crate) head: Vec<u8>,
    /// For the disk's end.
    pub(crate) backup: Vec<u8>,
}

impl Gpt {
    /// Parses the first [`HEAD_BYTES`] of a disk of `size` bytes.
    pub(crate) fn parse(head: &[u8], size: u64) -> Result<Self, ImageError> {
        let wrong = |what| Err(ImageError::PartitionTable(what));
        let head =
            head.get(..HEAD_BYTES).ok_or(ImageError::PartitionTable("the disk is too short for one"))?;
        let header = &head[BLOCK..BLOCK + HEADER_BYTES];
        if header[..8] != *b"EFI PART" || header[8..12] != [0, 0, 1, 0] {
            return wrong("no header of revision 1.0 in the second block");
        }
        if number32(header, 12) as usize != HEADER_BYTES || number32(header, 16) != header_checksum(header) {
            return wrong("its header's checksum does not match");
        }
        let (count, entry) = (number32(header, 80) as usize, number32(header, 84) as usize);
        if number64(header, 24) != 1
            || number64(header, 72) != 2
            || entry != ENTRY_BYTES
            || count > MAX_ENTRIES
        {
            return wrong(
                "its header is not the usual one: 128 entries of 128 bytes from the third block on",
            );
        }
        let entries = &head[ENTRIES_AT..ENTRIES_AT + count * ENTRY_BYTES];
        if number32(header, 88) != crc32(entries) {
            return wrong("its entries' checksum does not match");
        }
        let mut partitions = Vec::new();
        for (bytes, number) in entries.chunks_exact(ENTRY_BYTES).zip(1..) {
            partitions.extend(parse_entry(bytes, number, size)?);
        }
        let mut by_place: Vec<_> = partitions.iter().collect();
        by_place.sort_by_key(|partition| partition.start);
        if by_place.windows(2).any(|pair| pair[0].end() > pair[1].start) {
            return wrong("two partitions overlap");
        }
        Ok(Self { partitions, head: head.to_vec(), entries_bytes: count * ENTRY_BYTES })
    }

    /// The second table lies on the disk: an image without its end has lost it, whatever else is whole.
    pub(crate) fn check_backup(&self, size: u64) -> Result<(), ImageError> {
        let place = number64(&self.head, BLOCK + 32);
        on_disk(place, size, || "AlternateLBA of the header".to_owned())
    }

    /// Where the root partition ends on a disk of `disk` bytes: grown if it is the last one.
    pub(crate) fn grown_end(partitions: &[Partition], root: &Partition, disk: u64) -> u64 {
        let is_last = partitions.iter().all(|partition| partition.start <= root.start);
        let room = disk.saturating_sub(33 * BLOCK_U64) / ALIGNMENT * ALIGNMENT;
        if is_last { room.max(root.end()) } else { root.end() }
    }

    /// The table for a disk of `disk` bytes (a multiple of 512) with the root partition ending at `root_end`.
    pub(crate) fn grow(&self, root: u32, root_end: u64, disk: u64) -> GrownGpt {
        let mut head = self.head.clone();
        let last = disk / BLOCK_U64 - 1;
        let protective = &mut head[446..462];
        if protective[4] == 0xee {
            let blocks = u32::try_from(last).unwrap_or(u32::MAX);
            protective[12..16].copy_from_slice(&blocks.to_le_bytes());
        }
        let entry = ENTRIES_AT + (root as usize - 1) * ENTRY_BYTES;
        head[entry + 40..entry + 48].copy_from_slice(&(root_end / BLOCK_U64 - 1).to_le_bytes());
        let entries = head[ENTRIES_AT..ENTRIES_AT + self.entries_bytes].to_vec();
        let header = &mut head[BLOCK..BLOCK + HEADER_BYTES];
        header[32..40].copy_from_slice(&last.to_le_bytes());
        header[48..56].copy_from_slice(&(last - 33).to_le_bytes());
        header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
        let mut mirror: [u8; HEADER_BYTES] = (&*header).try_into().expect("a header's bytes");
        put_checksum(header);
        mirror[24..32].copy_from_slice(&last.to_le_bytes());
        mirror[32..40].copy_from_slice(&1u64.to_le_bytes());
        mirror[72..80].copy_from_slice(&(last - 32).to_le_bytes());
        put_checksum(&mut mirror);
        let mut backup = vec![0; 33 * BLOCK];
        backup[..entries.len()].copy_from_slice(&entries);
        backup[32 * BLOCK..32 * BLOCK + HEADER_BYTES].copy_from_slice(&mirror);
        GrownGpt { head, backup }
    }
}

fn parse_entry(bytes: &[u8], number: u32, size: u64) -> Result<Option<Partition>, ImageError> {
    let guid = |at: usize| Uuid::from_bytes_le(bytes[at..at + 16].try_into().expect("sixteen bytes"));
    if guid(0).is_nil() {
        return Ok(None);
    }
    let (first, last) = (number64(bytes, 32), number64(bytes, 40));
    if first < HEAD_BYTES as u64 / BLOCK_U64 || first > last {
        return Err(ImageError::PartitionTable(
            "a partition's first block is in the table or behind its last",
        ));
    }
    on_disk(last, size, || format!("EndingLBA of partition {number}"))?;
    let name: Vec<u16> =
        bytes[56..].chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let name = String::from_utf16_lossy(&name).trim_end_matches('\0').to_owned();
    let (type_guid, unique_guid) = (guid(0), guid(16));
    let bytes = (last - first + 1) * BLOCK_U64;
    Ok(Some(Partition { number, type_guid, unique_guid, start: first * BLOCK_U64, bytes, name }))
}

/// Refuses a block that ends behind the disk.
fn on_disk(block: u64, size: u64, field: impl Fn() -> String) -> Result<(), ImageError> {
    let end = block.saturating_add(1).saturating_mul(BLOCK_U64);
    match end > size {
        true => Err(ImageError::CutOff { field: field(), last: end.saturating_sub(1), size }),
        false => Ok(()),
    }
}

fn header_checksum(header: &[u8]) -> u32 {
    let mut bytes = header.to_vec();
    bytes[16..20].fill(0);
    crc32(&bytes)
}

fn put_checksum(header: &mut [u8]) {
    let checksum = header_checksum(header);
    header[16..20].copy_from_slice(&checksum.to_le_bytes());
}

fn number32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn number64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
