//! Verification of `TPM2_Certify` (TPM 2.0 library, part 2, TPMS_CERTIFY_INFO): that this attestation key saw an object
//! of exactly this public area in its own TPM.

use thiserror::Error;

use crate::attest::{ATTEST_CERTIFY, Clock, FrameError, SignatureFrameError, bare_signature, frame};
use crate::key::RsaPublic;
use crate::public_area::RsaArea;

/// Why a certification proves nothing; one variant for each check.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CertifyError {
    /// The structure cannot be read.
    #[error("the certification is malformed: {0}")]
    Malformed(&'static str),
    /// Not made by a TPM: the magic number is missing.
    #[error("the certification's magic is {0:#x}")]
    Magic(u32),
    /// Attests something other than an object.
    #[error("the attestation is of the type {0:#x}, not a certification")]
    Kind(u16),
    /// The signature uses another scheme or hash.
    #[error("the certification's signature is not rsassa with sha-256")]
    Scheme,
    /// The signature is not the attestation key's.
    #[error("the certification's signature is not made by the attestation key")]
    Signature,
    /// Another object was certified.
    #[error("the certified object is {actual}, the given one is {expected}")]
    Name {
        /// Name of the given object, hex.
        expected: String,
        /// Name that was certified, hex.
        actual: String,
    },
}

impl From<FrameError> for CertifyError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Truncated => Self::Malformed("truncated"),
            FrameError::Magic(magic) => Self::Magic(magic),
            FrameError::Kind(kind) => Self::Kind(kind),
        }
    }
}

impl From<SignatureFrameError> for CertifyError {
    fn from(error: SignatureFrameError) -> Self {
        match error {
            SignatureFrameError::Scheme => Self::Scheme,
            SignatureFrameError::Malformed => Self::Malformed("signature"),
        }
    }
}

/// What a certification proves besides the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certification {
    /// The qualifying data.
    pub nonce: Vec<u8>,
    /// The TPM's clock and counters at that moment.
    pub clock: Clock,
}

/// Verifies that `ak` certified `object`. `signature` is a TPMT_SIGNATURE or a bare RSASSA signature.
///
/// # Errors
/// [`CertifyError`].
pub fn verify(
    attest: &[u8],
    signature: &[u8],
    ak: &RsaPublic,
    object: &RsaArea,
) -> Result<Certification, CertifyError> {
    let mut frame = frame(attest, ATTEST_CERTIFY)?;
    let name = frame.body.tpm2b().ok_or(CertifyError::Malformed("truncated"))?;
    frame.body.tpm2b().ok_or(CertifyError::Malformed("truncated"))?;
    if !frame.body.is_empty() {
        return Err(CertifyError::Malformed("bytes behind it"));
    }
    if !ak.verify_pkcs1_sha256(attest, bare_signature(signature, ak)?) {
        return Err(CertifyError::Signature);
    }
    if name != object.name {
        let (expected, actual) = (hex::encode(&object.name), hex::encode(name));
        return Err(CertifyError::Name { expected, actual });
    }
    Ok(Certification { nonce: frame.nonce.to_vec(), clock: frame.clock })
}
