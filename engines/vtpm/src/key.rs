//! RSA public keys, as TPM public areas and JSON Web Keys carry them.

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// An RSA public key: modulus and public exponent, big-endian without leading zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RsaPublic {
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

impl RsaPublic {
    /// From big-endian numbers; leading zeros are dropped.
    pub fn new(modulus: &[u8], exponent: &[u8]) -> Self {
        Self { modulus: without_leading_zeros(modulus), exponent: without_leading_zeros(exponent) }
    }

    /// From the `n` and `e` members of a JWK (base64url without padding). `None` when they are not that.
    pub fn from_jwk(n: &str, e: &str) -> Option<Self> {
        Some(Self::new(&URL_SAFE_NO_PAD.decode(n).ok()?, &URL_SAFE_NO_PAD.decode(e).ok()?))
    }

    /// The modulus, big-endian.
    pub fn modulus(&self) -> &[u8] {
        &self.modulus
    }

    /// The public exponent, big-endian.
    pub fn exponent(&self) -> &[u8] {
        &self.exponent
    }

    /// The `n` member of a JWK.
    pub fn jwk_n(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.modulus)
    }

    /// The `e` member of a JWK.
    pub fn jwk_e(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.exponent)
    }

    /// Whether `signature` is this key's RSASSA-PKCS1-v1_5 signature over SHA-256 of `message`. Keys under 2048 bits
    /// verify nothing.
    pub fn verify_pkcs1_sha256(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = PublicKeyComponents { n: &self.modulus, e: &self.exponent };
        key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
    }
}

fn without_leading_zeros(number: &[u8]) -> Vec<u8> {
    number.iter().copied().skip_while(|byte| *byte == 0).collect()
}
