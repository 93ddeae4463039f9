//! Which disk offsets the boot region holds: a head from the disk's start, and a tail up to its end.

use super::{BootRegionError, CHUNK_BYTES};

const CHUNK: u64 = CHUNK_BYTES as u64;

/// `[0, head)` and `[tail, disk)`, in bytes. Chunks are counted through the head, then through the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spans {
    /// End of the head (start of the data segment).
    pub head: u64,
    /// Start of the tail (end of the data segment).
    pub tail: u64,
    /// End of the disk.
    pub disk: u64,
}

/// Where a disk offset lies.
pub(super) struct Piece {
    pub(super) chunk: u32,
    pub(super) within: usize,
    /// Bytes from here to the end of the chunk or span.
    pub(super) available: usize,
}

impl Spans {
    pub(super) fn chunk_count(&self) -> Result<u32, BootRegionError> {
        if self.head > self.tail || self.tail > self.disk {
            return Err(BootRegionError::Table("its spans are not in order"));
        }
        let count = self.head_chunks() + (self.disk - self.tail).div_ceil(CHUNK);
        // The last number marks chunks of zeros in the table.
        u32::try_from(count)
            .ok()
            .filter(|&count| count < u32::MAX)
            .ok_or(BootRegionError::Table("it is too large"))
    }

    /// Whether a range lies wholly in one span.
    pub fn contains(&self, offset: u64, bytes: u64) -> bool {
        let Some(end) = offset.checked_add(bytes) else { return false };
        end <= self.head || (offset >= self.tail && end <= self.disk)
    }

    pub(super) fn locate(&self, offset: u64) -> Option<Piece> {
        let (first, relative, length) = if offset < self.head {
            (0, offset, self.head)
        } else if (self.tail..self.disk).contains(&offset) {
            (self.head_chunks(), offset - self.tail, self.disk - self.tail)
        } else {
            return None;
        };
        let within = usize::try_from(relative % CHUNK).ok()?;
        let left = usize::try_from(length - relative).unwrap_or(usize::MAX);
        let chunk = u32::try_from(first + relative / CHUNK).ok()?;
        Some(Piece { chunk, within, available: left.min(CHUNK_BYTES - within) })
    }

    pub(super) fn offset_of(&self, chunk: u32) -> u64 {
        let chunk = u64::from(chunk);
        match chunk.checked_sub(self.head_chunks()) {
            Some(in_tail) => self.tail + in_tail * CHUNK,
            None => chunk * CHUNK,
        }
    }

    fn head_chunks(&self) -> u64 {
        self.head.div_ceil(CHUNK)
    }
}
