//! The table: for each chunk either "zeros" or slot, nonce and tag. Little-endian.
//!
//! ```text
//! 0  8 "CMBOOTR1"    8  8 head    16  8 tail    24  8 disk    32  32 for each chunk: slot 4, nonce 12, tag 16
//! ```
//! Slot 0xffffffff is a chunk of zeros.

use std::collections::BTreeSet;

use super::{BootRegionError, Spans};
use crate::crypto::{NONCE_BYTES, TAG_BYTES};

const MAGIC: &[u8; 8] = b"CMBOOTR1";
const FIXED_BYTES: usize = 32;
const ENTRY_BYTES: usize = 4 + NONCE_BYTES + TAG_BYTES;
const ZEROS: u32 = u32::MAX;

pub(super) struct Table {
    pub(super) spans: Spans,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Zeros,
    Sealed(Sealed),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) slot: u32,
    pub(super) nonce: [u8; NONCE_BYTES],
    pub(super) tag: [u8; TAG_BYTES],
}

impl Table {
    pub(super) fn zeros(spans: Spans) -> Result<Self, BootRegionError> {
        let count = spans.chunk_count()? as usize;
        Ok(Self { spans, entries: vec![Entry::Zeros; count] })
    }

    /// Number of chunks.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.entries.len()).expect("the count was checked")
    }

    pub(super) fn entry(&self, chunk: u32) -> &Entry {
        &self.entries[chunk as usize]
    }

    pub(super) fn replace(&mut self, chunk: u32, entry: Entry) -> Entry {
        std::mem::replace(&mut self.entries[chunk as usize], entry)
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Zeros => None,
            Entry::Sealed(sealed) => Some(sealed.slot),
        })
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, BootRegionError> {
        let (fixed, entries) =
            bytes.split_at_checked(FIXED_BYTES).ok_or(BootRegionError::Table("it is cut short"))?;
        if fixed[..8] != *MAGIC {
            return Err(BootRegionError::Table("its first bytes are not a boot region's"));
        }
        let number = |at: usize| u64::from_le_bytes(fixed[at..at + 8].try_into().expect("eight bytes"));
        let spans = Spans { head: number(8), tail: number(16), disk: number(24) };
        if entries.len() != spans.chunk_count()? as usize * ENTRY_BYTES {
            return Err(BootRegionError::Table("it does not have one entry for each chunk"));
        }
        let table = Self { spans, entries: entries.chunks_exact(ENTRY_BYTES).map(Entry::parse).collect() };
        let distinct: BTreeSet<u32> = table.slots().collect();
        if distinct.len() != table.slots().count() {
            return Err(BootRegionError::Table("two chunks have one slot"));
        }
        Ok(table)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED_BYTES + self.entries.len() * ENTRY_BYTES);
        bytes.extend(MAGIC);
        for number in [self.spans.head, self.spans.tail, self.spans.disk] {
            bytes.extend(number.to_le_bytes());
        }
        for entry in &self.entries {
            let none = Sealed { slot: ZEROS, nonce: [0; NONCE_BYTES], tag: [0; TAG_BYTES] };
            let Sealed { slot, nonce, tag } = match entry {
                Entry::Zeros => none,
                Entry::Sealed(sealed) => *sealed,
            };
            bytes.extend(slot.to_le_bytes());
            bytes.extend(nonce);
            bytes.extend(tag);
        }
        bytes
    }
}

impl Entry {
    fn parse(bytes: &[u8]) -> Self {
        let slot = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
        if slot == ZEROS {
            return Self::Zeros;
        }
        let nonce = bytes[4..16].try_into().expect("twelve bytes");
        let tag = bytes[16..32].try_into().expect("sixteen bytes");
        Self::Sealed(Sealed { slot, nonce, tag })
    }
}
