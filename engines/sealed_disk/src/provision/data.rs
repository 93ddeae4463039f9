//! The data segment: threads take group after group of chunks; each reads, verifies, encrypts and writes in one buffer.

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
/// Chunks that are written together: a disk with latency takes 4 MiB at once nearly as fast as 1 MiB.
const GROUP: usize = 4;

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
const LEAST_HOLE: usize = 16 * SECTOR;

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
        let buffer = PageBuffer::new(GROUP * CHUNK_BYTES);
        let mut worker = Worker { buffer, metadata, free, summary: Summary::default() };
        while !self.stopped.load(Ordering::Relaxed) {
            let first = self.next.fetch_add(GROUP, Ordering::Relaxed);
            if first >= self.end {
                break;
            }
            let chunks = first..self.end.min(first + GROUP);
            self.group(chunks.clone(), &mut worker)?;
            self.report(chunks.len());
        }
        Ok(worker.summary)
    }

    fn report(&self, chunks: usize) {
        let chunk = CHUNK_BYTES as u64;
        let total = (self.end - self.source.chunks_of(&self.filesystem).start) as u64 * chunk;
        let more = chunks as u64 * chunk;
        let done = self.done.fetch_add(more, Ordering::Relaxed) + more;
        (self.progress)(Progress { done, total });
    }

    /// Some chunks of the image: the part of them that belongs to the file system, and what is to be filled behind.
    fn group(&self, chunks: Range<usize>, worker: &mut Worker<'_>) -> Result<(), ProvisionError> {
        let whole = offset_of(chunks.start)..offset_of(chunks.end);
        let part = whole.start.max(self.filesystem.start)..whole.end.min(self.filesystem.end);
        if !part.is_empty() {
            self.filesystem_part(&part, worker)?;
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

    /// `part` lies within one group, and in the buffer where it lies in the group.
    fn filesystem_part(&self, part: &Range<u64>, worker: &mut Worker<'_>) -> Result<(), ProvisionError> {
        let chunks = self.source.chunks_of(part);
        let group_start = offset_of(chunks.start);
        let mut runs = Vec::new();
        for index in chunks {
            let own = part.start.max(offset_of(index))..part.end.min(offset_of(index + 1));
            let blocks = self.block(own.start)..self.block(own.end);
            let at = cut(offset_of(index) - group_start);
            let chunk = &mut worker.buffer[at..at + CHUNK_BYTES];
            if !self.source.manifest.is_zeros(index) {
                self.source.read(index, chunk)?;
            } else {
                chunk.fill(0);
                if worker.all_free(blocks.clone())? {
                    continue;
                }
            }
            worker.add_runs(cut(own.start - group_start), blocks, &mut runs)?;
        }
        let kept: usize = runs.iter().map(Range::len).sum();
        worker.summary.skipped += part.end - part.start - kept as u64;
        worker.summary.written += kept as u64;
        for run in runs {
            self.seal(group_start + run.start as u64, &mut worker.buffer[run])?;
        }
        Ok(())
    }

    /// Number of the file system's block at an image offset.
    fn block(&self, offset: u64) -> u64 {
        (offset - self.filesystem.start) / ext4::BLOCK_BYTES
    }

    /// Encrypts bytes of an image offset and writes them 16 MiB further on.
    fn seal(&self, offset: u64, bytes: &mut [u8]) -> Result<(), ProvisionError> {
        let unit = (offset - self.filesystem.start) / TWEAK_UNIT as u64;
        self.xts.encrypt_in_place(bytes, unit, SECTOR);
        self.target.write(offset + DATA_OFFSET, bytes)
    }
}

impl Worker<'_> {
    /// Adds what is to be written of some blocks that begin at `at` in the buffer, as runs of bytes: all but those that
    /// are zeros and free, where enough of them lie together.
    fn add_runs(
        &mut self,
        at: usize,
        blocks: Range<u64>,
        runs: &mut Vec<Range<usize>>,
    ) -> Result<(), ProvisionError> {
        for (start, block) in (at..).step_by(SECTOR).zip(blocks) {
            let end = start + SECTOR;
            if is_zero(&self.buffer[start..end]) && self.is_free(block)? {
                continue;
            }
            match runs.last_mut() {
                Some(run) if start - run.end < LEAST_HOLE => run.end = end,
                _ => runs.push(start..end),
            }
        }
        Ok(())
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

/// Where a chunk begins in the image.
fn offset_of(chunk: usize) -> u64 {
    chunk as u64 * CHUNK_BYTES as u64
}

fn cut(length: u64) -> usize {
    usize::try_from(length).expect("a group's length at most")
}
