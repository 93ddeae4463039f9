//! Verification of a TPM quote (TPM 2.0 library, part 2, TPMS_ATTEST): that this attestation key signed, for this
//! nonce, exactly these PCR values.

use thiserror::Error;

use crate::bytes::Cursor;
use crate::command::{alg, selection};
pub use crate::key::RsaPublic;
use crate::pcr::{Digest, PcrBank, to_digest};

const MAGIC: u32 = 0xFF54_4347;
const ATTEST_QUOTE: u16 = 0x8018;

/// Why a quote proves nothing; one variant for each check.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum QuoteError {
    /// The structure cannot be read.
    #[error("the quote is malformed: {0}")]
    Malformed(&'static str),
    /// Not made by a TPM: the magic number is missing.
    #[error("the quote's magic is {0:#x}")]
    Magic(u32),
    /// Attests something other than PCRs.
    #[error("the attestation is of the type {0:#x}, not a quote")]
    Kind(u16),
    /// The signature is not the attestation key's.
    #[error("the quote's signature is not made by the attestation key")]
    Signature,
    /// The signature uses another scheme or hash.
    #[error("the quote's signature is not rsassa with sha-256")]
    Scheme,
    /// The nonce is another one: replayed, or made for somebody else.
    #[error("the quote's qualifying data is not the nonce")]
    Nonce,
    /// A PCR was selected whose value was not given, or nothing was selected.
    #[error("the quote selects {0}")]
    Selection(String),
    /// The quoted values are others than those given.
    #[error("the quote's pcr digest {actual} is not that of the given pcr values, {expected}")]
    PcrDigest {
        /// Of the values given, hex.
        expected: String,
        /// As quoted, hex.
        actual: String,
    },
}

/// What a quote proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedQuote {
    selected: PcrBank,
    clock: u64,
    reset_count: u32,
    restart_count: u32,
    safe: bool,
    firmware_version: u64,
}

impl VerifiedQuote {
    /// The quoted PCRs and their values.
    pub fn pcrs(&self) -> &PcrBank {
        &self.selected
    }

    /// Milliseconds that the TPM counted.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Resets of the TPM; going back means an older TPM state.
    pub fn reset_count(&self) -> u32 {
        self.reset_count
    }

    /// Restarts since the last reset.
    pub fn restart_count(&self) -> u32 {
        self.restart_count
    }

    /// Whether the clock is known not to have been ahead.
    pub fn safe(&self) -> bool {
        self.safe
    }

    /// The TPM's firmware version.
    pub fn firmware_version(&self) -> u64 {
        self.firmware_version
    }
}

/// Verifies a quote over PCRs of the SHA-256 bank.
///
/// `signature` is a TPMT_SIGNATURE, or the bare RSASSA signature as Azure's clients send it. `pcrs` may hold more PCRs
/// than were quoted; only the quoted ones come back.
///
/// # Errors
/// [`QuoteError`].
pub fn verify(
    attest: &[u8],
    signature: &[u8],
    ak: &RsaPublic,
    nonce: &[u8],
    pcrs: &PcrBank,
) -> Result<VerifiedQuote, QuoteError> {
    let parsed = Attest::parse(attest)?;
    if !ak.verify_pkcs1_sha256(attest, bare_signature(signature, ak)?) {
        return Err(QuoteError::Signature);
    }
    if parsed.nonce != nonce {
        return Err(QuoteError::Nonce);
    }
    if parsed.selected.is_empty() {
        return Err(QuoteError::Selection("no pcr".to_owned()));
    }
    let mut selected = PcrBank::default();
    for pcr in &parsed.selected {
        let value = pcrs
            .value(*pcr)
            .ok_or_else(|| QuoteError::Selection(format!("pcr {pcr}, which was not given")))?;
        selected.0.insert(*pcr, *value);
    }
    let expected = selected.digest_of(&parsed.selected).unwrap_or_default();
    if expected != parsed.pcr_digest {
        let (expected, actual) = (hex::encode(expected), hex::encode(parsed.pcr_digest));
        return Err(QuoteError::PcrDigest { expected, actual });
    }
    Ok(VerifiedQuote { selected, ..parsed.facts })
}

struct Attest<'a> {
    nonce: &'a [u8],
    selected: Vec<u8>,
    pcr_digest: Digest,
    facts: VerifiedQuote,
}

impl<'a> Attest<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, QuoteError> {
        let mut cursor = Cursor::new(bytes);
        let short = || QuoteError::Malformed("truncated");
        let magic = cursor.be32().ok_or_else(short)?;
        if magic != MAGIC {
            return Err(QuoteError::Magic(magic));
        }
        let kind = cursor.be16().ok_or_else(short)?;
        if kind != ATTEST_QUOTE {
            return Err(QuoteError::Kind(kind));
        }
        cursor.tpm2b().ok_or_else(short)?;
        let nonce = cursor.tpm2b().ok_or_else(short)?;
        let facts = facts(&mut cursor).ok_or_else(short)?;
        let selected = selection(&mut cursor).map_err(|_| QuoteError::Malformed("pcr selection"))?;
        let pcr_digest = cursor.tpm2b().ok_or_else(short)?;
        if pcr_digest.len() != 32 || !cursor.is_empty() {
            return Err(QuoteError::Malformed("pcr digest"));
        }
        Ok(Self { nonce, selected, pcr_digest: to_digest(pcr_digest), facts })
    }
}

fn facts(cursor: &mut Cursor<'_>) -> Option<VerifiedQuote> {
    Some(VerifiedQuote {
        selected: PcrBank::default(),
        clock: cursor.be64()?,
        reset_count: cursor.be32()?,
        restart_count: cursor.be32()?,
        safe: cursor.u8()? == 1,
        firmware_version: cursor.be64()?,
    })
}

/// Takes a TPMT_SIGNATURE apart; what has exactly the size of the modulus is a bare signature.
fn bare_signature<'a>(signature: &'a [u8], ak: &RsaPublic) -> Result<&'a [u8], QuoteError> {
    if signature.len() == ak.modulus().len() {
        return Ok(signature);
    }
    let mut cursor = Cursor::new(signature);
    let (scheme, hash) = (cursor.be16(), cursor.be16());
    if (scheme, hash) != (Some(alg::RSASSA), Some(alg::SHA256)) {
        return Err(QuoteError::Scheme);
    }
    let bare = cursor.tpm2b().ok_or(QuoteError::Malformed("signature"))?;
    if !cursor.is_empty() {
        return Err(QuoteError::Malformed("signature"));
    }
    Ok(bare)
}
