//! Compressions of an initramfs by their magic numbers: those that are unpacked, and those that are refused by name
//! (the kernel's `lib/decompress.c` knows them all).

use std::io::{self, Read};

use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::StreamingDecoder;

use super::InitramfsError;
use super::input::Input;

/// Most memory that a decompressor may take for its window.
const MAX_WINDOW: u32 = 128 << 20;

const REFUSED: [(&[u8], &str); 6] = [
    (b"BZh", "bzip2"),
    (&[0x5d, 0, 0], "lzma"),
    (&[0x89, b'L', b'Z', b'O'], "lzo"),
    (&[0x02, 0x21, 0x4c, 0x18], "lz4"),
    (&[0x04, 0x22, 0x4d, 0x18], "lz4 frames, which the kernel does not know either"),
    (b"PK", "zip"),
];

/// A compression that is unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Zstd,
    Gzip,
    Xz,
}

impl Compression {
    /// What begins here, at byte `at` of the initramfs.
    pub(super) fn of(rest: &[u8], at: usize) -> Result<Self, InitramfsError> {
        let begins = |magic: &[u8]| rest.starts_with(magic);
        if begins(&[0x28, 0xb5, 0x2f, 0xfd]) {
            return Ok(Self::Zstd);
        } else if begins(&[0x1f, 0x8b]) {
            return Ok(Self::Gzip);
        } else if begins(b"\xfd7zXZ\0") {
            return Ok(Self::Xz);
        }
        match REFUSED.iter().find(|(magic, _)| begins(magic)) {
            Some((_, name)) => Err(InitramfsError::Compression(name)),
            None => Err(InitramfsError::Unknown(at)),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
        }
    }

    /// Unpacks one stream, as the kernel does; the input stands behind it afterwards.
    pub(super) fn open<'a>(self, input: &'a mut Input<'_>) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Zstd => Box::new(
                StreamingDecoder::new_with_max_window_size(input, u64::from(MAX_WINDOW))
                    .map_err(io::Error::other)?,
            ),
            Self::Gzip => Box::new(GzDecoder::new(input)),
            Self::Xz => Box::new(XzReader::new_mem_limit(input, false, MAX_WINDOW >> 10)),
        })
    }
}
