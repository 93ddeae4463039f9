//! Frames, and reading their bodies.

use std::io::{self, Read, Write};

/// Most bytes behind the length field.
pub const MAX_FRAME: usize = 16 << 20;

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer went away between two messages.
    #[error("the secure processor's peer closed the connection")]
    Closed,
    /// Reading failed, or ended inside a message.
    #[error("reading a secure-processor message")]
    Io(#[source] io::Error),
    /// The length is none that a message can have.
    #[error("a secure-processor message has 1 to {MAX_FRAME} bytes, not {len}")]
    Length {
        /// Length field.
        len: u64,
    },
    /// No such message.
    #[error("{opcode:#04x} is no opcode of this channel")]
    Opcode {
        /// First byte.
        opcode: u8,
    },
    /// The body is shorter or longer than its fields, or a field has an impossible value.
    #[error("the body of secure-processor message {opcode:#04x} is malformed: {what}")]
    Body {
        /// First byte.
        opcode: u8,
        /// The field at fault.
        what: &'static str,
    },
}

/// A complete message: opcode and body.
pub(super) struct Message {
    pub(super) opcode: u8,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// The bytes on the wire.
    pub(super) fn encode(self) -> Vec<u8> {
        let len = u32::try_from(self.body.len() + 1).unwrap_or(u32::MAX);
        let mut wire = Vec::with_capacity(self.body.len() + 5);
        wire.extend(len.to_le_bytes());
        wire.push(self.opcode);
        wire.extend(self.body);
        wire
    }

    /// Splits what stood behind a length field.
    pub(super) fn decode(frame: &[u8]) -> Result<Self, FrameError> {
        let (opcode, body) = frame.split_first().ok_or(FrameError::Length { len: 0 })?;
        Ok(Self { opcode: *opcode, body: body.to_vec() })
    }
}

/// The length field's value, when a message can have it.
pub fn frame_len(field: [u8; 4]) -> Result<usize, FrameError> {
    let len = u32::from_le_bytes(field);
    match usize::try_from(len) {
        Ok(size) if (1..=MAX_FRAME).contains(&size) => Ok(size),
        _ => Err(FrameError::Length { len: u64::from(len) }),
    }
}

/// Writes a message in one call.
pub(super) fn write(message: Message, to: &mut impl Write) -> io::Result<()> {
    if message.body.len() >= MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "secure-processor message over 16 MiB"));
    }
    to.write_all(&message.encode())?;
    to.flush()
}

/// Reads what stands behind the next length field.
pub(super) fn read(from: &mut impl Read) -> Result<Message, FrameError> {
    let mut field = [0; 4];
    match from.read(&mut field) {
        Ok(0) => return Err(FrameError::Closed),
        Ok(got) => {
            let rest = field.get_mut(got..).unwrap_or_default();
            from.read_exact(rest).map_err(FrameError::Io)?;
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return read(from),
        Err(error) => return Err(FrameError::Io(error)),
    }
    let len = frame_len(field)?;
    let mut frame = Vec::new();
    let limit = u64::try_from(len).unwrap_or(u64::MAX);
    from.take(limit).read_to_end(&mut frame).map_err(FrameError::Io)?;
    if frame.len() < len {
        return Err(FrameError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    Message::decode(&frame)
}

/// Takes fields off the front of a body.
pub(super) struct Fields<'a> {
    opcode: u8,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) const fn new(opcode: u8, body: &'a [u8]) -> Self {
        Self { opcode, rest: body }
    }

    pub(super) const fn error(&self, what: &'static str) -> FrameError {
        FrameError::Body { opcode: self.opcode, what }
    }

    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], FrameError> {
        let (value, rest) = self.rest.split_first_chunk().ok_or(self.error(what))?;
        self.rest = rest;
        Ok(*value)
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, FrameError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, FrameError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, FrameError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Reserved bytes, which must be zero.
    pub(super) fn zeros<const N: usize>(&mut self, what: &'static str) -> Result<(), FrameError> {
        if self.array::<N>(what)? == [0; N] { Ok(()) } else { Err(self.error(what)) }
    }

    /// Everything that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Everything that is left, as text.
    pub(super) fn text(&mut self, what: &'static str) -> Result<String, FrameError> {
        String::from_utf8(self.rest().to_vec()).map_err(|_| self.error(what))
    }

    pub(super) fn end(self) -> Result<(), FrameError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error("bytes behind the last field")) }
    }
}
