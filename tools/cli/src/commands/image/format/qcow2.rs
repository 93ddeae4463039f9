//! qcow2 (QEMU, `docs/interop/qcow2.txt`): refuses what is not whole in itself, and follows the tables to find what a cut
//! took away. Nothing is decoded.

use super::{Fault, Image, disk_size, number};

pub(super) const MAGIC: &[u8] = b"QFI\xfb";

const HEADER: usize = 72;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const EXTENDED_L2: u64 = 1 << 4;
/// Dirty, corrupt, external data, compression type, extended L2.
const KNOWN: u64 = 0x1f;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
/// QEMU's own limit.
const MAX_L1: u64 = 32 << 20;

const WHOLE: &str =
    "make one whole file where you trust what it names: `qemu-img convert -O qcow2 FILE whole.qcow2`";

struct Header {
    cluster_bits: u64,
    size: u64,
    l1_size: u64,
    l1_offset: u64,
    entry_bytes: u64,
}

/// Checks the file; the disk's size.
pub(super) fn check(image: &Image) -> Result<u64, Fault> {
    let header = header(image)?;
    let per_table = header.cluster() / header.entry_bytes;
    let needed = header.size.div_ceil(header.cluster() * per_table);
    if header.l1_size < needed || needed * 8 > MAX_L1 {
        return Err(Fault::damaged("l1_size does not fit the disk's size"));
    }
    let table = image.bytes("l1_table_offset", header.l1_offset, bytes(needed * 8)?)?;
    for (entry, index) in table.chunks_exact(8).zip(0..) {
        let place = number(entry, 0, 8) & OFFSET;
        if place != 0 {
            let count = bytes(header.cluster())?;
            let table =
                image.bytes(&format!("the L2 table in entry {index} of the L1 table"), place, count)?;
            check_clusters(image, &header, &table, index * per_table)?;
        }
    }
    Ok(header.size)
}

fn header(image: &Image) -> Result<Header, Fault> {
    let bytes = image.bytes("the header", 0, HEADER)?;
    let version = number(&bytes, 4, 4);
    if !matches!(version, 2 | 3) {
        return Err(Fault::new(
            format!("this is a qcow file of version {version}, not 2 or 3"),
            super::CONVERT,
        ));
    }
    refuse_backing_file(image, &bytes)?;
    let method = number(&bytes, 32, 4);
    if method != 0 {
        let found = format!("the qcow2 file is encrypted (crypt_method {method})");
        return Err(Fault::new(
            found,
            "import the plain image; each VM's disk is encrypted when it first starts",
        ));
    }
    let features = if version == 3 { features(image)? } else { 0 };
    let cluster_bits = number(&bytes, 20, 4);
    if !(9..=21).contains(&cluster_bits) {
        return Err(Fault::damaged(&format!("cluster_bits is {cluster_bits}, not 9 to 21")));
    }
    Ok(Header {
        cluster_bits,
        size: disk_size(number(&bytes, 24, 8))?,
        l1_size: number(&bytes, 36, 4),
        l1_offset: number(&bytes, 40, 8),
        entry_bytes: if features & EXTENDED_L2 == 0 { 8 } else { 16 },
    })
}

fn refuse_backing_file(image: &Image, header: &[u8]) -> Result<(), Fault> {
    let (at, length) = (number(header, 8, 8), number(header, 16, 4));
    if at == 0 && length == 0 {
        return Ok(());
    }
    let name = image.bytes("backing_file_offset", at, bytes(length.min(1023))?)?;
    let name = String::from_utf8_lossy(&name).escape_debug().to_string();
    Err(Fault::new(
        format!("the qcow2 file has a backing file, \"{name}\"; it is not whole in itself"),
        WHOLE,
    ))
}

fn features(image: &Image) -> Result<u64, Fault> {
    let features = number(&image.bytes("incompatible_features", 72, 8)?, 0, 8);
    if features & EXTERNAL_DATA != 0 {
        let found = "the qcow2 file has an external data file; it is not whole in itself";
        return Err(Fault::new(found, WHOLE));
    }
    if features & CORRUPT != 0 {
        let remedy = "look at it with `qemu-img check`, or fetch it again";
        return Err(Fault::new("the qcow2 file is marked as corrupt", remedy));
    }
    match features & !KNOWN {
        0 => Ok(features),
        unknown => {
            let found = format!("the qcow2 file has unknown incompatible_features ({unknown:#x})");
            Err(Fault::new(found, super::CONVERT))
        }
    }
}

/// Each cluster that an L2 table names lies in the file.
fn check_clusters(image: &Image, header: &Header, table: &[u8], first: u64) -> Result<(), Fault> {
    for (entry, index) in table.chunks_exact(bytes(header.entry_bytes)?).zip(first..) {
        let guest = index * header.cluster();
        if let Some((at, count)) = header.extent(entry, header.size.saturating_sub(guest)) {
            image.holds(&format!("the cluster of the disk's byte {guest}"), at, count)?;
        }
    }
    Ok(())
}

impl Header {
    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Place and least length in the file of what an entry names, `left` bytes before the disk's end.
    fn extent(&self, entry: &[u8], left: u64) -> Option<(u64, u64)> {
        let descriptor = number(entry, 0, 8);
        if left == 0 {
            return None;
        }
        if descriptor & COMPRESSED != 0 {
            let offset_bits = 62 - (self.cluster_bits - 8);
            let at = descriptor & ((1 << offset_bits) - 1);
            let more = descriptor >> offset_bits & ((1 << (self.cluster_bits - 8)) - 1);
            // The last of its sectors may not be written to its end.
            return Some((at & !511, more * 512 + 1));
        }
        let used = match self.entry_bytes {
            // The subclusters that hold data, up to the last of 32.
            16 => {
                (64 - u64::from((number(entry, 8, 8) & 0xffff_ffff).leading_zeros())) * (self.cluster() / 32)
            }
            // All zeros, whatever is allocated.
            _ if descriptor & 1 != 0 => 0,
            _ => self.cluster(),
        };
        let at = descriptor & OFFSET;
        (at != 0 && used != 0).then(|| (at, used.min(left)))
    }
}

fn bytes(count: u64) -> Result<usize, Fault> {
    usize::try_from(count).map_err(|_| Fault::damaged("a length is beyond all bounds"))
}
