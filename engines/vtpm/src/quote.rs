//! Verification of a TPM quote (TPM 2.0 library, part 2, TPMS_ATTEST): that this attestation key signed, for this
//! nonce, exactly these PCR values.

use thiserror::Error;

use crate::attest::{ATTEST_QUOTE, Clock, FrameError, SignatureFrameError, bare_signature, frame};
use crate::command::selection;
pub use crate::key::RsaPublic;
use crate::pcr::{Digest, PcrBank, to_digest};

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

impl From<FrameError> for QuoteError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Truncated => Self::Malformed("truncated"),
            FrameError::Magic(magic) => Self::Magic(magic),
            FrameError::Kind(kind) => Self::Kind(kind),
        }
    }
}

impl From<SignatureFrameError> for QuoteError {
    fn from(error: SignatureFrameError) -> Self {
        match error {
            SignatureFrameError::Scheme => Self::Scheme,
            SignatureFrameError::Malformed => Self::Malformed("signature"),
        }
    }
}

/// What a quote proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedQuote {
    selected: PcrBank,
    nonce: Vec<u8>,
    clock: Clock,
}

impl VerifiedQuote {
    /// The quoted PCRs and their values.
    pub fn pcrs(&self) -> &PcrBank {
        &self.selected
    }

    /// The qualifying data: what the asker gave; empty where the asker gave nothing.
    pub fn nonce(&self) -> &[u8] {
        &self.nonce
    }

    /// The TPM's clock and counters at the moment of the quote.
    pub fn clock(&self) -> &Clock {
        &self.clock
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
    let parsed = Attest::signed(attest, signature, ak)?;
    if parsed.nonce != nonce {
        return Err(QuoteError::Nonce);
    }
    parsed.over(pcrs)
}

/// The same for a quote whose qualifying data the caller judges: it is in the result.
///
/// # Errors
/// [`QuoteError`], never [`QuoteError::Nonce`].
pub fn verify_with_any_nonce(
    attest: &[u8],
    signature: &[u8],
    ak: &RsaPublic,
    pcrs: &PcrBank,
) -> Result<VerifiedQuote, QuoteError> {
    Attest::signed(attest, signature, ak)?.over(pcrs)
}

struct Attest<'a> {
    nonce: &'a [u8],
    selected: Vec<u8>,
    pcr_digest: Digest,
    clock: Clock,
}

impl<'a> Attest<'a> {
    fn signed(bytes: &'a [u8], signature: &[u8], ak: &RsaPublic) -> Result<Self, QuoteError> {
        let parsed = Self::parse(bytes)?;
        if ak.verify_pkcs1_sha256(bytes, bare_signature(signature, ak)?) {
            Ok(parsed)
        } else {
            Err(QuoteError::Signature)
        }
    }

    fn parse(bytes: &'a [u8]) -> Result<Self, QuoteError> {
        let mut frame = frame(bytes, ATTEST_QUOTE)?;
        let selected = selection(&mut frame.body).map_err(|_| QuoteError::Malformed("pcr selection"))?;
        let pcr_digest = frame.body.tpm2b().ok_or(QuoteError::Malformed("truncated"))?;
        if pcr_digest.len() != 32 || !frame.body.is_empty() {
            return Err(QuoteError::Malformed("pcr digest"));
        }
        Ok(Self { nonce: frame.nonce, selected, pcr_digest: to_digest(pcr_digest), clock: frame.clock })
    }

    /// Compares with the values that the quote is said to be over.
    fn over(self, pcrs: &PcrBank) -> Result<VerifiedQuote, QuoteError> {
        if self.selected.is_empty() {
            return Err(QuoteError::Selection("no pcr".to_owned()));
        }
        let mut selected = PcrBank::default();
        for pcr in &self.selected {
            let value = pcrs
                .value(*pcr)
                .ok_or_else(|| QuoteError::Selection(format!("pcr {pcr}, which was not given")))?;
            selected.0.insert(*pcr, *value);
        }
        let expected = selected.digest_of(&self.selected).unwrap_or_default();
        if expected != self.pcr_digest {
            let (expected, actual) = (hex::encode(expected), hex::encode(self.pcr_digest));
            return Err(QuoteError::PcrDigest { expected, actual });
        }
        Ok(VerifiedQuote { selected, nonce: self.nonce.to_vec(), clock: self.clock })
    }
}
