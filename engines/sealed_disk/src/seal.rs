//! Sealing a secret to a TPM from outside: a TPM 2.0 object to import under the storage root key, with a PCR policy, and
//! the LUKS2 token in which systemd looks for it.
//!
//! Only the public half of the storage root key is needed, so the secret never passes through the TPM before the guest
//! unseals it. Sources: TCG TPM 2.0 Library, part 1 (annex C.6.1, secret sharing for ECC; section 23, protected
//! storage), part 2 (structures), part 3 (TPM2_Import, TPM2_PolicyPCR). Sealing authenticates nothing: whoever knows the
//! public key can seal secrets of his own.

use std::collections::BTreeMap;

use aws_lc_rs::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand::SystemRandom;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::crypto::{hmac_sha256, sha256};
use crate::secret::{Passphrase, Secret};

/// Where systemd keeps the storage root key (TCG EK credential profile: 0x81000001).
pub const SRK_HANDLE: u32 = 0x8100_0001;

/// Everything of the TPM2B_PUBLIC before the point: size 90, ECC, SHA-256, the attributes of TCG's storage root key
/// template with noDA, no policy, AES-128-CFB, no scheme, P-256, no KDF.
const SRK_PREFIX: [u8; 24] = [
    0x00, 0x5a, 0x00, 0x23, 0x00, 0x0b, 0x00, 0x03, 0x04, 0x72, 0x00, 0x00, 0x00, 0x06, 0x00, 0x80, 0x00,
    0x43, 0x00, 0x10, 0x00, 0x03, 0x00, 0x10,
];
const SRK_BYTES: usize = SRK_PREFIX.len() + 2 * 34;

/// Why something cannot be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The public area is not TCG's ECC P-256 storage root key template.
    #[error("the TPM's public area is not that of an ECC P-256 storage root key (TCG template with noDA)")]
    NotStorageKey,
    /// The key's point is not on the curve.
    #[error("the storage root key's point is not on the curve P-256")]
    NotOnCurve,
    /// No PCRs, or one above 23.
    #[error("a secret is sealed to at least one PCR, and only to PCRs 0 to 23")]
    Pcrs,
}

/// The public area of a storage root key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrkPublic {
    tpm2b: [u8; SRK_BYTES],
}

impl SrkPublic {
    /// Parses a TPM2B_PUBLIC (92 bytes), as TPM2_ReadPublic gives it.
    pub fn parse(tpm2b_public: &[u8]) -> Result<Self, SealError> {
        let tpm2b: [u8; SRK_BYTES] = tpm2b_public.try_into().map_err(|_| SealError::NotStorageKey)?;
        let sizes = [&tpm2b[24..26], &tpm2b[58..60]];
        if tpm2b[..24] != SRK_PREFIX || sizes.iter().any(|size| *size != [0, 32]) {
            return Err(SealError::NotStorageKey);
        }
        Ok(Self { tpm2b })
    }

    /// The object's name: algorithm, then SHA-256 of the public area.
    pub fn name(&self) -> [u8; 34] {
        name(&self.tpm2b[2..])
    }

    fn x(&self) -> &[u8] {
        &self.tpm2b[26..58]
    }

    fn y(&self) -> &[u8] {
        &self.tpm2b[60..92]
    }

    /// The handle as ESYS serialises it (`tpm2_srk` of the token): handle, name, kind of object, public area.
    fn esys_handle(&self) -> Vec<u8> {
        let mut bytes = SRK_HANDLE.to_be_bytes().to_vec();
        push_sized(&mut bytes, &self.name());
        bytes.extend(1u32.to_be_bytes());
        bytes.extend(self.tpm2b);
        bytes
    }
}

/// An object for TPM2_Import under the storage root key (no inner wrapper), then TPM2_Load, TPM2_PolicyPCR, TPM2_Unseal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedObject {
    /// TPM2B_PRIVATE (the duplicate).
    pub private: Vec<u8>,
    /// TPM2B_PUBLIC.
    pub public: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET.
    pub encrypted_secret: Vec<u8>,
    /// The policy that unseals.
    pub policy: [u8; 32],
}

/// The policy digest of one TPM2_PolicyPCR over these SHA-256 PCRs.
///
/// # Panics
/// If a PCR is above 23.
pub fn policy_pcr(pcrs: &BTreeMap<u8, [u8; 32]>) -> [u8; 32] {
    const COMMAND_POLICY_PCR: [u8; 4] = [0x00, 0x00, 0x01, 0x7f];
    let mut selection = [0, 0, 0, 1, 0, 0x0b, 3, 0, 0, 0];
    for &pcr in pcrs.keys() {
        assert!(pcr < 24, "PCR {pcr}");
        selection[7 + usize::from(pcr / 8)] |= 1 << (pcr % 8);
    }
    let values: Vec<&[u8]> = pcrs.values().map(<[u8; 32]>::as_slice).collect();
    sha256(&[&[0; 32], &COMMAND_POLICY_PCR, &selection, &sha256(&values)])
}

/// Seals a secret to the TPM with this storage root key, under these PCR values.
pub fn seal(
    srk: &SrkPublic,
    secret: &Secret<32>,
    pcrs: &BTreeMap<u8, [u8; 32]>,
) -> Result<SealedObject, SealError> {
    if pcrs.is_empty() || pcrs.keys().any(|&pcr| pcr > 23) {
        return Err(SealError::Pcrs);
    }
    let policy = policy_pcr(pcrs);
    let seed_value = Secret::<32>::random();
    let public = public_area(&policy, &sha256(&[seed_value.expose(), secret.expose()]));
    let name = name(&public);
    let (seed, encrypted_secret) = share_seed(srk)?;
    let symmetric = kdfa(&seed, b"STORAGE", &name, 128);
    let integrity = kdfa(&seed, b"INTEGRITY", &[], 256);
    let mut sensitive = sensitive_area(&seed_value, secret);
    aes_128_cfb(&symmetric[..16], &mut sensitive);
    let mut private = Vec::new();
    push_sized(&mut private, &hmac_sha256(integrity.as_slice(), &[&sensitive, &name]));
    private.extend_from_slice(&sensitive);
    Ok(SealedObject { private: sized(&private), public: sized(&public), encrypted_secret, policy })
}

/// The token for [`crate::luks2`] with the sealed secret; `keyslot` must open with [`passphrase_of`] the secret.
pub fn systemd_tpm2_token(
    srk: &SrkPublic,
    secret: &Secret<32>,
    pcrs: &BTreeMap<u8, [u8; 32]>,
    keyslot: u32,
) -> Result<Value, SealError> {
    let sealed = seal(srk, secret, pcrs)?;
    let blob = [sealed.private, sealed.public, sealed.encrypted_secret].concat();
    Ok(json!({
        "type": "systemd-tpm2",
        "keyslots": [keyslot.to_string()],
        "tpm2-blob": STANDARD.encode(blob),
        "tpm2-pcrs": pcrs.keys().collect::<Vec<_>>(),
        "tpm2-pcr-bank": "sha256",
        "tpm2-primary-alg": "ecc",
        "tpm2-policy-hash": hex::encode(sealed.policy),
        "tpm2_srk": STANDARD.encode(srk.esys_handle()),
    }))
}

/// What systemd offers to the keyslot after the unseal: the base64 text of the secret.
pub fn passphrase_of(secret: &Secret<32>) -> Passphrase {
    Passphrase::of_secret(secret)
}

/// TPMT_PUBLIC of sealed data that can be imported and is released by policy only (no attribute is set).
fn public_area(policy: &[u8; 32], unique: &[u8; 32]) -> Vec<u8> {
    let mut area = vec![0x00, 0x08, 0x00, 0x0b, 0, 0, 0, 0];
    push_sized(&mut area, policy);
    area.extend([0x00, 0x10]);
    push_sized(&mut area, unique);
    area
}

/// TPM2B_SENSITIVE: keyed hash, no auth value, seed, data.
fn sensitive_area(seed_value: &Secret<32>, secret: &Secret<32>) -> Zeroizing<Vec<u8>> {
    let mut area = Zeroizing::new(Vec::with_capacity(74));
    area.extend([0x00, 72, 0x00, 0x08, 0x00, 0x00]);
    push_sized(&mut area, seed_value.expose());
    push_sized(&mut area, secret.expose());
    area
}

/// One-pass Diffie-Hellman with the storage key: the seed, and the TPM2B_ENCRYPTED_SECRET (our ephemeral point).
fn share_seed(srk: &SrkPublic) -> Result<(Zeroizing<[u8; 32]>, Vec<u8>), SealError> {
    let own =
        EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new()).expect("a P-256 key can be made");
    let own_point = own.compute_public_key().expect("a private key has a public one");
    let (own_x, own_y) = own_point.as_ref()[1..].split_at(32);
    let peer_point = [&[4], srk.x(), srk.y()].concat();
    let peer = UnparsedPublicKey::new(&ECDH_P256, peer_point);
    let seed = agree_ephemeral(own, peer, SealError::NotOnCurve, |z| {
        Ok(Zeroizing::new(sha256(&[&1u32.to_be_bytes(), z, b"DUPLICATE\0", own_x, srk.x()])))
    })?;
    let mut point = Vec::new();
    push_sized(&mut point, own_x);
    push_sized(&mut point, own_y);
    Ok((seed, sized(&point)))
}

/// KDFa of the TPM library specification for at most one block of SHA-256.
fn kdfa(key: &[u8; 32], label: &[u8], context: &[u8], bits: u32) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(hmac_sha256(key, &[&1u32.to_be_bytes(), label, &[0], context, &bits.to_be_bytes()]))
}

fn aes_128_cfb(key: &[u8], data: &mut [u8]) {
    let key = UnboundCipherKey::new(&AES_128, key).expect("AES-128 takes 16 bytes");
    let zero = EncryptionContext::Iv128(FixedLength::from([0u8; 16]));
    EncryptingKey::cfb128(key)
        .and_then(|key| key.less_safe_encrypt(data, zero))
        .expect("AES-128-CFB takes any length");
}

fn name(public_area: &[u8]) -> [u8; 34] {
    let mut name = [0; 34];
    name[1] = 0x0b;
    name[2..].copy_from_slice(&sha256(&[public_area]));
    name
}

fn push_sized(bytes: &mut Vec<u8>, value: &[u8]) {
    let size = u16::try_from(value.len()).expect("TPM structures of this module are small");
    bytes.extend(size.to_be_bytes());
    bytes.extend(value);
}

fn sized(value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len() + 2);
    push_sized(&mut bytes, value);
    bytes
}
