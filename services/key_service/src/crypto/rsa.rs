//! RSA keys: making them, and the Key Vault operations `wrapkey` and `unwrapkey` (RFC 8017 section 7.1).

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{
    KeyPair, KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm, OaepPrivateDecryptingKey,
    OaepPublicEncryptingKey, PrivateDecryptingKey, PublicEncryptingKey, PublicKeyComponents,
};
use aws_lc_rs::signature::KeyPair as _;
use zeroize::Zeroizing;

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

    fn size(self) -> KeySize {
        match self {
            Bits::Rsa2048 => KeySize::Rsa2048,
            Bits::Rsa3072 => KeySize::Rsa3072,
            Bits::Rsa4096 => KeySize::Rsa4096,
        }
    }
}

/// An operation that the library refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RsaError {
    /// Modulus and exponent are no key that can be encrypted to.
    #[error("not a usable RSA public key")]
    PublicKey,
    /// The stored private key cannot be read.
    #[error("not a usable RSA private key")]
    PrivateKey,
    /// The input does not fit the key, or does not decrypt.
    #[error("the value cannot be processed with this key and algorithm")]
    Value,
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
    pub fn from_pkcs1(der: &[u8]) -> Result<Self, RsaError> {
        let read = token_verifier::rsa::PublicParts::from_pkcs1(der).ok_or(RsaError::PublicKey)?;
        Ok(Self { modulus: read.modulus, exponent: read.exponent })
    }

    /// Length of the modulus in bits.
    pub fn bits(&self) -> usize {
        let leading = self.modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
        self.modulus.len() * 8 - leading
    }

    /// The key to encrypt to; the library checks the numbers.
    pub fn encrypting_key(&self) -> Result<OaepPublicEncryptingKey, RsaError> {
        let parts = PublicKeyComponents { n: self.modulus.as_slice(), e: self.exponent.as_slice() };
        let key: PublicEncryptingKey = parts.try_into().map_err(|_| RsaError::PublicKey)?;
        OaepPublicEncryptingKey::new(key).map_err(|_| RsaError::PublicKey)
    }
}

/// A new key pair. Takes some hundred milliseconds; call it where blocking is allowed.
pub fn generate(bits: Bits) -> (PrivateKey, PublicParts) {
    let pair = KeyPair::generate(bits.size()).expect("key generation fails only without random numbers");
    let der: Pkcs8V1Der<'_> = pair.as_der().expect("a generated key has a PKCS#8 form");
    let public =
        PublicParts::from_pkcs1(pair.public_key().as_ref()).expect("a generated key has a public form");
    (PrivateKey::from_pkcs8(Zeroizing::new(der.as_ref().to_vec())), public)
}

/// `alg` of `wrapkey` and `unwrapkey`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrapAlgorithm {
    /// OAEP with SHA-1.
    RsaOaep,
    /// OAEP with SHA-256.
    RsaOaep256,
}

impl WrapAlgorithm {
    /// The names that are accepted.
    pub const NAMES: &str = "RSA-OAEP, RSA-OAEP-256";

    /// From the name in the request.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "RSA-OAEP" => Some(WrapAlgorithm::RsaOaep),
            "RSA-OAEP-256" => Some(WrapAlgorithm::RsaOaep256),
            _ => None,
        }
    }

    fn oaep(self) -> &'static OaepAlgorithm {
        match self {
            WrapAlgorithm::RsaOaep => &OAEP_SHA1_MGF1SHA1,
            WrapAlgorithm::RsaOaep256 => &OAEP_SHA256_MGF1SHA256,
        }
    }
}

/// Encrypts to a stored key.
pub fn wrap(key: &PublicParts, algorithm: WrapAlgorithm, value: &[u8]) -> Result<Vec<u8>, RsaError> {
    let key = key.encrypting_key()?;
    let mut output = vec![0; key.ciphertext_size()];
    let written = key.encrypt(algorithm.oaep(), value, &mut output, None).map_err(|_| RsaError::Value)?.len();
    output.truncate(written);
    Ok(output)
}

/// Decrypts with a stored key.
pub fn unwrap(
    key: &PrivateKey,
    algorithm: WrapAlgorithm,
    value: &[u8],
) -> Result<Zeroizing<Vec<u8>>, RsaError> {
    let key = PrivateDecryptingKey::from_pkcs8(key.pkcs8()).map_err(|_| RsaError::PrivateKey)?;
    let key = OaepPrivateDecryptingKey::new(key).map_err(|_| RsaError::PrivateKey)?;
    let mut output = Zeroizing::new(vec![0; key.min_output_size()]);
    let written = key.decrypt(algorithm.oaep(), value, &mut output, None).map_err(|_| RsaError::Value)?.len();
    output.truncate(written);
    Ok(output)
}
