//! Looks into an initramfs, as an image is imported: could it unlock the disk by TPM? Never part of a start.
//!
//! An initramfs is a row of segments, each a plain cpio archive or a compressed one (Linux,
//! `Documentation/driver-api/early-userspace/buffer-format.rst`). What could not be read by the kernel, or not be
//! understood here, is refused. Output, memory and time are bounded.

mod compression;
mod contents;
mod cpio;
mod input;
mod needs;

use std::io;
use std::time::Instant;

pub use needs::Missing;

use self::compression::Compression;
use self::contents::Contents;
use self::cpio::Archives;
use self::input::Input;

/// Most bytes of all segments unpacked.
pub const MAX_UNPACKED: u64 = 1 << 30;
/// Most segments.
const MAX_SEGMENTS: usize = 64;

/// Why an initramfs is refused.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    /// The entry names none, or it is empty.
    #[error("there is none; the kernel alone cannot unlock the disk")]
    None,
    /// It ends too early.
    #[error("it is cut off: a segment ends within {field}, at its byte {at}")]
    Truncated {
        /// What was being read.
        field: &'static str,
        /// Where.
        at: u64,
    },
    /// A field has a value that the kernel would not take.
    #[error("it is damaged: {field} at byte {at} of a segment")]
    Damaged {
        /// Which field.
        field: &'static str,
        /// Where.
        at: u64,
    },
    /// A compression that is not looked into.
    #[error("it is compressed with {0}, which is not looked into; make it with zstd, gzip or xz")]
    Compression(&'static str),
    /// Neither an archive nor a compression.
    #[error("at byte {0} stands neither a cpio archive nor a known compression")]
    Unknown(usize),
    /// A compressed segment is damaged, or cut off.
    #[error("its {compression} segment cannot be unpacked")]
    Decompression {
        /// Which compression.
        compression: &'static str,
        /// What the decompressor says.
        #[source]
        source: io::Error,
    },
    /// More than any initramfs has.
    #[error("it has more than {0}")]
    TooMuch(&'static str),
    /// What unlocks by TPM is not all there.
    #[error("it cannot unlock the disk by TPM: {}", needs::list(.0))]
    Missing(Vec<Missing>),
}

/// Checks that an initramfs for the kernel `release` has what unlocks a LUKS2 root by TPM.
///
/// # Errors
/// [`InitramfsError`].
pub fn check(bytes: &[u8], release: &str, deadline: Instant) -> Result<(), InitramfsError> {
    let contents = unpack(bytes, release, deadline)?;
    if contents.is_empty() {
        return Err(InitramfsError::None);
    }
    match needs::missing(&contents, release) {
        missing if missing.is_empty() => Ok(()),
        missing => Err(InitramfsError::Missing(missing)),
    }
}

fn unpack(bytes: &[u8], release: &str, deadline: Instant) -> Result<Contents, InitramfsError> {
    let mut contents = Contents::new(release);
    let mut input = Input::new(bytes, deadline);
    let mut budget = MAX_UNPACKED;
    for _ in 0..MAX_SEGMENTS {
        input.skip_zeros();
        if input.rest().is_empty() {
            return Ok(contents);
        }
        budget = segment(&mut input, &mut contents, budget)?;
    }
    Err(InitramfsError::TooMuch("64 segments"))
}

/// Reads one segment; what is left of the budget.
fn segment(input: &mut Input<'_>, contents: &mut Contents, budget: u64) -> Result<u64, InitramfsError> {
    let rest = input.rest();
    if rest.starts_with(b"0707") && input.position().is_multiple_of(4) {
        let mut archive = Archives::new(input, budget, None);
        archive.read_one(contents)?;
        return Ok(archive.budget());
    }
    let compression = Compression::of(rest, input.position())?;
    let failed = |source| InitramfsError::Decompression { compression: compression.name(), source };
    let mut archives = Archives::new(compression.open(input).map_err(failed)?, budget, Some(compression));
    archives.read_all(contents)?;
    Ok(archives.budget())
}
