//! The bytes of an initramfs as a stream that remembers where it is and gives up at a deadline.

use std::io::{self, BufRead, Read};
use std::time::Instant;

/// The clock is looked at once in so many reads.
const READS: u32 = 64;

/// What is left of an initramfs.
pub(super) struct Input<'a> {
    rest: &'a [u8],
    total: usize,
    reads: u32,
    deadline: Instant,
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8], deadline: Instant) -> Self {
        Self { rest: bytes, total: bytes.len(), reads: 0, deadline }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn position(&self) -> usize {
        self.total - self.rest.len()
    }

    /// Segments are padded with zeros.
    pub(super) fn skip_zeros(&mut self) {
        let zeros = self.rest.iter().take_while(|byte| **byte == 0).count();
        self.consume(zeros);
    }

    fn watch(&mut self) -> io::Result<()> {
        self.reads = self.reads.wrapping_add(1);
        if self.reads.is_multiple_of(READS) && Instant::now() > self.deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "unpacking takes too long"));
        }
        Ok(())
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.watch()?;
        self.rest.read(buffer)
    }
}

impl BufRead for Input<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.watch()?;
        Ok(self.rest)
    }

    fn consume(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }
}
