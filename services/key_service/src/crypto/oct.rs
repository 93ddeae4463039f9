//! Symmetric keys: AES in GCM, in CBC with and without padding, and as key wrap (NIST SP 800-38A, -38D; RFC 3394).

use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext,
    PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{aead, cipher, iv, rand};
use zeroize::Zeroizing;

use super::error::CryptoError;
use super::seal::PrivateKey;

/// Bytes of GCM's nonce.
pub const GCM_IV: usize = 12;
/// Bytes of GCM's tag.
pub const GCM_TAG: usize = 16;
/// Bytes of CBC's initialisation vector, and of a block.
pub const BLOCK: usize = 16;
const HALF: usize = 8;
/// RFC 3394 section 2.2.3.1.
const WRAP_IV: [u8; HALF] = [0xA6; HALF];

/// Length of an AES key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OctBits {
    /// 128 bits.
    Aes128,
    /// 192 bits.
    Aes192,
    /// 256 bits.
    Aes256,
}

impl OctBits {
    /// From `key_size`.
    pub fn from_number(bits: u32) -> Option<Self> {
        match bits {
            128 => Some(OctBits::Aes128),
            192 => Some(OctBits::Aes192),
            256 => Some(OctBits::Aes256),
            _ => None,
        }
    }

    /// The number.
    pub fn number(self) -> u32 {
        match self {
            OctBits::Aes128 => 128,
            OctBits::Aes192 => 192,
            OctBits::Aes256 => 256,
        }
    }

    fn length(self) -> usize {
        self.number() as usize / 8
    }

    fn gcm(self) -> &'static aead::Algorithm {
        match self {
            OctBits::Aes128 => &AES_128_GCM,
            OctBits::Aes192 => &AES_192_GCM,
            OctBits::Aes256 => &AES_256_GCM,
        }
    }

    fn cipher(self) -> &'static cipher::Algorithm {
        match self {
            OctBits::Aes128 => &AES_128,
            OctBits::Aes192 => &AES_192,
            OctBits::Aes256 => &AES_256,
        }
    }

    fn unbound(self, key: &PrivateKey) -> Result<UnboundCipherKey, CryptoError> {
        UnboundCipherKey::new(self.cipher(), key.as_bytes()).map_err(|_| CryptoError::PrivateKey)
    }
}

/// A new key.
pub fn generate(bits: OctBits) -> PrivateKey {
    let mut key = Zeroizing::new(vec![0; bits.length()]);
    rand::fill(&mut key).expect("the system has random numbers");
    PrivateKey::new(key)
}

/// What GCM gives: ciphertext, nonce, tag.
pub struct GcmOutput {
    /// Ciphertext.
    pub value: Vec<u8>,
    /// The nonce, which is always a new random one.
    pub iv: Vec<u8>,
    /// The tag.
    pub tag: Vec<u8>,
}

/// Encrypts under a new nonce.
pub fn gcm_encrypt(
    key: &PrivateKey,
    bits: OctBits,
    value: &[u8],
    aad: &[u8],
) -> Result<GcmOutput, CryptoError> {
    let mut iv = [0; GCM_IV];
    rand::fill(&mut iv).expect("the system has random numbers");
    let mut value = value.to_vec();
    let tag = gcm(key, bits)?
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(iv), Aad::from(aad), &mut value)
        .map_err(|_| CryptoError::Value)?;
    Ok(GcmOutput { value, iv: iv.to_vec(), tag: tag.as_ref().to_vec() })
}

/// Decrypts what has this tag.
pub fn gcm_decrypt(
    key: &PrivateKey,
    bits: OctBits,
    value: &[u8],
    (iv, tag, aad): (&[u8], &[u8], &[u8]),
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let nonce = Nonce::try_assume_unique_for_key(iv).map_err(|_| CryptoError::Value)?;
    let mut buffer = Zeroizing::new([value, tag].concat());
    let length = gcm(key, bits)?
        .open_in_place(nonce, Aad::from(aad), &mut buffer)
        .map_err(|_| CryptoError::Value)?
        .len();
    buffer.truncate(length);
    Ok(buffer)
}

fn gcm(key: &PrivateKey, bits: OctBits) -> Result<LessSafeKey, CryptoError> {
    let key = UnboundKey::new(bits.gcm(), key.as_bytes()).map_err(|_| CryptoError::PrivateKey)?;
    Ok(LessSafeKey::new(key))
}

/// CBC over whole blocks, or with the padding of PKCS #7 (RFC 5652 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CbcPadding {
    /// The input has whole blocks.
    None,
    /// PKCS #7.
    Pkcs7,
}

/// Encrypts.
pub fn cbc_encrypt(
    key: &PrivateKey,
    bits: OctBits,
    padding: CbcPadding,
    value: &[u8],
    iv: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let iv = iv::FixedLength::<BLOCK>::try_from(iv).map_err(|_| CryptoError::Value)?;
    let (key, context) = (bits.unbound(key)?, EncryptionContext::Iv128(iv));
    let mut buffer = value.to_vec();
    let done = match padding {
        CbcPadding::None if value.is_empty() || !value.len().is_multiple_of(BLOCK) => {
            return Err(CryptoError::Value);
        }
        CbcPadding::None => {
            EncryptingKey::cbc(key).and_then(|key| key.less_safe_encrypt(&mut buffer, context))
        }
        CbcPadding::Pkcs7 => PaddedBlockEncryptingKey::cbc_pkcs7(key)
            .and_then(|key| key.less_safe_encrypt(&mut buffer, context)),
    };
    done.map_err(|_| CryptoError::Value)?;
    Ok(buffer)
}

/// Decrypts. A wrong padding is the same error as a wrong length.
pub fn cbc_decrypt(
    key: &PrivateKey,
    bits: OctBits,
    padding: CbcPadding,
    value: &[u8],
    iv: &[u8],
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    if value.is_empty() || !value.len().is_multiple_of(BLOCK) {
        return Err(CryptoError::Value);
    }
    let iv = iv::FixedLength::<BLOCK>::try_from(iv).map_err(|_| CryptoError::Value)?;
    let (key, context) = (bits.unbound(key)?, DecryptionContext::Iv128(iv));
    let mut buffer = Zeroizing::new(value.to_vec());
    let length = match padding {
        CbcPadding::None => {
            DecryptingKey::cbc(key).and_then(|key| key.decrypt(&mut buffer, context).map(|plain| plain.len()))
        }
        CbcPadding::Pkcs7 => PaddedBlockDecryptingKey::cbc_pkcs7(key)
            .and_then(|key| key.decrypt(&mut buffer, context).map(|plain| plain.len())),
    };
    buffer.truncate(length.map_err(|_| CryptoError::Value)?);
    Ok(buffer)
}

/// Wraps a key of whole 8-byte words, two at least (RFC 3394 section 2.2.1). The library has no 192-bit wrap, so the
/// construction is here, over its block cipher, for all lengths.
pub fn wrap(key: &PrivateKey, bits: OctBits, value: &[u8]) -> Result<Vec<u8>, CryptoError> {
    if value.len() < 2 * HALF || !value.len().is_multiple_of(HALF) {
        return Err(CryptoError::Value);
    }
    let cipher = EncryptingKey::ecb(bits.unbound(key)?).map_err(|_| CryptoError::PrivateKey)?;
    let mut output = Zeroizing::new([&WRAP_IV, value].concat());
    let (check, words) = output.split_at_mut(HALF);
    let mut step = 0_u64;
    for _ in 0..6 {
        for word in words.chunks_exact_mut(HALF) {
            step += 1;
            let mut block = Zeroizing::new([&*check, &*word].concat());
            cipher.encrypt(&mut block).map_err(|_| CryptoError::Value)?;
            check.copy_from_slice(&block[..HALF]);
            word.copy_from_slice(&block[HALF..]);
            check.iter_mut().zip(step.to_be_bytes()).for_each(|(byte, count)| *byte ^= count);
        }
    }
    Ok(output.to_vec())
}

/// Unwraps (RFC 3394 section 2.2.2). Nothing is given out whose check value is not right.
pub fn unwrap(key: &PrivateKey, bits: OctBits, value: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    if value.len() < 3 * HALF || !value.len().is_multiple_of(HALF) {
        return Err(CryptoError::Value);
    }
    let cipher = DecryptingKey::ecb(bits.unbound(key)?).map_err(|_| CryptoError::PrivateKey)?;
    let mut output = Zeroizing::new(value.to_vec());
    let (check, words) = output.split_at_mut(HALF);
    let mut step = 6 * (words.len() / HALF) as u64;
    for _ in 0..6 {
        for word in words.chunks_exact_mut(HALF).rev() {
            check.iter_mut().zip(step.to_be_bytes()).for_each(|(byte, count)| *byte ^= count);
            let mut block = Zeroizing::new([&*check, &*word].concat());
            cipher.decrypt(&mut block, DecryptionContext::None).map_err(|_| CryptoError::Value)?;
            check.copy_from_slice(&block[..HALF]);
            word.copy_from_slice(&block[HALF..]);
            step -= 1;
        }
    }
    verify_slices_are_equal(check, &WRAP_IV).map_err(|_| CryptoError::Value)?;
    Ok(Zeroizing::new(words.to_vec()))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::key_wrap::{self, AesKek, KeyWrap as _};
    use proptest::prelude::*;

    use super::*;

    const ALL: [OctBits; 3] = [OctBits::Aes128, OctBits::Aes192, OctBits::Aes256];

    fn key(hex: &str) -> PrivateKey {
        PrivateKey::new(Zeroizing::new(hex::decode(hex).unwrap()))
    }

    /// RFC 3394 sections 4.1, 4.2, 4.4 and 4.6.
    #[test]
    fn the_vectors_of_the_rfc() {
        let data = "00112233445566778899AABBCCDDEEFF";
        let long = "00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F";
        let keys = "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F";
        let cases = [
            (OctBits::Aes128, data, "1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5"),
            (OctBits::Aes192, data, "96778B25AE6CA435F92B5B97C050AED2468AB8A17AD84E5D"),
            (OctBits::Aes256, data, "64E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7"),
            (
                OctBits::Aes256,
                long,
                "28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21",
            ),
        ];
        for (bits, plain, wrapped) in cases {
            let kek = key(&keys[..bits.length() * 2]);
            let (plain, wrapped) = (hex::decode(plain).unwrap(), hex::decode(wrapped).unwrap());
            assert_eq!(wrap(&kek, bits, &plain).unwrap(), wrapped);
            assert_eq!(*unwrap(&kek, bits, &wrapped).unwrap(), plain);
        }
    }

    proptest! {
        #[test]
        fn wrapping_agrees_with_the_library_where_it_has_it(words in 2..9_usize, byte: u8) {
            let plain = vec![byte; words * HALF];
            for (bits, algorithm) in [(OctBits::Aes128, &key_wrap::AES_128), (OctBits::Aes256, &key_wrap::AES_256)] {
                let kek = generate(bits);
                let mut buffer = vec![0; plain.len() + HALF];
                let library = AesKek::new(algorithm, kek.as_bytes()).unwrap();
                prop_assert_eq!(&*library.wrap(&plain, &mut buffer).unwrap(), &wrap(&kek, bits, &plain).unwrap()[..]);
            }
        }

        #[test]
        fn no_changed_wrap_opens(at: prop::sample::Index, bit in 0..8_u8) {
            for bits in ALL {
                let kek = generate(bits);
                let mut wrapped = wrap(&kek, bits, &[7; 32]).unwrap();
                let at = at.index(wrapped.len());
                wrapped[at] ^= 1 << bit;
                prop_assert_eq!(unwrap(&kek, bits, &wrapped).err(), Some(CryptoError::Value));
            }
        }

        #[test]
        fn what_was_encrypted_decrypts(value: Vec<u8>, aad: Vec<u8>) {
            for bits in ALL {
                let key = generate(bits);
                let GcmOutput { value: sealed, iv, tag } = gcm_encrypt(&key, bits, &value, &aad).unwrap();
                prop_assert_eq!(&*gcm_decrypt(&key, bits, &sealed, (&iv, &tag, &aad)).unwrap(), &value);
                let padded = cbc_encrypt(&key, bits, CbcPadding::Pkcs7, &value, &[9; BLOCK]).unwrap();
                prop_assert_eq!(&*cbc_decrypt(&key, bits, CbcPadding::Pkcs7, &padded, &[9; BLOCK]).unwrap(), &value);
                let plain = cbc_encrypt(&key, bits, CbcPadding::None, &value, &[9; BLOCK]);
                prop_assert_eq!(plain.is_ok(), !value.is_empty() && value.len() % BLOCK == 0);
            }
        }
    }

    #[test]
    fn every_failure_of_a_decryption_is_the_same() {
        let key = generate(OctBits::Aes256);
        let bits = OctBits::Aes256;
        let GcmOutput { value, iv, tag } = gcm_encrypt(&key, bits, b"secret", b"aad").unwrap();
        let other = generate(bits);
        let failed = [
            gcm_decrypt(&other, bits, &value, (&iv, &tag, b"aad")),
            gcm_decrypt(&key, bits, &value, (&iv, &tag, b"other")),
            gcm_decrypt(&key, bits, &value, (&iv, &tag[1..], b"aad")),
            gcm_decrypt(&key, bits, &value, (&iv[1..], &tag, b"aad")),
            cbc_decrypt(&key, bits, CbcPadding::Pkcs7, &[0; 32], &[0; BLOCK]),
            cbc_decrypt(&key, bits, CbcPadding::Pkcs7, &[0; 31], &[0; BLOCK]),
            cbc_decrypt(&key, bits, CbcPadding::Pkcs7, &[], &[0; BLOCK]),
            cbc_decrypt(&key, bits, CbcPadding::None, &[0; 32], &[0; 15]),
            unwrap(&key, bits, &[0; 24]),
            unwrap(&key, bits, &[0; 23]),
            unwrap(&key, bits, &[]),
        ];
        assert!(failed.iter().all(|outcome| outcome.as_ref().err() == Some(&CryptoError::Value)));
    }

    /// NIST SP 800-38A, F.2.1, F.2.3 and F.2.5: the first block.
    #[test]
    fn the_vectors_of_cbc() {
        let iv: Vec<u8> = (0..16).collect();
        let plain = hex::decode("6bc1bee22e409f96e93d7e117393172a").unwrap();
        let cases = [
            (OctBits::Aes128, "2b7e151628aed2a6abf7158809cf4f3c", "7649abac8119b246cee98e9b12e9197d"),
            (
                OctBits::Aes192,
                "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
                "4f021db243bc633d7178183a9fa071e8",
            ),
            (
                OctBits::Aes256,
                "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
                "f58c4c04d6e5f1ba779eabfb5f7bfbd6",
            ),
        ];
        for (bits, key_hex, expected) in cases {
            let sealed = cbc_encrypt(&key(key_hex), bits, CbcPadding::None, &plain, &iv).unwrap();
            assert_eq!(hex::encode(&sealed), expected);
            assert_eq!(*cbc_decrypt(&key(key_hex), bits, CbcPadding::None, &sealed, &iv).unwrap(), plain);
        }
    }
}
