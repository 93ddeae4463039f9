//! The OS disk of a VM whose guest state alone is encrypted: a file on the host, relayed as it is.
//!
//! Nothing of it is secret from the host or safe from it; what boots from it is seen in the PCRs.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use aws_lc_rs::digest::{SHA256, digest};
use sealed_disk::image::Manifest;

use super::{BlockDevice, hole};
use crate::failure::Stop;

/// The disk of a VM with `VMGuestStateOnly`.
pub struct PlainDisk {
    file: File,
    size: u64,
}

impl PlainDisk {
    /// A disk over the host's file.
    pub fn new(file: File, size: u64) -> Self {
        Self { file, size }
    }
}

/// Copies an image, chunk by chunk; what is written is what was verified.
pub fn copy_image(
    image: &File,
    manifest: &Manifest,
    disk: &File,
    size: u64,
    progress: &dyn Fn(u64),
) -> Result<(), Stop> {
    let failed = |error: io::Error| Stop::io("copying the image to the OS disk", &error);
    disk.set_len(0).and_then(|()| disk.set_len(size)).map_err(failed)?;
    let chunk =
        usize::try_from(manifest.chunk_size).unwrap_or(usize::MAX).min(sealed_disk::image::CHUNK_BYTES);
    let mut buffer = vec![0; chunk];
    let mut offset = 0;
    for expected in &manifest.chunks {
        let length = usize::try_from(manifest.size - offset).unwrap_or(usize::MAX).min(chunk);
        let bytes = buffer.get_mut(..length).unwrap_or_default();
        image.read_exact_at(bytes, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => image_changed(offset, "the image ends"),
            _ => failed(error),
        })?;
        let actual = digest(&SHA256, bytes);
        if actual.as_ref() != expected.0 {
            return Err(image_changed(offset, &hex::encode(actual)));
        }
        if bytes.iter().any(|byte| *byte != 0) {
            disk.write_all_at(bytes, offset).map_err(failed)?;
        }
        offset += length as u64;
        progress(offset);
    }
    disk.sync_data().map_err(failed)
}

/// The image is not the one of its manifest.
pub fn image_changed(offset: u64, actual: &str) -> Stop {
    Stop::refused(
        "ImageChanged",
        format!("image at offset {offset}"),
        "the bytes whose digest stands in the image's manifest",
        actual,
        "the manifest's digest is in the launch document, and every chunk is checked as it is used",
        "fetch the image again",
    )
}

impl BlockDevice for PlainDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn write_zeroes(&self, offset: u64, length: u64, keep_space: bool) -> io::Result<()> {
        hole::zero(&self.file, offset..offset.saturating_add(length), keep_space)
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        hole::punch(&self.file, offset..offset.saturating_add(length))
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
