//! The two binary headers of 4096 bytes in front of the metadata. All integers are big-endian.

use super::{BINARY_BYTES, COPIES_BYTES, COPY_BYTES, HeaderRefusal};
use crate::crypto;

const MAGIC: [[u8; 6]; 2] = [*b"LUKS\xba\xbe", *b"SKUL\xba\xbe"];
const VERSION: u16 = 2;
const CHECKSUM: std::ops::Range<usize> = 0x1c0..0x200;

/// Which of the two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// At the header's start.
    Primary,
    /// Behind the primary one.
    Secondary,
}

impl std::fmt::Display for Copy {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        })
    }
}

impl Copy {
    pub(super) const BOTH: [Self; 2] = [Self::Primary, Self::Secondary];

    fn offset(self) -> usize {
        self as usize * COPY_BYTES
    }
}

/// One copy whose magic, version, sizes and checksum are right.
pub(super) struct BinaryHeader<'a> {
    pub(super) seqid: u64,
    pub(super) uuid: &'a str,
    pub(super) json: &'a str,
}

impl<'a> BinaryHeader<'a> {
    /// Parses one copy out of at least [`COPIES_BYTES`] bytes.
    pub(super) fn parse(header: &'a [u8], copy: Copy) -> Result<Self, HeaderRefusal> {
        let bytes = header
            .get(copy.offset()..copy.offset() + COPY_BYTES)
            .ok_or(HeaderRefusal::TooShort { bytes: header.len() })?;
        let refuse = |what, found: String, allowed: &str| HeaderRefusal::NotAllowed {
            place: format!("{copy} binary header: {what}"),
            found,
            allowed: allowed.to_owned(),
        };
        if bytes[..6] != MAGIC[copy as usize] {
            return Err(HeaderRefusal::NotLuks2 { copy });
        }
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let version = u16::from_be_bytes([bytes[6], bytes[7]]);
        if version != VERSION {
            return Err(refuse("version", version.to_string(), "2"));
        }
        if number(8) != COPY_BYTES as u64 {
            return Err(refuse("hdr_size", number(8).to_string(), "16384"));
        }
        if number(0x100) != copy.offset() as u64 {
            return Err(refuse("hdr_offset", number(0x100).to_string(), "the copy's own place"));
        }
        let algorithm = text(&bytes[0x48..0x68]).unwrap_or("not text");
        if algorithm != "sha256" {
            return Err(refuse("csum_alg", algorithm.to_owned(), "sha256"));
        }
        if checksum(bytes) != bytes[CHECKSUM.start..CHECKSUM.start + 32] {
            return Err(HeaderRefusal::Checksum { copy });
        }
        let uuid = text(&bytes[0xa8..0xd0]).ok_or_else(|| refuse("uuid", "not text".into(), "text"))?;
        let json = text(&bytes[BINARY_BYTES..]).ok_or_else(|| {
            refuse("metadata", "bytes behind its end, or not text".into(), "text, then zeros")
        })?;
        Ok(Self { seqid: number(0x10), uuid, json })
    }
}

/// Writes both copies with the given metadata, fresh salts and right checksums.
pub(super) fn write_copies(header: &mut [u8], uuid: &str, seqid: u64, json: &str) {
    let (copies, _) = header.split_at_mut(COPIES_BYTES);
    for (bytes, copy) in copies.chunks_exact_mut(COPY_BYTES).zip(Copy::BOTH) {
        bytes.fill(0);
        bytes[..6].copy_from_slice(&MAGIC[copy as usize]);
        bytes[6..8].copy_from_slice(&VERSION.to_be_bytes());
        bytes[8..0x10].copy_from_slice(&(COPY_BYTES as u64).to_be_bytes());
        bytes[0x10..0x18].copy_from_slice(&seqid.to_be_bytes());
        bytes[0x48..0x4e].copy_from_slice(b"sha256");
        crypto::fill_random(&mut bytes[0x68..0xa8]);
        bytes[0xa8..0xa8 + uuid.len()].copy_from_slice(uuid.as_bytes());
        bytes[0x100..0x108].copy_from_slice(&(copy.offset() as u64).to_be_bytes());
        bytes[BINARY_BYTES..BINARY_BYTES + json.len()].copy_from_slice(json.as_bytes());
        let sum = checksum(bytes);
        bytes[CHECKSUM.start..CHECKSUM.start + 32].copy_from_slice(&sum);
    }
}

/// SHA-256 over the whole copy with the checksum field zero.
pub(super) fn checksum(copy: &[u8]) -> [u8; 32] {
    crypto::sha256(&[&copy[..CHECKSUM.start], &[0; 64], &copy[CHECKSUM.end..]])
}

/// Text, then only NULs.
fn text(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    let (text, rest) = field.split_at(end);
    rest.iter().all(|&byte| byte == 0).then(|| std::str::from_utf8(text).ok())?
}
