//! What all attestations of a TPM have in common (TPM 2.0 library, part 2, TPMS_ATTEST): magic number, kind, the nonce,
//! and the TPM's clock at the moment of signing. [`crate::quote`] and [`crate::certify`] read what follows.

use crate::bytes::Cursor;
use crate::command::alg;
use crate::key::RsaPublic;

/// TPM_GENERATED_VALUE: a restricted key signs nothing that begins with it unless the TPM made it.
pub const MAGIC: u32 = 0xFF54_4347;
/// TPM_ST_ATTEST_CERTIFY.
pub const ATTEST_CERTIFY: u16 = 0x8017;
/// TPM_ST_ATTEST_QUOTE.
pub const ATTEST_QUOTE: u16 = 0x8018;

/// The TPM's clock and counters (TPMS_CLOCK_INFO and the firmware version).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Milliseconds that the TPM counted.
    pub clock: u64,
    /// Resets of the TPM; going back means an older TPM state.
    pub reset_count: u32,
    /// Restarts since the last reset.
    pub restart_count: u32,
    /// Whether the clock is known not to have been ahead.
    pub safe: bool,
    /// The TPM's firmware version.
    pub firmware_version: u64,
}

impl Clock {
    /// Whether two attestations were made between the same two starts of one TPM.
    pub fn same_boot(&self, other: &Self) -> bool {
        let boot = |clock: &Self| (clock.reset_count, clock.restart_count, clock.firmware_version);
        boot(self) == boot(other)
    }
}

/// An attestation up to what its kind adds.
pub(crate) struct Frame<'a> {
    /// The nonce: TPM2B_DATA `extraData`.
    pub nonce: &'a [u8],
    pub clock: Clock,
    /// What the kind adds.
    pub body: Cursor<'a>,
}

/// Why the frame is not that of an attestation of the wanted kind.
pub(crate) enum FrameError {
    Truncated,
    Magic(u32),
    Kind(u16),
}

/// Reads the frame of an attestation of one kind.
pub(crate) fn frame(attest: &[u8], kind: u16) -> Result<Frame<'_>, FrameError> {
    let mut body = Cursor::new(attest);
    let magic = body.be32().ok_or(FrameError::Truncated)?;
    if magic != MAGIC {
        return Err(FrameError::Magic(magic));
    }
    let found = body.be16().ok_or(FrameError::Truncated)?;
    if found != kind {
        return Err(FrameError::Kind(found));
    }
    body.tpm2b().ok_or(FrameError::Truncated)?;
    let nonce = body.tpm2b().ok_or(FrameError::Truncated)?;
    let clock = clock(&mut body).ok_or(FrameError::Truncated)?;
    Ok(Frame { nonce, clock, body })
}

fn clock(cursor: &mut Cursor<'_>) -> Option<Clock> {
    Some(Clock {
        clock: cursor.be64()?,
        reset_count: cursor.be32()?,
        restart_count: cursor.be32()?,
        safe: cursor.u8()? == 1,
        firmware_version: cursor.be64()?,
    })
}

/// Why a signature's frame is not accepted.
pub(crate) enum SignatureFrameError {
    /// Another scheme or hash than RSASSA with SHA-256.
    Scheme,
    /// Cut off, or bytes behind it.
    Malformed,
}

/// Takes a TPMT_SIGNATURE apart; what has exactly the size of the modulus is a bare signature.
pub(crate) fn bare_signature<'a>(
    signature: &'a [u8],
    key: &RsaPublic,
) -> Result<&'a [u8], SignatureFrameError> {
    if signature.len() == key.modulus().len() {
        return Ok(signature);
    }
    let mut cursor = Cursor::new(signature);
    let (scheme, hash) = (cursor.be16(), cursor.be16());
    if (scheme, hash) != (Some(alg::RSASSA), Some(alg::SHA256)) {
        return Err(SignatureFrameError::Scheme);
    }
    let bare = cursor.tpm2b().ok_or(SignatureFrameError::Malformed)?;
    if cursor.is_empty() { Ok(bare) } else { Err(SignatureFrameError::Malformed) }
}
