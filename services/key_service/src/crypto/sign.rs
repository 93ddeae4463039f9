//! `sign` and `verify` over digests (RFC 7518 section 3, RFC 8812 for ES256K).

use aws_lc_rs::digest::{self, Digest, SHA256, SHA384, SHA512};
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaParameters,
    RsaSignatureEncoding,
};

use super::ec::{self, Curve};
use super::error::CryptoError;
use super::kind::PublicKey;
use super::opened::OpenedKey;
use super::rsa::PublicParts;

/// SHA-2 by its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sha2 {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// `alg` of `sign` and `verify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5.
    Pkcs1(Sha2),
    /// RSASSA-PSS, with a salt as long as the hash.
    Pss(Sha2),
    /// ECDSA with the hash of the curve.
    Ecdsa(Curve),
}

impl SignatureAlgorithm {
    /// The names that are accepted. Key Vault names HS256 and its like too, but has no key that they work with.
    pub const NAMES: &str =
        "RS256, RS384, RS512, PS256, PS384, PS512 with RSA keys, ES256, ES384, ES512, ES256K with EC keys";

    /// From the name in the request.
    pub fn from_name(name: &str) -> Option<Self> {
        use Sha2::{Sha256, Sha384, Sha512};
        Some(match name {
            "RS256" => SignatureAlgorithm::Pkcs1(Sha256),
            "RS384" => SignatureAlgorithm::Pkcs1(Sha384),
            "RS512" => SignatureAlgorithm::Pkcs1(Sha512),
            "PS256" => SignatureAlgorithm::Pss(Sha256),
            "PS384" => SignatureAlgorithm::Pss(Sha384),
            "PS512" => SignatureAlgorithm::Pss(Sha512),
            "ES256" => SignatureAlgorithm::Ecdsa(Curve::P256),
            "ES384" => SignatureAlgorithm::Ecdsa(Curve::P384),
            "ES512" => SignatureAlgorithm::Ecdsa(Curve::P521),
            "ES256K" | "ECDSA256" => SignatureAlgorithm::Ecdsa(Curve::P256K),
            _ => return None,
        })
    }

    /// Whether a key can be used with it.
    pub fn fits(self, key: &PublicKey) -> bool {
        match (self, key) {
            (SignatureAlgorithm::Pkcs1(_) | SignatureAlgorithm::Pss(_), PublicKey::Rsa(_)) => true,
            (SignatureAlgorithm::Ecdsa(curve), PublicKey::Ec(point)) => point.curve == curve,
            _ => false,
        }
    }

    fn hash(self) -> &'static digest::Algorithm {
        match self {
            SignatureAlgorithm::Pkcs1(hash) | SignatureAlgorithm::Pss(hash) => hash.algorithm(),
            SignatureAlgorithm::Ecdsa(curve) => curve.hash(),
        }
    }

    /// Bytes of the digest.
    pub fn digest_len(self) -> usize {
        self.hash().output_len()
    }

    fn encoding(self) -> Option<&'static RsaSignatureEncoding> {
        match self {
            SignatureAlgorithm::Pkcs1(Sha2::Sha256) => Some(&RSA_PKCS1_SHA256),
            SignatureAlgorithm::Pkcs1(Sha2::Sha384) => Some(&RSA_PKCS1_SHA384),
            SignatureAlgorithm::Pkcs1(Sha2::Sha512) => Some(&RSA_PKCS1_SHA512),
            SignatureAlgorithm::Pss(Sha2::Sha256) => Some(&RSA_PSS_SHA256),
            SignatureAlgorithm::Pss(Sha2::Sha384) => Some(&RSA_PSS_SHA384),
            SignatureAlgorithm::Pss(Sha2::Sha512) => Some(&RSA_PSS_SHA512),
            SignatureAlgorithm::Ecdsa(_) => None,
        }
    }

    fn parameters(self) -> Option<&'static RsaParameters> {
        match self {
            SignatureAlgorithm::Pkcs1(Sha2::Sha256) => Some(&RSA_PKCS1_2048_8192_SHA256),
            SignatureAlgorithm::Pkcs1(Sha2::Sha384) => Some(&RSA_PKCS1_2048_8192_SHA384),
            SignatureAlgorithm::Pkcs1(Sha2::Sha512) => Some(&RSA_PKCS1_2048_8192_SHA512),
            SignatureAlgorithm::Pss(Sha2::Sha256) => Some(&RSA_PSS_2048_8192_SHA256),
            SignatureAlgorithm::Pss(Sha2::Sha384) => Some(&RSA_PSS_2048_8192_SHA384),
            SignatureAlgorithm::Pss(Sha2::Sha512) => Some(&RSA_PSS_2048_8192_SHA512),
            SignatureAlgorithm::Ecdsa(_) => None,
        }
    }
}

impl Sha2 {
    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Sha2::Sha256 => &SHA256,
            Sha2::Sha384 => &SHA384,
            Sha2::Sha512 => &SHA512,
        }
    }
}

/// Signs a digest, which must have the algorithm's length.
pub fn sign(key: &OpenedKey, algorithm: SignatureAlgorithm, digest: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let digest = imported(algorithm, digest)?;
    match (key, algorithm, algorithm.encoding()) {
        (OpenedKey::Ec(key), SignatureAlgorithm::Ecdsa(curve), _) => key.sign(curve, &digest),
        (OpenedKey::Rsa(key), _, Some(encoding)) => key.sign(encoding, &digest),
        _ => Err(CryptoError::Value),
    }
}

/// Whether a signature of a digest holds. An error is a digest of another length, or a key that is none.
pub fn verify(
    key: &PublicKey,
    algorithm: SignatureAlgorithm,
    digest: &[u8],
    signature: &[u8],
) -> Result<bool, CryptoError> {
    let digest = imported(algorithm, digest)?;
    match (key, algorithm.parameters()) {
        (PublicKey::Ec(point), None) => Ok(ec::verify(point, &digest, signature)),
        (PublicKey::Rsa(parts), Some(parameters)) => rsa_verify(parts, parameters, &digest, signature),
        _ => Err(CryptoError::Value),
    }
}

fn rsa_verify(
    key: &PublicParts,
    parameters: &'static RsaParameters,
    digest: &Digest,
    signature: &[u8],
) -> Result<bool, CryptoError> {
    let components = PublicKeyComponents { n: key.modulus.as_slice(), e: key.exponent.as_slice() };
    let key = components.to_parsed_public_key(parameters).map_err(|_| CryptoError::PublicKey)?;
    Ok(key.verify_digest_sig(digest, signature).is_ok())
}

fn imported(algorithm: SignatureAlgorithm, digest: &[u8]) -> Result<Digest, CryptoError> {
    Digest::import_less_safe(digest, algorithm.hash()).map_err(|_| CryptoError::Value)
}
