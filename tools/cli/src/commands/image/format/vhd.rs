//! VHD (Microsoft, "Virtual Hard Disk Image Format Specification"): fixed and dynamic disks; a differencing disk is
//! refused, and so is a file without its end.

use super::{Fault, Image, disk_size, number};

const COOKIE: &[u8] = b"conectix";
const FOOTER: u64 = 512;
const MAX_BLOCKS: u64 = 16 << 20;
const UNUSED: u64 = 0xffff_ffff;

/// Whether a footer, or the copy of it that begins a dynamic disk, is there.
pub(super) fn is(image: &Image) -> bool {
    image.has(COOKIE, 0) || image.length >= FOOTER && image.has(COOKIE, image.length - FOOTER)
}

/// Checks the file; the disk's size.
pub(super) fn check(image: &Image) -> Result<u64, Fault> {
    let end = image.length.saturating_sub(FOOTER);
    if image.length < FOOTER || !image.has(COOKIE, end) {
        let found = "the VHD file is cut off: its footer is missing, only the copy at the start is there";
        return Err(Fault::new(found, super::FETCH_AGAIN));
    }
    let footer = image.bytes("the footer", end, 512)?;
    check_sum(&footer, 64, "the footer's checksum does not match")?;
    let size = disk_size(number(&footer, 48, 8))?;
    match number(&footer, 60, 4) {
        2 if size <= end => Ok(size),
        2 => Err(Fault::cut_off("the current size in the footer", size.saturating_add(FOOTER), image.length)),
        3 => check_dynamic(image, number(&footer, 16, 8), size, end).map(|()| size),
        4 => Err(Fault::new(
            "this is a differencing VHD, which needs its parent; it is not whole in itself",
            "merge it with its parent first (Hyper-V: `Merge-VHD`)",
        )),
        kind => Err(Fault::damaged(&format!("the footer's disk type is {kind}, not 2 or 3"))),
    }
}

/// Each block of a dynamic disk lies in front of the footer at `end`.
fn check_dynamic(image: &Image, header_at: u64, size: u64, end: u64) -> Result<(), Fault> {
    let header = image.bytes("the data offset in the footer", header_at, 1024)?;
    if !header.starts_with(b"cxsparse") {
        return Err(Fault::damaged("the dynamic disk header does not begin with \"cxsparse\""));
    }
    check_sum(&header, 36, "the dynamic disk header's checksum does not match")?;
    let (table, blocks, block) = (number(&header, 16, 8), number(&header, 28, 4), number(&header, 32, 4));
    if !block.is_power_of_two() || block < 512 {
        return Err(Fault::damaged(&format!("the block size is {block}")));
    }
    let needed = size.div_ceil(block);
    if blocks < needed || needed > MAX_BLOCKS {
        return Err(Fault::damaged("max table entries does not fit the disk's size"));
    }
    let bitmap = (block / 512).div_ceil(8).next_multiple_of(512);
    let count = usize::try_from(needed * 4).map_err(|_| Fault::damaged("max table entries"))?;
    let table = image.bytes("the block allocation table", table, count)?;
    for (entry, index) in table.chunks_exact(4).zip(0u64..) {
        let sector = number(entry, 0, 4);
        let last = sector * 512 + bitmap + block;
        if sector != UNUSED && last > end {
            return Err(Fault::cut_off(&format!("block {index} of the allocation table"), last, end));
        }
    }
    Ok(())
}

/// The complement of the sum of all bytes but its own.
fn check_sum(bytes: &[u8], at: usize, wrong: &str) -> Result<(), Fault> {
    let all: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    let own: u32 = bytes.iter().skip(at).take(4).map(|byte| u32::from(*byte)).sum();
    match u64::from(!(all - own)) == number(bytes, at, 4) {
        true => Ok(()),
        false => Err(Fault::damaged(wrong)),
    }
}
