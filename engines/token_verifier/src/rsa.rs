//! The numbers of an RSA public key, as JWKs and certificates carry them.

use der::asn1::UintRef;
use der::{Decode as _, Sequence};

/// Modulus and exponent, big endian without leading zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicParts {
    /// Modulus.
    pub modulus: Vec<u8>,
    /// Public exponent.
    pub exponent: Vec<u8>,
}

/// RSAPublicKey of RFC 8017, appendix A.1.1.
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

impl PublicParts {
    /// From the DER of an RSAPublicKey.
    pub fn from_pkcs1(der: &[u8]) -> Option<Self> {
        let key = RsaPublicKey::from_der(der).ok()?;
        Some(Self { modulus: key.modulus.as_bytes().to_vec(), exponent: key.exponent.as_bytes().to_vec() })
    }
}
