//! The data segment: threads take chunk after chunk; each reads, verifies, encrypts and writes in one buffer.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::target::{PageBuffer, Target};
use super::verified::{MetadataReader, VerifiedImage};
use super::{Holes, Progress, ProvisionError, Summary};
use crate::image::ext4::{self, FreeBlocks};
use crate::image::{CHUNK_BYTES, DiskLayout};
use crate::luks2::DATA_OFFSET;
use crate::xts::{TWEAK_UNIT, Xts};

const SECTOR: usize = 4096;

/// Shared by the threads.
pub(super) struct Work<'a> {
    source: VerifiedImage<'a>,
    target: &'a Target<'a>,
    xts: &'a Xts,
    holes: Holes,
    progress: &'a (dyn Fn(Progress) + Sync),
    /// The root file system's bytes in the image.
    filesystem: Range<u64>,
    /// Image offsets up to which [`Holes::WriteAll`] fills: where the ciphertext ends, less the header's 16 MiB.
    fill_end: u64,
    next: AtomicUsize,
    end: usize,
    done: AtomicU64,
    stopped: AtomicBool,
}

/// Runs of free zeros shorter than this are written with what surrounds them: one write costs more than a few sectors.
const LEAST_HOLE: usize = 16;

/// One thread's own things.
struct Worker<'a> {
    buffer: PageBuffer,
    metadata: MetadataReader<'a>,
    /// None: every block counts as used.
    free: Option<FreeBlocks>,
    summary: Summary,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        source: VerifiedImage<'a>,
        target: &'a Target<'a>,
        layout: DiskLayout,
        xts: &'a Xts,
        holes: Holes,
        progress: &'a (dyn Fn(Progress) + Sync),
    ) -> Self {
        let filesystem = layout.header_start..layout.header_start + source.manifest.filesystem_bytes;
        let fill_end = layout.data_end - DATA_OFFSET;
        let last = if holes == Holes::WriteAll { fill_end } else { filesystem.end };
        let chunks = source.chunks_of(&(filesystem.start..last));
        let (next, done, stopped) =
            (AtomicUsize::new(chunks.start), AtomicU64::new(0), AtomicBool::new(false));
        let end = chunks.end;
        Self { source, target, xts, holes, progress, filesystem, fill_end, next, end, done, stopped }
    }

    /// Makes the threads end after their current chunk.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Takes chunks until none is left.
    pub(super) fn run(&self) -> Result<Summary, ProvisionError> {
        self.run_chunks().inspect_err(|_| self.stop())
    }

    fn run_chunks(&self) -> Result<Summary, ProvisionError> {
        let mut metadata = MetadataReader::new(self.source, self.filesystem.start);
        let free = match self.holes {
            Holes::SkipFree => FreeBlocks::read(&mut metadata)?,
            Holes::WriteAll => None,
        };
        let mut worker =
            Worker { buffer: PageBuffer::new(CHUNK_BYTES), metadata, free, summary: Summary::default() };
        while !self.stopped.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.end {
                break;
            }
            self.chunk(index, &mut worker)?;
            self.report();
        }
        Ok(worker.summary)
    }

    fn report(&self) {
        let chunk = CHUNK_BYTES as u64;
        let total = (self.end - self.source.chunks_of(&self.filesystem).start) as u64 * chunk;
        let done = self.done.fetch_add(chunk, Ordering::Relaxed) + chunk;
        (self.progress)(Progress { done, total });
    }

    /// One chunk of the image: the part of it that belongs to the file system, and what is to be filled behind.
    fn chunk(&self, index: usize, worker: &mut Worker<'_>) -> Result<(), ProvisionError> {
        let start = index as u64 * CHUNK_BYTES as u64;
        let whole = start..start + CHUNK_BYTES as u64;
        let part = whole.start.max(self.filesystem.start)..whole.end.min(self.filesystem.end);
        if !part.is_empty() {
            self.filesystem_part(index, whole.start, part.clone(), worker)?;
        }
        if self.holes == Holes::WriteAll {
            let rest = part.end.max(whole.start)..whole.end.min(self.fill_end);
            if rest.start < rest.end {
                let length = cut(rest.end - rest.start);
                worker.buffer[..length].fill(0);
                self.seal(rest.start, &mut worker.buffer[..length])?;
                worker.summary.written += length as u64;
            }
        }
        Ok(())
    }

    fn filesystem_part(
        &self,
        index: usize,
        chunk_start: u64,
        part: Range<u64>,
        worker: &mut Worker<'_>,
    ) -> Result<(), ProvisionError> {
        let sectors = cut(part.end - part.start) / SECTOR;
        let first_block = (part.start - self.filesystem.start) / ext4::BLOCK_BYTES;
        if self.source.manifest.is_zeros(index) {
            if worker.all_free(first_block..first_block + sectors as u64)? {
                worker.summary.skipped += (sectors * SECTOR) as u64;
                return Ok(());
            }
            worker.buffer.fill(0);
        } else {
            self.source.read(index, &mut worker.buffer)?;
        }
        let first = cut(part.start - chunk_start);
        let runs = worker.runs(first, first_block, sectors)?;
        let kept: usize = runs.iter().map(Range::len).sum();
        worker.summary.skipped += ((sectors - kept) * SECTOR) as u64;
        worker.summary.written += (kept * SECTOR) as u64;
        for run in runs {
            let offset = part.start + (run.start * SECTOR) as u64;
            self.seal(offset, &mut worker.buffer[first + run.start * SECTOR..first + run.end * SECTOR])?;
        }
        Ok(())
    }

    /// Encrypts bytes of an image offset and writes them 16 MiB further on.
    fn seal(&self, offset: u64, bytes: &mut [u8]) -> Result<(), ProvisionError> {
        let unit = (offset - self.filesystem.start) / TWEAK_UNIT as u64;
        self.xts.encrypt_in_place(bytes, unit, SECTOR);
        self.target.write(offset + DATA_OFFSET, bytes)
    }
}

impl Worker<'_> {
    /// The sectors to write, as runs: all but those that are zeros and free, where enough of them lie together.
    fn runs(
        &mut self,
        first: usize,
        first_block: u64,
        sectors: usize,
    ) -> Result<Vec<Range<usize>>, ProvisionError> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for sector in 0..sectors {
            let at = first + sector * SECTOR;
            if is_zero(&self.buffer[at..at + SECTOR]) && self.is_free(first_block + sector as u64)? {
                continue;
            }
            match runs.last_mut() {
                Some(run) if sector - run.end < LEAST_HOLE => run.end = sector + 1,
                _ => runs.push(sector..sector + 1),
            }
        }
        Ok(runs)
    }

    fn all_free(&mut self, blocks: Range<u64>) -> Result<bool, ProvisionError> {
        for block in blocks {
            if !self.is_free(block)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_free(&mut self, block: u64) -> Result<bool, ProvisionError> {
        match &mut self.free {
            Some(free) => free.is_free(block, &mut self.metadata),
            None => Ok(false),
        }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks_exact(16).all(|word| word == [0; 16])
}

fn cut(length: u64) -> usize {
    usize::try_from(length).expect("1 MiB at most")
}
