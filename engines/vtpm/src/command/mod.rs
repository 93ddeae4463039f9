//! TPM 2.0 commands and responses as bytes (TCG TPM 2.0 library, parts 2 and 3): what the platform sends to the vTPM
//! with password sessions, what comes back, and what it reads of the commands that the guest sends.
//!
//! No transport and no HMAC or policy sessions: before the guest runs, all hierarchies have empty or known passwords.

mod build;
mod ephemeral;
mod incoming;
pub(crate) mod response;
mod table;
pub mod template;

pub use build::*;
pub use ephemeral::*;
pub use incoming::*;
pub(crate) use response::selection;
pub use response::*;
pub use table::handle_count;

use thiserror::Error;

/// The largest command or response that this crate accepts. QEMU's TPM buffer is 4096 bytes.
pub const MAX_MESSAGE: usize = 4096;
/// Bytes that one `NV_Write` or `NV_Read` carries at most (libtpms, TPM_PT_NV_BUFFER_MAX).
pub const NV_CHUNK: u16 = 1024;

pub(crate) const TAG_NO_SESSIONS: u16 = 0x8001;
pub(crate) const TAG_SESSIONS: u16 = 0x8002;

/// Algorithm identifiers (TPM_ALG_ID).
pub mod alg {
    #![allow(missing_docs, reason = "the constants bear the specification's names")]
    pub const RSA: u16 = 0x0001;
    pub const SHA1: u16 = 0x0004;
    pub const AES: u16 = 0x0006;
    pub const SHA256: u16 = 0x000B;
    pub const SHA384: u16 = 0x000C;
    pub const SHA512: u16 = 0x000D;
    pub const NULL: u16 = 0x0010;
    pub const SM3_256: u16 = 0x0012;
    pub const RSASSA: u16 = 0x0014;
    pub const RSAES: u16 = 0x0015;
    pub const OAEP: u16 = 0x0017;
    pub const ECC: u16 = 0x0023;
    pub const CFB: u16 = 0x0043;

    /// The size of a digest, for the algorithms of a PCR bank.
    pub fn digest_size(algorithm: u16) -> Option<usize> {
        match algorithm {
            SHA1 => Some(20),
            SHA256 | SM3_256 => Some(32),
            SHA384 => Some(48),
            SHA512 => Some(64),
            _ => None,
        }
    }
}

/// Command codes (TPM_CC) that this crate builds or looks into.
pub mod code {
    #![allow(missing_docs, reason = "the constants bear the specification's names")]
    pub const NV_UNDEFINE_SPACE_SPECIAL: u32 = 0x11F;
    pub const EVICT_CONTROL: u32 = 0x120;
    pub const NV_UNDEFINE_SPACE: u32 = 0x122;
    pub const HIERARCHY_CHANGE_AUTH: u32 = 0x129;
    pub const NV_DEFINE_SPACE: u32 = 0x12A;
    pub const CREATE_PRIMARY: u32 = 0x131;
    pub const NV_WRITE: u32 = 0x137;
    pub const NV_CHANGE_AUTH: u32 = 0x13B;
    pub const SELF_TEST: u32 = 0x143;
    pub const STARTUP: u32 = 0x144;
    pub const SHUTDOWN: u32 = 0x145;
    pub const NV_READ: u32 = 0x14E;
    pub const QUOTE: u32 = 0x158;
    pub const FLUSH_CONTEXT: u32 = 0x165;
    pub const NV_READ_PUBLIC: u32 = 0x169;
    pub const READ_PUBLIC: u32 = 0x173;
    pub const GET_CAPABILITY: u32 = 0x17A;
    pub const PCR_READ: u32 = 0x17E;
    pub const PCR_EXTEND: u32 = 0x182;
}

/// Permanent handles (TPM_RH).
pub mod handle {
    #![allow(missing_docs, reason = "the constants bear the specification's names")]
    pub const OWNER: u32 = 0x4000_0001;
    pub const NULL: u32 = 0x4000_0007;
    pub const PASSWORD_SESSION: u32 = 0x4000_0009;
    pub const LOCKOUT: u32 = 0x4000_000A;
    pub const ENDORSEMENT: u32 = 0x4000_000B;
    pub const PLATFORM: u32 = 0x4000_000C;
}

/// A response code other than success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseCode(pub u32);

impl ResponseCode {
    /// The TPM was already started.
    pub const INITIALIZE: Self = Self(0x100);
    /// The handle (of handle number 1) is not in use: `TPM_RC_HANDLE` for NV and persistent objects.
    pub const HANDLE_1: Self = Self(0x18B);
    /// NV index already defined.
    pub const NV_DEFINED: Self = Self(0x14C);
    /// NV index never written.
    pub const NV_UNINITIALIZED: Self = Self(0x14A);
    /// NV access not authorised.
    pub const NV_AUTHORIZATION: Self = Self(0x149);
    /// NV offset and size outside the index.
    pub const NV_RANGE: Self = Self(0x146);
    /// No error about the request itself, but the TPM asks to send it again.
    pub const RETRY: Self = Self(0x922);

    /// Whether the code says that the named object, index or handle does not exist (`TPM_RC_HANDLE` or
    /// `TPM_RC_REFERENCE_H0`-like, for any handle position).
    pub fn is_missing_handle(self) -> bool {
        self.0 & 0x8FF == 0x08B || self.0 & !0xF == 0x910
    }
}

impl std::fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Why a command or response is not accepted.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CommandError {
    /// The TPM refused the command.
    #[error("the tpm answered {0}")]
    Tpm(ResponseCode),
    /// The bytes end inside the named field.
    #[error("the tpm message is truncated in {0}")]
    Truncated(&'static str),
    /// Bytes follow the named last field.
    #[error("the tpm message has bytes behind {0}")]
    Trailing(&'static str),
    /// The tag is neither TPM_ST_NO_SESSIONS nor TPM_ST_SESSIONS.
    #[error("the tpm message has the tag {0:#x}")]
    Tag(u16),
    /// The header's size is not the size of the message.
    #[error("the tpm message says that it has {stated} bytes, it has {actual}")]
    Size {
        /// As the header says.
        stated: u32,
        /// As received.
        actual: usize,
    },
    /// The command is not one whose handles are known.
    #[error("unknown tpm command {0:#x}")]
    UnknownCommand(u32),
    /// A field has a value that does not fit here.
    #[error("unexpected {0} in the tpm message")]
    Unexpected(&'static str),
}

/// Answer with an error code, as a TPM would send it.
pub fn error_response(code: ResponseCode) -> [u8; 10] {
    let [a, b, c, d] = code.0.to_be_bytes();
    [0x80, 0x01, 0, 0, 0, 10, a, b, c, d]
}
