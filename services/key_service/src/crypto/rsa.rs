//! RSA keys: making them, encrypting to them, decrypting and signing with them (RFC 8017 sections 7 and 8). Names and
//! verification of signatures are in [`super::sign`].

use aws_lc_rs::digest::Digest;
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{
    KeyPair, KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm, OaepPrivateDecryptingKey,
    OaepPublicEncryptingKey, Pkcs1PrivateDecryptingKey, Pkcs1PublicEncryptingKey, PrivateDecryptingKey,
    PublicEncryptingKey, PublicKeyComponents,
};
use aws_lc_rs::signature::{KeyPair as _, RsaSignatureEncoding};
use zeroize::Zeroizing;

use super::error::CryptoError;
use super::seal::PrivateKey;

/// Sizes of keys that the vault makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// 2048 bits.
    Rsa2048,
    /// 3072 bits.
    Rsa3072,
    /// 4096 bits.
    Rsa4096,
}

impl Bits {
    /// From `key_size`.
    pub fn from_number(bits: u32) -> Option<Self> {
        match bits {
            2048 => Some(Bits::Rsa2048),
            3072 => Some(Bits::Rsa3072),
            4096 => Some(Bits::Rsa4096),
            _ => None,
        }
    }

    /// The number.
    pub fn number(self) -> u32 {
        match self {
            Bits::Rsa2048 => 2048,
            Bits::Rsa3072 => 3072,
            Bits::Rsa4096 => 4096,
        }
    }

    fn size(self) -> KeySize {
        match self {
            Bits::Rsa2048 => KeySize::Rsa2048,
            Bits::Rsa3072 => KeySize::Rsa3072,
            Bits::Rsa4096 => KeySize::Rsa4096,
        }
    }
}

/// Modulus and exponent, big endian without leading zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicParts {
    /// Modulus.
    pub modulus: Vec<u8>,
    /// Exponent.
    pub exponent: Vec<u8>,
}

impl PublicParts {
    /// From the DER of an RSAPublicKey.
    pub fn from_pkcs1(der: &[u8]) -> Result<Self, CryptoError> {
        let read = token_verifier::rsa::PublicParts::from_pkcs1(der).ok_or(CryptoError::PublicKey)?;
        Ok(Self { modulus: read.modulus, exponent: read.exponent })
    }

    /// Length of the modulus in bits.
    pub fn bits(&self) -> usize {
        let leading = self.modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
        self.modulus.len() * 8 - leading
    }

    /// The key to encrypt to; the library checks the numbers.
    pub fn public_key(&self) -> Result<PublicEncryptingKey, CryptoError> {
        let parts = PublicKeyComponents { n: self.modulus.as_slice(), e: self.exponent.as_slice() };
        parts.try_into().map_err(|_| CryptoError::PublicKey)
    }

    /// The key as OAEP takes it.
    pub fn encrypting_key(&self) -> Result<OaepPublicEncryptingKey, CryptoError> {
        OaepPublicEncryptingKey::new(self.public_key()?).map_err(|_| CryptoError::PublicKey)
    }
}

/// A new key pair. Takes some hundred milliseconds; call it where blocking is allowed.
pub fn generate(bits: Bits) -> (PrivateKey, PublicParts) {
    let pair = KeyPair::generate(bits.size()).expect("key generation fails only without random numbers");
    let der: Pkcs8V1Der<'_> = pair.as_der().expect("a generated key has a PKCS#8 form");
    let public =
        PublicParts::from_pkcs1(pair.public_key().as_ref()).expect("a generated key has a public form");
    (PrivateKey::new(Zeroizing::new(der.as_ref().to_vec())), public)
}

/// The public part of a private key; nothing if its numbers do not belong together.
pub fn public_part(private: &PrivateKey) -> Option<PublicParts> {
    let pair = KeyPair::from_pkcs8(private.as_bytes()).ok()?;
    PublicParts::from_pkcs1(pair.public_key().as_ref()).ok()
}

/// How a value is padded before it is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RsaPadding {
    /// OAEP with SHA-1.
    Oaep,
    /// OAEP with SHA-256.
    Oaep256,
    /// RSAES-PKCS1-v1_5. Key Vault keeps it for old clients. Whoever may decrypt with it learns whether the padding was
    /// right, as with any implementation of it; the answer says no more than that.
    Pkcs1,
}

impl RsaPadding {
    fn oaep(self) -> Option<&'static OaepAlgorithm> {
        match self {
            RsaPadding::Oaep => Some(&OAEP_SHA1_MGF1SHA1),
            RsaPadding::Oaep256 => Some(&OAEP_SHA256_MGF1SHA256),
            RsaPadding::Pkcs1 => None,
        }
    }
}

/// Encrypts to a stored key.
pub fn encrypt(key: &PublicParts, padding: RsaPadding, value: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let key = key.public_key()?;
    let mut output = vec![0; key.key_size_bytes()];
    let written = match padding.oaep() {
        Some(oaep) => OaepPublicEncryptingKey::new(key)
            .and_then(|key| Ok(key.encrypt(oaep, value, &mut output, None)?.len())),
        None => Pkcs1PublicEncryptingKey::new(key).and_then(|key| Ok(key.encrypt(value, &mut output)?.len())),
    };
    output.truncate(written.map_err(|_| CryptoError::Value)?);
    Ok(output)
}

/// A private key, read and checked: ready for use.
pub struct RsaPrivate {
    pair: KeyPair,
    oaep: OaepPrivateDecryptingKey,
    pkcs1: Pkcs1PrivateDecryptingKey,
}

impl RsaPrivate {
    /// Reads a key. The library checks its numbers, which takes longer than to use it once.
    pub fn open(key: &PrivateKey) -> Result<Self, CryptoError> {
        let pair = KeyPair::from_pkcs8(key.as_bytes()).map_err(|_| CryptoError::PrivateKey)?;
        let decrypting =
            PrivateDecryptingKey::from_pkcs8(key.as_bytes()).map_err(|_| CryptoError::PrivateKey)?;
        let oaep = OaepPrivateDecryptingKey::new(decrypting.clone()).map_err(|_| CryptoError::PrivateKey)?;
        let pkcs1 = Pkcs1PrivateDecryptingKey::new(decrypting).map_err(|_| CryptoError::PrivateKey)?;
        Ok(Self { pair, oaep, pkcs1 })
    }

    /// Signs a digest.
    pub fn sign(
        &self,
        encoding: &'static RsaSignatureEncoding,
        digest: &Digest,
    ) -> Result<Vec<u8>, CryptoError> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign_digest(encoding, digest, &mut signature).map_err(|_| CryptoError::Value)?;
        Ok(signature)
    }

    /// Decrypts.
    pub fn decrypt(&self, padding: RsaPadding, value: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let mut output = Zeroizing::new(vec![0; self.pair.public_modulus_len()]);
        let written = match padding.oaep() {
            Some(oaep) => self.oaep.decrypt(oaep, value, &mut output, None).map(|plain| plain.len()),
            None => self.pkcs1.decrypt(value, &mut output).map(|plain| plain.len()),
        };
        output.truncate(written.map_err(|_| CryptoError::Value)?);
        Ok(output)
    }
}
