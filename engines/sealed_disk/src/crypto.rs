//! The few primitives this crate uses, each under the one parameter set it uses, over `aws-lc-rs`.

use std::num::NonZeroU32;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{digest, hmac, pbkdf2, rand};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Bytes of a GCM nonce.
pub(crate) const NONCE_BYTES: usize = 12;
/// Bytes of a GCM tag.
pub(crate) const TAG_BYTES: usize = 16;

/// The authentication tag did not match: other key, other bytes or other associated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

/// Fills the buffer from the operating system's generator.
pub(crate) fn fill_random(buffer: &mut [u8]) {
    rand::fill(buffer).expect("the operating system's random generator answers");
}

/// Random bytes that are not secret (salts, nonces).
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill_random(&mut bytes);
    bytes
}

/// SHA-256 over the parts in order.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

/// HMAC-SHA256 over the parts in order.
pub(crate) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    context.sign().as_ref().try_into().expect("HMAC-SHA256 gives 32 bytes")
}

/// The two hashes that LUKS2 key derivation is allowed to use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha512,
}

/// PBKDF2 with HMAC (RFC 8018).
pub(crate) fn pbkdf2(hash: Hash, password: &[u8], salt: &[u8], iterations: NonZeroU32, out: &mut [u8]) {
    let algorithm = match hash {
        Hash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        Hash::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
    };
    pbkdf2::derive(algorithm, iterations, salt, password, out);
}

/// AES-256-GCM in place; the tag is returned apart.
pub(crate) fn gcm_seal(
    key: &Secret<32>,
    nonce: [u8; NONCE_BYTES],
    aad: &[u8],
    data: &mut [u8],
) -> [u8; TAG_BYTES] {
    let tag = gcm_key(key)
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), data)
        .expect("the buffer is far below the limit of GCM");
    tag.as_ref().try_into().expect("a GCM tag has 16 bytes")
}

/// Reverses [`gcm_seal`] into a new buffer.
pub(crate) fn gcm_open(
    key: &Secret<32>,
    nonce: [u8; NONCE_BYTES],
    aad: &[u8],
    sealed: &[u8],
    tag: &[u8; TAG_BYTES],
) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
    let mut plain = Zeroizing::new(vec![0; sealed.len()]);
    gcm_key(key)
        .open_separate_gather(Nonce::assume_unique_for_key(nonce), Aad::from(aad), sealed, tag, &mut plain)
        .map_err(|_| NotAuthentic)?;
    Ok(plain)
}

fn gcm_key(key: &Secret<32>) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.expose()).expect("AES-256 takes 32 bytes"))
}

/// CRC-32 as in IEEE 802.3 (reflected, polynomial 0x04C11DB7), as GPT and VMGS headers use it.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = crc32_table();
    !bytes.iter().fold(u32::MAX, |crc, &byte| (crc >> 8) ^ TABLE[usize::from((crc & 0xff) as u8 ^ byte)])
}

const fn crc32_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0u32;
    while index < 256 {
        let (mut value, mut bit) = (index, 0);
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ 0xEDB8_8320 } else { value >> 1 };
            bit += 1;
        }
        table[index as usize] = value;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32_has_its_check_value() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn what_is_sealed_opens_only_unchanged() {
        let key = Secret::from_bytes([7; 32]);
        let mut data = *b"sixteen bytes of";
        let tag = gcm_seal(&key, [1; 12], b"for a", &mut data);
        for (nonce, aad) in [([1; 12], b"for b"), ([2; 12], b"for a")] {
            assert_eq!(gcm_open(&key, nonce, aad, &data, &tag).err(), Some(NotAuthentic));
        }
        let plain = gcm_open(&key, [1; 12], b"for a", &data, &tag).unwrap();
        assert_eq!(plain.as_slice(), b"sixteen bytes of");
    }
}
