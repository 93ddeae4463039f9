//! Numbers and frames of the NBD protocol (NetworkBlockDevice/nbd, `doc/proto.md`); all integers big-endian.

use std::io::{self, Read, Write};

pub const GREETING: u64 = 0x4e42_444d_4147_4943;
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
pub const REPLY_MAGIC: u32 = 0x6744_6698;

/// Handshake flags: fixed newstyle, no zeroes after EXPORT_NAME.
pub const HANDSHAKE_FLAGS: u16 = 0b11;
/// Client flag: it knows `NO_ZEROES`.
pub const CLIENT_NO_ZEROES: u32 = 0b10;

pub const OPT_EXPORT_NAME: u32 = 1;
pub const OPT_ABORT: u32 = 2;
pub const OPT_LIST: u32 = 3;
pub const OPT_INFO: u32 = 6;
pub const OPT_GO: u32 = 7;

pub const REP_ACK: u32 = 1;
pub const REP_SERVER: u32 = 2;
pub const REP_INFO: u32 = 3;
pub const REP_ERR_UNSUP: u32 = 0x8000_0001;
pub const REP_ERR_INVALID: u32 = 0x8000_0003;
pub const REP_ERR_UNKNOWN: u32 = 0x8000_0006;

pub const INFO_EXPORT: u16 = 0;
pub const INFO_BLOCK_SIZE: u16 = 3;

pub const CMD_READ: u16 = 0;
pub const CMD_WRITE: u16 = 1;
pub const CMD_DISCONNECT: u16 = 2;
pub const CMD_FLUSH: u16 = 3;
pub const CMD_TRIM: u16 = 4;
pub const CMD_WRITE_ZEROES: u16 = 6;

/// Command flag: durable before the answer.
pub const FLAG_FUA: u16 = 1;
/// Command flag of WRITE_ZEROES: no hole.
pub const FLAG_NO_HOLE: u16 = 2;

/// has flags, flush, FUA, trim, write zeroes, several connections see one cache.
pub const EXPORT_FLAGS: u16 = 1 | 4 | 8 | 32 | 64 | 256;
/// Added for a read-only export.
pub const EXPORT_READ_ONLY: u16 = 2;

pub const EPERM: u32 = 1;
pub const EIO: u32 = 5;
pub const EINVAL: u32 = 22;
pub const ENOSPC: u32 = 28;

/// Longest payload of one request, announced as the maximum block size; it bounds the memory of a connection.
pub const MAX_PAYLOAD: u32 = 8 << 20;
/// Longest option.
pub const MAX_OPTION: u32 = 8192;

pub fn read_u16(stream: &mut impl Read) -> io::Result<u16> {
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes))
}

pub fn read_u32(stream: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

pub fn read_u64(stream: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

/// An option of the handshake.
pub struct ClientOption {
    pub number: u32,
    pub data: Vec<u8>,
}

impl ClientOption {
    pub fn read(stream: &mut impl Read) -> io::Result<Self> {
        if read_u64(stream)? != OPTION_MAGIC {
            return Err(invalid("an option does not start with IHAVEOPT"));
        }
        let (number, length) = (read_u32(stream)?, read_u32(stream)?);
        if length > MAX_OPTION {
            return Err(invalid("an option is longer than 8192 bytes"));
        }
        let mut data = vec![0; length as usize];
        stream.read_exact(&mut data)?;
        Ok(Self { number, data })
    }

    /// The export name of INFO or GO, if the option is well-formed: length, name, count, as many u16.
    pub fn export_name(&self) -> Option<&[u8]> {
        let (length, rest) = self.data.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let (count, rest) = rest.split_first_chunk::<2>()?;
        (rest.len() == usize::from(u16::from_be_bytes(*count)) * 2).then_some(name)
    }
}

/// Sends one reply to an option.
pub fn reply_option(stream: &mut impl Write, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let length = u32::try_from(data.len()).map_err(io::Error::other)?;
    let mut bytes = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
    for word in [option, kind, length] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(data);
    stream.write_all(&bytes)
}

/// A request of the transmission phase, without its payload.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub flags: u16,
    pub command: u16,
    pub cookie: u64,
    pub offset: u64,
    pub length: u32,
}

impl Request {
    /// The next request; `None` if the client closed the connection between requests.
    pub fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let magic = match read_u32(stream) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        };
        if magic != REQUEST_MAGIC {
            return Err(invalid("a request does not start with its magic"));
        }
        Ok(Some(Self {
            flags: read_u16(stream)?,
            command: read_u16(stream)?,
            cookie: read_u64(stream)?,
            offset: read_u64(stream)?,
            length: read_u32(stream)?,
        }))
    }
}

/// Header of a simple reply.
pub fn reply_header(error: u32, cookie: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    let (head, tail) = bytes.split_at_mut(8);
    tail.copy_from_slice(&cookie.to_be_bytes());
    head.copy_from_slice(&((u64::from(REPLY_MAGIC) << 32) | u64::from(error)).to_be_bytes());
    bytes
}

pub fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
