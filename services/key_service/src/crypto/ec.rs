//! Keys on elliptic curves: making and importing them, signing and verifying digests (FIPS 186-5, SEC 1, RFC 7518
//! section 3.4: a signature is `r` and `s`, each as long as the curve's order).

use aws_lc_rs::digest::{self, Digest, SHA256, SHA384, SHA512};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P256K1_SHA256_FIXED,
    ECDSA_P256K1_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    EcdsaVerificationAlgorithm, KeyPair as _, UnparsedPublicKey,
};
use zeroize::Zeroizing;

use super::error::CryptoError;
use super::seal::PrivateKey;

/// First byte of an uncompressed point (SEC 1 section 2.3.3).
const UNCOMPRESSED: u8 = 4;

/// `crv`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// NIST P-521.
    P521,
    /// secp256k1.
    P256K,
}

impl Curve {
    /// The names that are accepted.
    pub const NAMES: &str = "P-256, P-384, P-521, P-256K";

    /// From `crv`. `SECP256K1` is the name that older versions of Key Vault have for P-256K.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "P-256" => Some(Curve::P256),
            "P-384" => Some(Curve::P384),
            "P-521" => Some(Curve::P521),
            "P-256K" | "SECP256K1" => Some(Curve::P256K),
            _ => None,
        }
    }

    /// As Key Vault writes it.
    pub fn name(self) -> &'static str {
        match self {
            Curve::P256 => "P-256",
            Curve::P384 => "P-384",
            Curve::P521 => "P-521",
            Curve::P256K => "P-256K",
        }
    }

    /// Bytes of a coordinate, and of a scalar.
    pub fn coordinate_len(self) -> usize {
        match self {
            Curve::P256 | Curve::P256K => 32,
            Curve::P384 => 48,
            Curve::P521 => 66,
        }
    }

    /// The curve's object identifier in DER: CKA_EC_PARAMS of PKCS#11. Source: SEC 2 appendix A.2, RFC 5480 section 2.1.1.1.
    pub fn parameters(self) -> &'static [u8] {
        match self {
            Curve::P256 => &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
            Curve::P384 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22],
            Curve::P521 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23],
            Curve::P256K => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a],
        }
    }

    fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Curve::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Curve::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
            Curve::P521 => &ECDSA_P521_SHA512_FIXED_SIGNING,
            Curve::P256K => &ECDSA_P256K1_SHA256_FIXED_SIGNING,
        }
    }

    fn verification(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Curve::P256 => &ECDSA_P256_SHA256_FIXED,
            Curve::P384 => &ECDSA_P384_SHA384_FIXED,
            Curve::P521 => &ECDSA_P521_SHA512_FIXED,
            Curve::P256K => &ECDSA_P256K1_SHA256_FIXED,
        }
    }

    /// The hash of the one signature algorithm that Key Vault has for this curve.
    pub fn hash(self) -> &'static digest::Algorithm {
        match self {
            Curve::P256 | Curve::P256K => &SHA256,
            Curve::P384 => &SHA384,
            Curve::P521 => &SHA512,
        }
    }
}

/// A public key: a point of a curve, uncompressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EcPoint {
    /// The curve.
    pub curve: Curve,
    point: Vec<u8>,
}

impl EcPoint {
    /// From the database: `4`, x and y, each of the curve's length.
    pub fn from_uncompressed(curve: Curve, point: Vec<u8>) -> Option<Self> {
        let whole = point.first() == Some(&UNCOMPRESSED) && point.len() == 1 + 2 * curve.coordinate_len();
        whole.then_some(Self { curve, point })
    }

    /// The whole point.
    pub fn uncompressed(&self) -> &[u8] {
        &self.point
    }

    /// The coordinates.
    pub fn coordinates(&self) -> (&[u8], &[u8]) {
        self.point[1..].split_at(self.curve.coordinate_len())
    }
}

/// A new key pair.
pub fn generate(curve: Curve) -> (PrivateKey, EcPoint) {
    let pair =
        EcdsaKeyPair::generate(curve.signing()).expect("key generation fails only without random numbers");
    parts(curve, &pair).expect("a generated key has both forms")
}

/// The public part of a private key on this curve; nothing if it is none.
pub fn public_part(private: &PrivateKey, curve: Curve) -> Option<EcPoint> {
    let pair = EcdsaKeyPair::from_pkcs8(curve.signing(), private.as_bytes()).ok()?;
    EcPoint::from_uncompressed(curve, pair.public_key().as_ref().to_vec())
}

/// A key pair from its numbers, big endian. The point must lie on the curve and belong to the scalar.
pub fn import(curve: Curve, scalar: &[u8], x: &[u8], y: &[u8]) -> Option<(PrivateKey, EcPoint)> {
    let length = curve.coordinate_len();
    let scalar = fixed(scalar, length)?;
    let point = [&[UNCOMPRESSED], fixed(x, length)?.as_slice(), fixed(y, length)?.as_slice()].concat();
    let pair = EcdsaKeyPair::from_private_key_and_public_key(curve.signing(), &scalar, &point).ok()?;
    parts(curve, &pair)
}

/// A number in exactly `length` bytes.
fn fixed(number: &[u8], length: usize) -> Option<Zeroizing<Vec<u8>>> {
    let start = number.iter().position(|byte| *byte != 0)?;
    let digits = number.get(start..)?;
    let mut bytes = Zeroizing::new(vec![0; length.checked_sub(digits.len())?]);
    bytes.extend_from_slice(digits);
    Some(bytes)
}

fn parts(curve: Curve, pair: &EcdsaKeyPair) -> Option<(PrivateKey, EcPoint)> {
    let pkcs8 = pair.to_pkcs8v1().ok()?;
    let point = EcPoint::from_uncompressed(curve, pair.public_key().as_ref().to_vec())?;
    Some((PrivateKey::new(Zeroizing::new(pkcs8.as_ref().to_vec())), point))
}

/// A private key, read: ready for use.
pub struct EcPrivate {
    curve: Curve,
    pair: EcdsaKeyPair,
}

impl EcPrivate {
    /// Reads a key of this curve.
    pub fn open(key: &PrivateKey, curve: Curve) -> Result<Self, CryptoError> {
        let pair = EcdsaKeyPair::from_pkcs8(curve.signing(), key.as_bytes());
        Ok(Self { curve, pair: pair.map_err(|_| CryptoError::PrivateKey)? })
    }

    /// Signs a digest, for which the curve must be this one.
    pub fn sign(&self, curve: Curve, digest: &Digest) -> Result<Vec<u8>, CryptoError> {
        if curve != self.curve {
            return Err(CryptoError::Value);
        }
        let signature = self.pair.sign_digest(digest).map_err(|_| CryptoError::Value)?;
        Ok(signature.as_ref().to_vec())
    }
}

/// Whether a signature of a digest holds.
pub fn verify(key: &EcPoint, digest: &Digest, signature: &[u8]) -> bool {
    UnparsedPublicKey::new(key.curve.verification(), key.uncompressed())
        .verify_digest(digest, signature)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURVES: [Curve; 4] = [Curve::P256, Curve::P384, Curve::P521, Curve::P256K];

    #[test]
    fn a_signature_holds_for_its_digest_and_its_key_only() {
        for curve in CURVES {
            let (private, public) = generate(curve);
            let digest = digest::digest(curve.hash(), b"message");
            let signature = EcPrivate::open(&private, curve).unwrap().sign(curve, &digest).unwrap();
            assert_eq!(signature.len(), 2 * curve.coordinate_len());
            assert!(verify(&public, &digest, &signature));
            assert!(!verify(&public, &digest::digest(curve.hash(), b"other"), &signature));
            assert!(!verify(&generate(curve).1, &digest, &signature));
            for at in [0, signature.len() - 1] {
                let mut changed = signature.clone();
                changed[at] ^= 1;
                assert!(!verify(&public, &digest, &changed));
            }
            assert!(!verify(&public, &digest, &signature[1..]));
        }
    }

    #[test]
    fn a_point_that_is_not_the_scalars_is_no_key() {
        for curve in CURVES {
            let one = [1];
            let (_, public) = generate(curve);
            let (x, y) = public.coordinates();
            assert!(import(curve, &one, x, y).is_none(), "another scalar's point");
            assert!(import(curve, &one, &one, &one).is_none(), "not on the curve");
            assert!(import(curve, &[], x, y).is_none() && import(curve, &[0; 32], x, y).is_none());
            assert!(import(curve, &[0xFF; 80], x, y).is_none());
        }
    }

    /// The base point belongs to the scalar 1: a number that needs 31 zeros before it.
    #[test]
    fn a_scalar_is_read_with_and_without_leading_zeros() {
        let x = hex::decode("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296").unwrap();
        let y = hex::decode("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5").unwrap();
        let padded = [&[0; 31][..], &[1]].concat();
        for scalar in [&[1][..], &padded] {
            let (private, public) = import(Curve::P256, scalar, &x, &y).unwrap();
            let digest = digest::digest(&SHA256, b"message");
            let private = EcPrivate::open(&private, Curve::P256).unwrap();
            assert!(verify(&public, &digest, &private.sign(Curve::P256, &digest).unwrap()));
        }
    }
}
