//! The authenticated boot region: every byte of the OS disk outside the LUKS2 data segment (partition table, boot
//! partition, LUKS2 header, backup partition table), encrypted and authenticated in a file of its own.
//!
//! Chunks of 64 KiB, AES-256-GCM with random nonces; the associated data is the VM's id and the chunk's number. Nonces,
//! tags and places stand in the *table*, which the caller keeps in the guest state: what the table does not name does
//! not exist, so an older chunk, another VM's chunk or a chunk in another's place is refused when it is read. Chunks of
//! zeros take no space.
//!
//! Chunks are never overwritten in place (copy on write):
//!
//! ```text
//! write_at .. -> flush() -> new table -> [guest state commits the table] -> committed()
//!                |                       |
//!                +- crash: old table valid, its slots are untouched
//!                                        +- crash: new table valid, its slots were synced by flush()
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;

use uuid::Uuid;

use crate::crypto;
use crate::secret::Secret;
use crate::storage::Storage;

mod reader;
mod spans;
mod table;

pub use reader::RegionReader;
pub use spans::Spans;
use table::{Entry, Sealed, Table};

/// Size of a chunk.
pub const CHUNK_BYTES: usize = 64 << 10;
/// Chunks kept decrypted in memory: 8 MiB.
const CACHED_CHUNKS: usize = 128;

/// Why the boot region cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootRegionError {
    /// The file could not be read or written.
    #[error("reading or writing the boot region's file")]
    Io(#[from] io::Error),
    /// The file ends before a chunk that the table names.
    #[error("the boot region's file is truncated: the bytes of disk offset {offset} are missing")]
    Truncated {
        /// First disk offset of the chunk.
        offset: u64,
    },
    /// The chunk's tag does not match: changed, older, of another place or of another VM.
    #[error(
        "the boot region was tampered with: the bytes of disk offset {offset} are not those this guest state recorded"
    )]
    Tampered {
        /// First disk offset of the chunk.
        offset: u64,
    },
    /// The range is not (wholly) in the boot region.
    #[error("disk offset {offset}, {bytes} bytes, is not in the boot region")]
    OutOfRegion {
        /// First disk offset asked for.
        offset: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// The table is not one.
    #[error("the boot region's table is malformed: {0}")]
    Table(&'static str),
}

/// An open boot region.
pub struct BootRegion<S = File> {
    storage: S,
    vm_id: Uuid,
    key: Secret<32>,
    table: Table,
    cache: BTreeMap<u32, Cached>,
    clock: u64,
    slots: Slots,
    /// Whether chunks were stored since the last flush.
    unsynced: bool,
}

struct Cached {
    data: Box<[u8]>,
    dirty: bool,
    used: u64,
}

/// Which slots of the file may be written.
#[derive(Default)]
struct Slots {
    next: u32,
    free: BTreeSet<u32>,
    /// Named by a table that may be the durable one.
    pinned: BTreeSet<u32>,
    /// Named by the table of the last flush.
    flushed: BTreeSet<u32>,
}

impl Slots {
    fn take(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    fn release(&mut self, slot: u32) {
        if !self.pinned.contains(&slot) {
            self.free.insert(slot);
        }
    }
}

impl<S: Storage> BootRegion<S> {
    /// A new region of zeros over an emptied file.
    pub fn create(
        mut storage: S,
        vm_id: Uuid,
        spans: Spans,
        key: &Secret<32>,
    ) -> Result<Self, BootRegionError> {
        storage.set_length(0)?;
        Ok(Self::new(storage, vm_id, key, Table::zeros(spans)?, Slots::default()))
    }

    /// Opens the region that `table` (from the guest state) describes. Chunks are checked when they are read.
    pub fn open(storage: S, vm_id: Uuid, key: &Secret<32>, table: &[u8]) -> Result<Self, BootRegionError> {
        let table = Table::parse(table)?;
        let pinned: BTreeSet<u32> = table.slots().collect();
        let next = pinned.last().map_or(0, |last| last + 1);
        let free = (0..next).filter(|slot| !pinned.contains(slot)).collect();
        let slots = Slots { next, free, flushed: pinned.clone(), pinned };
        Ok(Self::new(storage, vm_id, key, table, slots))
    }

    fn new(storage: S, vm_id: Uuid, key: &Secret<32>, table: Table, slots: Slots) -> Self {
        let (cache, key) = (BTreeMap::new(), key.clone());
        Self { storage, vm_id, key, table, cache, clock: 0, slots, unsynced: false }
    }

    /// The disk ranges that this region holds.
    pub fn spans(&self) -> &Spans {
        &self.table.spans
    }

    /// Whether the range lies wholly in the region.
    pub fn contains(&self, offset: u64, bytes: u64) -> bool {
        self.table.spans.contains(offset, bytes)
    }

    /// Whether something was written since the last [`BootRegion::flush`].
    pub fn is_dirty(&self) -> bool {
        self.unsynced || self.cache.values().any(|chunk| chunk.dirty)
    }

    /// Reads at a disk offset.
    pub fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), BootRegionError> {
        self.check_range(offset, buffer.len())?;
        let mut done = 0;
        while done < buffer.len() {
            let piece = self.table.spans.locate(offset + done as u64).expect("the range was checked");
            let take = piece.available.min(buffer.len() - done);
            let chunk = self.load(piece.chunk)?;
            buffer[done..done + take].copy_from_slice(&chunk.data[piece.within..piece.within + take]);
            done += take;
        }
        Ok(())
    }

    /// Writes at a disk offset; durable after [`BootRegion::flush`] and the commit of its table.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), BootRegionError> {
        self.check_range(offset, bytes.len())?;
        let mut done = 0;
        while done < bytes.len() {
            let piece = self.table.spans.locate(offset + done as u64).expect("the range was checked");
            let take = piece.available.min(bytes.len() - done);
            let source = &bytes[done..done + take];
            let chunk = self.load(piece.chunk)?;
            let target = &mut chunk.data[piece.within..piece.within + take];
            if *target != *source {
                target.copy_from_slice(source);
                chunk.dirty = true;
            }
            done += take;
        }
        Ok(())
    }

    /// Stores every changed chunk, syncs, and gives the table to keep. The former table stays valid until
    /// [`BootRegion::committed`].
    pub fn flush(&mut self) -> Result<Vec<u8>, BootRegionError> {
        let dirty: Vec<u32> =
            self.cache.iter().filter(|(_, chunk)| chunk.dirty).map(|(&index, _)| index).collect();
        for index in dirty {
            self.store(index)?;
        }
        if self.unsynced {
            self.storage.sync()?;
            self.unsynced = false;
        }
        self.slots.flushed = self.table.slots().collect();
        self.slots.pinned.extend(&self.slots.flushed);
        Ok(self.table.to_bytes())
    }

    /// The table of the last [`BootRegion::flush`] is durable: slots that only older tables name may be used again.
    pub fn committed(&mut self) {
        let current: BTreeSet<u32> = self.table.slots().collect();
        let pinned = std::mem::replace(&mut self.slots.pinned, self.slots.flushed.clone());
        let released = pinned.difference(&self.slots.pinned).filter(|slot| !current.contains(slot));
        self.slots.free.extend(released);
    }

    /// Reads and checks every stored chunk, so that tampering is found before a guest runs into it.
    pub fn verify(&self) -> Result<(), BootRegionError> {
        (0..self.table.len()).try_for_each(|index| self.read_chunk(index).map(drop))
    }

    /// The region as a stream at disk offsets, for the predictor: reading the data segment is an error.
    pub fn reader(&mut self) -> RegionReader<'_, S> {
        RegionReader::new(self)
    }

    fn check_range(&self, offset: u64, length: usize) -> Result<(), BootRegionError> {
        let bytes = length as u64;
        if self.contains(offset, bytes) {
            Ok(())
        } else {
            Err(BootRegionError::OutOfRegion { offset, bytes })
        }
    }

    fn load(&mut self, index: u32) -> Result<&mut Cached, BootRegionError> {
        if !self.cache.contains_key(&index) {
            if self.cache.len() >= CACHED_CHUNKS {
                self.evict()?;
            }
            let data = self.read_chunk(index)?;
            self.cache.insert(index, Cached { data, dirty: false, used: 0 });
        }
        self.clock += 1;
        let chunk = self.cache.get_mut(&index).expect("just inserted");
        chunk.used = self.clock;
        Ok(chunk)
    }

    fn evict(&mut self) -> Result<(), BootRegionError> {
        let oldest =
            self.cache.iter().min_by_key(|(_, chunk)| chunk.used).map(|(&index, chunk)| (index, chunk.dirty));
        let (index, dirty) = oldest.expect("the cache is full");
        if dirty {
            self.store(index)?;
        }
        self.cache.remove(&index);
        Ok(())
    }

    fn read_chunk(&self, index: u32) -> Result<Box<[u8]>, BootRegionError> {
        let mut data = vec![0; CHUNK_BYTES].into_boxed_slice();
        let Entry::Sealed(Sealed { slot, nonce, tag }) = *self.table.entry(index) else { return Ok(data) };
        let offset = self.table.spans.offset_of(index);
        self.storage.read(u64::from(slot) * CHUNK_BYTES as u64, &mut data).map_err(|error| {
            match error.kind() {
                io::ErrorKind::UnexpectedEof => BootRegionError::Truncated { offset },
                _ => BootRegionError::Io(error),
            }
        })?;
        let plain = crypto::gcm_open(&self.key, nonce, &self.associated(index), &data, &tag)
            .map_err(|_| BootRegionError::Tampered { offset })?;
        data.copy_from_slice(&plain);
        Ok(data)
    }

    fn store(&mut self, index: u32) -> Result<(), BootRegionError> {
        let chunk = &self.cache[&index];
        let entry = if chunk.data.iter().all(|&byte| byte == 0) {
            Entry::Zeros
        } else {
            let mut data = chunk.data.clone();
            let nonce = crypto::random();
            let tag = crypto::gcm_seal(&self.key, nonce, &self.associated(index), &mut data);
            let slot = self.slots.take();
            if let Err(error) = self.storage.write(u64::from(slot) * CHUNK_BYTES as u64, &data) {
                self.slots.release(slot);
                return Err(error.into());
            }
            Entry::Sealed(Sealed { slot, nonce, tag })
        };
        if let Entry::Sealed(former) = self.table.replace(index, entry) {
            self.slots.release(former.slot);
        }
        self.unsynced = true;
        self.cache.get_mut(&index).expect("looked up above").dirty = false;
        Ok(())
    }

    fn associated(&self, index: u32) -> [u8; 42] {
        let mut bytes = *b"casemate boot region 1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        bytes[22..38].copy_from_slice(self.vm_id.as_bytes());
        bytes[38..].copy_from_slice(&index.to_le_bytes());
        bytes
    }
}
