//! The VMGS container's structures, as openvmm publishes them (`vmgs_format`, version 3.0). Little-endian, 4096-byte
//! blocks; the two headers are blocks 0 and 1.

use std::collections::BTreeMap;

use super::StateError;
use crate::crypto::{self, NONCE_BYTES, TAG_BYTES};

/// Bytes of a block.
pub(super) const BLOCK: u64 = BLOCK_BYTES as u64;
/// The same as `usize`.
pub(super) const BLOCK_BYTES: usize = 4096;
/// First block that may hold files.
pub(super) const FIRST_FILE_BLOCK: u32 = 2;
/// Entries of the file table.
pub(super) const FILES: usize = 64;
/// The extended file table's own number.
pub(super) const EXTENDED_TABLE: u8 = 63;
/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 168;
const SIGNATURE: &[u8; 8] = b"GUESTRTS";
const VERSION: u32 = 0x0003_0000;
const AES_256_GCM: u16 = 1;
const ENTRY_BYTES: usize = 64;
const TABLE_BYTES: usize = FILES * ENTRY_BYTES;

/// The metadata key, encrypted under a data store key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct WrappedKey {
    pub(super) nonce: [u8; NONCE_BYTES],
    pub(super) tag: [u8; TAG_BYTES],
    pub(super) key: [u8; 32],
}

impl WrappedKey {
    pub(super) const NONE: Self = Self { nonce: [0; NONCE_BYTES], tag: [0; TAG_BYTES], key: [0; 32] };
}

/// Block 0 or 1.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub(super) sequence: u32,
    pub(super) file_table: u32,
    pub(super) metadata_keys: [WrappedKey; 2],
}

impl Header {
    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(SIGNATURE);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[20..24].copy_from_slice(&168u32.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.file_table.to_le_bytes());
        bytes[28..32].copy_from_slice(&1u32.to_le_bytes());
        bytes[32..34].copy_from_slice(&AES_256_GCM.to_le_bytes());
        for (field, key) in bytes[36..164].chunks_exact_mut(64).zip(&self.metadata_keys) {
            field[..12].copy_from_slice(&key.nonce);
            field[16..32].copy_from_slice(&key.tag);
            field[32..64].copy_from_slice(&key.key);
        }
        let checksum = crypto::crc32(&bytes);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None` unless every field is what [`Header::to_bytes`] would write: a torn or changed header is not one.
    pub(super) fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let number = |at: usize| u32::from_le_bytes(array(&bytes[at..at + 4]));
        let key = |at: usize| WrappedKey {
            nonce: array(&bytes[at..at + 12]),
            tag: array(&bytes[at + 16..at + 32]),
            key: array(&bytes[at + 32..at + 64]),
        };
        let header =
            Self { sequence: number(16), file_table: number(24), metadata_keys: [key(36), key(100)] };
        (header.to_bytes() == *bytes).then_some(header)
    }

    /// Whether this header was written after the other (sequence numbers wrap).
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        self.sequence.wrapping_sub(other.sequence).cast_signed() > 0
    }
}

/// One file's place, size, nonce and tag.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct FileEntry {
    pub(super) block: u32,
    pub(super) blocks: u32,
    pub(super) size: u64,
    pub(super) nonce: [u8; NONCE_BYTES],
    pub(super) tag: [u8; TAG_BYTES],
}

/// The file table: what lies where.
pub(super) fn file_table(entries: &BTreeMap<u8, FileEntry>) -> Vec<u8> {
    let mut table = vec![0; TABLE_BYTES];
    for (&number, entry) in entries {
        let bytes = &mut table[usize::from(number) * ENTRY_BYTES..][..ENTRY_BYTES];
        bytes[..4].copy_from_slice(&entry.block.to_le_bytes());
        bytes[4..8].copy_from_slice(&entry.blocks.to_le_bytes());
        bytes[8..16].copy_from_slice(&entry.size.to_le_bytes());
        bytes[16..28].copy_from_slice(&entry.nonce);
        bytes[28..44].copy_from_slice(&entry.tag);
    }
    table
}

/// Parses a file table over a container of `total` blocks. Entries of zeros are absent files.
pub(super) fn parse_file_table(table: &[u8], total: u64) -> Result<BTreeMap<u8, FileEntry>, StateError> {
    let mut entries = BTreeMap::new();
    for (bytes, number) in table.chunks_exact(ENTRY_BYTES).zip(0u8..) {
        if bytes.iter().all(|&byte| byte == 0) {
            continue;
        }
        let entry = FileEntry {
            block: u32::from_le_bytes(array(&bytes[..4])),
            blocks: u32::from_le_bytes(array(&bytes[4..8])),
            size: u64::from_le_bytes(array(&bytes[8..16])),
            nonce: array(&bytes[16..28]),
            tag: array(&bytes[28..44]),
        };
        if entry.block < FIRST_FILE_BLOCK || entry.size > u64::from(entry.blocks) * BLOCK {
            return Err(StateError::Tampered { what: "file table" });
        }
        if u64::from(entry.block) + u64::from(entry.blocks) > total {
            return Err(StateError::Truncated);
        }
        entries.insert(number, entry);
    }
    Ok(entries)
}

/// The extended file table: each encrypted file's key. Files without key are plain.
pub(super) fn extended_table<'a>(
    keys: impl Iterator<Item = (u8, &'a [u8; 32])>,
) -> zeroize::Zeroizing<Vec<u8>> {
    const ENCRYPTED_AND_AUTHENTICATED: u32 = 3;
    let mut table = zeroize::Zeroizing::new(vec![0; TABLE_BYTES]);
    for (number, key) in keys {
        let bytes = &mut table[usize::from(number) * ENTRY_BYTES..][..ENTRY_BYTES];
        bytes[..4].copy_from_slice(&ENCRYPTED_AND_AUTHENTICATED.to_le_bytes());
        bytes[4..36].copy_from_slice(key);
    }
    table
}

/// The key of one file in an extended table, if the table says that the file is encrypted.
pub(super) fn file_key(extended: &[u8], number: u8) -> Option<[u8; 32]> {
    let bytes = extended.get(usize::from(number) * ENTRY_BYTES..)?.get(..ENTRY_BYTES)?;
    (bytes[0] & 1 == 1).then(|| array(&bytes[4..36]))
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the caller cut it to this length")
}
