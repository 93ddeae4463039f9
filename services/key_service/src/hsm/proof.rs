//! What proves that an object in the token is the key that it is taken for, and that a token can have such a key at all.

use aws_lc_rs::rand;
use cryptoki::mechanism::MechanismType;

use super::error::HsmError;
use super::mechanisms::{Mechanisms, Purpose};
use super::{Hsm, KeyId};
use crate::crypto::kind::PublicKey;
use crate::crypto::oct::{self, BLOCK, CbcPadding, OctBits};
use crate::crypto::seal::PrivateKey;
use crate::crypto::sign::{Sha2, SignatureAlgorithm, verify};

/// A way to see whether a symmetric key is the one that is known.
type Way = fn(&Hsm, KeyId, (&PrivateKey, OctBits), &[u8]) -> Result<bool, HsmError>;

/// The mechanisms of the ways.
const SYMMETRIC: [(MechanismType, Purpose); 3] = [
    (MechanismType::AES_CBC, Purpose::Encrypt),
    (MechanismType::AES_KEY_WRAP, Purpose::Wrap),
    (MechanismType::AES_GCM, Purpose::Encrypt),
];

impl Hsm {
    /// Whether a key like this can be brought in, be proved and, if it may leave the token, leave it.
    pub fn takes(&self, public: &PublicKey, extractable: bool) -> Result<(), HsmError> {
        let public = public.clone();
        self.pool.run(move |connection| takes(&connection.token.mechanisms, &public, extractable))
    }

    /// Whether the key signs for this public part. A symmetric key has none, so there is nothing to tell.
    pub fn signs_for(&self, id: KeyId, public: &PublicKey) -> Result<bool, HsmError> {
        let algorithm = match public {
            PublicKey::Rsa(_) => SignatureAlgorithm::Pkcs1(Sha2::Sha256),
            PublicKey::Ec(point) => SignatureAlgorithm::Ecdsa(point.curve),
            PublicKey::Oct(_) => return Ok(true),
        };
        let mut digest = vec![0; algorithm.digest_len()];
        rand::fill(&mut digest).expect("the system has random numbers");
        let signature = self.sign(id, algorithm, digest.clone())?;
        Ok(verify(public, algorithm, &digest, &signature) == Ok(true))
    }

    /// Whether the object is this key: it signs for the public part; or, symmetric, it encrypts as the known bytes do.
    pub fn is_key(&self, id: KeyId, public: &PublicKey, private: &PrivateKey) -> Result<bool, HsmError> {
        let PublicKey::Oct(bits) = public else { return self.signs_for(id, public) };
        let ways: [Way; 3] = [cbc_agrees, wrap_agrees, gcm_agrees];
        let challenge = random(BLOCK);
        let unsupported = HsmError::unsupported(MechanismType::AES_CBC, "encrypting");
        let tried = ways.into_iter().map(|way| way(self, id, (private, *bits), &challenge));
        let mut told = tried.skip_while(|done| matches!(done, Err(HsmError::Unsupported { .. })));
        told.next().unwrap_or(Err(unsupported))
    }
}

fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::fill(&mut bytes).expect("the system has random numbers");
    bytes
}

pub(super) fn cbc_agrees(
    hsm: &Hsm,
    id: KeyId,
    (known, bits): (&PrivateKey, OctBits),
    challenge: &[u8],
) -> Result<bool, HsmError> {
    let iv = random(BLOCK);
    let theirs = hsm.cbc_encrypt(id, CbcPadding::None, challenge.to_vec(), iv.clone())?;
    Ok(oct::cbc_encrypt(known, bits, CbcPadding::None, challenge, &iv).is_ok_and(|ours| ours == theirs))
}

pub(super) fn wrap_agrees(
    hsm: &Hsm,
    id: KeyId,
    (known, bits): (&PrivateKey, OctBits),
    challenge: &[u8],
) -> Result<bool, HsmError> {
    let theirs = hsm.wrap(id, challenge.to_vec())?;
    Ok(oct::wrap(known, bits, challenge).is_ok_and(|ours| ours == theirs))
}

pub(super) fn gcm_agrees(
    hsm: &Hsm,
    id: KeyId,
    (known, bits): (&PrivateKey, OctBits),
    challenge: &[u8],
) -> Result<bool, HsmError> {
    let theirs = hsm.gcm_encrypt(id, challenge.to_vec(), Vec::new())?;
    let opened = oct::gcm_decrypt(known, bits, &theirs.value, (&theirs.iv, &theirs.tag, &[]));
    Ok(opened.is_ok_and(|opened| *opened == challenge))
}

fn takes(mechanisms: &Mechanisms, public: &PublicKey, extractable: bool) -> Result<(), HsmError> {
    mechanisms.require(MechanismType::AES_KEY_WRAP_PAD, Purpose::Unwrap)?;
    if extractable {
        mechanisms.require(MechanismType::AES_KEY_WRAP_PAD, Purpose::Wrap)?;
    }
    match public {
        PublicKey::Rsa(parts) => {
            mechanisms.require_size(MechanismType::RSA_PKCS, Purpose::Sign, parts.bits())
        }
        PublicKey::Ec(_) => mechanisms.require(MechanismType::ECDSA, Purpose::Sign),
        PublicKey::Oct(_) if SYMMETRIC.iter().any(|(name, purpose)| mechanisms.has(*name, *purpose)) => {
            Ok(())
        }
        PublicKey::Oct(_) => Err(HsmError::unsupported(MechanismType::AES_CBC, "encrypting")),
    }
}
