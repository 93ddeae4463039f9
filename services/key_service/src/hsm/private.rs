//! Signing and decrypting with a private key in the token.

use std::sync::atomic::Ordering;

use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::ObjectHandle;
use zeroize::Zeroizing;

use super::error::{Doing as _, HsmError};
use super::mechanisms::Purpose;
use super::oaep;
use super::object::{self, KeyId};
use super::pool::Connection;
use crate::crypto::kind::Family;
use crate::crypto::rsa::RsaPadding;
use crate::crypto::sign::{Sha2, SignatureAlgorithm};

/// DER of a DigestInfo up to the digest (RFC 8017 section 9.2, note 1).
fn digest_info(hash: Sha2) -> [u8; 19] {
    let (all, algorithm, length) = match hash {
        Sha2::Sha256 => (0x31, 1, 0x20),
        Sha2::Sha384 => (0x41, 2, 0x30),
        Sha2::Sha512 => (0x51, 3, 0x40),
    };
    [
        0x30, all, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, algorithm, 0x05,
        0x00, 0x04, length,
    ]
}

fn pss(hash: Sha2) -> PkcsPssParams {
    let (hash_alg, mgf, length) = match hash {
        Sha2::Sha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, 32),
        Sha2::Sha384 => (MechanismType::SHA384, PkcsMgfType::MGF1_SHA384, 48),
        Sha2::Sha512 => (MechanismType::SHA512, PkcsMgfType::MGF1_SHA512, 64),
    };
    PkcsPssParams { hash_alg, mgf, s_len: length.into() }
}

/// Signs a digest of the algorithm's length.
pub fn sign(
    connection: &Connection<'_>,
    id: KeyId,
    algorithm: SignatureAlgorithm,
    digest: &[u8],
) -> Result<Vec<u8>, HsmError> {
    if digest.len() != algorithm.digest_len() {
        return Err(HsmError::Value);
    }
    let (mechanism, family) = match algorithm {
        SignatureAlgorithm::Pkcs1(_) => (Mechanism::RsaPkcs, Family::Rsa),
        SignatureAlgorithm::Pss(hash) => (Mechanism::RsaPkcsPss(pss(hash)), Family::Rsa),
        SignatureAlgorithm::Ecdsa(_) => (Mechanism::Ecdsa, Family::Ec),
    };
    connection.token.mechanisms.require(mechanism.mechanism_type(), Purpose::Sign)?;
    let message = match algorithm {
        SignatureAlgorithm::Pkcs1(hash) => [&digest_info(hash), digest].concat(),
        SignatureAlgorithm::Pss(_) | SignatureAlgorithm::Ecdsa(_) => digest.to_vec(),
    };
    let key = object::find(connection, id, family)?;
    let signature = connection.session.sign(&mechanism, key, &message).doing("sign")?;
    match algorithm {
        SignatureAlgorithm::Ecdsa(curve) if signature.len() != 2 * curve.coordinate_len() => {
            Err(HsmError::Answer("an ECDSA signature"))
        }
        _ => Ok(signature),
    }
}

/// Decrypts a value of exactly the modulus' length.
pub fn decrypt(
    connection: &Connection<'_>,
    id: KeyId,
    padding: RsaPadding,
    value: &[u8],
) -> Result<Zeroizing<Vec<u8>>, HsmError> {
    let mechanisms = &connection.token.mechanisms;
    match padding {
        RsaPadding::Pkcs1 => {
            mechanisms.require(MechanismType::RSA_PKCS, Purpose::Decrypt)?;
            decrypted(connection, &Mechanism::RsaPkcs, find(connection, id)?, value)
        }
        RsaPadding::Oaep => {
            mechanisms.require(MechanismType::RSA_PKCS_OAEP, Purpose::Decrypt)?;
            let mechanism = oaep(MechanismType::SHA1, PkcsMgfType::MGF1_SHA1);
            decrypted(connection, &mechanism, find(connection, id)?, value)
        }
        RsaPadding::Oaep256 => decrypt_oaep256(connection, id, value),
    }
}

fn find(connection: &Connection<'_>, id: KeyId) -> Result<ObjectHandle, HsmError> {
    object::find(connection, id, Family::Rsa)
}

fn oaep(hash: MechanismType, mgf: PkcsMgfType) -> Mechanism<'static> {
    Mechanism::RsaPkcsOaep(PkcsOaepParams::new(hash, mgf, PkcsOaepSource::empty()))
}

/// The mechanism list does not say which hashes OAEP takes. The first decryption finds out; a token that refuses SHA-256
/// does the private operation as plain RSA from then on, and the padding is taken off here (see [`super::oaep`]).
fn decrypt_oaep256(
    connection: &Connection<'_>,
    id: KeyId,
    value: &[u8],
) -> Result<Zeroizing<Vec<u8>>, HsmError> {
    let sha1_only = &connection.token.oaep_is_sha1_only;
    let mechanisms = &connection.token.mechanisms;
    let key = find(connection, id)?;
    if mechanisms.has(MechanismType::RSA_PKCS_OAEP, Purpose::Decrypt) && !sha1_only.load(Ordering::Relaxed) {
        let mechanism = oaep(MechanismType::SHA256, PkcsMgfType::MGF1_SHA256);
        match decrypted(connection, &mechanism, key, value) {
            Err(error) if refuses_parameters(&error) => sha1_only.store(true, Ordering::Relaxed),
            done => return done,
        }
    }
    if !mechanisms.has(MechanismType::RSA_X_509, Purpose::Decrypt) {
        let purpose = "decrypting with SHA-256, nor CKM_RSA_X_509 to compose it from";
        return Err(HsmError::unsupported(MechanismType::RSA_PKCS_OAEP, purpose));
    }
    let block = decrypted(connection, &Mechanism::RsaX509, key, value)?;
    // A token may leave leading zeros away; their number is part of what must not be learnt.
    let mut whole = Zeroizing::new(vec![0; value.len().checked_sub(block.len()).ok_or(HsmError::Value)?]);
    whole.extend_from_slice(&block);
    oaep::unpad(&whole)
}

fn refuses_parameters(error: &HsmError) -> bool {
    matches!(
        error.code(),
        Some(RvError::ArgumentsBad | RvError::MechanismParamInvalid | RvError::MechanismInvalid)
    )
}

/// What a token decrypts.
pub fn decrypted(
    connection: &Connection<'_>,
    mechanism: &Mechanism<'_>,
    key: ObjectHandle,
    value: &[u8],
) -> Result<Zeroizing<Vec<u8>>, HsmError> {
    let done = connection.session.decrypt(mechanism, key, value).map(Zeroizing::new);
    done.map_err(|error| of_value(connection, error, "decrypt"))
}

/// Tells a value that does not decrypt from a token that failed. Some modules have CKR_GENERAL_ERROR for both; if the
/// token still answers on this session, the value was at fault.
pub fn of_value(connection: &Connection<'_>, error: Error, doing: &'static str) -> HsmError {
    let Error::Pkcs11(code, _) = error else { return HsmError::Token { doing, source: error } };
    let is_value = match code {
        RvError::EncryptedDataInvalid
        | RvError::EncryptedDataLenRange
        | RvError::DataInvalid
        | RvError::DataLenRange
        | RvError::WrappedKeyInvalid
        | RvError::WrappedKeyLenRange
        | RvError::KeySizeRange => true,
        RvError::GeneralError | RvError::FunctionFailed => connection.session.get_session_info().is_ok(),
        _ => false,
    };
    if is_value { HsmError::Value } else { HsmError::Token { doing, source: error } }
}
