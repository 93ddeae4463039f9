//! The manifest: what an image is, and the SHA-256 of each of its chunks of 1 MiB, so that it can be verified while it is
//! read, in any order, holes without reading them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::gpt::Gpt;
use super::{DiskLayout, ImageError, Layout, Partition};
use crate::{crypto, luks2};

/// Size of a chunk.
pub const CHUNK_BYTES: usize = 1 << 20;
const CHUNK: u64 = CHUNK_BYTES as u64;
const VERSION: u32 = 1;

/// SHA-256 of one chunk; hex in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkDigest(pub [u8; 32]);

impl Serialize for ChunkDigest {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for ChunkDigest {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let mut digest = [0; 32];
        let text = String::deserialize(input)?;
        hex::decode_to_slice(text, &mut digest).map_err(|_| D::Error::custom("not a SHA-256 in hex"))?;
        Ok(Self(digest))
    }
}

/// What is known about an image beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The image's name.
    pub name: String,
    /// LUKS2 UUID that its kernel command line opens.
    pub luks_uuid: Uuid,
    /// Name of the mapping on its kernel command line.
    pub mapping: String,
    /// Its boot loader, for people.
    pub loader: String,
}

/// An image, pinned. Its identity is the SHA-256 of its bytes ([`Manifest::digest_of`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// Form of this document: 1.
    pub version: u32,
    /// The image's name.
    pub name: String,
    /// Bytes of the raw image.
    pub size: u64,
    /// Bytes of a chunk: 1 MiB.
    pub chunk_size: u64,
    /// LUKS2 UUID that its kernel command line opens.
    pub luks_uuid: Uuid,
    /// Name of the mapping on its kernel command line.
    pub mapping: String,
    /// Its boot loader, for people.
    pub loader: String,
    /// Partitions by number.
    pub partitions: Vec<Partition>,
    /// Number of the EFI system partition.
    pub esp: u32,
    /// Number of the root partition.
    pub root: u32,
    /// Bytes of the root file system; it ends at least 16 MiB before its partition.
    pub filesystem_bytes: u64,
    /// SHA-256 of each chunk (the last one may be short).
    pub chunks: Vec<ChunkDigest>,
}

impl Manifest {
    /// Reads a whole image (on two threads, skipping holes).
    pub fn build(image: &File, facts: Facts) -> Result<Self, ImageError> {
        let Layout { partitions, esp, root, filesystem_bytes } = Layout::discover(image)?;
        let size = image.metadata()?.len();
        let Facts { name, luks_uuid, mapping, loader } = facts;
        let chunks = hash_chunks(image, size)?;
        let (version, chunk_size) = (VERSION, CHUNK);
        Ok(Self {
            version,
            name,
            size,
            chunk_size,
            luks_uuid,
            mapping,
            loader,
            partitions,
            esp,
            root,
            filesystem_bytes,
            chunks,
        })
    }

    /// Parses and checks.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| ImageError::Manifest(error.to_string()))?;
        let wrong = |what: &str| Err(ImageError::Manifest(what.to_owned()));
        if manifest.version != VERSION || manifest.chunk_size != CHUNK {
            return wrong("only version 1 with chunks of 1048576 bytes is known");
        }
        if manifest.chunks.len() as u64 != manifest.size.div_ceil(CHUNK) {
            return wrong("there is not one digest for each chunk of the image's size");
        }
        if manifest.partitions.iter().any(|partition| partition.end() > manifest.size) {
            return wrong("a partition does not lie in the image");
        }
        manifest.layout().check()?;
        Ok(manifest)
    }

    /// As JSON; the image's identity is the digest of exactly these bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain values serialise")
    }

    /// The identity of an image: SHA-256 of its manifest's bytes.
    pub fn digest_of(manifest: &[u8]) -> [u8; 32] {
        crypto::sha256(&[manifest])
    }

    /// What lies where in the image.
    pub fn layout(&self) -> Layout {
        let Self { partitions, esp, root, filesystem_bytes, .. } = self;
        let (partitions, esp, root, filesystem_bytes) = (partitions.clone(), *esp, *root, *filesystem_bytes);
        Layout { partitions, esp, root, filesystem_bytes }
    }

    /// What lies where on a disk of this size (rounded down to 512 bytes): on a larger one than the image the backup
    /// partition table moves to its end and the root partition, if it is the last, grows.
    pub fn disk_layout(&self, disk_bytes: u64) -> Result<DiskLayout, ImageError> {
        if disk_bytes < self.size {
            return Err(ImageError::DiskTooSmall { disk: disk_bytes, image: self.size });
        }
        let disk_bytes = if disk_bytes > self.size { disk_bytes / 512 * 512 } else { disk_bytes };
        let layout = self.layout();
        let root = layout.root();
        let grown = disk_bytes > self.size;
        let data_end = if grown { Gpt::grown_end(&self.partitions, root, disk_bytes) } else { root.end() };
        let data_start = root.start + luks2::DATA_OFFSET;
        Ok(DiskLayout { disk_bytes, header_start: root.start, data_start, data_end })
    }

    /// Range of one chunk in the image.
    pub(crate) fn chunk_range(&self, index: usize) -> std::ops::Range<u64> {
        let start = index as u64 * CHUNK;
        start..(start + CHUNK).min(self.size)
    }

    /// Whether a chunk's digest is that of zeros.
    pub(crate) fn is_zeros(&self, index: usize) -> bool {
        let range = self.chunk_range(index);
        range.end - range.start == CHUNK && self.chunks[index] == zero_digest()
    }
}

fn zero_digest() -> ChunkDigest {
    static DIGEST: std::sync::LazyLock<ChunkDigest> =
        std::sync::LazyLock::new(|| ChunkDigest(crypto::sha256(&[&vec![0; CHUNK_BYTES]])));
    *DIGEST
}

fn hash_chunks(image: &File, size: u64) -> Result<Vec<ChunkDigest>, ImageError> {
    let count =
        usize::try_from(size.div_ceil(CHUNK)).map_err(|_| ImageError::Manifest("too large".into()))?;
    let next = AtomicUsize::new(0);
    let parts = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(|| hash_some(image, size, count, &next))).collect();
        workers.into_iter().map(|worker| worker.join().expect("hashing does not panic")).collect::<Vec<_>>()
    });
    let mut chunks = vec![ChunkDigest([0; 32]); count];
    for part in parts {
        for (index, digest) in part? {
            chunks[index] = digest;
        }
    }
    Ok(chunks)
}

fn hash_some(
    image: &File,
    size: u64,
    count: usize,
    next: &AtomicUsize,
) -> io::Result<Vec<(usize, ChunkDigest)>> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut digests = Vec::new();
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= count {
            return Ok(digests);
        }
        let start = index as u64 * CHUNK;
        let length = usize::try_from((size - start).min(CHUNK)).expect("1 MiB at most");
        if length == CHUNK_BYTES && is_hole(image, start) {
            digests.push((index, zero_digest()));
            continue;
        }
        image.read_exact_at(&mut buffer[..length], start)?;
        digests.push((index, ChunkDigest(crypto::sha256(&[&buffer[..length]]))));
    }
}

/// Whether the file has no data in the chunk at `start`. Uncertain means no.
fn is_hole(image: &File, start: u64) -> bool {
    use nix::errno::Errno;
    use nix::unistd::{Whence, lseek};
    let Ok(offset) = i64::try_from(start) else { return false };
    match lseek(image, offset, Whence::SeekData) {
        Ok(data) => data >= offset + (1 << 20),
        Err(error) => error == Errno::ENXIO,
    }
}
