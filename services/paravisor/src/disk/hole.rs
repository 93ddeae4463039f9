//! Ranges of zeros in a file: as holes where the file system can, else written.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};

/// Makes a hole, if the file system can; the range then reads as zeros.
pub fn punch(file: &File, range: Range<u64>) -> io::Result<()> {
    match try_punch(file, &range) {
        Err(Errno::EOPNOTSUPP) => Ok(()),
        other => other.map_err(io::Error::from),
    }
}

/// Makes the range read as zeros.
pub fn zero(file: &File, range: Range<u64>, keep_space: bool) -> io::Result<()> {
    if !keep_space && try_punch(file, &range).is_ok() {
        return Ok(());
    }
    let zeros = vec![0; 1 << 20];
    let mut offset = range.start;
    while offset < range.end {
        let length = usize::try_from(range.end - offset).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all_at(zeros.get(..length).unwrap_or_default(), offset)?;
        offset += length as u64;
    }
    Ok(())
}

/// Start of the first bytes in the range that are there and not zero.
pub fn first_data(file: &File, range: Range<u64>) -> io::Result<Option<u64>> {
    let mut offset = range.start;
    let mut buffer = vec![0; 1 << 16];
    while offset < range.end {
        let from = i64::try_from(offset).map_err(io::Error::other)?;
        offset = match lseek(file, from, Whence::SeekData) {
            Err(Errno::ENXIO) => return Ok(None),
            found => u64::try_from(found?).map_err(io::Error::other)?,
        };
        let left = usize::try_from(range.end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(part) = buffer.get_mut(..left.min(1 << 16)).filter(|part| !part.is_empty()) else { break };
        let read = file.read_at(part, offset)?;
        if part.iter().take(read).any(|byte| *byte != 0) {
            return Ok(Some(offset));
        }
        if read == 0 {
            break;
        }
        offset += read as u64;
    }
    Ok(None)
}

fn try_punch(file: &File, range: &Range<u64>) -> Result<(), Errno> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let offset = i64::try_from(range.start).map_err(|_| Errno::EINVAL)?;
    let length = i64::try_from(range.end.saturating_sub(range.start)).map_err(|_| Errno::EINVAL)?;
    if length == 0 { Ok(()) } else { fallocate(file, flags, offset, length) }
}
