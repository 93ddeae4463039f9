//! The CUSE protocol, as far as a device with nothing but ioctls needs it (Linux `include/uapi/linux/fuse.h`, protocol
//! 7.23 and later). Numbers are in the machine's byte order, which is little-endian where there is SEV-SNP.

/// Operations (`enum fuse_opcode`).
pub mod opcode {
    #![allow(missing_docs, reason = "the constants bear the kernel's names")]
    pub const OPEN: u32 = 14;
    pub const RELEASE: u32 = 18;
    pub const FLUSH: u32 = 25;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const CUSE_INIT: u32 = 4096;
}

/// Error numbers.
pub mod errno {
    #![allow(missing_docs, reason = "the constants bear the kernel's names")]
    pub const EIO: i32 = 5;
    pub const EINVAL: i32 = 22;
    pub const ENOTTY: i32 = 25;
    pub const ENOSPC: i32 = 28;
    pub const ENOSYS: i32 = 38;
}

const CUSE_UNRESTRICTED_IOCTL: u32 = 1;
const FUSE_IOCTL_COMPAT: u32 = 1;
const FUSE_IOCTL_RETRY: u32 = 1 << 2;
const IN_HEADER: usize = 40;
const IOCTL_IN: usize = 32;
/// The newest protocol of which nothing here is unknown.
const MINOR: u32 = 31;
/// Bytes that one `read` or `write` of the device may carry; there are none.
const MAX_DATA: u32 = 4096;

/// Bytes that a message from the kernel has at most: header, ioctl, and what an ioctl brings.
pub const MAX_MESSAGE: usize = 128 << 10;

/// A message of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// One of [`opcode`].
    pub opcode: u32,
    /// Comes back with the answer.
    pub unique: u64,
    /// What follows the header.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Takes a message apart; `None` when it is shorter than it says.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let len = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let whole = bytes.get(..len)?;
        Some(Self { opcode: u32_at(whole, 4)?, unique: u64_at(whole, 8)?, body: whole.get(IN_HEADER..)? })
    }
}

/// `struct fuse_ioctl_in`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ioctl<'a> {
    /// From a 32-bit process.
    pub compat: bool,
    /// The ioctl's number.
    pub command: u32,
    /// Its argument, an address of the caller.
    pub argument: u64,
    /// What the kernel fetched from the areas that were asked for.
    pub input: &'a [u8],
    /// Bytes that the answer may have.
    pub out_size: usize,
}

impl<'a> Ioctl<'a> {
    /// Reads the body of [`opcode::IOCTL`].
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let in_size = usize::try_from(u32_at(body, 24)?).ok()?;
        let input = body.get(IOCTL_IN..)?.get(..in_size)?;
        Some(Self {
            compat: u32_at(body, 8)? & FUSE_IOCTL_COMPAT != 0,
            command: u32_at(body, 12)?,
            argument: u64_at(body, 16)?,
            input,
            out_size: usize::try_from(u32_at(body, 28)?).ok()?,
        })
    }
}

/// `struct fuse_ioctl_iovec`: an area of the caller's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Address.
    pub base: u64,
    /// Bytes.
    pub len: usize,
}

/// What an ioctl comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IoctlReply {
    /// Ask again, with these areas fetched, and those to be written.
    Retry {
        /// To be fetched.
        fetch: Vec<Area>,
        /// To be written with the answer.
        write: Vec<Area>,
    },
    /// Done: the ioctl's return value (negative: an error number), and what is written to the areas.
    Done {
        /// Return value.
        result: i32,
        /// For the areas, one behind the other.
        data: Vec<u8>,
    },
}

/// An answer without a body.
pub fn empty(unique: u64) -> Vec<u8> {
    answer(unique, 0, &[])
}

/// An error.
pub fn error(unique: u64, errno: i32) -> Vec<u8> {
    answer(unique, -errno, &[])
}

/// Answer to [`opcode::CUSE_INIT`]: the device's name, and that its ioctls fetch and write where they want.
pub fn initialised(unique: u64, device: &str) -> Vec<u8> {
    let words = [7, MINOR, 0, CUSE_UNRESTRICTED_IOCTL, MAX_DATA, MAX_DATA, 0, 0];
    let mut body: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    body.extend([0; 40]);
    body.extend(format!("DEVNAME={device}\0").into_bytes());
    answer(unique, 0, &body)
}

/// Answer to [`opcode::OPEN`]: no state is kept for an open file.
pub fn opened(unique: u64) -> Vec<u8> {
    answer(unique, 0, &[0; 16])
}

/// Answer to [`opcode::IOCTL`].
pub fn ioctl(unique: u64, reply: &IoctlReply) -> Vec<u8> {
    let count = |areas: &[Area]| u32::try_from(areas.len()).unwrap_or(u32::MAX);
    let (words, data) = match reply {
        IoctlReply::Retry { fetch, write } => {
            let areas = fetch.iter().chain(write).flat_map(|area| {
                let len = u64::try_from(area.len).unwrap_or(u64::MAX);
                [area.base.to_le_bytes(), len.to_le_bytes()].concat()
            });
            ([0, FUSE_IOCTL_RETRY, count(fetch), count(write)], areas.collect())
        }
        IoctlReply::Done { result, data } => ([result.cast_unsigned(), 0, 0, 0], data.clone()),
    };
    let mut body: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    body.extend(data);
    answer(unique, 0, &body)
}

/// `struct fuse_out_header` and a body.
fn answer(unique: u64, error: i32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
    [&len.to_le_bytes()[..], &error.to_le_bytes(), &unique.to_le_bytes(), body].concat()
}

/// A number in a structure.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// A number in a structure.
pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().copied().map(u64::from_le_bytes)
}
