//! Messages of QEMU's TPM emulator protocol, control channel: big-endian, one answer for each command.
//!
//! Source: QEMU `docs/specs/tpm.rst` and `backends/tpm/tpm_ioctl.h`. The messages that would hand the TPM's state out or
//! take one in (GET_STATEBLOB, SET_STATEBLOB, STORE_VOLATILE) have no place here: the peer is the host.

use super::engine::BufferSizes;

/// Result code of a command that is not offered (TPM 1.2's `TPM_BAD_ORDINAL`, as swtpm answers).
const BAD_ORDINAL: u32 = 0x0a;
/// Result code of a command that failed (`TPM_FAIL`).
const FAIL: u32 = 0x09;

/// Capability bits: INIT, SHUTDOWN, GET and RESET TPMESTABLISHED, SET_LOCALITY, STOP, GET_CONFIG, SET_DATAFD,
/// SET_BUFFERSIZE. Absent on purpose: every bit about state blobs, DRTM hashing and cancelling.
pub const CAPABILITIES: u64 = 0x1 | 0x2 | 0x4 | 0x8 | 0x80 | 0x400 | 0x800 | 0x1000 | 0x2000;

/// A command of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// What is offered.
    GetCapability,
    /// Power on (reset). The flag asks to forget volatile state, which is not kept anyway.
    Init,
    /// Power off; QEMU goes away.
    Shutdown,
    /// Reads the `tpmEstablished` bit.
    GetEstablished,
    /// Locality of the commands to come.
    SetLocality(u8),
    /// Clears the `tpmEstablished` bit.
    ResetEstablished(u8),
    /// Power off; buffer sizes may be set.
    Stop,
    /// Which of the emulator's keys are set.
    GetConfig,
    /// A socket for TPM commands comes with this message.
    SetDataFd,
    /// Sets or (0) asks the buffer size.
    SetBufferSize(u32),
    /// Anything else.
    Other(u32),
}

impl Command {
    /// How many bytes follow the command number; `None` if this command is not known.
    pub fn body_length(number: u32) -> Option<usize> {
        match number {
            0x01 | 0x03 | 0x04 | 0x06 | 0x08 | 0x09 | 0x0a | 0x0e | 0x0f | 0x10 => Some(0),
            0x02 | 0x05 | 0x0b | 0x11 => Some(4),
            0x0c => Some(12),
            0x12 => Some(16),
            0x13 => Some(4),
            _ => None,
        }
    }

    /// A command from its number and body (of [`Command::body_length`] bytes).
    pub fn parse(number: u32, body: &[u8]) -> Self {
        let word = body.first_chunk::<4>().map_or(0, |b| u32::from_be_bytes(*b));
        let byte = body.first().copied().unwrap_or(0);
        match number {
            0x01 => Self::GetCapability,
            0x02 => Self::Init,
            0x03 => Self::Shutdown,
            0x04 => Self::GetEstablished,
            0x05 => Self::SetLocality(byte),
            0x0b => Self::ResetEstablished(byte),
            0x0e => Self::Stop,
            0x0f => Self::GetConfig,
            0x10 => Self::SetDataFd,
            0x11 => Self::SetBufferSize(word),
            other => Self::Other(other),
        }
    }
}

/// An answer to QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Success without data.
    Done,
    /// Failed.
    Failed,
    /// Not offered.
    NotOffered,
    /// Capability bits.
    Capabilities,
    /// The bit.
    Established(bool),
    /// No key is set.
    Config,
    /// Buffer sizes.
    Buffer(BufferSizes),
}

impl Reply {
    /// The bytes to send.
    pub fn to_bytes(self) -> Vec<u8> {
        let result = |code: u32| code.to_be_bytes().to_vec();
        match self {
            Self::Done => result(0),
            Self::Failed => result(FAIL),
            Self::NotOffered => result(BAD_ORDINAL),
            Self::Capabilities => CAPABILITIES.to_be_bytes().to_vec(),
            Self::Established(bit) => [0, 0, 0, 0, u8::from(bit), 0, 0, 0].to_vec(),
            Self::Config => vec![0; 8],
            Self::Buffer(sizes) => {
                [0, sizes.current, sizes.min, sizes.max].into_iter().flat_map(u32::to_be_bytes).collect()
            }
        }
    }
}
