//! The image, read chunk by chunk, each chunk checked against the manifest before any of its bytes is used.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use super::ProvisionError;
use crate::crypto;
use crate::image::ext4::ReadAt;
use crate::image::{CHUNK_BYTES, Manifest};

#[derive(Clone, Copy)]
pub(super) struct VerifiedImage<'a> {
    pub(super) image: &'a File,
    pub(super) manifest: &'a Manifest,
}

impl VerifiedImage<'_> {
    /// A buffer for [`VerifiedImage::read`].
    pub(super) fn buffer(&self) -> Vec<u8> {
        vec![0; CHUNK_BYTES]
    }

    /// Numbers of the chunks that a range touches.
    pub(super) fn chunks_of(&self, range: &Range<u64>) -> Range<usize> {
        let chunk = CHUNK_BYTES as u64;
        let index = |offset: u64| usize::try_from(offset).expect("the manifest has a digest for each chunk");
        if range.is_empty() { 0..0 } else { index(range.start / chunk)..index(range.end.div_ceil(chunk)) }
    }

    /// Reads and checks one chunk.
    pub(super) fn read<'b>(
        &self,
        index: usize,
        buffer: &'b mut [u8],
    ) -> Result<&'b mut [u8], ProvisionError> {
        let Range { start: offset, end } = self.manifest.chunk_range(index);
        let bytes = &mut buffer[..usize::try_from(end - offset).expect("1 MiB at most")];
        self.image.read_exact_at(bytes, offset).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => ProvisionError::ImageTruncated { offset },
            _ => ProvisionError::ReadImage { offset, source },
        })?;
        if crypto::sha256(&[bytes]) != self.manifest.chunks[index].0 {
            return Err(ProvisionError::ImageChanged { offset });
        }
        Ok(bytes)
    }
}

/// Small reads from the root file system's metadata, through the last chunk that was verified.
pub(super) struct MetadataReader<'a> {
    source: VerifiedImage<'a>,
    filesystem_start: u64,
    loaded: Option<usize>,
    buffer: Vec<u8>,
}

impl<'a> MetadataReader<'a> {
    pub(super) fn new(source: VerifiedImage<'a>, filesystem_start: u64) -> Self {
        Self { source, filesystem_start, loaded: None, buffer: source.buffer() }
    }
}

impl ReadAt for MetadataReader<'_> {
    type Error = ProvisionError;

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), ProvisionError> {
        let chunk = CHUNK_BYTES as u64;
        let mut done = 0;
        while done < buffer.len() {
            let place = self.filesystem_start.saturating_add(offset).saturating_add(done as u64);
            if place >= self.source.manifest.size {
                return Err(ProvisionError::ImageTruncated { offset: place });
            }
            let index = usize::try_from(place / chunk).expect("the manifest has a digest for each chunk");
            if self.loaded != Some(index) {
                self.loaded = None;
                self.source.read(index, &mut self.buffer)?;
                self.loaded = Some(index);
            }
            let within = usize::try_from(place % chunk).expect("below 1 MiB");
            let available = usize::try_from(self.source.manifest.size - place).unwrap_or(usize::MAX);
            let take = (CHUNK_BYTES - within).min(available).min(buffer.len() - done);
            buffer[done..done + take].copy_from_slice(&self.buffer[within..within + take]);
            done += take;
        }
        Ok(())
    }
}
